//! The Router's side: slots, and who waits for them.
//!
//! A [`Slot`] is an owned value: whoever has it may have one request in flight on its container, and nobody else can
//! make one. Per container, `running` slots are out and `held` may be; while `running < held` the rest idles, in one
//! last-in-first-out stack per action (the connection used last is the warmest). A slot that comes back goes straight
//! to the next waiter, so while anyone waits nothing idles.
//!
//! Orders are obeyed only from the newest stream to their Manager, never of an older term than was welcomed, and only
//! if newer than the last one for their container. A container that is forgotten leaves its version behind as a
//! *floor*: an unknown container's order that is not above the floor may be a late copy of a forgotten one's, and is
//! obeyed as a target of zero, which is then acknowledged like any other. That costs nothing if it was new after all: the
//! Manager hears that none of it is held, and grants anew.
//!
//! One per Router, behind one plain mutex. Nothing here allocates on the warm path.

mod lanes;
mod protocol;
#[cfg(feature = "planted")]
mod renumber;
mod view;
mod warm;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use lanes::{Lane, Ticket};
pub use protocol::{Acknowledgement, Grant, Holding, OrderError};
pub use view::Demand;

use crate::slab::{Key, Slab};
use crate::{Name, Plant, Term, Version};
use lanes::{Lanes, Waiter};

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// For one action, in both lanes together.
    pub action_waiters_max: usize,
    /// In the whole table: names are the callers' to choose.
    pub waiters_max: usize,
}

/// The queue is full: the request is to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

/// What a Router has to know of a container. Fixed with its first order: a container's id is never used again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spec {
    /// "namespace/name".
    pub action: Arc<str>,
    /// The action's revision.
    pub revision: i64,
    /// `unix:/path` or `host:port`.
    pub address: Arc<str>,
    /// C.
    pub capacity: u32,
    /// The action's timeout in milliseconds.
    pub timeout_ms: u64,
    /// The action's default arguments, a JSON object; empty: none.
    pub parameters: Arc<[u8]>,
}

/// The right to have one request in flight on one container. Give it back with [`SlotTable::release`], or it stays out
/// until the container ends.
#[must_use = "a slot that is dropped stays taken until its container ends"]
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "planted", derive(Clone))]
pub struct Slot {
    container: Key,
    index: u32,
}

impl Slot {
    /// The container's key in the table; see [`SlotTable::spec`].
    pub fn container(&self) -> Key {
        self.container
    }

    /// 0 to capacity − 1, unlike that of every other slot of the container: keep one connection for each.
    pub fn index(&self) -> u32 {
        self.index
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Container {
    id: Name,
    spec: Arc<Spec>,
    action: Key,
    /// Slots that may be out.
    held: u32,
    /// Slots that are out, stranded ones too. More than `held` while a lowering is unfinished.
    running: u32,
    /// Slots on the action's stack.
    idle: u32,
    /// Slots set aside.
    aside: u32,
    /// The newest order obeyed.
    version: Version,
    /// The table's floor when this entry was made: orders up to it may be of an entry before this one.
    floor: Version,
    /// The container is in `SlotTable::due`.
    listed: bool,
    /// Slot indices that are neither out, idle nor set aside; the lowest last.
    spare: Vec<u32>,
    /// The fewest slots that idled since `idle_low_since_ms`.
    idle_low: u32,
    idle_low_since_ms: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "planted", derive(Clone))]
struct Action {
    name: Name,
    /// Idle slots, the latest used last.
    idle: Vec<Slot>,
    lanes: Lanes,
    containers: Vec<Key>,
    /// The action is in `SlotTable::changed`.
    changed: bool,
    /// The last report named a demand or an idle slot; so a report of zero is owed before it may be forgotten.
    reported: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "planted", derive(Clone))]
struct Aside {
    until_ms: u64,
    slot: Slot,
}

/// The Router's side of the protocol, and its queues. `W` is what wakes a waiter.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "planted", derive(Clone))]
pub struct SlotTable<W> {
    limits: Limits,
    /// No older term is obeyed.
    term: Term,
    /// The newest order obeyed, of all.
    obeyed: Version,
    /// The newest order of all forgotten containers.
    floor: Version,
    /// The open stream to each Manager.
    streams: BTreeMap<Name, u64>,
    containers: Slab<Container>,
    containers_by_id: BTreeMap<Name, Key>,
    actions: Slab<Action>,
    /// Hashed with a seed of the process's own: names are the callers' to choose.
    actions_by_name: HashMap<Name, Key, foldhash::quality::RandomState>,
    waiters: Slab<Waiter<W>>,
    /// Containers with something to acknowledge that was not taken.
    due: Vec<Key>,
    /// Actions that changed since the last report.
    changed: Vec<Key>,
    /// Somebody waits for an action of which nobody waited at the last report.
    rose: bool,
    aside: Vec<Aside>,
    plant: Plant,
}

impl<W> SlotTable<W> {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            term: Term::default(),
            obeyed: Version::default(),
            floor: Version::default(),
            streams: BTreeMap::new(),
            containers: Slab::default(),
            containers_by_id: BTreeMap::new(),
            actions: Slab::default(),
            actions_by_name: HashMap::default(),
            waiters: Slab::default(),
            due: Vec::new(),
            changed: Vec::new(),
            rose: false,
            aside: Vec::new(),
            plant: Plant::default(),
        }
    }

    /// A table with a planted mistake.
    #[cfg(feature = "planted")]
    pub fn planted(limits: Limits, plant: Plant) -> Self {
        Self {
            plant,
            ..Self::new(limits)
        }
    }

    /// The action's key; made if the name is new.
    fn intern(&mut self, name: &str) -> Key {
        if let Some(key) = self.actions_by_name.get(name) {
            return *key;
        }
        let name: Name = name.into();
        let key = self.actions.insert(Action {
            name: name.clone(),
            idle: Vec::new(),
            lanes: Lanes::default(),
            containers: Vec::new(),
            changed: false,
            reported: false,
        });
        self.actions_by_name.insert(name, key);
        key
    }

    /// Forgets an action that nobody waits for, that has no container and whose zero need not be reported.
    fn forget_action(&mut self, key: Key) {
        let Some(action) = self.actions.get(key) else {
            return;
        };
        if action.lanes.is_empty() && action.containers.is_empty() && !action.reported {
            let action = self.actions.remove(key).expect("present");
            self.actions_by_name.remove(&action.name);
        }
    }
}
