//! One `Invoke`: read, checked, given a slot, run, answered.
//!
//! The call is a task of its own, which nobody aborts: whatever becomes of its client, a slot that it was given goes back
//! when the container's answer has ended, and not before.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::{Sleep, sleep_until, timeout};

use crate::activation;
use crate::container::{Answer, Limits, Run, RunError};
use crate::deadline::{self, GRPC_TIMEOUT};
use crate::failure::{Failure, GRPC, GRPC_STATUS, Reason};
use crate::json;
use crate::message::{self, ReadError};
use crate::passthrough;
use crate::peers::{FORWARDED, Forwarded, Peer, PeerAnswer};
use crate::settings::{RECEIVE_TIMEOUT, SEND_TIMEOUT};
use crate::shared::Shared;
use crate::splice::Splice;
use crate::state::{Acquired, Given, Wait};
use crate::wire::{InvokeRequest, InvokeResponse};

/// An alarm that is not set.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// An answer up to this size is given to the connection at once; a larger one as the client takes it.
const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// Serves one call to its end.
pub(crate) async fn invoke(
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let arrived = Instant::now();
    let _running = shared.enter();
    let (head, body) = request.into_parts();
    let mut reply = Reply {
        respond: Some(respond),
        shared: &shared,
    };
    if let Err(failure) = serve(&shared, arrived, head.headers, body, &mut reply).await {
        reply.fail(&failure);
    }
}

async fn serve(
    shared: &Shared,
    arrived: Instant,
    headers: HeaderMap,
    body: RecvStream,
    reply: &mut Reply<'_>,
) -> Result<(), Failure> {
    let (deadline, is_forwarded) = read_headers(&headers, arrived)?;
    drop(headers);
    let patience = deadline.map_or(RECEIVE_TIMEOUT, |at| RECEIVE_TIMEOUT.min(at - arrived));
    let message = match message::read(body, shared.settings.request_bytes_max, patience).await {
        Ok(message) => message,
        Err(ReadError::Left) => return Ok(()),
        Err(ReadError::Failed(failure)) => return Err(failure),
    };
    let _held = shared.budget.take(message.len()).ok_or_else(|| {
        Failure::new(
            Reason::QueueFull,
            "this Router holds as many bytes as it may",
        )
        .retry(Duration::from_secs(1))
    })?;
    if shared.is_stopping() {
        return Err(Failure::new(Reason::Stopping, "this Router is stopping"));
    }
    let request = InvokeRequest::decode(&message[message::PREFIX_BYTES..])
        .map_err(|_| Failure::field("request", "the message is not an InvokeRequest"))?;
    let mut call = Call {
        shared,
        action: check_action(request.action)?,
        deadline,
        arrived,
        alarm: pin!(sleep_until((arrived + NEVER).into())),
        splice: Splice::new(request.payload, request.activation_id, || shared.make_id())?,
    };
    loop {
        match shared.acquire(call.action, is_forwarded) {
            Acquired::Given(given) => {
                if call.run(given, Duration::ZERO, reply).await?.is_some() {
                    return Ok(());
                }
            }
            Acquired::Waits(wait) => {
                let Some(given) = call.wait(wait, reply).await? else {
                    return Ok(());
                };
                if call.run(given, arrived.elapsed(), reply).await?.is_some() {
                    return Ok(());
                }
            }
            Acquired::Forward(peer) => {
                if call.forward(&peer, &message, reply).await?.is_some() {
                    return Ok(());
                }
                shared.leave_out(call.action, &peer);
            }
            Acquired::Failed(failure) => return Err(failure),
        }
    }
}

/// The caller's deadline, and whether another Router sent this.
fn read_headers(headers: &HeaderMap, arrived: Instant) -> Result<(Option<Instant>, bool), Failure> {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(Failure::field(
            "content-type",
            "this is a gRPC method: application/grpc",
        ));
    }
    let deadline = match headers.get(GRPC_TIMEOUT) {
        Some(value) => {
            let what = "a grpc-timeout is up to eight digits and one of H, M, S, m, u, n";
            let left =
                deadline::parse(value).ok_or_else(|| Failure::field("grpc-timeout", what))?;
            Some(arrived + left.min(NEVER))
        }
        None => None,
    };
    Ok((deadline, headers.contains_key(FORWARDED)))
}

/// "namespace/name", each part of the pattern `[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}`.
pub(crate) fn check_action(name: &[u8]) -> Result<&str, Failure> {
    let is_part = |part: &[u8]| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (1..=64).contains(&part.len())
            && is_word(part[0])
            && part
                .iter()
                .all(|byte| is_word(*byte) || b".@-".contains(byte))
    };
    let mut parts = name.split(|byte| *byte == b'/');
    if let (Some(namespace), Some(action), None) = (parts.next(), parts.next(), parts.next())
        && is_part(namespace)
        && is_part(action)
        && let Ok(name) = std::str::from_utf8(name)
    {
        return Ok(name);
    }
    let what = "an action is named namespace/name, each part [A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}";
    Err(Failure::field("action", what))
}

