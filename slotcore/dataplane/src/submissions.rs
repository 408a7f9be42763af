//! `Submit`s on their way to the store: one thread of Python's takes all that wait at once, and answers them together
//! when they are on disk. Who comes meanwhile is in the next batch.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::failure::{Failure, Reason};

/// Submits that may wait to be taken.
const WAITING_MAX: usize = 10_000;

/// One asynchronous invocation, checked.
#[derive(Debug)]
pub struct Submission {
    /// A new activation's id.
    pub id: String,
    /// "namespace/name".
    pub action: String,
    /// A JSON object, or nothing.
    pub payload: Vec<u8>,
    /// The client's idempotency key.
    pub key: Option<String>,
}

type Answer = oneshot::Sender<Result<String, Failure>>;

#[derive(Debug, Default)]
pub(crate) struct Submissions {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    is_open: bool,
    waiting: Vec<(Submission, Answer)>,
    /// Of the batch that was taken last.
    taken: Vec<Answer>,
}

impl Submissions {
    /// Takes submissions from now on, or none any more.
    pub(crate) fn open(&self, is_open: bool) {
        let mut inner = self.inner();
        inner.is_open = is_open;
        if !is_open {
            // Whoever waits is told that nobody answers any more.
            inner.waiting.clear();
            inner.taken.clear();
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// What becomes of it is told by the channel; the channel closes if nobody knows.
    pub(crate) fn push(
        &self,
        submission: Submission,
    ) -> Result<oneshot::Receiver<Result<String, Failure>>, Failure> {
        let mut inner = self.inner();
        if !inner.is_open {
            let what =
                "this Router has no store for asynchronous invocations: start it with --store";
            return Err(Failure::new(Reason::Unsupported, what));
        }
        if inner.waiting.len() >= WAITING_MAX {
            let what = format!("{WAITING_MAX} submissions wait for the store already");
            return Err(Failure::new(Reason::QueueFull, what).retry(Duration::from_secs(1)));
        }
        let (answer, told) = oneshot::channel();
        inner.waiting.push((submission, answer));
        drop(inner);
        self.changed.notify_one();
        Ok(told)
    }

    /// Waits for so long at most, and takes up to `max`, in the order in which they came; None: it is closed.
    pub(crate) fn take(&self, max: usize, patience: Duration) -> Option<Vec<Submission>> {
        let idles = |inner: &mut Inner| inner.is_open && inner.waiting.is_empty();
        let waited = self
            .changed
            .wait_timeout_while(self.inner(), patience, idles);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !inner.is_open {
            return None;
        }
        let count = inner.waiting.len().min(max);
        let (batch, answers) = inner.waiting.drain(..count).unzip();
        inner.taken = answers;
        Some(batch)
    }

    /// The batch that was taken last is on disk: the activation of each, in its order.
    pub(crate) fn acknowledge(&self, ids: Vec<String>) {
        for (answer, id) in self.taken().into_iter().zip(ids) {
            // A client that has left need not know.
            _ = answer.send(Ok(id));
        }
    }

    /// Nothing is known to be stored of the batch that was taken last.
    pub(crate) fn refuse(&self, failure: &Failure) {
        for answer in self.taken() {
            _ = answer.send(Err(failure.clone()));
        }
    }

    fn taken(&self) -> Vec<Answer> {
        std::mem::take(&mut self.inner().taken)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
