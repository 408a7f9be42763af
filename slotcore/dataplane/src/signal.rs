//! Tells another thread, through a file descriptor, that there is something to take: once, until it was taken.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
pub(crate) struct Signal {
    is_raised: AtomicBool,
    sender: UnixStream,
    receiver: UnixStream,
}

impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self {
            is_raised: AtomicBool::new(false),
            sender,
            receiver,
        })
    }

    /// Becomes readable when the signal is raised.
    pub(crate) fn fileno(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }

    /// What is to be taken must be there before this.
    pub(crate) fn raise(&self) {
        if !self.is_raised.swap(true, Ordering::AcqRel) {
            // A full socket buffer would mean that the signal is raised already.
            _ = (&self.sender).write(&[1]);
        }
    }

    /// To be called before taking, so that what comes meanwhile raises the signal again.
    pub(crate) fn clear(&self) {
        while matches!((&self.receiver).read(&mut [0; 8]), Ok(1..)) {}
        self.is_raised.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_raises_make_one_byte_and_a_cleared_signal_can_be_raised_again() {
        let signal = Signal::new().unwrap();
        for _ in 0..2 {
            signal.raise();
            signal.raise();
            assert_eq!((&signal.receiver).read(&mut [0; 8]).unwrap(), 1);
            signal.clear();
            assert!((&signal.receiver).read(&mut [0; 8]).is_err());
        }
    }
}
