//! Checks that bytes are exactly one JSON object (RFC 8259), without building a tree and without allocating.
//!
//! The members of a checked object may be spliced into another object: nothing in them can close that object, open a
//! string, or add a key beside them. Depth is bounded, so that no parser behind this one can be driven out of its stack.

use std::ops::Range;

/// How deep objects and arrays may nest, the outermost object counted: one bit of the stack for each.
pub const DEPTH_MAX: u32 = 64;

/// Where and why the bytes are not one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct JsonError {
    /// The first byte that cannot be right.
    pub offset: usize,
    /// For a person to read.
    pub what: &'static str,
}

/// Checks that `input` is one JSON object in UTF-8 at most [`DEPTH_MAX`] deep, white space around it allowed.
///
/// Returns where its members are: what stands between the braces, without white space before it; empty for `{}`.
pub fn validate_object(input: &[u8]) -> Result<Range<usize>, JsonError> {
    if let Err(error) = std::str::from_utf8(input) {
        return Err(JsonError {
            offset: error.valid_up_to(),
            what: "not UTF-8",
        });
    }
    let mut scanner = Scanner { input, at: 0 };
    scanner.space();
    if input.get(scanner.at) != Some(&b'{') {
        return Err(scanner.error("not a JSON object"));
    }
    let members = scanner.object()?;
    scanner.space();
    if scanner.at < input.len() {
        return Err(scanner.error("something follows the JSON object"));
    }
    Ok(members)
}

/// What may come next, after white space.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    /// A key, or the end of the object that has just begun.
    FirstKey,
    Key,
    /// A value, or the end of the array that has just begun.
    FirstItem,
    Value,
    /// A comma, or the end of the innermost container.
    Comma,
}

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Reads the object that begins here; the range of its members.
    fn object(&mut self) -> Result<Range<usize>, JsonError> {
        // One bit for each open container, the innermost lowest: 1 is an object, 0 an array.
        let mut stack = 1_u64;
        let mut depth = 1_u32;
        let mut expect = Expect::FirstKey;
        self.at += 1;
        self.space();
        let start = self.at;
        loop {
            let byte = self.byte()?;
            let is_object = stack & 1 == 1;
            match expect {
                Expect::FirstKey | Expect::Key if byte == b'"' => {
                    self.string()?;
                    self.space();
                    if self.byte()? != b':' {
                        return Err(self.error("a colon is missing"));
                    }
                    self.at += 1;
                    expect = Expect::Value;
                }
                Expect::FirstKey | Expect::Comma if byte == b'}' && is_object => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(start..self.at - 1);
                    }
                    self.at += 1;
                    stack >>= 1;
                    expect = Expect::Comma;
                }
                Expect::FirstItem | Expect::Comma if byte == b']' && !is_object => {
                    self.at += 1;
                    depth -= 1;
                    stack >>= 1;
                    expect = Expect::Comma;
                }
                Expect::Comma if byte == b',' => {
                    self.at += 1;
                    expect = if is_object {
                        Expect::Key
                    } else {
                        Expect::Value
                    };
                }
                Expect::Value | Expect::FirstItem if byte == b'{' || byte == b'[' => {
                    if depth == DEPTH_MAX {
                        return Err(self.error("nested too deeply"));
                    }
                    self.at += 1;
                    depth += 1;
                    stack = stack << 1 | u64::from(byte == b'{');
                    expect = if byte == b'{' {
                        Expect::FirstKey
                    } else {
                        Expect::FirstItem
                    };
                }
                Expect::Value | Expect::FirstItem => {
                    self.scalar(byte)?;
                    expect = Expect::Comma;
                }
                Expect::FirstKey | Expect::Key => return Err(self.error("a key is missing")),
                Expect::Comma => return Err(self.error("a comma or an end is missing")),
            }
            self.space();
        }
    }

    fn scalar(&mut self, byte: u8) -> Result<(), JsonError> {
        match byte {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(self.error("a value is missing")),
        }
    }

    /// Reads the string that begins here.
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            self.at += plain_length(&self.input[self.at..]);
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                byte if byte < 0x20 => return Err(self.error("a control character in a string")),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.byte()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
            b'u' => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.byte()?.is_ascii_hexdigit() {
                        return Err(self.error("malformed \\u escape"));
                    }
                }
            }
            _ => return Err(self.error("unknown escape")),
        }
        self.at += 1;
        Ok(())
    }

    /// Reads the number that begins here: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
    fn number(&mut self) -> Result<(), JsonError> {
        self.skip(|byte| byte == b'-');
        if self.skip(|byte| byte == b'0') == 0 {
            self.digits()?;
        }
        if self.skip(|byte| byte == b'.') == 1 {
            self.digits()?;
        }
        if self.skip(|byte| matches!(byte, b'e' | b'E')) == 1 {
            self.skip(|byte| matches!(byte, b'+' | b'-'));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.input.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(self.error("a digit is missing"))
        }
    }

    /// Skips at most one byte.
    fn skip(&mut self, is_wanted: impl Fn(u8) -> bool) -> usize {
        let length = usize::from(self.input.get(self.at).is_some_and(|byte| is_wanted(*byte)));
        self.at += length;
        length
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), JsonError> {
        if !self.input[self.at..].starts_with(text) {
            return Err(self.error("a value is missing"));
        }
        self.at += text.len();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.input.get(self.at) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Result<u8, JsonError> {
        self.input
            .get(self.at)
            .copied()
            .ok_or_else(|| self.error("it ends too early"))
    }

    #[cold]
    fn error(&self, what: &'static str) -> JsonError {
        JsonError {
            offset: self.at,
            what,
        }
    }
}

/// How many bytes a string goes on for, at least, without a quote, a backslash or a control character; looks at eight
/// bytes at once.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero (exact for the lowest such byte, which is the one asked for).
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut length = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let special = quotes | backslashes | controls;
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length
}
