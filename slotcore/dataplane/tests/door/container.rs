//! A container that counts what runs in it, before anything else.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[derive(Clone, Copy, Default)]
struct Seen {
    running: u32,
    highest: u32,
    /// Requests wait until so many run; 0: they do not.
    hold: u32,
}

pub(crate) struct Container {
    seen: Arc<watch::Sender<Seen>>,
    directory: TempDir,
}

impl Container {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("c.sock")).unwrap();
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { seen, directory }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.directory.path().join("c.sock").display())
    }

    pub(crate) fn highest(&self) -> u32 {
        self.seen.borrow().highest
    }

    /// Waits until nothing runs; from then on requests wait for so many.
    pub(crate) async fn hold(&self, count: u32) {
        let mut seen = self.seen.subscribe();
        let quiet = seen.wait_for(|seen| seen.running == 0);
        drop(
            timeout(Duration::from_secs(30), quiet)
                .await
                .unwrap()
                .unwrap(),
        );
        self.seen.send_modify(|seen| seen.hold = count);
    }

    /// Waits until as many run as were asked for, and lets them go.
    pub(crate) async fn release_when_full(&self) {
        let mut seen = self.seen.subscribe();
        let full = seen.wait_for(|seen| seen.running == seen.hold);
        drop(
            timeout(Duration::from_secs(30), full)
                .await
                .unwrap()
                .unwrap(),
        );
        self.seen.send_modify(|seen| seen.hold = 0);
    }
}

async fn serve(mut stream: UnixStream, shared: Arc<watch::Sender<Seen>>) -> std::io::Result<()> {
    let mut input = Vec::new();
    loop {
        // Bodies here hold no blank line and end with a brace: enough to find a request's end.
        while !(input.ends_with(b"\"}") && input.windows(4).any(|bytes| bytes == b"\r\n\r\n")) {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        input.clear();
        shared.send_modify(|seen| {
            seen.running += 1;
            seen.highest = seen.highest.max(seen.running);
        });
        sleep(Duration::from_micros(500)).await;
        let released = shared
            .subscribe()
            .wait_for(|seen| seen.hold == 0)
            .await
            .is_ok();
        shared.send_modify(|seen| seen.running -= 1);
        assert!(released);
        stream.write_all(ANSWER).await?;
    }
}
