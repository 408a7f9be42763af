//! One `Invoke`: read, checked, given a slot, run, answered.
//!
//! The call is a task of its own, which nobody aborts: whatever becomes of its client, a slot that it was given goes back
//! when the container's answer has ended, and not before.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::time::{Sleep, sleep_until, timeout};

use crate::activation;
use crate::asked::{Asked, NEVER, check_action, deadline_passed};
use crate::container::{Answer, Limits, Run, RunError};
use crate::failure::{Failure, Reason};
use crate::json;
use crate::message::{self, ReadError};
use crate::peers::{Forwarded, Peer};
use crate::reply::Reply;
use crate::settings::{ENDING_TIMEOUT, RECEIVE_TIMEOUT};
use crate::shared::Shared;
use crate::splice::Splice;
use crate::state::{Acquired, Given, Wait};
use crate::wire::{InvokeRequest, InvokeResponse};

/// Serves one call to its end.
pub(crate) async fn invoke(
    shared: Arc<Shared>,
    asked: Result<Asked, Failure>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
) {
    let _running = shared.enter();
    let mut reply = Reply::new(respond, &shared);
    let outcome = match asked {
        Ok(asked) => serve(&shared, asked, body, &mut reply).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = outcome {
        reply.fail(&failure);
    }
}

async fn serve(
    shared: &Shared,
    asked: Asked,
    body: RecvStream,
    reply: &mut Reply<'_>,
) -> Result<(), Failure> {
    let Asked {
        deadline,
        arrived,
        is_forwarded,
        is_nested,
    } = asked;
    let patience = deadline.map_or(RECEIVE_TIMEOUT, |at| RECEIVE_TIMEOUT.min(at - arrived));
    let message = match message::read(body, shared.settings.request_bytes_max, patience).await {
        Ok(message) => message,
        Err(ReadError::Left) => return Ok(()),
        Err(ReadError::Failed(failure)) => return Err(failure),
    };
    let _held = shared.hold(message.len())?;
    if shared.is_stopping() {
        return Err(Failure::new(Reason::Stopping, "this Router is stopping"));
    }
    let request = InvokeRequest::decode(&message[message::PREFIX_BYTES..])
        .map_err(|_| Failure::field("request", "the message is not an InvokeRequest"))?;
    let arrived_ms = activation::epoch_ms();
    let mut call = Call {
        shared,
        action: check_action(request.action)?,
        deadline,
        is_nested,
        arrived,
        arrived_ms,
        alarm: pin!(sleep_until((arrived + NEVER).into())),
        splice: Splice::new(request.payload, request.activation_id, || {
            shared.make_id(arrived_ms)
        })?,
    };
    loop {
        let (given, has_waited) = match shared.acquire(call.action, is_forwarded) {
            Acquired::Given(given) => (given, false),
            Acquired::Waits(wait) => {
                let Some(given) = call.wait(wait, reply).await? else {
                    return Ok(());
                };
                (given, true)
            }
            Acquired::Forward(peer) => {
                // Boxed: a call that is not forwarded need not carry the room for it.
                if Box::pin(call.forward(&peer, &message, reply))
                    .await?
                    .is_some()
                {
                    return Ok(());
                }
                shared.leave_out(call.action, &peer);
                continue;
            }
            Acquired::Failed(failure) => return Err(failure),
        };
        if let Some(answer) = call.run(given, has_waited, reply).await? {
            reply.answer(answer).await;
            return Ok(());
        }
        if reply.is_given() {
            return Ok(());
        }
    }
}

/// A call that was read and checked. What its steps return: `Some` when the call is over, `None` when the request surely
/// never reached code and is to be tried elsewhere.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) action: &'a str,
    pub(crate) deadline: Option<Instant>,
    pub(crate) is_nested: bool,
    pub(crate) arrived: Instant,
    /// The same, since 1970.
    pub(crate) arrived_ms: u64,
    pub(crate) alarm: Pin<&'a mut Sleep>,
    pub(crate) splice: Splice<'a>,
}

/// Who is told what becomes of a run; the first word counts.
pub(crate) trait Told {
    fn fail(&mut self, failure: &Failure);
    fn is_given(&self) -> bool;
}

impl Told for Reply<'_> {
    fn fail(&mut self, failure: &Failure) {
        Reply::fail(self, failure);
    }

    fn is_given(&self) -> bool {
        Reply::is_given(self)
    }
}

