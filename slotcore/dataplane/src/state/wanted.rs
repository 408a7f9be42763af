//! The dispatcher's places in the queues: who claims activations waits for slots as requests do.

use std::collections::VecDeque;

use slotcore_accounting::{Lane, Ticket};

use super::{State, Waiter};

/// The dispatcher's places in an action's queue.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// In the async lane, the next to be served first.
    tickets: VecDeque<Ticket>,
    /// In the blocking lane.
    urgent: Option<Ticket>,
}

impl Wanted {
    /// One of its places was given a slot.
    pub(super) fn served(&mut self, is_urgent: bool) {
        if is_urgent {
            self.urgent = None;
        } else {
            self.tickets.pop_front();
        }
    }
}

impl State {
    /// So many of the dispatcher's places in the action's async lane; `is_urgent`: and one in the blocking lane.
    pub(crate) fn want(&mut self, action: &str, count: usize, is_urgent: bool) {
        let mut wanted = self.wanted.remove(action).unwrap_or_default();
        while wanted.tickets.len() > count
            && let Some(ticket) = wanted.tickets.pop_back()
        {
            self.table.cancel(ticket);
        }
        if !is_urgent && let Some(ticket) = wanted.urgent.take() {
            self.table.cancel(ticket);
        }
        for _ in wanted.tickets.len()..count {
            let waiter = Waiter::Attempt { is_urgent: false };
            wanted
                .tickets
                .extend(self.place(action, Lane::Async, waiter));
        }
        if is_urgent && wanted.urgent.is_none() {
            let waiter = Waiter::Attempt { is_urgent: true };
            wanted.urgent = self.place(action, Lane::Blocking, waiter);
        }
        if !wanted.tickets.is_empty() || wanted.urgent.is_some() {
            self.wanted.insert(action.to_owned(), wanted);
        }
    }

    /// Gives the dispatcher an idle slot, or a place in the queue.
    fn place(&mut self, action: &str, lane: Lane, waiter: Waiter) -> Option<Ticket> {
        if let Some(slot) = self.table.acquire(action) {
            let given = self.give(slot);
            self.attempts.give(given);
            return None;
        }
        self.table.enqueue(action, lane, waiter).ok()
    }
}
