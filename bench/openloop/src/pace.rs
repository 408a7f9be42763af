//! Wakes at a moment of `CLOCK_MONOTONIC`, to some ten microseconds: tokio's own timers know milliseconds only.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, read};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Nanoseconds of `CLOCK_MONOTONIC`, as Python's `time.monotonic_ns` has them.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("not negative") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("not negative")
}

/// One timer.
#[derive(Debug)]
pub(crate) struct Pace(AsyncFd<OwnedFd>);

impl Pace {
    #[expect(
        deprecated,
        reason = "an OwnedFd stays the same descriptor; the other way is unsafe"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Returns at this moment, or at once if it has passed.
    pub(crate) async fn until(&self, at_ns: u64) -> io::Result<()> {
        if at_ns <= now_ns() {
            return Ok(());
        }
        let at = Timespec {
            tv_sec: i64::try_from(at_ns / 1_000_000_000).expect("a clock's seconds"),
            tv_nsec: (at_ns % 1_000_000_000).try_into().expect("below a second"),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: at,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            match read(self.0.get_ref(), &mut [0u8; 8]) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
