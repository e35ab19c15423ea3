//! One pass from bytes to a [`Json`] tree.

use std::borrow::Cow;

use super::{Json, Number, Object, scan::plain_end};
use crate::error::{Error, ErrorKind, Result};

/// How deep arrays and objects may nest. Python stops a little below its
/// recursion limit of 1000; half of that is far beyond any real request and
/// leaves every recursion over a tree small.
pub const MAX_DEPTH: usize = 500;

/// The longest integer, in digits: CPython's limit for reading and printing
/// one.
pub const MAX_INTEGER_DIGITS: usize = 4300;

const TOO_DEEP: &str = "nested too deeply";
const TOO_LONG: &str = "integer of more than 4300 digits";

/// Whether `error`, from [`parse`], is about a limit and not about the grammar.
pub(crate) fn is_over_limit(error: &Error) -> bool {
    error.message().ends_with(TOO_DEEP) || error.message().ends_with(TOO_LONG)
}

/// Reads `bytes` as Python's `json.loads` does. O(n), objects with many keys
/// O(n log n).
///
/// A UTF-8 byte order mark is skipped; UTF-16 and UTF-32, which Python detects,
/// are refused.
///
/// # Errors
/// `InvalidJson` with the byte offset; `InvalidUnicode` if a string holds a
/// lone surrogate.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>> {
    let (text, offset) = text_of(bytes)?;
    parse_at(text, offset, 0)
}

/// The text of a body as Python's `json` decodes it, and where it starts.
///
/// # Errors
/// As [`parse`].
pub(crate) fn text_of(bytes: &[u8]) -> Result<(&str, usize)> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if body.len() == bytes.len() && looks_wide(bytes) {
        return Err(Error::new(
            ErrorKind::InvalidJson,
            "the body is UTF-16 or UTF-32; send UTF-8",
        ));
    }
    let offset = bytes.len() - body.len();
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        if is_surrogate(&body[at..]) {
            surrogate(offset + at)
        } else {
            invalid(offset + at, "invalid UTF-8")
        }
    })?;
    Ok((text, offset))
}

/// Reads `text` as Python's `json.loads` does a `str`: a byte order mark is an
/// error.
///
/// # Errors
/// As [`parse`].
pub fn parse_str(text: &str) -> Result<Json<'_>> {
    parse_at(text, 0, 0)
}

/// Reads a value that stands `depth` arrays and objects deep and `offset` bytes
/// into a body.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_at(text: &str, offset: usize, depth: usize) -> Result<Json<'_>> {
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        offset,
        depth,
    };
    parser.skip_space();
    let value = parser.value()?;
    parser.skip_space();
    if parser.at < parser.bytes.len() {
        return Err(parser.error("extra data after the value"));
    }
    Ok(value)
}

/// Whether Python's `json.detect_encoding` takes the bytes for UTF-16 or
/// UTF-32.
fn looks_wide(bytes: &[u8]) -> bool {
    match bytes {
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => true,
        [first, second, _, _, ..] | [first, second] => *first == 0 || *second == 0,
        _ => false,
    }
}

/// Whether the bytes start with a surrogate in UTF-8's scheme, which Python
/// lets through here.
fn is_surrogate(bytes: &[u8]) -> bool {
    matches!(bytes, [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..])
}

#[cold]
fn invalid(at: usize, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidJson,
        format!("invalid JSON at byte {at}: {what}"),
    )
}

