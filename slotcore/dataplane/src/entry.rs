//! A container as this data plane uses it: the connections that its idle slots keep.

use std::sync::Arc;
use std::time::Instant;

use slotcore_accounting::{Key, Slot};

use crate::container::Connection;
use crate::target::Target;

const REFUSED_BACKOFF_MS: u64 = 50;
const REFUSED_BACKOFF_MAX_MS: u64 = 2_000;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) target: Arc<Target>,
    /// By slot index, while the slot idles.
    connections: Vec<Option<Connection>>,
    /// Rounds of refused connections in a row, and when the last one is over.
    refusals: u32,
    refused_until_ms: u64,
    /// A planted bug has its request too many out.
    pub(crate) has_extra: bool,
}

impl Entry {
    pub(crate) fn new(key: Key, target: Arc<Target>) -> Self {
        let connections = Vec::new();
        Self {
            key,
            target,
            connections,
            refusals: 0,
            refused_until_ms: 0,
            has_extra: false,
        }
    }

    /// A connection that is not open yet.
    pub(crate) fn connect(&self) -> Connection {
        Connection::new(self.target.address.clone())
    }

    /// The slot's connection, open or not.
    pub(crate) fn take(&mut self, slot: &Slot) -> Connection {
        let kept = self
            .connections
            .get_mut(slot.index() as usize)
            .and_then(Option::take);
        kept.unwrap_or_else(|| self.connect())
    }

    /// A request has ended: keeps its connection, if it is open.
    pub(crate) fn keep(&mut self, slot: &Slot, connection: Connection) {
        self.refusals = 0;
        if connection.is_open() {
            let index = slot.index() as usize;
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(connection);
        }
    }

    /// Closes what idled since `before`.
    pub(crate) fn close_idle(&mut self, before: Instant) {
        for kept in &mut self.connections {
            if kept
                .as_ref()
                .is_some_and(|connection| connection.answered() <= before)
            {
                *kept = None;
            }
        }
    }

    /// A connection was refused; when to try again. All that are refused in one round wait for its end.
    pub(crate) fn refused(&mut self, now_ms: u64) -> u64 {
        if now_ms >= self.refused_until_ms {
            let backoff = REFUSED_BACKOFF_MS << self.refusals.min(10);
            self.refused_until_ms = now_ms + backoff.min(REFUSED_BACKOFF_MAX_MS);
            self.refusals += 1;
        }
        self.refused_until_ms
    }
}
