//! A connected socket of either kind.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::address::{Address, Place};

/// A connection that rested for less was looked at by the runtime a moment ago.
const REST: Duration = Duration::from_millis(1);

/// A connected socket. It has no buffer: what was written has gone to the kernel.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) async fn connect(address: &Address) -> io::Result<Self> {
        match &address.place {
            Place::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Place::Tcp(text) => {
                let stream = TcpStream::connect(text.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Whether the other side has neither closed nor sent anything, so that a run may be written.
    ///
    /// Asks the kernel itself: an end that came before this call is always seen. Where the last answer came a moment ago, it
    /// believes the runtime, which learns of an end at its next turn, and saves a system call. For a Unix socket the runtime
    /// is always believed: where its other end is closed, the kernel takes nothing of what is written, and says so.
    pub(super) fn is_quiet(&self, answered: Instant) -> bool {
        fn peek(socket: &SockRef<'_>) -> io::Result<usize> {
            socket.peek(&mut [MaybeUninit::uninit()])
        }
        let readable = Interest::READABLE;
        let peeked = match self {
            Self::Unix(stream) => stream.try_io(readable, || peek(&SockRef::from(stream))),
            Self::Tcp(stream) if answered.elapsed() < REST => {
                stream.try_io(readable, || peek(&SockRef::from(stream)))
            }
            Self::Tcp(stream) => peek(&SockRef::from(stream)),
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}
