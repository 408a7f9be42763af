//! What the calls of a data plane see of it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use slotcore_accounting::{Limits, SlotTable};
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

use crate::activation::{self, Ids};
use crate::attempts::Attempts;
use crate::counters::Counters;
use crate::failure::{Failure, Reason};
use crate::link::{Link, Place};
use crate::message::{self, Budget};
use crate::peers::Peer;
use crate::settings::{
    BUFFERED_BYTES_MAX, CLAIM_TIMEOUT, SWEEP_PERIOD, Settings, WAITERS_PER_QUEUE,
};
use crate::signal::Signal;
use crate::state::{Acquired, Given, State, Wait};
use crate::submissions::Submissions;
use crate::target::Target;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) incarnation: HeaderValue,
    pub(crate) upstream: Link,
    pub(crate) signal: Signal,
    pub(crate) counters: Counters,
    pub(crate) budget: Budget,
    pub(crate) submissions: Submissions,
    pub(crate) attempts: Arc<Attempts>,
    state: Mutex<State>,
    ids: Mutex<Ids>,
    running: AtomicUsize,
    is_stopping: AtomicBool,
    /// Of the first thread, once it runs.
    pub(crate) runtime: OnceLock<Handle>,
}

/// A call that is under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let limits = Limits {
            action_waiters_max: settings.queue_max,
            waiters_max: settings.queue_max.saturating_mul(WAITERS_PER_QUEUE),
        };
        let incarnation = HeaderValue::try_from(&settings.incarnation);
        let attempts = Arc::new(Attempts::default());
        Ok(Self {
            incarnation: incarnation
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
            upstream: Link::new(Place::Unix(settings.upstream.clone())),
            signal: Signal::new()?,
            counters: Counters::default(),
            budget: Budget::new(BUFFERED_BYTES_MAX),
            submissions: Submissions::default(),
            state: Mutex::new(State::new(SlotTable::new(limits), attempts.clone())),
            attempts,
            ids: Mutex::new(Ids::new()),
            running: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
            runtime: OnceLock::new(),
            settings,
        })
    }

    /// Nothing under the lock can leave a half-made change behind that a later call would trip over.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells the session if there is something to report at once.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let value = change(&mut state);
        let is_urgent = state.is_urgent();
        drop(state);
        if is_urgent {
            self.signal.raise();
        }
        value
    }

    pub(crate) fn enter(&self) -> Running<'_> {
        self.counters.requested();
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(&self.running)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// An activation's id, for this time in milliseconds since 1970.
    pub(crate) fn make_id(&self, now_ms: u64) -> activation::Id {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.next(now_ms)
    }

    pub(crate) fn acquire(&self, action: &str, is_forwarded: bool) -> Acquired {
        let acquired = self.change(|state| state.acquire(action, is_forwarded, &self.settings));
        if matches!(acquired, Acquired::Forward(_)) {
            self.counters.forwarded();
        }
        acquired
    }

    /// Gives up a place in the queue; returns when it may be worth to come again.
    pub(crate) fn leave(&self, action: &str, wait: Wait) -> Duration {
        self.change(|state| {
            let retry = state.retry_after(action);
            state.leave(action, wait);
            retry
        })
    }

    pub(crate) fn served(&self, action: &str, wait: &Wait) {
        self.state().served(action, wait);
    }

    pub(crate) fn leave_out(&self, action: &str, peer: &Peer) {
        self.state().peers.leave_out(action, peer);
    }

    /// The request has really ended, after so long.
    pub(crate) fn release(&self, given: Given, run: Duration) {
        given.target.ran(run);
        self.change(|state| state.release(given));
    }

    /// `is_reported`: as an overrun.
    pub(crate) fn strand(&self, given: Given, is_reported: bool) {
        self.change(|state| state.strand(given, is_reported));
    }

    pub(crate) fn set_aside(&self, given: Given) {
        self.change(|state| state.set_aside(given));
    }

    /// A request runs past its action's timeout.
    pub(crate) fn overrun(&self, target: &Target) {
        self.change(|state| state.trouble(&target.id, "overrun", 1));
    }

    /// A share of the bytes that may be held at once.
    pub(crate) fn hold(&self, bytes: usize) -> Result<message::Share<'_>, Failure> {
        self.budget.take(bytes).ok_or_else(|| {
            let what = "this Router holds as many bytes as it may";
            Failure::new(Reason::QueueFull, what).retry(Duration::from_secs(1))
        })
    }

    /// Slots that were given to the async lane, and not used.
    pub(crate) fn give_back(&self, unused: Vec<Given>) {
        for given in unused {
            self.change(|state| state.release(given));
        }
    }

    /// Sweeps until it is dropped.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = interval(SWEEP_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let before = Instant::now().checked_sub(self.settings.idle_close);
            if let Some(before) = before {
                self.change(|state| state.sweep(before));
            }
            if let Some(before) = Instant::now().checked_sub(CLAIM_TIMEOUT) {
                self.give_back(self.attempts.unused(before));
            }
        }
    }
}
