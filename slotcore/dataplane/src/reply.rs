//! The way back to the client.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use tokio::time::timeout;

use crate::failure::{Failure, GRPC, GRPC_STATUS};
use crate::passthrough;
use crate::peers::PeerAnswer;
use crate::settings::SEND_TIMEOUT;
use crate::shared::Shared;

/// An answer up to this size is given to the connection at once; a larger one as the client takes it.
const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// The way back to the client, used once.
pub(crate) struct Reply<'a> {
    respond: Option<SendResponse<Bytes>>,
    shared: &'a Shared,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(respond: SendResponse<Bytes>, shared: &'a Shared) -> Self {
        Self {
            respond: Some(respond),
            shared,
        }
    }

    /// The client has been told what became of its call.
    pub(crate) fn is_given(&self) -> bool {
        self.respond.is_none()
    }

    /// Ready when the client is gone; never once it was answered.
    pub(crate) async fn left(&mut self) {
        poll_fn(|context: &mut Context<'_>| match &mut self.respond {
            Some(respond) => respond.poll_reset(context).map(|_| ()),
            None => Poll::Pending,
        })
        .await;
    }

    /// Tells the client why its call failed, unless it was told something before.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if let Some(mut respond) = self.respond.take() {
            self.shared.counters.failed(failure.reason());
            // A client that is gone is not told.
            _ = respond.send_response(failure.response(), true);
        }
    }

    /// Status, message and trailers, handed over together.
    pub(crate) async fn answer(&mut self, message: Bytes) {
        let mut head = Response::new(());
        head.headers_mut().insert(CONTENT_TYPE, GRPC);
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        let Some(mut respond) = self.respond.take() else {
            return;
        };
        self.shared.counters.answered();
        let Ok(mut stream) = respond.send_response(head, false) else {
            return;
        };
        if message.len() > WHOLE_BYTES_MAX {
            // Boxed: most answers need no room for it.
            return Box::pin(self.stream(stream, message, trailers)).await;
        }
        if stream.send_data(message, false).is_ok() {
            _ = stream.send_trailers(trailers);
        }
    }

    /// Sends as the client takes it.
    async fn stream(&self, mut stream: SendStream<Bytes>, message: Bytes, trailers: HeaderMap) {
        let _held = self.shared.budget.take(message.len());
        match timeout(SEND_TIMEOUT, passthrough::send(&mut stream, message)).await {
            Ok(Some(())) => _ = stream.send_trailers(trailers),
            Ok(None) => {}
            Err(_) => stream.send_reset(h2::Reason::CANCEL),
        }
    }

    /// A peer's answer as it came.
    pub(crate) async fn relay(&mut self, answer: PeerAnswer) {
        let Some(mut respond) = self.respond.take() else {
            return;
        };
        self.shared.counters.answered();
        let PeerAnswer {
            head,
            body,
            trailers,
        } = answer;
        let Ok(stream) = respond.send_response(head, trailers.is_none()) else {
            return;
        };
        if let Some(trailers) = trailers {
            self.stream(stream, body, trailers).await;
        }
    }
}
