//! The warm path: acquire, wait, release.

use super::lanes::{Lane, Ticket};
use super::{Aside, QueueFull, Slot, SlotTable};
use crate::Planted;
use crate::slab::Key;

impl<W> SlotTable<W> {
    /// Takes the idle slot that was used last. None: nothing idles, or the action is unknown; wait with `enqueue`.
    #[inline]
    pub fn acquire(&mut self, action: &str) -> Option<Slot> {
        let key = *self.actions_by_name.get(action)?;
        let slot = self.actions.get_mut(key)?.idle.pop()?;
        self.note_change(key);
        let container = self
            .containers
            .get_mut(slot.container)
            .expect("an idle slot's container");
        container.idle -= 1;
        container.idle_low = container.idle_low.min(container.idle);
        container.running += 1;
        Some(slot)
    }

    /// Joins the lane of an action, known or not. Call it only when `acquire` gave nothing, under the same lock.
    pub fn enqueue(&mut self, action: &str, lane: Lane, wake: W) -> Result<Ticket, QueueFull> {
        if self.waiters.len() >= self.limits.waiters_max || self.limits.action_waiters_max == 0 {
            return Err(QueueFull);
        }
        let key = self.intern(action);
        let entry = self.actions.get_mut(key).expect("interned");
        if entry.lanes.len() >= self.limits.action_waiters_max {
            return Err(QueueFull);
        }
        debug_assert!(entry.idle.is_empty(), "waits although a slot idles");
        self.rose |= lane == Lane::Blocking && entry.lanes.waiting(lane) == 0;
        let ticket = entry.lanes.push(&mut self.waiters, key, lane, wake);
        self.note_change(key);
        Ok(ticket)
    }

    /// Leaves the queue. None: the waiter has left already (it was served, refused, or cancelled before).
    pub fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        let key = self.waiters.get(ticket.0)?.action();
        let action = self.actions.get_mut(key)?;
        let wake = action.lanes.remove(&mut self.waiters, ticket);
        self.note_change(key);
        self.forget_action(key);
        wake
    }

    /// Takes everybody out of the action's queue, in the order in which they would have been served.
    pub fn drain(&mut self, action: &str) -> Vec<W> {
        let Some(key) = self.actions_by_name.get(action).copied() else {
            return Vec::new();
        };
        let entry = self.actions.get_mut(key).expect("interned");
        let waiters = &mut self.waiters;
        let drained = std::iter::from_fn(|| entry.lanes.next(waiters)).collect();
        self.note_change(key);
        self.forget_action(key);
        drained
    }

    /// The slot's request has really ended. Some: the slot went straight to the next waiter; if that one has gone,
    /// release the slot again. A slot of a container that has ended is void.
    #[inline]
    pub fn release(&mut self, slot: Slot) -> Option<(W, Slot)> {
        let container = self.containers.get_mut(slot.container)?;
        container.running -= 1;
        if container.running >= container.held {
            container.spare.push(slot.index);
            self.list(slot.container);
            return None;
        }
        let action = container.action;
        self.place(action, slot)
    }

    /// The slot's request may still run although nobody will hear its answer (a broken connection, an overrun that is
    /// given up): it counts as running until the container ends.
    pub fn strand(&mut self, slot: Slot) -> Option<(W, Slot)> {
        if self.plant.is(Planted::StrandFrees) {
            return self.release(slot);
        }
        None
    }

    /// The slot's container refused a connection: surely nothing runs on it, but it is of no use before `until_ms`.
    pub fn set_aside(&mut self, slot: Slot, until_ms: u64) {
        let Some(container) = self.containers.get_mut(slot.container) else {
            return;
        };
        container.running -= 1;
        if container.running < container.held {
            container.aside += 1;
            self.aside.push(Aside { until_ms, slot });
        } else {
            container.spare.push(slot.index);
            self.list(slot.container);
        }
    }

    /// Brings back what was set aside until now or before.
    pub fn restore(&mut self, now_ms: u64) -> Vec<(W, Slot)> {
        let mut granted = Vec::new();
        let (back, aside) = std::mem::take(&mut self.aside)
            .into_iter()
            .partition(|aside| aside.until_ms <= now_ms);
        self.aside = aside;
        let back: Vec<Aside> = back;
        for Aside { slot, .. } in back {
            let Some(container) = self.containers.get_mut(slot.container) else {
                continue;
            };
            container.aside -= 1;
            let action = container.action;
            granted.extend(self.place(action, slot));
        }
        granted
    }

    /// When `restore` is next of use.
    pub fn restore_at_ms(&self) -> Option<u64> {
        self.aside.iter().map(|aside| aside.until_ms).min()
    }

    /// Gives a slot that is not out to the next waiter, or lets it idle.
    #[inline]
    pub(super) fn place(&mut self, action: Key, slot: Slot) -> Option<(W, Slot)> {
        self.note_change(action);
        let entry = self.actions.get_mut(action).expect("a container's action");
        let container = self
            .containers
            .get_mut(slot.container)
            .expect("a slot's container");
        if let Some(wake) = entry.lanes.next(&mut self.waiters) {
            container.running += 1;
            return Some((wake, slot));
        }
        container.idle += 1;
        entry.idle.push(slot);
        None
    }

    #[inline]
    pub(super) fn note_change(&mut self, action: Key) {
        if let Some(entry) = self.actions.get_mut(action)
            && !entry.changed
        {
            entry.changed = true;
            self.changed.push(action);
        }
    }
}
