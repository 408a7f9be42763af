//! What a data plane is told at its start, and the bounds that are nobody's to choose.

use std::path::PathBuf;
use std::time::Duration;

/// Client connections per data plane; one more is closed at once.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// Streams per client connection; a client that opens more waits for one to end.
pub(crate) const STREAMS_MAX: u32 = 4_096;
/// Streams per client connection that were reset and are still remembered. Clients that hang up in numbers are no attack.
pub(crate) const RESETS_MAX: usize = 1_024;
/// All headers of a request, as HTTP/2 counts them.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How long a client may take to say what it speaks, and to send one request.
pub(crate) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may refuse to take the next part of an answer.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long answers may take to be written when the data plane is closed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection to a peer or to the Python server may take to be opened.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request whose connection broke waits to be told how its container ended, if it did.
pub(crate) const ENDING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a slot in the async lane waits for a claim.
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);
/// How often idle connections and slots that were set aside are looked at.
pub(crate) const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Requests that may wait in all, in queues of one action.
pub(crate) const WAITERS_PER_QUEUE: usize = 4;
/// All requests and answers that are held at once.
pub(crate) const BUFFERED_BYTES_MAX: usize = 1 << 30;
/// Per stream; an answer or request of usual size needs no update of the window.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Per connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A bug that tests plant to see that their checks find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlantedBug {
    /// None.
    #[default]
    None,
    /// When all slots are busy, one request more is sent.
    OneTooMany,
}

/// What a data plane is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Python server's Unix socket.
    pub upstream: PathBuf,
    /// The Router's incarnation.
    pub incarnation: String,
    /// Waiting requests per action and lane.
    pub queue_max: usize,
    /// How long a request may wait for a slot.
    pub max_wait: Duration,
    /// How long a request of a running action may wait: its caller's slot is taken meanwhile.
    pub nested_max_wait: Duration,
    /// Where actions connect to, host:port, beside everybody's address. All Routers of a machine share it.
    pub actions_listen: Option<String>,
    /// The largest request message.
    pub request_bytes_max: usize,
    /// The largest answer of a container.
    pub response_bytes_max: usize,
    /// A connection to a container that idled for so long is closed.
    pub idle_close: Duration,
    /// How many threads serve.
    pub threads: usize,
    /// For tests of the checks.
    pub planted_bug: PlantedBug,
}
