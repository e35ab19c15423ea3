//! Writing JSON as Python's `json.dumps` does.

use std::{borrow::Cow, fmt::Write};

use super::{Json, Number, push_json_float, scan::plain_end};

/// How [`dumps`] lays out its text. The default is Python's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether everything beyond ASCII is escaped.
    pub ensure_ascii: bool,
    /// Line breaks and their indentation, if any.
    pub indent: Option<Indent>,
    /// Between items; `None` is `", "`, or `","` with an indentation.
    pub item_separator: Option<String>,
    /// Between key and value; `None` is `": "`.
    pub key_separator: Option<String>,
    /// Whether keys are written in order of their code points.
    pub sort_keys: bool,
}

/// What one level of indentation is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Indent {
    /// So many spaces.
    Spaces(usize),
    /// This text.
    Text(String),
}

impl Default for Style {
    fn default() -> Self {
        Self {
            ensure_ascii: true,
            indent: None,
            item_separator: None,
            key_separator: None,
            sort_keys: false,
        }
    }
}

/// `value` as Python's `json.dumps` writes it. O(n), O(n log n) with sorted
/// keys.
pub fn dumps(value: &Json<'_>, style: &Style) -> String {
    let mut out = String::new();
    write_value(&mut Encoder::new(&mut out, style), value);
    out
}

fn write_value(encoder: &mut Encoder<'_>, value: &Json<'_>) {
    match value {
        Json::Null => encoder.raw("null"),
        Json::Bool(value) => encoder.bool(*value),
        Json::Number(Number::Integer(text)) => encoder.big_integer(text),
        Json::Number(number) => encoder.float(number.to_f64()),
        Json::String(text) => encoder.string(text),
        Json::Array(items) => {
            encoder.begin('[');
            for item in items {
                encoder.item();
                write_value(encoder, item);
            }
            encoder.end(']');
        }
        Json::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            if encoder.sorts_keys() {
                entries.sort_by_key(|(key, _)| *key);
            }
            encoder.begin('{');
            for (key, value) in entries {
                encoder.key(key);
                write_value(encoder, value);
            }
            encoder.end('}');
        }
    }
}

/// Writes JSON piece by piece: a container is `begin`, its items each after an
/// `item` or `key`, then `end`.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut String,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<Cow<'o, str>>,
    item_separator: &'o str,
    key_separator: &'o str,
    depth: usize,
    /// Whether the open container has no item yet.
    empty: bool,
}

impl<'o> Encoder<'o> {
    /// An encoder that appends to `out`.
    pub fn new(out: &'o mut String, style: &'o Style) -> Self {
        let item_separator = match (&style.item_separator, &style.indent) {
            (Some(separator), _) => separator,
            (None, Some(_)) => ",",
            (None, None) => ", ",
        };
        Self {
            out,
            ensure_ascii: style.ensure_ascii,
            sort_keys: style.sort_keys,
            indent: style.indent.as_ref().map(|indent| match indent {
                Indent::Spaces(count) => Cow::Owned(" ".repeat(*count)),
                Indent::Text(text) => Cow::Borrowed(text.as_str()),
            }),
            item_separator,
            key_separator: style.key_separator.as_deref().unwrap_or(": "),
            depth: 0,
            empty: false,
        }
    }

    /// Whether the caller is to write keys in order.
    pub fn sorts_keys(&self) -> bool {
        self.sort_keys
    }

    /// How many bytes are written so far, what was there before included.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Opens a container.
    pub fn begin(&mut self, open: char) {
        self.out.push(open);
        self.depth += 1;
        self.empty = true;
    }

    /// Comes before each item.
    pub fn item(&mut self) {
        if !self.empty {
            self.out.push_str(self.item_separator);
        }
        self.empty = false;
        self.line();
    }

    /// Comes before each value of an object.
    pub fn key(&mut self, key: &str) {
        self.item();
        self.string(key);
        self.out.push_str(self.key_separator);
    }

    /// Closes a container.
    pub fn end(&mut self, close: char) {
        self.depth -= 1;
        if !self.empty {
            self.line();
        }
        self.empty = false;
        self.out.push(close);
    }

    fn line(&mut self) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..self.depth {
                self.out.push_str(indent);
            }
        }
    }

    /// Writes `text` as it is.
    pub fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// Writes an integer.
    pub fn integer(&mut self, value: i128) {
        let _ = write!(self.out, "{value}");
    }

    /// Writes an integer from its JSON spelling.
    pub fn big_integer(&mut self, text: &str) {
        // Python's integers have no negative zero.
        self.raw(if text == "-0" { "0" } else { text });
    }

    /// Writes a float in Python's spelling.
    pub fn float(&mut self, value: f64) {
        push_json_float(self.out, value);
    }

    /// Writes a string in quotes, escaped.
    pub fn string(&mut self, text: &str) {
        self.out.push('"');
        let mut start = 0;
        loop {
            let end = self.plain_end(text.as_bytes(), start);
            self.out.push_str(&text[start..end]);
            if end == text.len() {
                break;
            }
            start = end + self.escape(&text[end..]);
        }
        self.out.push('"');
    }

    fn plain_end(&self, bytes: &[u8], start: usize) -> usize {
        let end = plain_end(bytes, start);
        if !self.ensure_ascii {
            return end;
        }
        let wide = bytes[start..end].iter().position(|byte| !byte.is_ascii());
        wide.map_or(end, |at| start + at)
    }

    /// Escapes the first character of `text` and gives its length in bytes.
    fn escape(&mut self, text: &str) -> usize {
        let Some(character) = text.chars().next() else {
            return 0;
        };
        match character {
            '"' => self.out.push_str("\\\""),
            '\\' => self.out.push_str("\\\\"),
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            '\u{8}' => self.out.push_str("\\b"),
            '\u{c}' => self.out.push_str("\\f"),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(self.out, "\\u{unit:04x}");
                }
            }
        }
        character.len_utf8()
    }
}
