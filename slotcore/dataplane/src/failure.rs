//! What a caller is told when a call fails: one table from reason to gRPC status, and its encoding.
//!
//! A failure leaves as a response of headers only: `grpc-status`, `grpc-message`, and a `google.rpc.Status` in
//! `grpc-status-details-bin` that holds an `ErrorInfo` (reason, domain "slotway"), a `BadRequest` where a field is wrong,
//! and a `RetryInfo` where waiting helps.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};

use crate::wire;

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Between Routers: the request surely never reached code; its origin may send it elsewhere.
pub(crate) const NOT_RUN: HeaderName = HeaderName::from_static("slotway-not-run");
pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

macro_rules! reasons {
    ($($variant:ident $name:literal $code:literal;)*) => {
        /// A reason of `slotway.v1.ErrorReason`, with the gRPC status that it always has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($variant),* }

        impl Reason {
            /// Every reason that a data plane can give.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in `ErrorInfo.reason`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The gRPC status.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code),* }
            }
        }
    };
}

reasons! {
    ActionNotFound "ACTION_NOT_FOUND" 5;
    InvalidField "INVALID_FIELD" 3;
    InvalidPayload "INVALID_PAYLOAD" 3;
    RequestTooLarge "REQUEST_TOO_LARGE" 8;
    ResultTooLarge "RESULT_TOO_LARGE" 8;
    InitFailed "INIT_FAILED" 9;
    ContainerLost "CONTAINER_LOST" 14;
    BadAnswer "BAD_ANSWER" 14;
    ActionTimeout "ACTION_TIMEOUT" 4;
    Deadline "DEADLINE" 4;
    QueueFull "QUEUE_FULL" 8;
    MaxWait "MAX_WAIT" 8;
    NoLeader "NO_LEADER" 14;
    Stopping "STOPPING" 14;
    NotHere "NOT_HERE" 14;
    ClusterFull "CLUSTER_FULL" 8;
    CreateFailed "CREATE_FAILED" 14;
    EpochMismatch "EPOCH_MISMATCH" 9;
    Internal "INTERNAL" 13;
    Unsupported "UNSUPPORTED" 12;
    StoreUnavailable "STORE_UNAVAILABLE" 14;
    StoreFull "STORE_FULL" 8;
}

impl Reason {
    /// The reason of this name, if the data plane knows it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == name)
    }
}

/// Why a call failed; small, because most calls do not.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Told>);

#[derive(Clone, Debug)]
struct Told {
    reason: Reason,
    message: Cow<'static, str>,
    /// One entry for `ErrorInfo.metadata`; under the key "field" it also makes a `BadRequest`.
    metadata: Option<(&'static str, Cow<'static, str>)>,
    retry: Option<Duration>,
}

impl Failure {
    #[cold]
    pub(crate) fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        let message = fitting(message.into());
        Self(Box::new(Told {
            reason,
            message,
            metadata: None,
            retry: None,
        }))
    }

    /// A field is out of its range or pattern.
    #[cold]
    pub(crate) fn field(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::InvalidField, message).with("field", field)
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.0.metadata = Some((key, value.into()));
        self
    }

    pub(crate) fn retry(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.retry = after.into();
        self
    }

    pub(crate) fn reason(&self) -> Reason {
        self.0.reason
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The response, headers only.
    pub(crate) fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.headers_mut() = self.trailers();
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        response
    }

    /// The headers that end an answer which has begun.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            GRPC_STATUS,
            HeaderValue::from(u16::from(self.0.reason.code())),
        );
        insert(&mut headers, GRPC_MESSAGE, percent_encode(&self.0.message));
        insert(&mut headers, GRPC_DETAILS, base64(&self.details()));
        match self.0.reason {
            Reason::NotHere | Reason::Stopping => {
                headers.insert(NOT_RUN, HeaderValue::from_static("1"));
            }
            Reason::Unsupported => {
                headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            _ => {}
        }
        headers
    }

    /// The `google.rpc.Status` message.
    fn details(&self) -> Vec<u8> {
        let mut info = Vec::with_capacity(96);
        wire::put_bytes(&mut info, 1, self.0.reason.name().as_bytes());
        wire::put_bytes(&mut info, 2, b"slotway");
        if let Some((key, value)) = &self.0.metadata {
            let mut entry = Vec::new();
            wire::put_bytes(&mut entry, 1, key.as_bytes());
            wire::put_bytes(&mut entry, 2, value.as_bytes());
            wire::put_bytes(&mut info, 3, &entry);
        }
        let mut status = Vec::with_capacity(256);
        wire::put_int(&mut status, 1, u64::from(self.0.reason.code()));
        wire::put_bytes(&mut status, 2, self.0.message.as_bytes());
        wire::put_bytes(&mut status, 3, &any("ErrorInfo", &info));
        if let Some(("field", field)) = &self.0.metadata {
            let mut violation = Vec::new();
            wire::put_bytes(&mut violation, 1, field.as_bytes());
            wire::put_bytes(&mut violation, 2, self.0.message.as_bytes());
            let mut bad_request = Vec::new();
            wire::put_bytes(&mut bad_request, 1, &violation);
            wire::put_bytes(&mut status, 3, &any("BadRequest", &bad_request));
        }
        if let Some(delay) = self.0.retry {
            let mut retry = Vec::new();
            wire::put_duration(&mut retry, 1, delay);
            wire::put_bytes(&mut status, 3, &any("RetryInfo", &retry));
        }
        status
    }
}

