//! A container that follows a script, one script for each connection.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use slotcore_dataplane::container::{Address, Answer, Connection, Limits, Run, RunError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};

pub(crate) const LIMITS: Limits = Limits {
    answer_bytes_max: 10_000,
};

/// What a container does next on a connection. After the last step it closes the connection.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Reads one whole request and reports it.
    Read,
    /// Reads a request's head and reports it.
    ReadHead,
    /// Reads so many bytes and reports them.
    ReadSome(usize),
    Send(Vec<u8>),
    /// Sends byte by byte, each in a segment of its own as far as the kernel lets it.
    Trickle(Vec<u8>),
    /// Waits for a word from the test, and reports it.
    Await(Arc<Notify>),
    /// Reads to the end of the stream and reports how many bytes came.
    Drain,
    /// Closes with a reset instead of an end (TCP only).
    Reset,
}

pub(crate) fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Unix,
    Tcp,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Unix, Kind::Tcp];

/// The container; it ends with the test.
pub(crate) struct Peer {
    pub(crate) address: Arc<Address>,
    /// What the steps report, and an empty report for each connection that is closed.
    reports: mpsc::UnboundedReceiver<Vec<u8>>,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Listens, and follows one script for each connection; after the last one it stops listening.
    pub(crate) async fn start(kind: Kind, scripts: Vec<Vec<Step>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (reporter, reports) = mpsc::unbounded_channel();
        let (address, task) = match kind {
            Kind::Unix => {
                let path: PathBuf = directory.path().join("c.sock");
                let listener = UnixListener::bind(&path).unwrap();
                let task = tokio::spawn(async move {
                    for script in scripts {
                        let (stream, _) = listener.accept().await.unwrap();
                        tokio::spawn(follow(stream, script, reporter.clone()));
                    }
                });
                (format!("unix:{}", path.display()), task)
            }
            Kind::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address: SocketAddr = listener.local_addr().unwrap();
                let task = tokio::spawn(async move {
                    for script in scripts {
                        let (stream, _) = listener.accept().await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        if script.iter().any(|step| matches!(step, Step::Reset)) {
                            socket2::SockRef::from(&stream)
                                .set_linger(Some(Duration::ZERO))
                                .unwrap();
                        }
                        tokio::spawn(follow(stream, script, reporter.clone()));
                    }
                });
                (address.to_string(), task)
            }
        };
        Self {
            address: Arc::new(address.parse().unwrap()),
            reports,
            task,
            _directory: directory,
        }
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::new(self.address.clone())
    }

    /// The next report.
    pub(crate) async fn report(&mut self) -> Vec<u8> {
        timeout(Duration::from_secs(60), self.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until a connection is closed, and the runtime has seen that.
    pub(crate) async fn closed(&mut self) {
        while !self.report().await.is_empty() {}
        look().await;
    }
}

/// Lets the runtime look at its sockets: it does after every 61 turns of tasks, if not before.
pub(crate) async fn look() {
    for _ in 0..150 {
        tokio::task::yield_now().await;
    }
}

async fn follow<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: Vec<Step>,
    reporter: mpsc::UnboundedSender<Vec<u8>>,
) {
    let report = |bytes: Vec<u8>| drop(reporter.send(bytes));
    for step in script {
        match step {
            Step::Read => {
                let Some(request) = read_request(&mut stream).await else {
                    break;
                };
                report(request);
            }
            Step::ReadHead => {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                report(head);
            }
            Step::ReadSome(length) => {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).await.unwrap();
                report(bytes);
            }
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            Step::Trickle(bytes) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            Step::Drain => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                report(rest.len().to_string().into_bytes());
            }
            Step::Await(word) => {
                word.notified().await;
                report(b"awaited".to_vec());
            }
            Step::Reset => {}
        }
    }
    drop(stream);
    report(Vec::new());
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head
            .rsplit_once("content-length: ")
            .unwrap()
            .1
            .parse::<usize>()
            .unwrap();
        if bytes.len() >= end + 4 + length {
            assert_eq!(
                bytes.len(),
                end + 4 + length,
                "more than one request at once"
            );
            return Some(bytes);
        }
    }
}

pub(crate) const SMALL: Run<'static> = Run {
    pieces: [b"{\"value\":{", b"", b"\"n\":1", b"}}"],
};

/// Runs with a bound that only a defect reaches.
pub(crate) async fn run(connection: &mut Connection, run: Run<'_>) -> Result<Answer, RunError> {
    timeout(Duration::from_secs(60), connection.run(run, &LIMITS))
        .await
        .expect("an answer in time")
}

/// What becomes of one run whose answer is made of `steps`, over each kind of socket.
pub(crate) async fn outcomes(steps: Vec<Step>) -> Vec<Result<Answer, RunError>> {
    let mut outcomes = Vec::new();
    for kind in KINDS {
        let script = [vec![Step::Read], steps.clone()].concat();
        let peer = Peer::start(kind, vec![script]).await;
        outcomes.push(run(&mut peer.connection(), SMALL).await);
    }
    outcomes
}
