//! Calls that are not served natively: passed on to the Python server as they are, both ways at once.
//!
//! Headers, messages, trailers and resets cross unchanged, a deadline in its own header, and flow control end to end: a
//! part is taken from one side only when the other side has room for it.

use std::future::{pending, poll_fn};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason as Reset, RecvStream, SendStream};
use http::{Request, Response};

use crate::failure::{Failure, Reason};
use crate::link::Link;

/// Passes one call on; returns when it has ended on both sides, or one of them is gone.
pub(crate) async fn pass(
    link: &Link,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let mut sender = match link.ready().await {
        Ok(sender) => sender,
        Err(error) => return refuse(&mut respond, &error.to_string()),
    };
    let (mut parts, body) = request.into_parts();
    parts.extensions.clear();
    let is_empty = body.is_end_stream();
    match sender.send_request(Request::from_parts(parts, ()), is_empty) {
        Ok((answer, target)) => tokio::select! {
            () = upward(body, target, is_empty) => {}
            () = downward(answer, respond) => {}
        },
        Err(error) => refuse(&mut respond, &error.to_string()),
    }
}

fn unreachable(why: &str) -> Failure {
    Failure::new(
        Reason::Stopping,
        format!("this Router's control server cannot be reached: {why}"),
    )
}

fn refuse(respond: &mut SendResponse<Bytes>, why: &str) {
    _ = respond.send_response(unreachable(why).response(), true);
}

/// The caller's messages. What becomes of the call is told by the other direction alone, so this one never returns.
async fn upward(body: RecvStream, mut target: SendStream<Bytes>, is_empty: bool) {
    if !is_empty && let Err(error) = pump(body, &mut target).await {
        target.send_reset(error.reason().unwrap_or(Reset::CANCEL));
    }
    pending::<()>().await;
}

/// The server's answer.
async fn downward(answer: ResponseFuture, mut respond: SendResponse<Bytes>) {
    let answer = tokio::select! {
        answer = answer => answer,
        _ = poll_fn(|context| respond.poll_reset(context)) => return,
    };
    let (parts, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(error) => match error.reason() {
            Some(reset) if error.is_reset() => return respond.send_reset(reset),
            _ => return refuse(&mut respond, &error.to_string()),
        },
    };
    let is_empty = body.is_end_stream();
    let Ok(mut target) = respond.send_response(Response::from_parts(parts, ()), is_empty) else {
        return;
    };
    if !is_empty && let Err(error) = pump(body, &mut target).await {
        match error.reason() {
            Some(reset) if error.is_reset() => target.send_reset(reset),
            _ => _ = target.send_trailers(unreachable(&error.to_string()).trailers()),
        }
    }
}

/// Copies one direction to its end, or until the target is gone; an error if the source breaks.
async fn pump(mut source: RecvStream, target: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    loop {
        let data = tokio::select! {
            data = source.data() => data,
            _ = poll_fn(|context| target.poll_reset(context)) => return Ok(()),
        };
        let Some(data) = data.transpose()? else { break };
        let length = data.len();
        if send(target, data).await.is_none() {
            return Ok(());
        }
        source.flow_control().release_capacity(length)?;
    }
    _ = match source.trailers().await? {
        Some(trailers) => target.send_trailers(trailers),
        None => target.send_data(Bytes::new(), true),
    };
    Ok(())
}

/// Sends as the other side has room; None when it is gone.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context))
            .await?
            .ok()?;
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, false).ok()?;
    }
    Some(())
}
