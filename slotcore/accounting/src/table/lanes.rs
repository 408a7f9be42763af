//! The two lanes of an action: first in, first out in each; blocking goes first, async is not starved.
//!
//! All waiters of a table live in one slab and are linked into their lane, so that joining, leaving from anywhere and
//! being next are O(1), and memory follows the number that wait now.

use crate::slab::{Key, Slab};

/// After so many slots went past waiting async requests, one goes to them.
const BLOCKING_IN_A_ROW: u8 = 15;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Someone waits for the answer.
    Blocking,
    /// Nobody waits for the answer.
    Async,
}

/// A place in a queue. Names nothing once the waiter has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) Key);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter<W> {
    wake: W,
    action: Key,
    lane: Lane,
    before: Option<Key>,
    after: Option<Key>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Line {
    first: Option<Key>,
    last: Option<Key>,
    len: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Lanes {
    blocking: Line,
    deferred: Line,
    /// Slots that went to the blocking lane while an async request waited.
    passed_over: u8,
}

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.blocking.len + self.deferred.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn waiting(&self, lane: Lane) -> usize {
        match lane {
            Lane::Blocking => self.blocking.len,
            Lane::Async => self.deferred.len,
        }
    }

    fn line(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Blocking => &mut self.blocking,
            Lane::Async => &mut self.deferred,
        }
    }

    pub(super) fn push<W>(
        &mut self,
        waiters: &mut Slab<Waiter<W>>,
        action: Key,
        lane: Lane,
        wake: W,
    ) -> Ticket {
        let queue = self.line(lane);
        let key = waiters.insert(Waiter {
            wake,
            action,
            lane,
            before: queue.last,
            after: None,
        });
        match queue.last.and_then(|last| waiters.get_mut(last)) {
            Some(last) => last.after = Some(key),
            None => queue.first = Some(key),
        }
        queue.last = Some(key);
        queue.len += 1;
        Ticket(key)
    }

    /// Takes the next to be served.
    pub(super) fn next<W>(&mut self, waiters: &mut Slab<Waiter<W>>) -> Option<W> {
        let key = match (self.blocking.first, self.deferred.first) {
            (Some(blocking), Some(_)) if self.passed_over < BLOCKING_IN_A_ROW => {
                self.passed_over += 1;
                blocking
            }
            (_, Some(deferred)) => {
                self.passed_over = 0;
                deferred
            }
            (Some(blocking), None) => blocking,
            (None, None) => return None,
        };
        self.remove(waiters, Ticket(key))
    }

    /// Takes a waiter out, wherever it stands.
    pub(super) fn remove<W>(&mut self, waiters: &mut Slab<Waiter<W>>, ticket: Ticket) -> Option<W> {
        let waiter = waiters.remove(ticket.0)?;
        let line = self.line(waiter.lane);
        match waiter.before.and_then(|key| waiters.get_mut(key)) {
            Some(before) => before.after = waiter.after,
            None => line.first = waiter.after,
        }
        match waiter.after.and_then(|key| waiters.get_mut(key)) {
            Some(after) => after.before = waiter.before,
            None => line.last = waiter.before,
        }
        line.len -= 1;
        Some(waiter.wake)
    }
}

impl<W> Waiter<W> {
    /// The action that is waited for.
    pub(super) fn action(&self) -> Key {
        self.action
    }
}
