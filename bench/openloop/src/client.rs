//! HTTP/2 connections to the front doors, opened anew whenever they break, and one call on them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Version};
use tokio::net::TcpStream;

use crate::report::Ending;
use crate::wire::{ending, field, seen};

const RECONNECT: Duration = Duration::from_millis(20);
const WINDOW: u32 = 1 << 20;

/// One connection, or the next one in its place.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    sender: RefCell<Option<SendRequest<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            address,
            sender: RefCell::new(None),
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Keeps it open, for ever.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            if let Ok(stream) = TcpStream::connect(self.address).await {
                _ = stream.set_nodelay(true);
                let builder = h2::client::Builder::new()
                    .initial_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW * 16)
                    .clone();
                if let Ok((sender, connection)) = builder.handshake::<_, Bytes>(stream).await {
                    *self.sender.borrow_mut() = Some(sender);
                    _ = connection.await;
                    *self.sender.borrow_mut() = None;
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// One call, to its end.
    pub(crate) async fn invoke(&self, body: Bytes, timeout: Duration) -> Ending {
        let sender = self.sender.borrow().clone();
        let Some(sender) = sender else {
            return Ending::Failed("connection".to_owned());
        };
        call(sender, body, timeout)
            .await
            .unwrap_or_else(|_| Ending::Failed("connection".to_owned()))
    }
}

async fn call(
    sender: SendRequest<Bytes>,
    body: Bytes,
    timeout: Duration,
) -> Result<Ending, h2::Error> {
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri("http://slotway/slotway.v1.RouterService/Invoke")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", timeout.as_millis().max(1)))
        .body(())
        .expect("a request that is well-formed");
    let (answer, mut stream) = sender.ready().await?.send_request(request, false)?;
    stream.send_data(body, true)?;
    let answer = answer.await?;
    if answer.body().is_end_stream() {
        return Ok(failed(answer.headers()));
    }
    let mut body = answer.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    if !ending(&trailers).is_empty() {
        return Ok(failed(&trailers));
    }
    let message = message.get(5..).unwrap_or_default();
    Ok(match field(message, 2) {
        Some(result) => Ending::Ok(seen(result)),
        None => Ending::Failed("application error".to_owned()),
    })
}

fn failed(trailers: &HeaderMap) -> Ending {
    Ending::Failed(ending(trailers))
}
