//! gRPC's `grpc-timeout` header.

use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::HeaderName;

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Reads a value such as "250m"; None if it is not one.
pub(crate) fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let mut count = 0u64;
    for digit in digits {
        count = count * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes what is left until a deadline, in the finest unit that fits.
pub(crate) fn format(deadline: Instant, now: Instant) -> HeaderValue {
    const COUNT_MAX: u128 = 99_999_999;
    let left = deadline.saturating_duration_since(now);
    let text = if left.as_micros() <= COUNT_MAX {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= COUNT_MAX {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(COUNT_MAX))
    };
    HeaderValue::try_from(text).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_limits() {
        let parse = |text| super::parse(&HeaderValue::from_static(text));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            parse("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for wrong in ["", "m", "123456789m", "-1S", "1x", "1 m"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let now = Instant::now();
        for seconds in [0, 1, 99, 100, 99_999, 100_000, 400_000_000] {
            let left = Duration::from_secs(seconds);
            let read = parse(&format(now + left, now)).unwrap();
            assert_eq!(read, left.min(Duration::from_secs(99_999_999)));
        }
    }
}
