//! What a call asks for, and whether it may.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::deadline::{self, GRPC_TIMEOUT};
use crate::failure::{Failure, Reason};
use crate::peers::FORWARDED;

/// As good as no deadline.
pub(crate) const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// What a call's headers tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The caller's.
    pub(crate) deadline: Option<Instant>,
    pub(crate) arrived: Instant,
    /// Another Router sent this.
    pub(crate) is_forwarded: bool,
}

impl Asked {
    /// Reads the headers in one pass.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let arrived = Instant::now();
        let mut asked = Self {
            deadline: None,
            arrived,
            is_forwarded: false,
        };
        let mut is_grpc = false;
        for (name, value) in headers {
            if *name == CONTENT_TYPE {
                is_grpc = value.as_bytes().starts_with(b"application/grpc");
            } else if *name == GRPC_TIMEOUT {
                let what = "a grpc-timeout is up to eight digits and one of H, M, S, m, u, n";
                let left = deadline::parse(value);
                let left = left.ok_or_else(|| Failure::field("grpc-timeout", what))?;
                if left.is_zero() {
                    return Err(deadline_passed("before the request came"));
                }
                asked.deadline = Some(arrived + left.min(NEVER));
            } else if *name == FORWARDED {
                asked.is_forwarded = true;
            }
        }
        if is_grpc {
            return Ok(asked);
        }
        Err(Failure::field(
            "content-type",
            "this is a gRPC method: application/grpc",
        ))
    }
}

/// "namespace/name", each part of the pattern `[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}`.
pub(crate) fn check_action(name: &[u8]) -> Result<&str, Failure> {
    let is_part = |part: &[u8]| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (1..=64).contains(&part.len())
            && is_word(part[0])
            && part
                .iter()
                .all(|byte| is_word(*byte) || b".@-".contains(byte))
    };
    let mut parts = name.split(|byte| *byte == b'/');
    if let (Some(namespace), Some(action), None) = (parts.next(), parts.next(), parts.next())
        && is_part(namespace)
        && is_part(action)
        && let Ok(name) = std::str::from_utf8(name)
    {
        return Ok(name);
    }
    let what = "an action is named namespace/name, each part [A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}";
    Err(Failure::field("action", what))
}

#[cold]
pub(crate) fn deadline_passed(when: &str) -> Failure {
    Failure::new(Reason::Deadline, format!("the deadline passed {when}"))
}
