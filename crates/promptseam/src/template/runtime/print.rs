//! Values printed as Python's `str` and `repr` print them.

use std::fmt::Write;

use minijinja::{
    AutoEscape, Error, Output, State, Value,
    value::{ObjectRepr, ValueKind},
};

use super::{
    budget, fault,
    objects::{BigInt, to_value},
};
use crate::{
    json::push_float_repr,
    template::data::{Data, List, Map},
};

/// How deep a printed value may nest.
const MAX_DEPTH: usize = 600;

/// The formatter of `{{ ... }}`.
pub(super) fn emit(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let escapes = !matches!(state.auto_escape(), AutoEscape::None) && !value.is_safe();
    if value.kind() == ValueKind::String && !escapes {
        let text = value.as_str().unwrap_or_default();
        budget::charge(state, text.len())?;
        return out.write_str(text).map_err(Error::from);
    }
    let mut text = to_text(value)?;
    if escapes {
        text = escape(&text);
    }
    budget::charge(state, text.len())?;
    out.write_str(&text).map_err(Error::from)
}

/// Appends `str(value)`.
pub(super) fn push_str(out: &mut String, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => out.push_str(value.as_str().unwrap_or_default()),
        ValueKind::Undefined => {}
        _ => push_repr(out, value, 0)?,
    }
    Ok(())
}

/// `text` with the characters that HTML uses replaced, as MarkupSafe does.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}

/// `str(value)`.
pub(super) fn to_text(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    push_str(&mut out, value)?;
    Ok(out)
}

/// Appends `repr(value)`.
pub(super) fn push_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(fault("a printed value is nested too deeply"));
    }
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        push_quoted(out, text);
        return Ok(());
    }
    if let Some(number) = float(value) {
        push_float_repr(out, number);
        return Ok(());
    }
    if let Some(bytes) = value.as_bytes() {
        push_bytes(out, bytes);
        return Ok(());
    }
    let Some(object) = value.as_object() else {
        // Writing to a String cannot fail.
        let _ = match value.kind() {
            ValueKind::Undefined => write!(out, "Undefined"),
            _ => write!(out, "{value}"),
        };
        return Ok(());
    };
    if let Some(list) = value.downcast_object_ref::<List>() {
        push_list(out, list);
    } else if let Some(map) = value.downcast_object_ref::<Map>() {
        push_map(out, map);
    } else if let Some(BigInt(text)) = value.downcast_object_ref() {
        out.push_str(text);
    } else {
        match object.repr() {
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                let (open, close) = if value.is_tuple() {
                    ("(", ")")
                } else {
                    ("[", "]")
                };
                out.push_str(open);
                let mut count = 0;
                for item in value.try_iter()? {
                    if count > 0 {
                        out.push_str(", ");
                    }
                    push_repr(out, &item, depth + 1)?;
                    count += 1;
                }
                if value.is_tuple() && count == 1 {
                    out.push(',');
                }
                out.push_str(close);
            }
            ObjectRepr::Map => {
                out.push('{');
                for (at, key) in value.try_iter()?.enumerate() {
                    if at > 0 {
                        out.push_str(", ");
                    }
                    push_repr(out, &key, depth + 1)?;
                    out.push_str(": ");
                    push_repr(out, &value.get_item(&key)?, depth + 1)?;
                }
                out.push('}');
            }
            _ => {
                let _ = write!(out, "{value}");
            }
        }
    }
    Ok(())
}

/// The float, if `value` is one.
pub(super) fn float(value: &Value) -> Option<f64> {
    if value.is_number() && !value.is_integer() {
        return f64::try_from(value.clone()).ok();
    }
    None
}

pub(super) fn push_list(out: &mut String, list: &List) {
    out.push('[');
    for (at, item) in list.items().iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        push_data(out, item);
    }
    out.push(']');
}

pub(super) fn push_map(out: &mut String, map: &Map) {
    out.push('{');
    for (at, (key, value)) in map.entries().iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        push_quoted(out, key.as_str());
        out.push_str(": ");
        push_data(out, value);
    }
    out.push('}');
}

fn push_data(out: &mut String, data: &Data) {
    match data {
        Data::Str(text) => push_quoted(out, text),
        Data::List(list) => push_list(out, list),
        Data::Map(map) => push_map(out, map),
        Data::Float(value) => push_float_repr(out, *value),
        Data::BigInt(text) => out.push_str(text),
        Data::Null | Data::Bool(_) | Data::Int(_) => {
            let _ = write!(out, "{}", to_value(data));
        }
    }
}

/// Appends a string as Python's `repr` quotes it.
pub(super) fn push_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => {
                out.push('\\');
                out.push(character);
            }
            ' '..='~' => out.push(character),
            _ if is_printable(character) => out.push(character),
            _ => push_escaped(out, character),
        }
    }
    out.push(quote);
}

fn push_escaped(out: &mut String, character: char) {
    let code = u32::from(character);
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// What `str.isprintable` says of a character: Rust's debug escapes follow the
/// same categories, but a combining mark is escaped at the start of a string.
fn is_printable(character: char) -> bool {
    let mut buffer = [b'a', 0, 0, 0, 0];
    let length = character.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..=length])
        .is_ok_and(|text| text.escape_debug().nth(1) == Some(character))
}

fn push_bytes(out: &mut String, bytes: &[u8]) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' if char::from(byte) != quote => out.push(char::from(byte)),
            b' '..=b'~' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            _ => push_escaped(out, char::from(byte)),
        }
    }
    out.push(quote);
}
