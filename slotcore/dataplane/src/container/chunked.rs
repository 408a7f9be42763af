//! The chunked transfer coding (RFC 9112, 7.1), strict: every line ends with CR LF.

use bytes::{Buf, Bytes, BytesMut};

use super::decoder::Fault;

/// A chunk's size and its extensions, which are skipped.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// All trailers together, which are skipped.
const TRAILER_BYTES_MAX: usize = 4096;

/// Removes the coding from a body, and keeps at most a limit of what is left.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    body: BytesMut,
    limit: usize,
    is_too_large: bool,
}

#[derive(Debug)]
enum State {
    Size,
    Data { rest: u64 },
    DataEnd,
    Trailers { budget: usize },
}

impl Chunked {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: State::Size,
            body: BytesMut::new(),
            limit,
            is_too_large: false,
        }
    }

    /// Bytes of memory taken by the body so far.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.body.capacity()
    }

    /// Takes what it can use from `input`; the body once its end was seen.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        loop {
            match &mut self.state {
                State::Size => {
                    let Some(line) = take_line(input, SIZE_LINE_BYTES_MAX)? else {
                        return Ok(None);
                    };
                    self.state = match size(&line).ok_or(Fault::Bad("malformed chunk size"))? {
                        0 => State::Trailers {
                            budget: TRAILER_BYTES_MAX,
                        },
                        rest => State::Data { rest },
                    };
                }
                State::Data { rest } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length =
                        usize::try_from(*rest).map_or(input.len(), |rest| rest.min(input.len()));
                    if self.is_too_large || length > self.limit - self.body.len() {
                        self.is_too_large = true;
                        self.body = BytesMut::new();
                    } else {
                        self.body.extend_from_slice(&input[..length]);
                    }
                    input.advance(length);
                    *rest -= length as u64;
                    if *rest == 0 {
                        self.state = State::DataEnd;
                    }
                }
                State::DataEnd => {
                    let Some(line) = take_line(input, 2)? else {
                        return Ok(None);
                    };
                    if !line.is_empty() {
                        return Err(Fault::Bad("a chunk does not end where it said"));
                    }
                    self.state = State::Size;
                }
                State::Trailers { budget } => {
                    let Some(line) = take_line(input, *budget)? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        if self.is_too_large {
                            return Err(Fault::TooLarge { over: true });
                        }
                        return Ok(Some(std::mem::take(&mut self.body).freeze()));
                    }
                    if !line.contains(&b':') {
                        return Err(Fault::Bad("malformed trailer"));
                    }
                    *budget -= line.len() + 2;
                }
            }
        }
    }
}

/// Takes a line that ends within `limit` bytes, without its end.
fn take_line(input: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, Fault> {
    let window = &input[..input.len().min(limit)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        let is_full = window.len() == limit;
        return if is_full {
            Err(Fault::Bad("a line of the chunked body is too long"))
        } else {
            Ok(None)
        };
    };
    if end == 0 || window[end - 1] != b'\r' {
        return Err(Fault::Bad(
            "a line of the chunked body does not end with CR LF",
        ));
    }
    let mut line = input.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

/// The size from `1A2b` or `1A2b ; name=value`; at most 15 digits, so that no sum overflows.
fn size(line: &[u8]) -> Option<u64> {
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    if !rest.is_empty() && rest.trim_ascii_start().first() != Some(&b';') {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(u64::from);
    digits
        .iter()
        .try_fold(0, |sum, byte| Some(sum * 16 + digit(byte)?))
}
