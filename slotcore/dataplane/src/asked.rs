//! What a call asks for, and whether it may.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::deadline::{self, GRPC_TIMEOUT};
use crate::failure::{Failure, Reason};
use crate::front::Door;
use crate::peers::{CALLER, FORWARDED};

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
    /// A running action sent this: it holds a slot while it waits for one.
    pub(crate) is_nested: bool,
}

impl Asked {
    /// Reads the headers in one pass.
    pub(crate) fn read(headers: &HeaderMap, door: Door) -> Result<Self, Failure> {
        let arrived = Instant::now();
        let mut asked = Self {
            deadline: None,
            arrived,
            is_forwarded: false,
            is_nested: door == Door::Actions,
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
            } else if *name == CALLER {
                asked.is_nested = true;
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

/// What a byte may be in a part of an action's name: its beginning (and any other place), or any place but that.
const BEGINS: u8 = 2;
const FOLLOWS: u8 = 1;

static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        bytes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => BEGINS,
            b'.' | b'@' | b'-' => FOLLOWS,
            _ => 0,
        };
        byte += 1;
    }
    bytes
};

/// "namespace/name", each part of the pattern `[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}`.
pub(crate) fn check_action(name: &[u8]) -> Result<&str, Failure> {
    let is_part = |part: &[u8]| {
        let kind = |byte: &u8| BYTES[usize::from(*byte)];
        (1..=64).contains(&part.len())
            && kind(&part[0]) == BEGINS
            && part.iter().all(|byte| kind(byte) != 0)
    };
    if let Some(slash) = name.iter().position(|byte| *byte == b'/')
        && is_part(&name[..slash])
        && is_part(&name[slash + 1..])
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

#[cfg(test)]
mod tests {
    use super::check_action;

    #[test]
    fn names_of_actions() {
        let long = "a".repeat(64);
        for right in ["a/b", "_/9", "ns-1/a.b@c_D", &format!("{long}/{long}")] {
            assert_eq!(check_action(right.as_bytes()).unwrap(), right);
        }
        let wrong = [
            "", "a", "/", "a/", "/b", "a/b/c", "-a/b", "a/.b", "a/b c", "a/\u{e9}", "a/b\0",
        ];
        for wrong in wrong
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{long}a/b")])
        {
            assert!(check_action(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
