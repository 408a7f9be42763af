//! The session's protocol: streams, the Welcome, orders, acknowledgements, and the end of containers.

use std::sync::Arc;

use super::{Container, Slot, SlotTable, Spec};
use crate::slab::Key;
use crate::{Name, Planted, Term, Version};

/// What a Router says of one container in its Hello.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The container.
    pub container: Name,
    /// Slots that may be out.
    pub held: u32,
    /// Slots that are out.
    pub running: u32,
}

/// "No more than `holding` slots are used any more, for good." Of one version, the smallest holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acknowledgement {
    /// The container.
    pub container: Name,
    /// Slots that may still be used: the target, or as many as still run above it.
    pub holding: u32,
    /// The newest order on this container that was obeyed.
    pub version: Version,
}

/// An order's content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The container's id.
    pub container: Name,
    /// Slots that may be used from now on.
    pub target: u32,
    /// The order's version.
    pub version: Version,
    /// What is to be known of the container.
    pub spec: Arc<Spec>,
}

/// Why an order is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Of a closed stream, an older term, or not newer than what was obeyed.
    #[error("the order is stale")]
    Stale,
    /// The target is above the container's capacity: no Manager of ours sends that.
    #[error("the order is above the container's capacity")]
    AboveCapacity,
}

impl<W> SlotTable<W> {
    /// A stream to a Manager was opened. It voids the older one: a smaller number than the newest is ignored.
    pub fn open_stream(&mut self, manager: &str, stream: u64) {
        match self.streams.get_mut(manager) {
            Some(newest) => *newest = stream.max(*newest),
            None => {
                self.streams.insert(manager.into(), stream);
            }
        }
    }

    /// The stream has broken: nothing that still arrives from it counts.
    pub fn close_stream(&mut self, manager: &str, stream: u64) {
        if self.streams.get(manager) == Some(&stream) {
            self.streams.remove(manager);
        }
    }

    /// Obeys no older term from now on, and tells what is held, for the Hello. None: the Welcome is of a closed stream
    /// or an older term; say nothing. Who welcomes knows of no demand: the next report is of all actions.
    pub fn welcome(&mut self, manager: &str, stream: u64, term: Term) -> Option<Vec<Holding>> {
        if self.streams.get(manager) != Some(&stream) || term < self.term {
            return None;
        }
        self.term = term;
        let actions: Vec<Key> = self.actions.iter().map(|(key, _)| key).collect();
        for action in actions {
            self.note_change(action);
        }
        let mut holdings = self.holdings();
        if self.plant.is(Planted::HelloHeldOnly) {
            for holding in &mut holdings {
                holding.running = 0;
            }
        }
        Some(holdings)
    }

    /// Obeys an order. Returns the waiters who got the slots that came with it; the rest idles. Its acknowledgement is
    /// due at once, and again whenever a slot above the target has really ended.
    pub fn order(
        &mut self,
        manager: &str,
        stream: u64,
        order: &Grant,
        now_ms: u64,
    ) -> Result<Vec<(W, Slot)>, OrderError> {
        let version = order.version;
        let void = self.streams.get(manager) != Some(&stream);
        if void && !self.plant.is(Planted::NoSession) {
            return Err(OrderError::Stale);
        }
        if version.term < self.term && !self.plant.is(Planted::NoTerm) {
            return Err(OrderError::Stale);
        }
        let known = self.containers_by_id.get(&order.container).copied();
        let (capacity, newest, floor) = match known.and_then(|key| self.containers.get(key)) {
            Some(container) => {
                let revived = self.plant.is(Planted::FloorOnce);
                let floor = if revived {
                    Version::default()
                } else {
                    container.floor
                };
                (container.spec.capacity, Some(container.version), floor)
            }
            None => (order.spec.capacity, None, self.floor),
        };
        let any_version = self.plant.is(Planted::NoVersion);
        if newest.is_some_and(|newest| version <= newest) && !any_version {
            let again = newest == Some(version) && self.plant.is(Planted::SameVersion);
            if !again {
                return Err(OrderError::Stale);
            }
        }
        if order.target > capacity {
            return Err(OrderError::AboveCapacity);
        }
        // One that is not above the floor is perhaps a late copy of an order to an entry that was forgotten.
        let late = version <= floor && !any_version;
        let target = if late { 0 } else { order.target };
        let key = known.unwrap_or_else(|| self.know(order, now_ms));
        self.term = self.term.max(version.term);
        self.obeyed = self.obeyed.max(version);
        let container = self.containers.get_mut(key).expect("known container");
        container.version = version;
        let granted = if target < container.held {
            self.lower(key, target);
            Vec::new()
        } else {
            self.raise(key, target)
        };
        self.list(key);
        Ok(granted)
    }

    /// The container has ended: its slots are void, those that are out too. Returns its key if it was known, so that
    /// what runs on it can be ended.
    pub fn ended(&mut self, container: &str) -> Option<Key> {
        let key = *self.containers_by_id.get(container)?;
        self.forget(key);
        Some(key)
    }

