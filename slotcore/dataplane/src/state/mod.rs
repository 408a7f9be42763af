//! What all threads of a data plane share, behind one plain mutex: the slot table, the connections that its slots keep,
//! and the peers.
//!
//! Decided here, under the lock and without waiting; a decision reaches its waiter through a channel. A waiter whose
//! ticket is gone has its decision in that channel already, because both happen under the lock: so no slot is lost
//! between a table that gave it and a client that left.

mod wanted;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slotcore_accounting::{Key, Lane, Slot, SlotTable, Spec, Ticket};
use tokio::sync::oneshot;

use crate::attempts::Attempts;
use crate::container::{Address, Connection};
use crate::entry::Entry;
use crate::failure::{Failure, Reason};
use crate::peers::{Peer, Peers};
use crate::session::Events;
use crate::settings::{PlantedBug, Settings};
use crate::splice::Frame;
use crate::target::Target;
use wanted::Wanted;

/// What a retry is told to wait when nothing is known.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);

/// What a waiter is told.
pub(crate) type Decision = Result<Given, Failure>;

/// Who waits for a slot.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A request.
    Call(oneshot::Sender<Decision>),
    /// The dispatcher, in the async lane or not.
    Attempt { is_urgent: bool },
}

impl Waiter {
    fn refuse(self, failure: Failure) {
        if let Self::Call(sender) = self {
            // One that has just left need not know.
            _ = sender.send(Err(failure));
        }
    }
}

/// The other end of a waiter.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) decision: oneshot::Receiver<Decision>,
    ticket: Ticket,
    is_forwarded: bool,
}

/// A slot with its connection. It goes back through `Shared`, whatever becomes of the client.
#[derive(Debug)]
pub(crate) struct Given {
    /// None: only by a planted bug.
    slot: Option<Slot>,
    pub(crate) target: Arc<Target>,
    pub(crate) connection: Connection,
}

/// What becomes of a request that wants a slot.
#[derive(Debug)]
pub(crate) enum Acquired {
    Given(Given),
    Waits(Wait),
    Forward(Peer),
    Failed(Failure),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) table: SlotTable<Waiter>,
    pub(crate) peers: Peers,
    /// By the index of the table's key.
    entries: Vec<Option<Entry>>,
    /// Tickets of requests that peers forwarded, by action: they go back when the last share is gone.
    forwarded: HashMap<String, Vec<Ticket>>,
    /// Slots affected, by container and kind, since they were last taken.
    pub(crate) troubles: BTreeMap<(Arc<str>, &'static str), u32>,
    /// The session was told that some demand rose, and has not read the demand since.
    pub(crate) has_told_rise: bool,
    begun: Instant,
    attempts: Arc<Attempts>,
    /// By action.
    wanted: HashMap<String, Wanted>,
}

impl State {
    pub(crate) fn new(table: SlotTable<Waiter>, attempts: Arc<Attempts>) -> Self {
        Self {
            attempts,
            wanted: HashMap::new(),
            table,
            peers: Peers::default(),
            entries: Vec::new(),
            forwarded: HashMap::new(),
            troubles: BTreeMap::new(),
            has_told_rise: false,
            begun: Instant::now(),
        }
    }

    /// Milliseconds since the start: for what only has to be late enough.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the session is to be woken.
    pub(crate) fn is_urgent(&self) -> bool {
        (self.table.demand_rose() && !self.has_told_rise)
            || self.table.acknowledgements_due()
            || !self.troubles.is_empty()
    }

    /// Takes what there is to report.
    pub(crate) fn take_events(&mut self) -> Events {
        self.has_told_rise = self.table.demand_rose();
        let troubles = std::mem::take(&mut self.troubles).into_iter();
        Events {
            demand_rose: self.has_told_rise,
            demand_changed: self.table.demand_changed(),
            troubles: troubles
                .map(|((container, kind), slots)| (container, kind, slots))
                .collect(),
            acknowledgements: self.table.acknowledgements(),
        }
    }

