//! The two messages of `Invoke` in protobuf's wire format, by hand: a request is read in place, an answer is written into
//! one buffer of the right size. Everything else is Python's to encode.

use std::time::Duration;

use bytes::{BufMut, Bytes};

/// `slotway.v1.InvokeRequest`, borrowed from the message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InvokeRequest<'a> {
    pub(crate) action: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) activation_id: &'a [u8],
}

/// The message is not protobuf.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> InvokeRequest<'a> {
    /// Reads the message; unknown fields are skipped, the last of two equal fields counts.
    pub(crate) fn decode(mut rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut request = Self::default();
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            match key & 7 {
                0 => _ = varint(&mut rest)?,
                1 => _ = take(&mut rest, 8)?,
                2 => {
                    let length = varint(&mut rest)?;
                    let value = take(&mut rest, usize::try_from(length).map_err(|_| Malformed)?)?;
                    match key >> 3 {
                        0 => return Err(Malformed),
                        1 => request.action = value,
                        2 => request.payload = value,
                        3 => request.activation_id = value,
                        _ => {}
                    }
                }
                5 => _ = take(&mut rest, 4)?,
                _ => return Err(Malformed),
            }
        }
        Ok(request)
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(Malformed)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (value, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = tail;
    Ok(value)
}

/// What is told of an invocation that ended.
pub(crate) struct InvokeResponse<'a> {
    pub(crate) activation_id: &'a str,
    /// 200: `body` is the result; else it is the action's own error.
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    pub(crate) wait: Duration,
    pub(crate) run: Duration,
    pub(crate) container: &'a str,
}

impl InvokeResponse<'_> {
    /// The gRPC message: the prefix of five bytes, then `slotway.v1.InvokeResponse`.
    pub(crate) fn encode(&self) -> Bytes {
        let (wait, run) = (duration_size(self.wait), duration_size(self.run));
        let timing = field_size(wait) + field_size(run);
        let error = field_size(self.body.len()) + 1 + varint_size(self.status.into());
        let outcome = if self.status == 200 {
            self.body.len()
        } else {
            error
        };
        let size = field_size(self.activation_id.len())
            + field_size(outcome)
            + field_size(timing)
            + field_size(self.container.len());
        let mut out = Vec::with_capacity(5 + size);
        out.put_u8(0);
        out.put_u32(u32::try_from(size).expect("answers are limited to far less"));
        put_bytes(&mut out, 1, self.activation_id.as_bytes());
        if self.status == 200 {
            put_bytes(&mut out, 2, self.body);
        } else {
            put_key(&mut out, 3, error);
            put_bytes(&mut out, 1, self.body);
            put_int(&mut out, 2, self.status.into());
        }
        put_key(&mut out, 4, timing);
        put_duration(&mut out, 1, self.wait);
        put_duration(&mut out, 2, self.run);
        put_bytes(&mut out, 5, self.container.as_bytes());
        debug_assert_eq!(out.len(), 5 + size);
        out.into()
    }
}

fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The size of a field with a number below 16 and a value of so many bytes.
fn field_size(length: usize) -> usize {
    1 + varint_size(length as u64) + length
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_key(out: &mut Vec<u8>, number: u8, length: usize) {
    out.push(number << 3 | 2);
    put_varint(out, length as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    put_key(out, number, value.len());
    out.extend_from_slice(value);
}

pub(crate) fn put_int(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    put_varint(out, value);
}

fn duration_size(value: Duration) -> usize {
    2 + varint_size(value.as_secs()) + varint_size(value.subsec_nanos().into())
}

/// A field of the type `google.protobuf.Duration`.
pub(crate) fn put_duration(out: &mut Vec<u8>, number: u8, value: Duration) {
    put_key(out, number, duration_size(value));
    put_int(out, 1, value.as_secs());
    put_int(out, 2, value.subsec_nanos().into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_skipped_and_the_last_value_counts() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"ns/old");
        put_int(&mut message, 9, 1 << 40);
        put_bytes(&mut message, 1, b"ns/new");
        message.extend_from_slice(&[7 << 3 | 5, 1, 2, 3, 4, 8 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        put_bytes(&mut message, 2, b"{}");
        let request = InvokeRequest::decode(&message).unwrap();
        assert_eq!(
            (request.action, request.payload),
            (&b"ns/new"[..], &b"{}"[..])
        );
    }

    #[test]
    fn every_cut_of_a_message_is_malformed_or_shorter() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"ns/name");
        let whole = InvokeRequest::decode(&message).unwrap();
        assert_eq!(whole.action, b"ns/name");
        for end in 1..message.len() {
            assert_eq!(InvokeRequest::decode(&message[..end]), Err(Malformed));
        }
    }

    #[test]
    fn the_size_is_told_before_the_bytes() {
        for status in [200, 502] {
            let answer = InvokeResponse {
                activation_id: "id",
                status,
                body: &[b'x'; 300],
                wait: Duration::ZERO,
                run: Duration::from_nanos(5_000_000_123),
                container: "c-1",
            };
            let bytes = answer.encode();
            let size = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
            assert_eq!(bytes.len(), 5 + size as usize);
        }
    }
}