    /// Takes the acknowledgements that have become due. Tell them to every Manager whose stream is open; on a stream
    /// that is opened later the Hello says as much. A container that is not held any more is then forgotten.
    pub fn acknowledgements(&mut self) -> Vec<Acknowledgement> {
        let early = self.plant.is(Planted::AckEarly);
        let mut taken = Vec::new();
        for key in std::mem::take(&mut self.due) {
            let Some(container) = self.containers.get_mut(key) else {
                continue;
            };
            container.listed = false;
            // While more run than are held none is admitted, so `running` only falls.
            let running = if early { 0 } else { container.running };
            taken.push(Acknowledgement {
                container: container.id.clone(),
                holding: container.held.max(running),
                version: container.version,
            });
            if container.held == 0 && container.running == 0 {
                self.forget(key);
            }
        }
        taken
    }

    /// Whether an acknowledgement is due.
    pub fn acknowledgements_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Gives back the slots that idled throughout the last `idle_ms` or longer, as of the calls to this: their
    /// acknowledgement is due then.
    pub fn give_back(&mut self, idle_ms: u64, now_ms: u64) {
        let mut given = Vec::new();
        for (key, container) in self.containers.iter_mut() {
            if now_ms.saturating_sub(container.idle_low_since_ms) < idle_ms {
                continue;
            }
            if container.idle_low > 0 {
                given.push((key, container.held - container.idle_low));
            }
            container.idle_low = container.idle;
            container.idle_low_since_ms = now_ms;
        }
        self.give(given);
    }

    /// Gives every idle slot back, for a Router that stops.
    pub fn give_back_all(&mut self) {
        let idle = self.containers.iter();
        let idle = idle.filter(|(_, container)| container.running < container.held);
        let given: Vec<_> = idle
            .map(|(key, container)| (key, container.running))
            .collect();
        self.give(given);
    }

    fn give(&mut self, given: Vec<(Key, u32)>) {
        for (key, target) in given {
            if self.plant.is(Planted::GiveBackKept) {
                self.containers.get_mut(key).expect("given container").held = target;
            } else {
                self.lower(key, target);
            }
            self.list(key);
        }
    }

    /// Makes an entry for a container, with no slots.
    fn know(&mut self, order: &Grant, now_ms: u64) -> Key {
        let action = self.intern(&order.spec.action);
        let key = self.containers.insert(Container {
            id: order.container.clone(),
            spec: order.spec.clone(),
            action,
            held: 0,
            running: 0,
            idle: 0,
            aside: 0,
            version: Version::default(),
            floor: self.floor,
            listed: false,
            spare: (0..order.spec.capacity).rev().collect(),
            idle_low: 0,
            idle_low_since_ms: now_ms,
        });
        self.containers_by_id.insert(order.container.clone(), key);
        self.actions
            .get_mut(action)
            .expect("interned")
            .containers
            .push(key);
        key
    }

    /// Removes a container's entry and all its slots. Its version becomes part of the floor.
    fn forget(&mut self, key: Key) {
        let container = self.containers.remove(key).expect("known container");
        self.containers_by_id.remove(&container.id);
        if !self.plant.is(Planted::ForgottenVersion) {
            self.floor = self.floor.max(container.version);
        }
        self.aside.retain(|aside| aside.slot.container != key);
        let action = self
            .actions
            .get_mut(container.action)
            .expect("a container's action");
        action.containers.retain(|other| *other != key);
        if container.idle > 0 {
            action.idle.retain(|slot| slot.container != key);
        }
        self.note_change(container.action);
        self.forget_action(container.action);
    }

    /// Admits on no more than `target` slots from now on: what is set aside goes first, then what idled longest; what
    /// is out goes when it comes back.
    fn lower(&mut self, key: Key, target: u32) {
        let container = self.containers.get_mut(key).expect("known container");
        container.held = target;
        let stay = target.saturating_sub(container.running);
        let mut surplus = (container.idle + container.aside).saturating_sub(stay);
        let (spare, action) = (&mut container.spare, container.action);
        let mut take = |count: &mut u32, slot: &Slot| {
            let goes = surplus > 0 && slot.container == key;
            if goes {
                surplus -= 1;
                *count -= 1;
                spare.push(slot.index);
            }
            !goes
        };
        self.aside
            .retain(|aside| take(&mut container.aside, &aside.slot));
        let entry = self.actions.get_mut(action).expect("a container's action");
        entry.idle.retain(|slot| take(&mut container.idle, slot));
        container.idle_low = container.idle_low.min(container.idle);
        self.note_change(action);
    }

    /// Admits on `target` slots from now on. Returns those that went straight to waiters.
    fn raise(&mut self, key: Key, target: u32) -> Vec<(W, Slot)> {
        let container = self.containers.get_mut(key).expect("known container");
        container.held = target;
        let (action, spec) = (container.action, &container.spec);
        debug_assert!(target <= spec.capacity, "checked by order");
        let mut granted = Vec::new();
        loop {
            let container = self.containers.get_mut(key).expect("known container");
            if container.running + container.idle + container.aside >= target {
                return granted;
            }
            // By an order above what is recorded a container may be asked for more than C: no index, no slot.
            let Some(index) = container.spare.pop() else {
                return granted;
            };
            granted.extend(self.place(
                action,
                Slot {
                    container: key,
                    index,
                },
            ));
        }
    }

    /// Something about the container is to be acknowledged.
    pub(super) fn list(&mut self, key: Key) {
        let container = self.containers.get_mut(key).expect("known container");
        if !container.listed {
            container.listed = true;
            self.due.push(key);
        }
    }
}
