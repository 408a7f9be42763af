//! Where a container listens.

use std::{fmt, path::PathBuf, str::FromStr};

use bytes::Bytes;

/// A Unix socket keeps its path in 108 bytes, the last of them zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where a container listens, and the head that every request to it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) place: Place,
    /// Everything of the request's head before the value of `content-length`.
    pub(super) head: Bytes,
}

/// A socket's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// The text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither unix:/path (at most 107 bytes) nor host:port")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `unix:/path` or `host:port`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let (place, host) = if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > UNIX_PATH_BYTES_MAX || path.contains('\0') {
                return Err(error());
            }
            (Place::Unix(PathBuf::from(path)), "localhost")
        } else {
            let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
            let port: u16 = port.parse().map_err(|_| error())?;
            let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
            if host.is_empty() || port == 0 || !host.bytes().all(is_host) {
                return Err(error());
            }
            (Place::Tcp(text.to_owned()), text)
        };
        let head = format!(
            "POST /run HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
        );
        Ok(Self {
            place,
            head: head.into(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(out, "unix:{}", path.display()),
            Place::Tcp(text) => out.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "unix:/tmp/a b/c.sock",
            "127.0.0.1:8080",
            "[::1]:80",
            "action-7.pods:8080",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_address_or_would_break_the_head() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "", "unix:", "unix:rel", "host", "host:", ":80", "h:0", "h:65536", "h\r\nx:1", "h o:1",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
