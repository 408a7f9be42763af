//! One `Submit`: read, checked, handed to the store's thread, answered when it is on disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::time::timeout_at;

use crate::activation;
use crate::asked::{Asked, check_action, deadline_passed};
use crate::failure::{Failure, Reason};
use crate::message::{self, ReadError};
use crate::reply::Reply;
use crate::settings::RECEIVE_TIMEOUT;
use crate::shared::Shared;
use crate::splice::Splice;
use crate::submissions::Submission;
use crate::wire::{InvokeRequest, put_bytes};

/// How long the store may take, its own time-outs included.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);
const KEY_BYTES_MAX: usize = 128;

/// Serves one call to its end.
pub(crate) async fn submit(
    shared: Arc<Shared>,
    asked: Result<Asked, Failure>,
    body: RecvStream,
    respond: SendResponse<Bytes>,
) {
    let _running = shared.enter();
    let mut reply = Reply::new(respond, &shared);
    let outcome = match asked {
        Ok(asked) => serve(&shared, asked, body).await,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(Some(id)) => reply.answer(encode(&id)).await,
        Ok(None) => {}
        Err(failure) => reply.fail(&failure),
    }
}

/// The activation's id; None if the client has left.
async fn serve(shared: &Shared, asked: Asked, body: RecvStream) -> Result<Option<String>, Failure> {
    let arrived = asked.arrived;
    let patience = asked
        .deadline
        .map_or(RECEIVE_TIMEOUT, |at| RECEIVE_TIMEOUT.min(at - arrived));
    let message = match message::read(body, shared.settings.request_bytes_max, patience).await {
        Ok(message) => message,
        Err(ReadError::Left) => return Ok(None),
        Err(ReadError::Failed(failure)) => return Err(failure),
    };
    let _held = shared.hold(message.len())?;
    if shared.is_stopping() {
        return Err(Failure::new(Reason::Stopping, "this Router is stopping"));
    }
    let submission = check(shared, &message[message::PREFIX_BYTES..])?;
    let told = shared.submissions.push(submission)?;
    let limit = Instant::now() + STORE_TIMEOUT;
    let until = asked.deadline.map_or(limit, |deadline| deadline.min(limit));
    match timeout_at(until.into(), told).await {
        Ok(Ok(told)) => told.map(Some),
        Ok(Err(_)) => Err(Failure::new(
            Reason::StoreUnavailable,
            "the Router stopped before the store had answered: the invocation may be accepted",
        )),
        Err(_) if until < limit => Err(deadline_passed(
            "before the store had answered: the invocation may be accepted",
        )),
        Err(_) => Err(Failure::new(
            Reason::StoreUnavailable,
            "the store did not answer in time: the invocation may be accepted",
        )),
    }
}

/// The fields of `SubmitRequest` have the numbers of `InvokeRequest`'s; the third is the key here.
fn check(shared: &Shared, message: &[u8]) -> Result<Submission, Failure> {
    let request = InvokeRequest::decode(message)
        .map_err(|_| Failure::field("request", "the message is not a SubmitRequest"))?;
    let action = check_action(request.action)?.to_owned();
    let now_ms = activation::epoch_ms();
    let id = Splice::new(request.payload, b"", || shared.make_id(now_ms))?
        .id()
        .to_owned();
    let key = request.activation_id;
    if key.len() > KEY_BYTES_MAX || !key.iter().all(u8::is_ascii_graphic) {
        let what = "an idempotency_key is up to 128 printable ASCII characters without spaces";
        return Err(Failure::field("idempotency_key", what));
    }
    let key = (!key.is_empty()).then(|| String::from_utf8_lossy(key).into_owned());
    let payload = request.payload.to_vec();
    Ok(Submission {
        id,
        action,
        payload,
        key,
    })
}

/// The gRPC message with a `SubmitResponse`.
fn encode(id: &str) -> Bytes {
    let mut fields = Vec::with_capacity(id.len() + 2);
    put_bytes(&mut fields, 1, id.as_bytes());
    let mut out = Vec::with_capacity(message::PREFIX_BYTES + fields.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(fields.len()).expect("an id is short"));
    out.extend_from_slice(&fields);
    out.into()
}
