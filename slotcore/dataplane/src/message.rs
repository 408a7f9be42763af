//! One gRPC message, read while it streams in, within its limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use tokio::time::timeout;

use crate::failure::{Failure, Reason};

/// Flag and length before each message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Bytes that are held for requests and answers, of all connections together.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
        }
    }

    pub(crate) fn take(&self, bytes: usize) -> Option<Share<'_>> {
        let share = Share {
            budget: self,
            bytes,
        };
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= self.max).then_some(share)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The client is gone.
    Left,
    /// The client is to be told.
    Failed(Failure),
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Reads the one message of a unary call; the bytes include the prefix.
pub(crate) async fn read(
    mut body: RecvStream,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, ReadError> {
    let Some(first) = chunk(&mut body, patience).await? else {
        return Err(Failure::field("request", "the call carries no message").into());
    };
    // Most requests are one frame.
    if is_whole(&first, limit)? && body.is_end_stream() {
        return Ok(first);
    }
    let length = first.len();
    _ = body.flow_control().release_capacity(length);
    let rest = timeout(patience, gather(&mut body, first, limit, patience));
    rest.await.unwrap_or_else(|_| Err(too_slow().into()))
}

async fn gather(
    body: &mut RecvStream,
    first: Bytes,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, ReadError> {
    let mut message = BytesMut::from(first);
    while let Some(more) = chunk(body, patience).await? {
        _ = body.flow_control().release_capacity(more.len());
        message.extend_from_slice(&more);
        is_whole(&message, limit)?;
    }
    if is_whole(&message, limit)? {
        return Ok(message.freeze());
    }
    Err(Failure::field(
        "request",
        "the message ends before the length that it tells",
    )
    .into())
}

/// Whether the message is complete; checks all that can be told from what has come.
fn is_whole(message: &[u8], limit: usize) -> Result<bool, Failure> {
    let Some((prefix, rest)) = message.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(false);
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if flag != 0 {
        let what = "the message is compressed; send it with grpc-encoding: identity";
        return Err(Failure::new(Reason::Unsupported, what));
    }
    if length > limit {
        let what = format!("the request has {length} bytes; the limit is {limit}");
        return Err(
            Failure::new(Reason::RequestTooLarge, what).with("limit_bytes", limit.to_string())
        );
    }
    if rest.len() > length {
        return Err(Failure::field(
            "request",
            "a unary call carries one message",
        ));
    }
    Ok(rest.len() == length)
}

async fn chunk(body: &mut RecvStream, patience: Duration) -> Result<Option<Bytes>, ReadError> {
    match timeout(patience, body.data()).await {
        Ok(Some(Ok(data))) => Ok(Some(data)),
        Ok(Some(Err(_))) => Err(ReadError::Left),
        Ok(None) => Ok(None),
        Err(_) => Err(too_slow().into()),
    }
}

fn too_slow() -> Failure {
    Failure::new(
        Reason::Deadline,
        "the request did not come to its end in time",
    )
}
