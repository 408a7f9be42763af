//! The connection that a slot owns.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::decimal::Decimal;

use super::{
    Address, Answer, Limits, Run, RunError,
    decoder::{Decoder, Fault},
    stream::Stream,
};

/// Room made for each read. An answer of usual size fits, and ten thousand slots stay small.
const READ_BYTES: usize = 4096;
/// A request up to this size is put together first: one buffer costs the kernel less than its pieces.
const TOGETHER_BYTES_MAX: usize = 16 * 1024;
/// A read buffer that grew past this is not kept for the next run.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// A connection to one container that takes one run at a time. It is opened by the first run, and again after it was
/// closed by either side: that is sound because an address never comes to belong to another container.
#[derive(Debug)]
pub struct Connection {
    address: Arc<Address>,
    stream: Option<Stream>,
    input: BytesMut,
    answered: Instant,
    opened: u64,
}

impl Connection {
    /// A connection that is not open yet.
    pub fn new(address: Arc<Address>) -> Self {
        Self {
            address,
            stream: None,
            input: BytesMut::new(),
            answered: Instant::now(),
            opened: 0,
        }
    }

    /// Whether a run would find the connection open, as far as is known.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// When its last answer had come, or when it was made.
    pub fn answered(&self) -> Instant {
        self.answered
    }

    /// How often it was opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Closes the connection and gives its memory back; the next run opens it anew.
    pub fn close(&mut self) {
        self.stream = None;
        self.input = BytesMut::new();
    }

    /// Sends one run and waits for its whole answer, without a limit in time.
    ///
    /// Reads while it writes, so that a container may answer before it has read the body; such an answer counts, and
    /// closes the connection. A connection that the container has closed, or on which it has sent bytes that nobody asked
    /// for, is replaced before the first byte is written. Dropping the future closes the connection; whether the run
    /// reached the container is then not known.
    pub async fn run(&mut self, run: Run<'_>, limits: &Limits) -> Result<Answer, RunError> {
        let length: usize = run.pieces.iter().map(|piece| piece.len()).sum();
        let digits = Decimal::new(length as u64);
        let [a, b, c, d] = run.pieces;
        let output = [
            &self.address.head,
            digits.as_slice(),
            b"\r\n\r\n",
            a,
            b,
            c,
            d,
        ];

        // Both stay in this future while the run is under way, so that dropping it closes the connection.
        let mut input = std::mem::take(&mut self.input);
        let mut kept = self
            .stream
            .take()
            .filter(|kept| kept.is_quiet(self.answered));
        loop {
            let is_reused = kept.is_some();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                // Boxed: it is rare, and every run would carry the room for it.
                None => Box::pin(Stream::connect(&self.address))
                    .await
                    .map_err(RunError::Refused)?,
            };
            self.opened += u64::from(!is_reused);
            input.clear();
            if length <= TOGETHER_BYTES_MAX {
                for piece in output {
                    input.extend_from_slice(piece);
                }
            }
            let mut exchange = Exchange::new(&output, limits.answer_bytes_max);
            match poll_fn(|context| exchange.poll(context, &mut stream, &mut input)).await {
                // The container closed it in the last moment, and the kernel took nothing: once more, anew.
                Err(RunError::Refused(_)) if is_reused => {}
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.answered = Instant::now();
                    if exchange.is_reusable() && input.is_empty() {
                        self.stream = Some(stream);
                        if input.capacity() + answer.body.len() <= KEPT_BYTES_MAX {
                            self.input = input;
                        }
                    }
                    return Ok(answer);
                }
            }
        }
    }
}

/// One run under way.
struct Exchange<'a> {
    output: &'a [&'a [u8]; 7],
    written: usize,
    /// Why writing ended early; the answer may have come all the same.
    broken: Option<io::Error>,
    decoder: Decoder,
    limit_bytes: usize,
}

impl<'a> Exchange<'a> {
    fn new(output: &'a [&'a [u8]; 7], limit_bytes: usize) -> Self {
        Self {
            output,
            written: 0,
            broken: None,
            decoder: Decoder::new(limit_bytes),
            limit_bytes,
        }
    }

    /// Whether the connection may take another run after the answer.
    fn is_reusable(&self) -> bool {
        let length: usize = self.output.iter().map(|piece| piece.len()).sum();
        self.written == length && self.decoder.is_persistent()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut Stream,
        input: &mut BytesMut,
    ) -> Poll<Result<Answer, RunError>> {
        if self.broken.is_none()
            && let Poll::Ready(Err(error)) = self.poll_write(context, stream, input)
        {
            if self.written == 0 {
                return Poll::Ready(Err(RunError::Refused(error)));
            }
            self.broken = Some(error);
        }
        loop {
            input.reserve(READ_BYTES);
            let read = ready!(pin!(stream.read_buf(input)).poll(context));
            let (has_ended, error) = match read {
                Ok(length) => (length == 0, io::ErrorKind::UnexpectedEof.into()),
                Err(error) => (true, error),
            };
            let fault = match self.decoder.decode(input, has_ended) {
                Ok(None) => continue,
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Err(fault) => fault,
            };
            return Poll::Ready(Err(match fault {
                _ if self.written == 0 => RunError::Refused(self.broken.take().unwrap_or(error)),
                Fault::Truncated => RunError::Broken(self.broken.take().unwrap_or(error)),
                Fault::Bad(what) => RunError::BadAnswer(what),
                Fault::TooLarge { over } => RunError::TooLarge {
                    limit_bytes: self.limit_bytes,
                    over,
                },
            }));
        }
    }

    /// Ready when everything is written. The request may stand in `input` as a whole, for the first attempt.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut Stream,
        input: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        if self.written == 0 && !input.is_empty() {
            let outcome = stream.poll_write(context, input);
            input.clear();
            self.written = ready!(outcome)?;
        }
        loop {
            let mut slices = [IoSlice::new(&[]); 7];
            let mut count = 0;
            let mut skip = self.written;
            for piece in self.output {
                let rest = &piece[skip.min(piece.len())..];
                skip -= piece.len() - rest.len();
                if !rest.is_empty() {
                    slices[count] = IoSlice::new(rest);
                    count += 1;
                }
            }
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            match ready!(stream.poll_write_vectored(context, &slices[..count])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(length) => self.written += length,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
