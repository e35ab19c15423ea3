//! Finding the parts of a body without reading them: a history that was read
//! once need not be read again to be recognized.
//!
//! What is between the parts is checked; what is in them only as far as their
//! ends can be found. A part must be known byte for byte, or be parsed.

use std::borrow::Cow;

use memchr::memchr2;

use super::{Json, parse::parse_at};
use crate::error::{Error, ErrorKind, Result};

/// Where a value stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    pub(crate) fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }
}

/// The members of the object that `text` is, in order; of equal keys the last
/// one counts. O(n) at the speed of a search for quotes.
///
/// # Errors
/// `InvalidJson` where `text` is not an object, or something stands between its
/// members that should not. A member that an equal key hides is parsed here.
pub(crate) fn members(text: &str) -> Result<Vec<(Cow<'_, str>, Span)>> {
    let mut skim = Skim::new(text, 0);
    let mut members: Vec<(Cow<'_, str>, Span)> = Vec::with_capacity(16);
    skim.expect(b'{', "expected an object")?;
    if skim.peek() == Some(b'}') {
        skim.at += 1;
        skim.end(text.len())?;
        return Ok(members);
    }
    loop {
        if skim.peek() != Some(b'"') {
            return Err(skim.error("expected a key in double quotes"));
        }
        let key = skim.value()?;
        let Json::String(key) = parse_at(key.of(text), key.start, 1)? else {
            return Err(skim.error("expected a key in double quotes"));
        };
        skim.expect(b':', "expected ':'")?;
        let value = skim.value()?;
        match members.iter_mut().find(|(known, _)| *known == key) {
            Some((_, hidden)) => {
                parse_at(hidden.of(text), hidden.start, 1)?;
                *hidden = value;
            }
            None => members.push((key, value)),
        }
        match skim.peek() {
            Some(b',') => skim.at += 1,
            Some(b'}') => {
                skim.at += 1;
                skim.end(text.len())?;
                return Ok(members);
            }
            _ => return Err(skim.error("expected ',' or '}'")),
        }
    }
}

/// The items of the array at `array`, in order. O(n) as [`members`].
///
/// # Errors
/// `InvalidJson` where there is no array, or something stands between its items
/// that should not.
pub(crate) fn items(text: &str, array: Span) -> Result<Vec<Span>> {
    let mut skim = Skim::new(text, array.start);
    let mut items = Vec::with_capacity(64);
    skim.expect(b'[', "expected an array")?;
    if skim.peek() == Some(b']') {
        skim.at += 1;
        skim.end(array.end)?;
        return Ok(items);
    }
    loop {
        items.push(skim.value()?);
        match skim.peek() {
            Some(b',') => skim.at += 1,
            Some(b']') => {
                skim.at += 1;
                skim.end(array.end)?;
                return Ok(items);
            }
            _ => return Err(skim.error("expected ',' or ']'")),
        }
    }
}

struct Skim<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Skim<'a> {
    fn new(text: &'a str, at: usize) -> Self {
        let bytes = text.as_bytes();
        Self { bytes, at }
    }

    #[cold]
    fn error(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::InvalidJson,
            format!("invalid JSON at byte {}: {what}", self.at),
        )
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.peek() != Some(byte) {
            return Err(self.error(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Only white space may follow up to `end`.
    fn end(&mut self, end: usize) -> Result<()> {
        self.peek();
        if self.at < end {
            return Err(self.error("extra data after the value"));
        }
        Ok(())
    }

    /// The span of the next value.
    fn value(&mut self) -> Result<Span> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => self.string()?,
            Some(b'{' | b'[') => self.nested()?,
            Some(b',' | b']' | b'}' | b':') | None => {
                return Err(self.error("expected a value"));
            }
            Some(_) => {
                let rest = &self.bytes[start..];
                let ends = |byte: &u8| {
                    matches!(
                        byte,
                        b',' | b']' | b'}' | b':' | b' ' | b'\n' | b'\r' | b'\t'
                    )
                };
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        Ok(Span {
            start,
            end: self.at,
        })
    }

    /// Moves behind the string that starts here.
    fn string(&mut self) -> Result<()> {
        self.at += 1;
        loop {
            match memchr2(b'"', b'\\', &self.bytes[self.at..]) {
                Some(found) if self.bytes[self.at + found] == b'"' => {
                    self.at += found + 1;
                    return Ok(());
                }
                // The escaped byte may be a quote; no other matters here.
                Some(found) if self.at + found + 2 <= self.bytes.len() => self.at += found + 2,
                _ => return Err(self.error("unterminated string")),
            }
        }
    }

    /// Moves behind the array or object that starts here. Brackets are counted,
    /// not matched: a part that is not known is parsed.
    fn nested(&mut self) -> Result<()> {
        let mut depth = 0_usize;
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        Err(self.error("unexpected end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    /// What skimming finds, parsed: the value that the parser gives.
    fn skimmed(text: &str) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for (key, span) in members(text)? {
            let value = parse_at(span.of(text), span.start, 1)?;
            if key == "messages" && matches!(value, Json::Array(_)) {
                for item in items(text, span)? {
                    let item = parse_at(item.of(text), item.start, 2)?;
                    all.push(("item".to_owned(), format!("{item:?}")));
                }
            }
            all.push((key.into_owned(), format!("{value:?}")));
        }
        Ok(all)
    }

    fn parsed(text: &str) -> Result<Vec<(String, String)>> {
        let Json::Object(object) = parse(text.as_bytes())? else {
            return Err(Error::new(ErrorKind::InvalidJson, "no object"));
        };
        let mut all = Vec::new();
        for (key, value) in object.iter() {
            if let ("messages", Json::Array(items)) = (key, value) {
                all.extend(
                    items
                        .iter()
                        .map(|item| ("item".into(), format!("{item:?}"))),
                );
            }
            all.push((key.to_owned(), format!("{value:?}")));
        }
        Ok(all)
    }

    /// Every cut and every changed byte of some bodies: skimming and parsing what
    /// was found gives what parsing gives, or both refuse.
    #[test]
    fn skimming_finds_what_parsing_finds() {
        let bodies = [
            r#" {"messages" : [ {"a":"}]\"\\"}, 1 ,"x\\", [[],{}] ] , "tools":null,"n":-1.5e3} "#,
            r#"{"messages":[],"messages":[{"content":"é\u00e9"}],"a":[]}"#,
            r#"{"m\u0065ssages":[true,false],"k":{"messages":[1]}}"#,
            "{}",
        ];
        let mut agreed = 0;
        for body in bodies {
            assert!(parsed(body).is_ok(), "{body}");
            for at in (0..=body.len()).filter(|at| body.is_char_boundary(*at)) {
                let (before, after) = body.split_at(at);
                for put in ["", ",", "]", "}", "{", "[", "\"", "\\", ":", " ", "1", "x"] {
                    let skipped = after.chars().next().map_or(0, char::len_utf8);
                    for text in [
                        format!("{before}{put}{after}"),
                        format!("{before}{put}{}", &after[skipped..]),
                        format!("{before}{put}"),
                    ] {
                        match (skimmed(&text), parsed(&text)) {
                            (Ok(ours), Ok(theirs)) => {
                                assert_eq!(ours, theirs, "{text}");
                                agreed += 1;
                            }
                            (Err(_), Err(_)) => {}
                            (ours, theirs) => panic!("{text}: {ours:?}, {theirs:?}"),
                        }
                    }
                }
            }
        }
        assert!(agreed > 500);
    }
}
