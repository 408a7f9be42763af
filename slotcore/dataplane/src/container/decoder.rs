//! From a container's bytes to its answer, however the bytes were cut: pure, and bounded in memory by the limits.
//!
//! Stricter than HTTP asks for where leniency could hide the end of an answer: two different lengths, a length beside a
//! transfer coding, a coding other than `chunked` are no answer. An answer that only the connection's end ends must prove
//! itself whole by being a JSON object.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use httparse::{Header, ParserConfig, Response, Status};

use super::{Answer, chunked::Chunked};
use crate::json;

/// The head of an answer, each interim one (1xx) for itself.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const INTERIM_MAX: u8 = 8;

/// Why the bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection ended before the answer did.
    Truncated,
    Bad(&'static str),
    /// `over`: the end of the answer was seen.
    TooLarge {
        over: bool,
    },
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Decoder {
    limit: usize,
    state: State,
    status: u16,
    is_persistent: bool,
}

#[derive(Debug)]
enum State {
    /// `looked`: bytes of the head that were parsed in vain.
    Head {
        looked: usize,
        interim: u8,
    },
    Length(usize),
    Skip(u64),
    Chunked(Box<Chunked>),
    UntilEnd,
}

impl Decoder {
    /// `limit`: bytes of a body at most.
    pub(super) fn new(limit: usize) -> Self {
        let state = State::Head {
            looked: 0,
            interim: 0,
        };
        Self {
            limit,
            state,
            status: 0,
            is_persistent: false,
        }
    }

    /// Whether the container lets the connection be used again; to be asked after the answer.
    pub(super) fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// Bytes held beside the input.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        if let State::Chunked(chunked) = &self.state {
            chunked.held()
        } else {
            0
        }
    }

    /// Takes what it can use from `input`; the answer once it is whole, None if there must be more bytes. `has_ended`: no
    /// more bytes will come. Bytes after the answer stay in `input`.
    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        has_ended: bool,
    ) -> Result<Option<Answer>, Fault> {
        if matches!(self.state, State::Head { .. }) && !self.decode_head(input, has_ended)? {
            return if has_ended {
                Err(Fault::Truncated)
            } else {
                Ok(None)
            };
        }
        let body = match &mut self.state {
            State::Length(length) if input.len() >= *length => {
                Some(input.split_to(*length).freeze())
            }
            State::Skip(rest) => {
                let length =
                    usize::try_from(*rest).map_or(input.len(), |rest| rest.min(input.len()));
                input.advance(length);
                *rest -= length as u64;
                if *rest == 0 {
                    return Err(Fault::TooLarge { over: true });
                }
                None
            }
            State::Chunked(chunked) => chunked.decode(input)?,
            State::UntilEnd if input.len() > self.limit => {
                return Err(Fault::TooLarge { over: false });
            }
            State::UntilEnd if has_ended => {
                if json::validate_object(input).is_err() {
                    return Err(Fault::Bad(
                        "an answer without a length is not a JSON object",
                    ));
                }
                Some(input.split().freeze())
            }
            State::Length(_) | State::UntilEnd | State::Head { .. } => None,
        };
        match body {
            Some(body) => Ok(Some(Answer {
                status: self.status,
                body,
            })),
            None if has_ended => Err(Fault::Truncated),
            None => Ok(None),
        }
    }

    /// Moves on to the body once the head is whole; false if it is not.
    fn decode_head(&mut self, input: &mut BytesMut, has_ended: bool) -> Result<bool, Fault> {
        while let State::Head { looked, interim } = &mut self.state {
            let window = &input[..input.len().min(HEAD_BYTES_MAX)];
            if window.first().is_some_and(|byte| *byte != b'H') {
                return Err(Fault::Bad("not HTTP"));
            }
            let is_full = window.len() == HEAD_BYTES_MAX;
            // Parse only when a line has ended: a head that comes byte by byte must not cost its square.
            if !(is_full || has_ended || window[*looked..].contains(&b'\n')) {
                *looked = window.len();
                return Ok(false);
            }
            *looked = window.len();
            let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let mut response = Response::new(&mut []);
            let parsed = ParserConfig::default()
                .parse_response_with_uninit_headers(&mut response, window, &mut headers)
                .map_err(|_| Fault::Bad("malformed head"))?;
            let Status::Complete(length) = parsed else {
                return if is_full {
                    Err(Fault::Bad("the head is too large"))
                } else {
                    Ok(false)
                };
            };
            let status = response.code.unwrap_or_default();
            if (100..200).contains(&status) {
                if status == 101 || *interim == INTERIM_MAX {
                    return Err(Fault::Bad("an interim answer that nobody asked for"));
                }
                self.state = State::Head {
                    looked: 0,
                    interim: *interim + 1,
                };
            } else {
                let framing = Framing::read(response.headers, response.version == Some(1))?;
                self.status = status;
                self.is_persistent = framing.is_persistent;
                self.state = framing.state(status, self.limit)?;
            }
            input.advance(length);
        }
        Ok(true)
    }
}

/// What the headers say of the body's end.
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
    is_persistent: bool,
}

impl Framing {
    fn read(headers: &[Header<'_>], is_http_1_1: bool) -> Result<Self, Fault> {
        let mut framing = Self {
            length: None,
            is_chunked: false,
            is_persistent: is_http_1_1,
        };
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("content-length") {
                let length =
                    decimal(value.trim_ascii()).ok_or(Fault::Bad("malformed content-length"))?;
                if framing
                    .length
                    .replace(length)
                    .is_some_and(|other| other != length)
                {
                    return Err(Fault::Bad("two different lengths"));
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if framing.is_chunked
                    || !is_http_1_1
                    || !value.trim_ascii().eq_ignore_ascii_case(b"chunked")
                {
                    return Err(Fault::Bad("a transfer coding other than chunked"));
                }
                framing.is_chunked = true;
            } else if name.eq_ignore_ascii_case("connection") {
                let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                if options.any(|option| option.eq_ignore_ascii_case(b"close")) {
                    framing.is_persistent = false;
                }
            }
        }
        if framing.is_chunked && framing.length.is_some() {
            return Err(Fault::Bad("a length beside a transfer coding"));
        }
        Ok(framing)
    }

    fn state(&self, status: u16, limit: usize) -> Result<State, Fault> {
        if status < 200 {
            return Err(Fault::Bad("malformed status"));
        }
        if status == 204 || status == 304 {
            return Ok(State::Length(0));
        }
        Ok(match (self.is_chunked, self.length) {
            (true, _) => State::Chunked(Box::new(Chunked::new(limit))),
            (false, None) => State::UntilEnd,
            (false, Some(length)) => match usize::try_from(length) {
                Ok(length) if length <= limit => State::Length(length),
                _ => State::Skip(length),
            },
        })
    }
}

/// A number of digits only, that fits.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}
