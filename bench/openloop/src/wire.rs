//! Just so much of protobuf and gRPC as a caller of `Invoke` needs.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

/// The framed `slotway.v1.InvokeRequest`.
pub(crate) fn invoke_request(action: &str, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    for (number, value) in [(1u8, action.as_bytes()), (2, payload)] {
        if !value.is_empty() {
            message.put_u8(number << 3 | 2);
            put_varint(&mut message, value.len() as u64);
            message.put_slice(value);
        }
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a small request"));
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8((value & 0x7f) as u8);
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message that have a length, up to where it is not protobuf any more.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = varint(&mut self.0)?;
            let length = match key & 7 {
                0 => {
                    varint(&mut self.0)?;
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut self.0)?).ok()?,
                5 => 4,
                _ => return None,
            };
            let (value, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            if key & 7 == 2 {
                return Some((key >> 3, value));
            }
        }
    }
}

/// The first field of this number that has a length.
pub(crate) fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    Fields(message)
        .find(|(found, _)| *found == number)
        .map(|(_, value)| value)
}

/// What the witness in the action says: the number behind `"seen":` in its result.
pub(crate) fn seen(result: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(result).ok()?;
    let (_, after) = text.split_once("\"seen\":")?;
    let digits = after.trim_start();
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// How a call ended, from its trailers: empty if it succeeded, else the reason of its `ErrorInfo`, else its status.
pub(crate) fn ending(trailers: &HeaderMap) -> String {
    let status = trailers
        .get("grpc-status")
        .and_then(|value| value.to_str().ok());
    if status == Some("0") {
        return String::new();
    }
    let reason = trailers.get("grpc-status-details-bin").and_then(|value| {
        let text = value.as_bytes();
        let details = STANDARD_NO_PAD
            .decode(text)
            .or_else(|_| STANDARD.decode(text))
            .ok()?;
        // google.rpc.Status.details: the first Any's value: google.rpc.ErrorInfo.reason.
        let info = field(&details, 3)?;
        let reason = field(field(info, 2)?, 1)?;
        String::from_utf8(reason.to_vec()).ok()
    });
    reason.unwrap_or_else(|| format!("status {}", status.unwrap_or("missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_framed_protobuf() {
        let framed = invoke_request("a/b", b"{}");
        assert_eq!(&framed[..], b"\0\0\0\0\x09\x0a\x03a/b\x12\x02{}");
        assert_eq!(field(&framed[5..], 2), Some(&b"{}"[..]));
        let long = invoke_request("a/b", &[b' '; 300]);
        assert_eq!(field(&long[5..], 2).map(<[u8]>::len), Some(300));
    }

    #[test]
    fn what_is_not_protobuf_has_no_fields() {
        for message in [
            &b"\x0a"[..],
            b"\x0a\xff",
            b"\x0f",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(field(message, 1), None);
        }
    }

    #[test]
    fn the_witness_is_found() {
        assert_eq!(seen(br#"{"a":1,"seen": 42,"b":2}"#), Some(42));
        assert_eq!(seen(br#"{"seen":7}"#), Some(7));
        assert_eq!(seen(br#"{"saw":7}"#), None);
    }

    #[test]
    fn an_ending_has_a_reason() {
        let mut trailers = HeaderMap::new();
        assert_eq!(ending(&trailers), "status missing");
        trailers.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(ending(&trailers), "");
        trailers.insert("grpc-status", "8".parse().unwrap());
        assert_eq!(ending(&trailers), "status 8");
        // Status { code: 8, details: [Any { type_url: "t", value: ErrorInfo { reason: "MAX_WAIT" } }] }
        let info = b"\x0a\x08MAX_WAIT";
        let any = [b"\x0a\x01t\x12\x0a", &info[..]].concat();
        let status = [b"\x08\x08\x1a\x0f", &any[..]].concat();
        let text = STANDARD_NO_PAD.encode(status);
        trailers.insert("grpc-status-details-bin", text.parse().unwrap());
        assert_eq!(ending(&trailers), "MAX_WAIT");
    }
}