    pub(crate) fn acquire(
        &mut self,
        action: &str,
        is_forwarded: bool,
        settings: &Settings,
    ) -> Acquired {
        if let Some(slot) = self.table.acquire(action) {
            return Acquired::Given(self.give(slot));
        }
        if !self.table.has_share(action) {
            if is_forwarded {
                return Acquired::Failed(not_here());
            }
            if let Some(peer) = self.peers.choose(action) {
                return Acquired::Forward(peer);
            }
        } else if settings.planted_bug == PlantedBug::OneTooMany
            && let Some(given) = self.one_too_many(action)
        {
            return Acquired::Given(given);
        }
        let (sender, decision) = oneshot::channel();
        let Ok(ticket) = self
            .table
            .enqueue(action, Lane::Blocking, Waiter::Call(sender))
        else {
            let what = format!(
                "{} requests wait for this action already",
                self.table.waiting(action)
            );
            let failure = Failure::new(Reason::QueueFull, what).retry(self.retry_after(action));
            return Acquired::Failed(failure);
        };
        if is_forwarded {
            self.forwarded
                .entry(action.to_owned())
                .or_default()
                .push(ticket);
        }
        Acquired::Waits(Wait {
            decision,
            ticket,
            is_forwarded,
        })
    }

    /// Gives up a place in the queue; a slot that was given meanwhile goes back.
    pub(crate) fn leave(&mut self, action: &str, mut wait: Wait) {
        let was_served = self.table.cancel(wait.ticket).is_none();
        self.served(action, &wait);
        if was_served && let Ok(Ok(given)) = wait.decision.try_recv() {
            self.release(given);
        }
    }

    /// A waiter has its decision.
    pub(crate) fn served(&mut self, action: &str, wait: &Wait) {
        if wait.is_forwarded
            && let Some(tickets) = self.forwarded.get_mut(action)
        {
            tickets.retain(|ticket| *ticket != wait.ticket);
            if tickets.is_empty() {
                self.forwarded.remove(action);
            }
        }
    }

    /// When a slot of the action may come free: what waits, times the time of a run, over the slots.
    pub(crate) fn retry_after(&self, action: &str) -> Duration {
        let of_action = self
            .entries
            .iter()
            .flatten()
            .filter(|entry| &*entry.target.action == action);
        let (slots, run) = of_action.fold((0, Duration::ZERO), |(slots, run), entry| {
            (
                slots + entry.target.capacity,
                run.max(entry.target.mean_run()),
            )
        });
        let waiting = u32::try_from(self.table.waiting(action)).unwrap_or(u32::MAX);
        match (run * waiting.min(100_000)).checked_div(slots) {
            Some(wait) if !run.is_zero() => {
                wait.clamp(Duration::from_millis(50), Duration::from_secs(30))
            }
            _ => RETRY_UNKNOWN,
        }
    }

    /// The request has really ended.
    pub(crate) fn release(&mut self, given: Given) {
        let Given {
            slot,
            target,
            connection,
        } = given;
        let Some(slot) = slot else {
            let mut entries = self.entries.iter_mut().flatten();
            if let Some(entry) = entries.find(|entry| Arc::ptr_eq(&entry.target, &target)) {
                entry.has_extra = false;
            }
            return;
        };
        if let Some(entry) = self.entry(slot.container()) {
            entry.keep(&slot, connection);
            let granted = self.table.release(slot);
            self.deliver(granted);
        }
    }

    /// The request may still run: its slot stays taken until the container ends.
    pub(crate) fn strand(&mut self, given: Given, is_reported: bool) {
        if !is_reported {
            self.trouble(&given.target.id, "overrun", 1);
        }
        if let Some(slot) = given.slot {
            let granted = self.table.strand(slot);
            self.deliver(granted);
        }
    }

    /// The container refused a connection: its slot is of no use for a while.
    pub(crate) fn set_aside(&mut self, given: Given) {
        let now_ms = self.now_ms();
        self.trouble(&given.target.id, "refused", 1);
        let Some(slot) = given.slot else { return };
        let Some(entry) = self.entry(slot.container()) else {
            return;
        };
        let until_ms = entry.refused(now_ms);
        self.table.set_aside(slot, until_ms);
    }

