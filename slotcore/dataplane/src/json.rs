//! Checks that bytes are exactly one JSON object (RFC 8259), without building a tree and without allocating.
//!
//! The members of a checked object may be spliced into another object: nothing in them can close that object, open a
//! string, or add a key beside them. Depth is bounded, so that no parser behind this one can be driven out of its stack.

use std::ops::Range;

/// How deep objects and arrays may nest, the outermost object counted: one bit of the stack for each.
pub const DEPTH_MAX: u32 = 64;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

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
    let mut scanner = Scanner {
        input,
        at: 0,
        seen: 0,
    };
    scanner.space();
    if input.get(scanner.at) != Some(&b'{') {
        return Err(scanner.error("not a JSON object"));
    }
    let members = scanner.object()?;
    scanner.space();
    if scanner.at < input.len() {
        return Err(scanner.error("something follows the JSON object"));
    }
    if scanner.seen & HIGH != 0
        && let Err(error) = std::str::from_utf8(input)
    {
        return Err(JsonError {
            offset: error.valid_up_to(),
            what: "not UTF-8",
        });
    }
    Ok(members)
}

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    /// All bytes of strings, eight at a time, joined by "or": tells whether there is more than ASCII.
    seen: u64,
}

impl Scanner<'_> {
    /// Reads the object that begins here; the range of its members.
    fn object(&mut self) -> Result<Range<usize>, JsonError> {
        // One bit for each open container, the innermost lowest: 1 is an object, 0 an array.
        let mut stack = 1_u64;
        let mut depth = 1_u32;
        self.at += 1;
        self.space();
        let start = self.at;
        if self.byte()? == b'}' {
            self.at += 1;
            return Ok(start..start);
        }
        self.key()?;
        loop {
            // Here a value begins …
            let byte = self.byte()?;
            match byte {
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b'{' | b'[' => {
                    if depth == DEPTH_MAX {
                        return Err(self.error("nested too deeply"));
                    }
                    let is_object = byte == b'{';
                    depth += 1;
                    stack = stack << 1 | u64::from(is_object);
                    self.at += 1;
                    self.space();
                    // The end of an empty one is read below, as every end.
                    if self.byte()? != if is_object { b'}' } else { b']' } {
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(self.error("a value is missing")),
            }
            // … and here it has ended.
            loop {
                self.space();
                let byte = self.byte()?;
                let is_object = stack & 1 == 1;
                if byte == b',' {
                    self.at += 1;
                    self.space();
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                if byte != if is_object { b'}' } else { b']' } {
                    return Err(self.error("a comma or an end is missing"));
                }
                self.at += 1;
                depth -= 1;
                stack >>= 1;
                if depth == 0 {
                    return Ok(start..self.at - 1);
                }
            }
        }
    }

    /// Reads a key and its colon, and the white space around that.
    fn key(&mut self) -> Result<(), JsonError> {
        if self.byte()? != b'"' {
            return Err(self.error("a key is missing"));
        }
        self.string()?;
        self.space();
        if self.byte()? != b':' {
            return Err(self.error("a colon is missing"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Reads the string that begins here.
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            self.plain();
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                byte if byte < 0x20 => return Err(self.error("a control character in a string")),
                byte => {
                    self.seen |= u64::from(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// Skips what surely is neither a quote nor a backslash nor a control character, eight bytes at a time.
    fn plain(&mut self) {
        // The high bit of each byte that is zero: exact for the lowest such byte, and that is the one that counts.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        while let Some(chunk) = self.input[self.at..].first_chunk() {
            let word = u64::from_le_bytes(*chunk);
            self.seen |= word;
            let quotes = zeros(word ^ (ONES * u64::from(b'"')));
            let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
            let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
            let special = quotes | backslashes | controls;
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
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
        self.at += usize::from(self.peek() == b'-');
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(self.error("a digit is missing"))
        }
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), JsonError> {
        if !self.input[self.at..].starts_with(text) {
            return Err(self.error("a value is missing"));
        }
        self.at += text.len();
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The byte here; zero, which is never right, at the end.
    fn peek(&self) -> u8 {
        self.input.get(self.at).copied().unwrap_or(0)
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
