//! A container without an action: it answers every request at once, so that what stands before it is what a bench
//! measures. Listens on each `unix:/path` or `host:port` given, prints what it is bound to, and runs until it is killed.

use std::io::{Read, Write};
use std::{env, io};

use socket2::Socket;
use tokio::io::{Interest, unix::AsyncFd};
use tokio::net::{TcpListener, UnixListener};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 64\r\n\r\n\
    {\"answer\":\"012345678901234567890123456789012345678901234567890\"}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    for place in env::args().skip(1) {
        if let Some(path) = place.strip_prefix("unix:") {
            let listener = UnixListener::bind(path)?;
            println!("{place}");
            tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await;
                    begin(accepted.and_then(|(stream, _)| stream.into_std()));
                }
            });
        } else {
            let listener = TcpListener::bind(&place).await?;
            println!("{}", listener.local_addr()?);
            tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await;
                    begin(accepted.and_then(|(stream, _)| {
                        stream.set_nodelay(true)?;
                        stream.into_std()
                    }));
                }
            });
        }
    }
    std::future::pending().await
}

fn begin(accepted: io::Result<impl Into<Socket>>) {
    match accepted {
        Ok(stream) => drop(tokio::spawn(serve(stream.into()))),
        Err(error) => eprintln!("{error}"),
    }
}

/// Watches for input only, as a server on `select` does: of one that watches for room to write too, Linux would wake the
/// process each time its peer has read something from a Unix socket, at the peer's cost.
async fn serve(socket: Socket) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "sound here, where the socket is owned; what replaces it is an unsafe fn"
    )]
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    let mut input = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| socket.get_ref().read(&mut input[length..])) {
            Ok(Ok(0) | Err(_)) => return Ok(()),
            Ok(Ok(count)) => length += count,
            Err(_would_block) => continue,
        }
        match request_length(&input[..length]) {
            None if length < input.len() => {}
            Some(whole) if length < whole && whole <= input.len() => {}
            Some(whole) if length == whole => {
                length = 0;
                // What is told next would be an edge: there is nothing left to read.
                ready.clear_ready();
                socket.get_ref().write_all(ANSWER)?;
            }
            // More than one request at once, or one that is too large, is none of ours.
            _ => return Ok(()),
        }
    }
}

/// Bytes of the request that begins here; None if its head is not whole.
fn request_length(input: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(input).ok()? else {
        return None;
    };
    let length = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    Some(
        head + std::str::from_utf8(length.value)
            .ok()?
            .parse::<usize>()
            .ok()?,
    )
}
