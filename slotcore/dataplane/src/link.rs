//! One HTTP/2 connection to another server, opened when it is needed: to the Python server, or to a peer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::settings::{CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES};

#[derive(Debug)]
pub(crate) enum Place {
    Unix(PathBuf),
    /// host:port
    Tcp(String),
}

/// One connection, shared by all its users.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    sender: Mutex<Option<SendRequest<Bytes>>>,
}

impl Link {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            sender: Mutex::new(None),
        }
    }

    /// Ready to send a request; connects if need be. On an error nothing was sent.
    pub(crate) async fn ready(&self) -> io::Result<SendRequest<Bytes>> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref()
            && let Ok(ready) = sender.clone().ready().await
        {
            return Ok(ready);
        }
        *kept = None;
        let connecting = timeout(CONNECT_TIMEOUT, self.connect());
        let sender = connecting
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        *kept = Some(sender.clone());
        drop(kept);
        sender.ready().await.map_err(io::Error::other)
    }

    async fn connect(&self) -> io::Result<SendRequest<Bytes>> {
        match &self.place {
            Place::Unix(path) => handshake(UnixStream::connect(path).await?).await,
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<T>(io: T) -> io::Result<SendRequest<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = client::Builder::new()
        // A stream's own window stays small: callers who do not read must not use up the window that all share.
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(64 * 1024)
        .enable_push(false)
        .handshake::<T, Bytes>(io)
        .await
        .map_err(io::Error::other)?;
    // Its end shows itself to whoever uses the sender.
    tokio::spawn(async move { _ = connection.await });
    Ok(sender)
}

/// Lets the kernel find out when the other host is gone.
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Whether the other server surely did not look at the request.
pub(crate) fn is_unseen(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}
