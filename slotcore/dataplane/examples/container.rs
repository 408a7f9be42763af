//! A container without an action: it answers every request at once, so that what stands before it is what a bench
//! measures. Listens on each `unix:/path` or `host:port` given, prints what it is bound to, and runs until it is killed.

use std::{env, io};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

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
                    match listener.accept().await {
                        Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
                        Err(error) => eprintln!("{error}"),
                    }
                }
            });
        } else {
            let listener = TcpListener::bind(&place).await?;
            println!("{}", listener.local_addr()?);
            tokio::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let _ = stream.set_nodelay(true);
                            tokio::spawn(serve(stream));
                        }
                        Err(error) => eprintln!("{error}"),
                    }
                }
            });
        }
    }
    std::future::pending().await
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut input = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match stream.read(&mut input[length..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => length += count,
        }
        match request_length(&input[..length]) {
            None if length < input.len() => {}
            Some(whole) if length < whole && whole <= input.len() => {}
            Some(whole) if length == whole => {
                length = 0;
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
            // More than one request at once, or one that is too large, is none of ours.
            _ => return,
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
