//! What a data plane counts; every number only grows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::failure::Reason;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    answers: AtomicU64,
    forwarded: AtomicU64,
    connections: AtomicU64,
    failures: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    pub(crate) fn requested(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn answered(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    pub(crate) fn forwarded(&self) {
        self.forwarded.fetch_add(1, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self, reason: Reason) {
        self.failures[reason as usize].fetch_add(1, Relaxed);
    }

    /// By name; failures as "errors." and the reason in lower case, once there were any.
    pub(crate) fn read(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::from([
            ("requests".to_owned(), self.requests.load(Relaxed)),
            ("answers".to_owned(), self.answers.load(Relaxed)),
            ("forwarded".to_owned(), self.forwarded.load(Relaxed)),
            ("connections".to_owned(), self.connections.load(Relaxed)),
        ]);
        for (reason, count) in Reason::ALL.iter().zip(&self.failures) {
            let count = count.load(Relaxed);
            if count > 0 {
                all.insert(format!("errors.{}", reason.name().to_lowercase()), count);
            }
        }
        all
    }
}
