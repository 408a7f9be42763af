//! One attempt at an activation that was claimed for a slot.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::activation;
use crate::asked::NEVER;
use crate::attempts::{Attempt, Ended};
use crate::failure::{Failure, Reason};
use crate::invoke::{Call, Told};
use crate::plane::DataPlane;
use crate::shared::Shared;
use crate::splice::Splice;
use crate::state::Given;
use crate::submissions::Submission;
use crate::{ArgumentError, Happened};

impl DataPlane {
    /// Takes submissions from now on, or none any more.
    pub fn open_submissions(&self, is_open: bool) {
        self.shared.submissions.open(is_open);
    }

    /// Waits for submissions, and takes up to `max`; None: they are closed. The batch before must have been answered.
    pub fn take_submissions(&self, max: usize, patience: Duration) -> Option<Vec<Submission>> {
        self.shared.submissions.take(max, patience)
    }

    /// The batch that was taken last is on disk: the activation of each, in its order.
    pub fn acknowledge(&self, ids: Vec<String>) {
        self.shared.submissions.acknowledge(ids);
    }

    /// Nothing is known to be stored of the batch that was taken last.
    pub fn refuse_submissions(
        &self,
        reason: &str,
        message: String,
        retry: Option<Duration>,
    ) -> Result<(), ArgumentError> {
        let reason =
            Reason::named(reason).ok_or_else(|| ArgumentError::Reason(reason.to_owned()))?;
        let failure = Failure::new(reason, message).retry(retry);
        self.shared.submissions.refuse(&failure);
        Ok(())
    }

    /// So many slots of the action are wanted in the async lane; `is_urgent`: one more as if somebody waited for it.
    pub fn want(&self, action: &str, count: usize, is_urgent: bool) {
        self.shared
            .change(|state| state.want(action, count, is_urgent));
    }

    /// Waits until something has happened in the async lane, and takes it.
    pub fn wait_for_lane(&self, patience: Duration) -> Happened {
        self.shared.attempts.wait(patience)
    }

    /// Ends a wait.
    pub fn ring(&self) {
        self.shared.attempts.ring();
    }

    /// Runs what was claimed; those that there is no slot for any more are told by their ids. Then gives back the slots
    /// that nothing was claimed for.
    pub fn run(&self, attempts: Vec<Attempt>) -> Vec<String> {
        let mut without = Vec::new();
        for attempt in attempts {
            match (
                self.shared.attempts.slot(&attempt.action),
                self.shared.runtime.get(),
            ) {
                (Some(given), Some(handle)) => {
                    handle.spawn(Box::pin(run(self.shared.clone(), given, attempt)));
                }
                _ => without.push(attempt.id),
            }
        }
        self.shared.give_back(self.shared.attempts.told());
        without
    }
}

async fn run(shared: Arc<Shared>, given: Given, attempt: Attempt) {
    let _running = shared.enter();
    let (arrived, arrived_ms) = (Instant::now(), activation::epoch_ms());
    let mut record = Record {
        shared: &shared,
        attempt: &attempt,
        started_at_ms: arrived_ms,
        is_given: false,
    };
    let id = attempt.id.as_bytes();
    let splice = match Splice::new(&attempt.payload, id, || unreachable!("it has an id")) {
        Ok(splice) => splice,
        Err(failure) => {
            shared.change(|state| state.release(given));
            return record.fail(&failure);
        }
    };
    let mut call = Call {
        shared: &shared,
        action: &attempt.action,
        deadline: None,
        is_nested: false,
        arrived,
        arrived_ms,
        alarm: pin!(sleep_until((arrived + NEVER).into())),
        splice,
    };
    match call.run(given, false, &mut record).await {
        Ok(Some(answer)) => record.end(Ok(answer)),
        Ok(None) => record.fail(&Failure::new(
            Reason::ContainerLost,
            "the container refused the connection",
        )),
        Err(failure) => record.fail(&failure),
    }
}

/// Keeps the first outcome of an attempt.
struct Record<'a> {
    shared: &'a Shared,
    attempt: &'a Attempt,
    started_at_ms: u64,
    is_given: bool,
}

impl Record<'_> {
    fn end(&mut self, outcome: Result<bytes::Bytes, (&'static str, String)>) {
        if std::mem::replace(&mut self.is_given, true) {
            return;
        }
        self.shared.attempts.end(Ended {
            id: self.attempt.id.clone(),
            token: self.attempt.token,
            started_at_ms: self.started_at_ms,
            outcome,
        });
    }
}

impl Told for Record<'_> {
    fn fail(&mut self, failure: &Failure) {
        self.end(Err((failure.reason().name(), failure.message().to_owned())));
    }

    fn is_given(&self) -> bool {
        self.is_given
    }
}