impl Call<'_> {
    /// Waits for a slot; None when the client has left.
    async fn wait(
        &mut self,
        mut wait: Wait,
        reply: &mut Reply<'_>,
    ) -> Result<Option<Given>, Failure> {
        let settings = &self.shared.settings;
        let patience = if self.is_nested {
            settings.nested_max_wait.min(settings.max_wait)
        } else {
            settings.max_wait
        };
        let limit = self.arrived + patience;
        let until = self.deadline.map_or(limit, |deadline| deadline.min(limit));
        self.alarm.as_mut().reset(until.into());
        let has_left = tokio::select! {
            biased;
            decision = &mut wait.decision => {
                self.shared.served(self.action, &wait);
                return match decision {
                    Ok(decision) => decision.map(Some),
                    Err(_) => Err(Failure::new(Reason::Stopping, "this Router has stopped")),
                };
            }
            () = self.alarm.as_mut() => false,
            () = reply.left() => true,
        };
        let retry = self.shared.leave(self.action, wait);
        if has_left {
            return Ok(None);
        }
        if until < limit {
            return Err(deadline_passed("while the request waited for a slot"));
        }
        Err(self.waited(patience).retry(retry))
    }

    #[cold]
    fn waited(&self, patience: Duration) -> Failure {
        if !self.is_nested {
            let what = format!("no slot came free within {patience:?}");
            return Failure::new(Reason::MaxWait, what);
        }
        let what = format!(
            "no slot of {} came free within {patience:?}, and its caller is an action, whose own slot is taken while it \
             waits: room for more containers helps (`containers_max`, memory), or a higher concurrency of either, or to \
             answer first and have the caller's caller invoke",
            self.action
        );
        Failure::new(Reason::MaxWait, what).with("nested", "true")
    }

    /// Runs the request in the slot that it was given; its answer, or None if it surely never reached code.
    pub(crate) async fn run(
        &mut self,
        mut given: Given,
        has_waited: bool,
        reply: &mut impl Told,
    ) -> Result<Option<Bytes>, Failure> {
        let shared = self.shared;
        let target = given.target.clone();
        let started = Instant::now();
        let times_out = started + target.timeout;
        self.alarm.as_mut().reset(
            self.deadline
                .map_or(times_out, |at| at.min(times_out))
                .into(),
        );
        let since = started - self.arrived;
        let waited = if has_waited { since } else { Duration::ZERO };
        let times_out_ms = self.arrived_ms + millis(since + target.timeout);
        let tail = self.splice.tail(times_out_ms);
        let run = Run {
            pieces: self.splice.pieces(&target.frame, &tail),
        };
        let limits = Limits {
            answer_bytes_max: shared.settings.response_bytes_max,
        };
        let mut is_overrun = false;
        let outcome = {
            let mut ended = pin!(target.ended());
            let mut answer = pin!(given.connection.run(run, &limits));
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut answer => break Ok(outcome),
                    how = &mut ended => break Err(how),
                    () = self.alarm.as_mut(), if !is_overrun => {
                        // The client is told; the slot stays taken until the answer has come.
                        is_overrun = Instant::now() >= times_out;
                        if is_overrun {
                            reply.fail(&action_timeout(target.timeout));
                            shared.overrun(&target);
                        } else {
                            reply.fail(&deadline_passed("while the action ran"));
                            self.alarm.as_mut().reset(times_out.into());
                        }
                    }
                }
            }
        };
        match outcome {
            Ok(Ok(answer)) => {
                let run = given.connection.answered() - started;
                let message = self.encode(&answer, waited, run, &target.id);
                drop(answer);
                shared.release(given, run);
                message.map(Some)
            }
            Ok(Err(RunError::Refused(_))) => {
                shared.set_aside(given);
                Ok(None)
            }
            Ok(Err(error)) => {
                if error.is_over() {
                    shared.release(given, started.elapsed());
                } else {
                    shared.strand(given, is_overrun);
                }
                if matches!(error, RunError::Broken(_)) && !reply.is_given() {
                    // A container that ends breaks its connections first.
                    if let Ok(how) = timeout(ENDING_TIMEOUT, target.ended()).await {
                        return Err(container_ended(how));
                    }
                }
                Err(run_failure(&error))
            }
            Err(how) => {
                // Its slot is void already.
                drop(given);
                Err(container_ended(how))
            }
        }
    }

    fn encode(
        &self,
        answer: &Answer,
        wait: Duration,
        run: Duration,
        container: &str,
    ) -> Result<Bytes, Failure> {
        if let Err(error) = json::validate_object(&answer.body) {
            let what = format!("the container's answer (status {}): {error}", answer.status);
            return Err(Failure::new(Reason::BadAnswer, what));
        }
        let (status, body, activation_id) = (answer.status, &answer.body[..], self.splice.id());
        Ok(InvokeResponse {
            activation_id,
            status,
            body,
            wait,
            run,
            container,
        }
        .encode())
    }

    /// Has a peer run the request.
    async fn forward(
        &mut self,
        peer: &Peer,
        message: &Bytes,
        reply: &mut Reply<'_>,
    ) -> Result<Option<()>, Failure> {
        self.alarm
            .as_mut()
            .reset(self.deadline.unwrap_or(self.arrived + NEVER).into());
        let forwarding = peer.forward(message, self.deadline, self.is_nested, self.shared);
        tokio::select! {
            biased;
            outcome = forwarding => match outcome {
                Forwarded::Answer(answer) => {
                    reply.relay(*answer).await;
                    Ok(Some(()))
                }
                Forwarded::NotRun => Ok(None),
                Forwarded::Lost(failure) => Err(failure),
            },
            () = self.alarm.as_mut() => Err(deadline_passed("at the Router that had a slot")),
            () = reply.left() => Ok(Some(())),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cold]
fn action_timeout(timeout: Duration) -> Failure {
    Failure::new(
        Reason::ActionTimeout,
        format!("the action ran past its timeout of {timeout:?}"),
    )
}

#[cold]
fn container_ended(how: &str) -> Failure {
    let mut what = "the container ended while the action ran".to_owned();
    if !how.is_empty() {
        what = format!("{what}: {how}");
    }
    Failure::new(Reason::ContainerLost, what)
}

#[cold]
fn run_failure(error: &RunError) -> Failure {
    let reason = match error {
        RunError::Refused(_) | RunError::Broken(_) => Reason::ContainerLost,
        RunError::BadAnswer(_) => Reason::BadAnswer,
        RunError::TooLarge { limit_bytes, .. } => {
            return Failure::new(Reason::ResultTooLarge, error.to_string())
                .with("limit_bytes", limit_bytes.to_string());
        }
    };
    Failure::new(reason, error.to_string())
}