/// A call that was read and checked. What its steps return: `Some` when the call is over, `None` when the request surely
/// never reached code and is to be tried elsewhere.
struct Call<'a> {
    shared: &'a Shared,
    action: &'a str,
    deadline: Option<Instant>,
    arrived: Instant,
    alarm: Pin<&'a mut Sleep>,
    splice: Splice<'a>,
}

impl Call<'_> {
    /// Waits for a slot; None when the client has left.
    async fn wait(
        &mut self,
        mut wait: Wait,
        reply: &mut Reply<'_>,
    ) -> Result<Option<Given>, Failure> {
        let limit = self.arrived + self.shared.settings.max_wait;
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
        let what = format!(
            "no slot came free within {:?}",
            self.shared.settings.max_wait
        );
        Err(Failure::new(Reason::MaxWait, what).retry(retry))
    }

    /// Runs the request in the slot that it was given.
    async fn run(
        &mut self,
        mut given: Given,
        waited: Duration,
        reply: &mut Reply<'_>,
    ) -> Result<Option<()>, Failure> {
        let shared = self.shared;
        let target = given.target.clone();
        let started = Instant::now();
        let times_out = started + target.timeout;
        self.alarm.as_mut().reset(
            self.deadline
                .map_or(times_out, |at| at.min(times_out))
                .into(),
        );
        let tail = self
            .splice
            .tail(activation::epoch_ms() + target.timeout_ms());
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
                    outcome = &mut answer => break Some(outcome),
                    () = &mut ended => break None,
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
        let run = started.elapsed();
        match outcome {
            Some(Ok(answer)) => {
                let message = self.encode(&answer, waited, run, &target.id);
                drop(answer);
                shared.release(given, run);
                reply.answer(message?).await;
                Ok(Some(()))
            }
            Some(Err(RunError::Refused(_))) => {
                shared.set_aside(given);
                Ok(reply.respond.is_none().then_some(()))
            }
            Some(Err(error)) => {
                if error.is_over() {
                    shared.release(given, run);
                } else {
                    shared.strand(given, is_overrun);
                }
                Err(run_failure(&error))
            }
            None => {
                // Its slot is void already.
                drop(given);
                Err(Failure::new(
                    Reason::ContainerLost,
                    "the container ended while the action ran",
                ))
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
        // Boxed: a call that is not forwarded need not carry the room for it.
        let forwarding = Box::pin(peer.forward(message, self.deadline, self.shared));
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

#[cold]
fn deadline_passed(when: &str) -> Failure {
    Failure::new(Reason::Deadline, format!("the deadline passed {when}"))
}

#[cold]
fn action_timeout(timeout: Duration) -> Failure {
    Failure::new(
        Reason::ActionTimeout,
        format!("the action ran past its timeout of {timeout:?}"),
    )
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

/// The way back to the client, used once.
struct Reply<'a> {
    respond: Option<SendResponse<Bytes>>,
    shared: &'a Shared,
}

impl Reply<'_> {
    /// Ready when the client is gone; never once it was answered.
    async fn left(&mut self) {
        poll_fn(|context: &mut Context<'_>| match &mut self.respond {
            Some(respond) => respond.poll_reset(context).map(|_| ()),
            None => Poll::Pending,
        })
        .await;
    }

    fn fail(&mut self, failure: &Failure) {
        if let Some(mut respond) = self.respond.take() {
            self.shared.counters.failed(failure.reason());
            // A client that is gone is not told.
            _ = respond.send_response(failure.response(), true);
        }
    }

    async fn answer(&mut self, message: Bytes) {
        if self.respond.is_some() {
            let mut head = Response::new(());
            head.headers_mut().insert(CONTENT_TYPE, GRPC);
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
            self.relay(PeerAnswer {
                head,
                body: message,
                trailers: Some(trailers),
            })
            .await;
        }
    }

    async fn relay(&mut self, answer: PeerAnswer) {
        let Some(mut respond) = self.respond.take() else {
            return;
        };
        self.shared.counters.answered();
        let PeerAnswer {
            head,
            body,
            trailers,
        } = answer;
        let Ok(mut stream) = respond.send_response(head, trailers.is_none()) else {
            return;
        };
        let Some(trailers) = trailers else { return };
        if body.len() <= WHOLE_BYTES_MAX {
            if stream.send_data(body, false).is_err() {
                return;
            }
        } else {
            let _held = self.shared.budget.take(body.len());
            match timeout(SEND_TIMEOUT, passthrough::send(&mut stream, body)).await {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(_) => return stream.send_reset(h2::Reason::CANCEL),
            }
        }
        _ = stream.send_trailers(trailers);
    }
}
