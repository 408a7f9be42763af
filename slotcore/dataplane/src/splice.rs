//! The body of a `/run`: the payload's members are put after the action's default parameters, nothing is copied.
//!
//! `{"value":{` parameters, members `},"namespace":…,"action_name":…,"activation_id":` id, deadline `}`

use crate::activation;
use crate::decimal::Decimal;
use crate::failure::{Failure, Reason};
use crate::json;

/// The longest id of an activation.
const ID_BYTES_MAX: usize = 64;
/// Room for what follows the id: a name, quotes, and 20 digits.
const TAIL_BYTES_MAX: usize = ID_BYTES_MAX + 40;

/// What all requests to one container have in common.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Ends with the comma after the default parameters, if there are any.
    before: Box<[u8]>,
    after: Box<[u8]>,
    has_parameters: bool,
}

impl Frame {
    /// `action` is of the pattern for names, so it needs no escapes; `parameters` are one JSON object, or nothing.
    pub(crate) fn new(action: &str, parameters: &[u8]) -> Result<Self, json::JsonError> {
        let members = members(parameters)?;
        let mut before = b"{\"value\":{".to_vec();
        before.extend_from_slice(members.trim_ascii_end());
        if !members.is_empty() {
            before.push(b',');
        }
        let namespace = action
            .split_once('/')
            .map_or("", |(namespace, _)| namespace);
        let after =
            format!(r#"}},"namespace":"{namespace}","action_name":"/{action}","activation_id":""#);
        Ok(Self {
            before: before.into(),
            after: after.into_bytes().into(),
            has_parameters: !members.is_empty(),
        })
    }
}

/// The members of one JSON object; nothing stands for `{}`.
fn members(object: &[u8]) -> Result<&[u8], json::JsonError> {
    Ok(if object.is_empty() {
        object
    } else {
        &object[json::validate_object(object)?]
    })
}

/// What one request adds.
#[derive(Debug)]
pub(crate) struct Splice<'a> {
    members: &'a [u8],
    id: [u8; ID_BYTES_MAX],
    id_bytes: usize,
}

/// The end of a body, on the stack.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: [u8; TAIL_BYTES_MAX],
    used: usize,
}

impl<'a> Splice<'a> {
    /// Checks the payload and the id; an empty id is replaced by a new one.
    pub(crate) fn new(
        payload: &'a [u8],
        id: &[u8],
        make_id: impl FnOnce() -> activation::Id,
    ) -> Result<Self, Failure> {
        let members = members(payload).map_err(|error| {
            Failure::new(Reason::InvalidPayload, format!("payload: {error}"))
                .with("field", "payload")
        })?;
        let mut splice = Self {
            members,
            id: [0; ID_BYTES_MAX],
            id_bytes: id.len(),
        };
        if id.is_empty() {
            let id = make_id();
            splice.id[..id.len()].copy_from_slice(&id);
            splice.id_bytes = id.len();
        } else {
            let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            if id.len() > ID_BYTES_MAX || !id.iter().all(is_fit) {
                let what = "an activation_id is 1 to 64 characters of [0-9A-Za-z_-]";
                return Err(Failure::field("activation_id", what));
            }
            splice.id[..id.len()].copy_from_slice(id);
        }
        Ok(splice)
    }

    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.id[..self.id_bytes]).expect("ids are ASCII")
    }

    /// The end of the body, with the time by which the action is to be done, in milliseconds since 1970.
    pub(crate) fn tail(&self, deadline_ms: u64) -> Tail {
        let mut tail = Tail {
            bytes: [0; TAIL_BYTES_MAX],
            used: 0,
        };
        let deadline = Decimal::new(deadline_ms);
        for part in [
            &self.id[..self.id_bytes],
            br#"","deadline":""#,
            deadline.as_slice(),
            br#""}"#,
        ] {
            let end = tail.used + part.len();
            tail.bytes[tail.used..end].copy_from_slice(part);
            tail.used = end;
        }
        tail
    }

    /// The body, in the order in which it is sent.
    pub(crate) fn pieces<'b>(&'b self, frame: &'b Frame, tail: &'b Tail) -> [&'b [u8]; 4] {
        let without_comma = frame.has_parameters && self.members.is_empty();
        let before = &frame.before[..frame.before.len() - usize::from(without_comma)];
        [before, self.members, &frame.after, &tail.bytes[..tail.used]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(parameters: &str, payload: &str) -> String {
        let frame = Frame::new("ns/name", parameters.as_bytes()).unwrap();
        let splice = Splice::new(payload.as_bytes(), b"id-1", || unreachable!()).unwrap();
        let tail = splice.tail(17);
        String::from_utf8(splice.pieces(&frame, &tail).concat()).unwrap()
    }

    #[test]
    fn parameters_come_before_the_payload() {
        let rest =
            r#","namespace":"ns","action_name":"/ns/name","activation_id":"id-1","deadline":"17"}"#;
        for (parameters, payload, value) in [
            ("", "", "{}"),
            ("{}", " { } ", "{}"),
            ("", r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"p": 2 }"#, "{}", r#"{"p": 2}"#),
            (r#"{"p":2}"#, r#"{"a":1}"#, r#"{"p":2,"a":1}"#),
        ] {
            assert_eq!(
                body(parameters, payload),
                format!(r#"{{"value":{value}{rest}"#)
            );
        }
    }

    #[test]
    fn a_payload_cannot_add_keys_beside_the_value() {
        for payload in [
            r#"{},"deadline":"0""#,
            r#"{"a":1}}"#,
            "[1]",
            "1",
            r#"{"a":1"#,
            "{} {}",
        ] {
            let refused = Splice::new(payload.as_bytes(), b"", || [b'0'; 36]).unwrap_err();
            assert_eq!(refused.reason(), Reason::InvalidPayload);
        }
    }

    #[test]
    fn the_longest_id_fits_and_a_longer_one_is_refused() {
        let id = [b'z'; ID_BYTES_MAX];
        let splice = Splice::new(b"", &id, || unreachable!()).unwrap();
        assert!(splice.tail(u64::MAX).used <= TAIL_BYTES_MAX);
        for wrong in [&[b'z'; ID_BYTES_MAX + 1][..], b"a\"b", b"a b"] {
            let refused = Splice::new(b"", wrong, || unreachable!()).unwrap_err();
            assert_eq!(refused.reason(), Reason::InvalidField);
        }
    }
}