fn any(name: &str, value: &[u8]) -> Vec<u8> {
    let mut any = Vec::with_capacity(value.len() + 64);
    wire::put_bytes(
        &mut any,
        1,
        format!("type.googleapis.com/google.rpc.{name}").as_bytes(),
    );
    wire::put_bytes(&mut any, 2, value);
    any
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    let value = HeaderValue::try_from(value).expect("only visible ASCII was written");
    headers.insert(name, value);
}

/// Beginning and end of a message that is too long: from 8 KiB of headers on a peer may refuse them, and the message is
/// among them twice, once percent-encoded.
fn fitting(message: Cow<'static, str>) -> Cow<'static, str> {
    const HALF_BYTES_MAX: usize = 3_000;
    let cost = |character: char| {
        let length = character.len_utf8();
        length + if is_plain(character) { 1 } else { 3 * length }
    };
    if message.chars().map(cost).sum::<usize>() <= 2 * HALF_BYTES_MAX {
        return message;
    }
    let within = |characters: &mut dyn Iterator<Item = char>| -> Vec<char> {
        let mut left = HALF_BYTES_MAX;
        let fits = |character: &char| {
            let (rest, over) = left.overflowing_sub(cost(*character));
            left = rest;
            !over
        };
        characters.take_while(fits).collect()
    };
    let head: String = within(&mut message.chars()).into_iter().collect();
    let tail: String = within(&mut message.chars().rev())
        .into_iter()
        .rev()
        .collect();
    format!("{head}\n\u{2026}\n{tail}").into()
}

/// Stands for itself in a percent-encoded message.
fn is_plain(character: char) -> bool {
    matches!(character, ' '..='~') && character != '%'
}

/// Percent-encodes all but visible ASCII.
fn percent_encode(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if is_plain(byte.into()) {
            out.push(byte.into());
        } else {
            write!(out, "%{byte:02X}").expect("a String takes all");
        }
    }
    out
}

/// Base64 without padding, as gRPC wants it for binary headers.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0u32, |word, (i, b)| word | u32::from(*b) << (16 - 8 * i));
        for i in 0..=chunk.len() {
            out.push(ALPHABET[(word >> (18 - 6 * i) & 63) as usize].into());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_leaves_out_the_padding() {
        let known = [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ];
        for (bytes, text) in known {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_message_becomes_visible_ascii() {
        assert_eq!(percent_encode("50 %\n\u{e4}\u{11}"), "50 %25%0A%C3%A4%11");
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end_within_the_limit() {
        for letter in ["x", "\n", "\u{e4}", "\u{1f980}"] {
            let message = format!("begin{}end", letter.repeat(100_000));
            let failure = Failure::new(Reason::InitFailed, message);
            let told = &failure.0.message;
            assert!(told.starts_with("begin") && told.ends_with("end"));
            // A peer counts the details as they are, without base64.
            let headers = failure.trailers();
            let message = headers[GRPC_MESSAGE].len() + failure.details().len();
            assert!((3_500..8_192 - 500).contains(&message), "{message}");
        }
        let short = "\u{e4}".repeat(100);
        let failure = Failure::new(Reason::InitFailed, short.clone());
        assert_eq!(failure.0.message, short);
    }

    #[test]
    fn every_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), Some(*reason));
        }
        assert_eq!(Reason::named("NO_SUCH_REASON"), None);
    }
}
