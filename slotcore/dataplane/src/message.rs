//! One gRPC message, read while it streams in, within its limits.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
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
    // Most requests are one frame, and it has come with the headers.
    let first = poll_fn(|context| Poll::Ready(body.poll_data(context))).await;
    if let Poll::Ready(Some(Ok(data))) = &first
        && is_whole(data, limit)?
        && body.is_end_stream()
    {
        return Ok(data.clone());
    }
    let gathering = gather(&mut body, first, limit);
    // Boxed: it is rare, and need not have room in every call.
    Box::pin(timeout(patience, gathering))
        .await
        .unwrap_or_else(|_| {
            let what = "the request did not come to its end in time";
            Err(Failure::new(Reason::Deadline, what).into())
        })
}

async fn gather(
    body: &mut RecvStream,
    mut next: Poll<Option<Result<Bytes, h2::Error>>>,
    limit: usize,
) -> Result<Bytes, ReadError> {
    let mut message = BytesMut::new();
    loop {
        let data = match std::mem::replace(&mut next, Poll::Pending) {
            Poll::Ready(data) => data,
            Poll::Pending => poll_fn(|context| body.poll_data(context)).await,
        };
        match data {
            Some(Ok(data)) => {
                message.extend_from_slice(&data);
                is_whole(&message, limit)?;
                _ = body.flow_control().release_capacity(data.len());
            }
            Some(Err(_)) => return Err(ReadError::Left),
            None if message.is_empty() => {
                return Err(Failure::field("request", "the call carries no message").into());
            }
            None if is_whole(&message, limit)? => return Ok(message.freeze()),
            None => {
                let what = "the message ends before the length that it tells";
                return Err(Failure::field("request", what).into());
            }
        }
    }
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
