//! One HTTP/1.1 connection per slot to an action's container.
//!
//! A slot owns its [`Connection`]; a run goes out in one write and its answer comes back in a read buffer that the
//! connection keeps. The module has no timer and no retry: whoever owns the slot bounds the time by dropping the
//! future, which closes the connection. What it promises is the meaning of its errors ([`RunError`]): whether the run
//! can have reached user code, and whether it is surely over.
//!
//! `decoder` and `chunked` are pure: bytes in, answer out, however the bytes were cut. `connection` moves the bytes.

mod address;
mod chunked;
mod connection;
mod decoder;
#[cfg(test)]
mod fuzz;
mod stream;

use std::io;

use bytes::Bytes;

pub use address::{Address, AddressError};
pub use connection::Connection;

/// One `POST /run`: the body as pieces that are sent one after the other, none of them copied when it is large.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The pieces of the body, in order; empty ones are skipped.
    pub pieces: [&'a [u8]; 4],
}

/// What a container may send at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The body of an answer, after its transfer coding is removed.
    pub answer_bytes_max: usize,
}

/// A whole answer: the run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 999.
    pub status: u16,
    /// May share the connection's read buffer: copy it if it is to be kept for long.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not one byte was written: the run surely never reached user code, and may be sent again.
    #[error("the container cannot be reached: {0}")]
    Refused(#[source] io::Error),
    /// The connection broke after the first byte was written: the run may be going on.
    #[error("the container's connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The container spoke, but not HTTP as we allow it: the run may be going on.
    #[error("the container's answer is not valid: {0}")]
    BadAnswer(&'static str),
    /// The answer is larger than the limit. `over` tells whether its end was seen.
    #[error("the container's answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// [`Limits::answer_bytes_max`].
        limit_bytes: usize,
        /// The answer was read (and dropped) to its end: the run is over.
        over: bool,
    },
}

impl RunError {
    /// Whether the run is surely not going on in the container: it never began, or its answer has ended.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Broken(_) | Self::BadAnswer(_) => false,
            Self::TooLarge { over, .. } => *over,
        }
    }
}