#[cold]
fn surrogate(at: usize) -> Error {
    Error::new(
        ErrorKind::InvalidUnicode,
        format!("lone surrogate in a string at byte {at}"),
    )
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// What was cut off in front, for error messages.
    offset: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    #[cold]
    fn error(&self, what: &str) -> Error {
        invalid(self.offset + self.at, what)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Json<'a>> {
        match self.peek() {
            Some(b'"') => self.string().map(Json::String),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'0'..=b'9') => self.number(),
            Some(b'-') if self.bytes.get(self.at + 1) == Some(&b'I') => {
                self.literal("-Infinity", Json::Number(Number::NegativeInfinity))
            }
            Some(b'-') => self.number(),
            Some(b't') => self.literal("true", Json::Bool(true)),
            Some(b'f') => self.literal("false", Json::Bool(false)),
            Some(b'n') => self.literal("null", Json::Null),
            Some(b'N') => self.literal("NaN", Json::Number(Number::NaN)),
            Some(b'I') => self.literal("Infinity", Json::Number(Number::Infinity)),
            Some(_) => Err(self.error("expected a value")),
            None => Err(self.error("unexpected end, expected a value")),
        }
    }

    fn literal(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("expected a value"))
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Json<'a>>) -> Result<Json<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(TOO_DEEP));
        }
        self.at += 1;
        self.skip_space();
        let value = inner(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Json<'a>> {
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.error("expected ',' or ']'")),
            }
            self.skip_space();
        }
    }

    fn object(&mut self) -> Result<Json<'a>> {
        let mut entries = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(Object::default()));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in double quotes"));
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.error("expected ':'"));
            }
            self.at += 1;
            self.skip_space();
            entries.push((key, self.value()?));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(Object::new(entries)));
                }
                _ => return Err(self.error("expected ',' or '}'")),
            }
            self.skip_space();
        }
    }

    fn number(&mut self) -> Result<Json<'a>> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.at;
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.error("expected a digit")),
        }
        let whole = self.at;
        // A point or an exponent without digits ends the number before it, as
        // in Python; what follows is then an error of its own.
        if self.peek() == Some(b'.') && self.digit_at(self.at + 1) {
            self.at += 1;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            let signed = matches!(self.bytes.get(self.at + 1), Some(b'+' | b'-'));
            let first = self.at + 1 + usize::from(signed);
            if self.digit_at(first) {
                self.at = first;
                self.digits();
            }
        }
        let spelling = &self.text[start..self.at];
        if self.at > whole {
            return Ok(Json::Number(Number::Float(spelling)));
        }
        if whole - digits > MAX_INTEGER_DIGITS {
            return Err(self.error(TOO_LONG));
        }
        Ok(Json::Number(Number::Integer(spelling)))
    }

    fn digit_at(&self, at: usize) -> bool {
        self.bytes.get(at).is_some_and(u8::is_ascii_digit)
    }

    fn digits(&mut self) {
        while self.digit_at(self.at) {
            self.at += 1;
        }
    }

    /// The string whose opening quote is next.
    fn string(&mut self) -> Result<Cow<'a, str>> {
        let start = self.at + 1;
        let end = plain_end(self.bytes, start);
        if self.bytes.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Cow::Borrowed(&self.text[start..end]));
        }
        self.escaped_string(start, end).map(Cow::Owned)
    }

    fn escaped_string(&mut self, mut start: usize, mut end: usize) -> Result<String> {
        let mut out = String::with_capacity((end - start) * 2 + 16);
        loop {
            out.push_str(&self.text[start..end]);
            self.at = end;
            match self.peek() {
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("control character in a string")),
                None => return Err(self.error("unterminated string")),
            }
            start = self.at;
            end = plain_end(self.bytes, start);
        }
    }

    /// The character of the escape at the cursor, which moves behind it.
    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        let character = match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.error("invalid escape")),
        };
        self.at = start + 2;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let start = self.at;
        let Some(unit) = self.hex_unit(start) else {
            return Err(self.error("invalid \\u escape"));
        };
        self.at = start + 6;
        if let Some(character) = char::from_u32(unit) {
            return Ok(character);
        }
        if (0xd800..0xdc00).contains(&unit)
            && let Some(low) = self.hex_unit(self.at)
            && (0xdc00..0xe000).contains(&low)
        {
            self.at += 6;
            let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            return char::from_u32(code).ok_or_else(|| surrogate(self.offset + start));
        }
        Err(surrogate(self.offset + start))
    }

    /// The code unit of a `\uXXXX` at `at`.
    fn hex_unit(&self, at: usize) -> Option<u32> {
        let [b'\\', b'u', digits @ ..] = self.bytes.get(at..at + 6)? else {
            return None;
        };
        digits.iter().try_fold(0, |unit, &digit| {
            Some(unit * 16 + char::from(digit).to_digit(16)?)
        })
    }
}
