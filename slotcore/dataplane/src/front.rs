//! The front door: accepts connections, finds out what they speak, and hands each request to who serves it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason as Reset, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::asked::Asked;
use crate::failure::{Failure, Reason};
use crate::invoke::invoke;
use crate::link::keep_alive;
use crate::passthrough;
use crate::settings::{
    CLOSE_TIMEOUT, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, HEADER_BYTES_MAX, RECEIVE_TIMEOUT,
    RESETS_MAX, STREAM_WINDOW_BYTES, STREAMS_MAX,
};
use crate::shared::Shared;
use crate::submit::submit;

pub(crate) const INVOKE: &str = "/slotway.v1.RouterService/Invoke";
const SUBMIT: &str = "/slotway.v1.RouterService/Submit";
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NOT_HTTP2: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\n\
    content-length: 70\r\nconnection: close\r\n\r\n\
    gRPC here: this port speaks HTTP/2 without TLS and without an upgrade\n";

/// What a connection speaks.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    Http2,
    Other,
}

/// Decides by a connection's first bytes; None if it takes more of them.
fn recognise(first: &[u8]) -> Option<Protocol> {
    let length = first.len().min(PREFACE.len());
    if first[..length] != PREFACE[..length] {
        return Some(Protocol::Other);
    }
    (length == PREFACE.len()).then_some(Protocol::Http2)
}

/// Who comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Clients, other Routers, and whoever else reaches the address.
    Everyone,
    /// Actions: they invoke, and nothing else.
    Actions,
}

/// Opens a door that is bound; see `listen`.
pub(crate) async fn open(
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    closing: watch::Receiver<bool>,
    door: Door,
) {
    match TcpListener::from_std(listener) {
        Ok(listener) => listen(shared, listener, closing, door).await,
        Err(error) => eprintln!("slotway: the front door cannot open: {error}"),
    }
}

/// Accepts until `closing` is set, then lets what is written go out.
async fn listen(
    shared: Arc<Shared>,
    listener: TcpListener,
    closing: watch::Receiver<bool>,
    door: Door,
) {
    let mut connections = JoinSet::new();
    let mut closes = closing.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(serve(shared.clone(), stream, closing.clone(), door));
                }
                Ok(_) => {}
                // Out of descriptors: what is open goes on, and some of it will close.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = closes.wait_for(|is_closing| *is_closing) => break,
        }
    }
    drop(listener);
    _ = timeout(CLOSE_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn serve(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    closing: watch::Receiver<bool>,
    door: Door,
) {
    if stream
        .set_nodelay(true)
        .and_then(|()| keep_alive(&stream))
        .is_err()
    {
        return;
    }
    shared.counters.connected();
    let mut first = Vec::with_capacity(256);
    let protocol = timeout(RECEIVE_TIMEOUT, async {
        loop {
            if let Some(protocol) = recognise(&first) {
                return Some(protocol);
            }
            if stream.read_buf(&mut first).await.ok()? == 0 {
                return None;
            }
        }
    });
    match protocol.await {
        Ok(Some(Protocol::Http2)) => {
            // An error is the client's: its connection is gone, or it broke the protocol and was told so.
            _ = serve_http2(
                shared,
                Rewound {
                    first: first.into(),
                    stream,
                },
                closing,
                door,
            )
            .await;
        }
        Ok(Some(Protocol::Other)) => {
            _ = timeout(RECEIVE_TIMEOUT, stream.write_all(NOT_HTTP2)).await;
        }
        Ok(None) | Err(_) => {}
    }
}

async fn serve_http2(
    shared: Arc<Shared>,
    stream: Rewound,
    mut closing: watch::Receiver<bool>,
    door: Door,
) -> Result<(), h2::Error> {
    let handshake = server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_concurrent_reset_streams(RESETS_MAX)
        .handshake::<_, Bytes>(stream);
    let Ok(connection) = timeout(RECEIVE_TIMEOUT, handshake).await else {
        return Ok(());
    };
    let mut connection = connection?;
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            request = poll_fn(|context| connection.poll_accept(context)) => match request.transpose()? {
                Some((request, respond)) => route(&shared, door, request, respond),
                None => return Ok(()),
            },
            _ = closing.changed(), if !is_closing => {
                is_closing = true;
                connection.graceful_shutdown();
            }
        }
    }
}

fn route(
    shared: &Arc<Shared>,
    door: Door,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let shared = shared.clone();
    let is_invoke = request.uri().path() == INVOKE;
    if is_invoke || request.uri().path() == SUBMIT {
        if request.method() == Method::POST {
            let (head, body) = request.into_parts();
            let asked = Asked::read(&head.headers, door);
            // Boxed: a task is moved several times until it rests, and these are large.
            if is_invoke {
                tokio::spawn(Box::pin(invoke(shared, asked, body, respond)));
            } else {
                tokio::spawn(Box::pin(submit(shared, asked, body, respond)));
            }
        } else {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            _ = respond.send_response(answer, true);
        }
    } else if request.method() == Method::CONNECT {
        respond.send_reset(Reset::REFUSED_STREAM);
    } else if door == Door::Actions {
        let what =
            "here actions invoke one another, and RouterService/Invoke and Submit are all there is";
        _ = respond.send_response(Failure::new(Reason::Unsupported, what).response(), true);
    } else {
        tokio::spawn(async move { passthrough::pass(&shared.upstream, request, respond).await });
    }
}

/// A stream with the bytes before it that were read already.
struct Rewound {
    first: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_is_spoken() {
        assert_eq!(recognise(b""), None);
        assert_eq!(recognise(b"PRI * HT"), None);
        assert_eq!(
            recognise(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0"),
            Some(Protocol::Http2)
        );
        for other in [
            &b"P\0"[..],
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PRI * HTTP/1.1",
        ] {
            assert_eq!(recognise(other), Some(Protocol::Other));
        }
    }

    #[test]
    fn the_answer_to_other_protocols_has_the_length_that_it_tells() {
        let text = std::str::from_utf8(NOT_HTTP2).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