    pub(crate) fn trouble(&mut self, container: &Arc<str>, kind: &'static str, slots: u32) {
        *self.troubles.entry((container.clone(), kind)).or_default() += slots;
    }

    /// Gives slots to those who waited for them.
    pub(crate) fn deliver(&mut self, granted: impl IntoIterator<Item = (Waiter, Slot)>) {
        for (waiter, slot) in granted {
            let given = self.give(slot);
            match waiter {
                Waiter::Call(sender) => {
                    if let Err(Ok(given)) = sender.send(Ok(given)) {
                        self.release(given);
                    }
                }
                Waiter::Attempt { is_urgent } => {
                    if let Some(wanted) = self.wanted.get_mut(&*given.target.action) {
                        wanted.served(is_urgent);
                    }
                    self.attempts.give(given);
                }
            }
        }
    }

    /// Tells everybody who waits for the action why it cannot be served.
    pub(crate) fn refuse(&mut self, action: &str, failure: &Failure) {
        if self.wanted.remove(action).is_some() {
            self.attempts.refuse(action, failure);
        }
        for waiter in self.table.drain(action) {
            waiter.refuse(failure.clone());
        }
    }

    /// Sends back what peers forwarded, if no share of the action is left here.
    pub(crate) fn send_back(&mut self, action: &str) {
        if self.table.has_share(action) {
            return;
        }
        for ticket in self.forwarded.remove(action).unwrap_or_default() {
            if let Some(waiter) = self.table.cancel(ticket) {
                waiter.refuse(not_here());
            }
        }
    }

    /// Makes the entry of a container that the table has come to know.
    pub(crate) fn know(
        &mut self,
        key: Key,
        id: &Arc<str>,
        spec: &Spec,
        address: Arc<Address>,
        frame: Frame,
    ) {
        if self.entries.len() <= key.index() {
            self.entries.resize_with(key.index() + 1, || None);
        }
        let slot = &mut self.entries[key.index()];
        if slot.as_ref().is_none_or(|entry| entry.key != key) {
            let target = Target::new(id.clone(), spec, address, frame);
            *slot = Some(Entry::new(key, Arc::new(target)));
        }
    }

    /// The container has ended, or is held no more: takes its entry.
    pub(crate) fn forget(&mut self, key: Key) -> Option<Arc<Target>> {
        self.entry(key)?;
        self.entries[key.index()].take().map(|entry| entry.target)
    }

    /// Closes what idled since `before`, forgets what the table has forgotten, and brings back what was set aside.
    pub(crate) fn sweep(&mut self, before: Instant) {
        for place in &mut self.entries {
            if place
                .as_ref()
                .is_some_and(|entry| self.table.spec(entry.key).is_none())
            {
                *place = None;
            }
            if let Some(entry) = place {
                entry.close_idle(before);
            }
        }
        let restored = self.table.restore(self.now_ms());
        self.deliver(restored);
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries
            .get_mut(key.index())?
            .as_mut()
            .filter(|entry| entry.key == key)
    }

    fn give(&mut self, slot: Slot) -> Given {
        let entry = self
            .entry(slot.container())
            .expect("every container of the table has its entry");
        let connection = entry.take(&slot);
        Given {
            target: entry.target.clone(),
            connection,
            slot: Some(slot),
        }
    }

    #[cold]
    fn one_too_many(&mut self, action: &str) -> Option<Given> {
        let mut entries = self.entries.iter_mut().flatten();
        let entry = entries.find(|entry| &*entry.target.action == action && !entry.has_extra)?;
        entry.has_extra = true;
        let connection = entry.connect();
        Some(Given {
            slot: None,
            target: entry.target.clone(),
            connection,
        })
    }
}

#[cold]
fn not_here() -> Failure {
    Failure::new(
        Reason::NotHere,
        "this Router has no share of the action any more",
    )
}
