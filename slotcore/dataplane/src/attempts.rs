//! The async lane between the slot table and the dispatcher, a thread of Python's: slots that it was given and not yet
//! used, attempts that have ended, and what it is to know besides.
//!
//! Slot first, then claim: a slot waits here only while the store is asked, and goes back when that takes too long.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::failure::Failure;
use crate::state::Given;

/// An activation that was claimed.
#[derive(Debug)]
pub struct Attempt {
    /// The activation's id.
    pub id: String,
    /// Of the claim.
    pub token: i64,
    /// "namespace/name".
    pub action: String,
    /// A JSON object, or nothing.
    pub payload: Vec<u8>,
}

/// An attempt that is over, or was given up.
#[derive(Debug)]
pub struct Ended {
    /// The activation's id.
    pub id: String,
    /// Of the claim.
    pub token: i64,
    /// In milliseconds since 1970.
    pub started_at_ms: u64,
    /// An encoded `InvokeResponse`, or (reason, message).
    pub outcome: Result<Bytes, (&'static str, String)>,
}

/// What the dispatcher is told.
#[derive(Debug, Default)]
pub struct Happened {
    /// (action, slots that wait for a claim, the action's timeout).
    pub slots: Vec<(String, usize, Duration)>,
    /// Attempts.
    pub ended: Vec<Ended>,
    /// (action, reason, message): why there are no slots of it.
    pub refused: Vec<(String, &'static str, String)>,
}

#[derive(Debug, Default)]
pub(crate) struct Attempts {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    slots: BTreeMap<String, Vec<(Given, Instant)>>,
    /// Some slot came that was not told yet.
    is_given: bool,
    ended: Vec<Ended>,
    refused: Vec<(String, &'static str, String)>,
    is_rung: bool,
    /// Slots that came later were not told of yet.
    told_at: Option<Instant>,
}

impl Attempts {
    /// A slot for the action's next attempt.
    pub(crate) fn give(&self, given: Given) {
        let mut inner = self.inner();
        let slots = inner.slots.entry(given.target.action.to_string());
        slots.or_default().push((given, Instant::now()));
        inner.is_given = true;
        drop(inner);
        self.changed.notify_one();
    }

    /// An attempt is over.
    pub(crate) fn end(&self, ended: Ended) {
        self.inner().ended.push(ended);
        self.changed.notify_one();
    }

    /// There are no slots of the action, and why.
    pub(crate) fn refuse(&self, action: &str, failure: &Failure) {
        let (reason, message) = (failure.reason().name(), failure.message().to_owned());
        let mut inner = self.inner();
        inner.refused.retain(|(other, _, _)| other != action);
        inner.refused.push((action.to_owned(), reason, message));
        drop(inner);
        self.changed.notify_one();
    }

    /// Wakes the dispatcher.
    pub(crate) fn ring(&self) {
        self.inner().is_rung = true;
        self.changed.notify_one();
    }

    /// Waits for so long at most until something has happened, and takes it; slots stay until they are used.
    pub(crate) fn wait(&self, patience: Duration) -> Happened {
        let idles = |inner: &mut Inner| {
            !inner.is_rung && !inner.is_given && inner.ended.is_empty() && inner.refused.is_empty()
        };
        let waited = self
            .changed
            .wait_timeout_while(self.inner(), patience, idles);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.is_rung = false;
        inner.is_given = false;
        inner.told_at = Some(Instant::now());
        let told = inner.slots.iter().filter_map(|(action, slots)| {
            let (first, _) = slots.first()?;
            Some((action.clone(), slots.len(), first.target.timeout))
        });
        Happened {
            slots: told.collect(),
            ended: std::mem::take(&mut inner.ended),
            refused: std::mem::take(&mut inner.refused),
        }
    }

    /// A slot for an attempt that was claimed.
    pub(crate) fn slot(&self, action: &str) -> Option<Given> {
        let (given, _) = self.inner().slots.get_mut(action)?.pop()?;
        Some(given)
    }

    /// Takes the slots that the dispatcher was told of.
    pub(crate) fn told(&self) -> Vec<Given> {
        let told_at = self.inner().told_at;
        told_at.map_or_else(Vec::new, |at| self.unused(at))
    }

    /// Takes the slots that have waited since `before`.
    pub(crate) fn unused(&self, before: Instant) -> Vec<Given> {
        let mut inner = self.inner();
        let mut unused = Vec::new();
        for slots in inner.slots.values_mut() {
            let (old, young) = std::mem::take(slots)
                .into_iter()
                .partition::<Vec<_>, _>(|(_, since)| *since <= before);
            *slots = young;
            unused.extend(old.into_iter().map(|(given, _)| given));
        }
        inner.slots.retain(|_, slots| !slots.is_empty());
        unused
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
