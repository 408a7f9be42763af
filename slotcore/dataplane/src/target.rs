//! A container, as the requests that run on it see it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use slotcore_accounting::Spec;
use tokio::sync::Notify;

use crate::container::Address;
use crate::splice::Frame;

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: Arc<str>,
    pub(crate) action: Arc<str>,
    pub(crate) address: Arc<Address>,
    pub(crate) capacity: u32,
    pub(crate) timeout: Duration,
    pub(crate) frame: Frame,
    /// How the container ended, once it has; empty if nobody knows.
    how: OnceLock<String>,
    ending: Notify,
    /// A moving mean in microseconds; 0: nothing has run.
    mean_run_us: AtomicU32,
}

impl Target {
    pub(crate) fn new(id: Arc<str>, spec: &Spec, address: Arc<Address>, frame: Frame) -> Self {
        Self {
            id,
            action: spec.action.clone(),
            address,
            capacity: spec.capacity,
            timeout: Duration::from_millis(spec.timeout_ms),
            frame,
            how: OnceLock::new(),
            ending: Notify::new(),
            mean_run_us: AtomicU32::new(0),
        }
    }

    /// The container has ended: ends what waits for `ended`.
    pub(crate) fn end(&self, how: &str) {
        _ = self.how.set(how.to_owned());
        self.ending.notify_waiters();
    }

    /// Ready once the container has ended: how it did.
    pub(crate) async fn ended(&self) -> &str {
        // Made before the look, so that an end between the two is not missed.
        let ending = self.ending.notified();
        if self.how.get().is_none() {
            ending.await;
        }
        self.how.get().map_or("", String::as_str)
    }

    /// Takes the time of a run into the mean. A race of two loses one of them, which does no harm.
    pub(crate) fn ran(&self, run: Duration) {
        let run = u32::try_from(run.as_micros()).unwrap_or(u32::MAX).max(1);
        let mean = self.mean_run_us.load(Relaxed);
        let next = if mean == 0 {
            run
        } else {
            mean - mean / 8 + run / 8
        };
        self.mean_run_us.store(next, Relaxed);
    }

    /// How long a run takes; zero if none has ended yet.
    pub(crate) fn mean_run(&self) -> Duration {
        Duration::from_micros(self.mean_run_us.load(Relaxed).into())
    }
}
