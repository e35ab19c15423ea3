//! `%` formatting of strings, and `str.format`.
//!
//! Each field of a `%` pattern is formatted by itself: texts here, in Python's
//! spelling, numbers by MiniJinja.

use minijinja::{
    Error, State, Value,
    formatting::{FormatStyle, format},
    value::ValueKind,
};

use super::{budget, fault, methods::justify, print, text::byte_offset};

/// The widest field, in characters.
const MAX_WIDTH: usize = 1 << 20;

/// `pattern % value`.
pub(super) fn printf(state: &mut State, pattern: &str, value: &Value) -> Result<Value, Error> {
    let mapping = value.kind() == ValueKind::Map;
    let mut values = match value.is_tuple() {
        true => value.try_iter()?.collect(),
        false => vec![value.clone()],
    }
    .into_iter();
    let mut out = String::new();
    let mut rest = pattern;
    let mut by_name = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (field, after) = Field::parse(&rest[at..])?;
        rest = after;
        if field.kind == '%' {
            out.push('%');
            continue;
        }
        let item = match field.key {
            Some(key) if mapping => {
                by_name = true;
                let item = value.get_item(&Value::from(key))?;
                if item.is_undefined() {
                    return Err(fault("missing key in a format"));
                }
                item
            }
            Some(_) => return Err(fault("format requires a mapping")),
            None => values
                .next()
                .ok_or_else(|| fault("not enough arguments for a format"))?,
        };
        field.push(state, &mut out, &item)?;
        budget::charge(state, out.len())?;
    }
    out.push_str(rest);
    let unused = values.next().is_some() && !by_name && !mapping;
    if unused {
        return Err(fault("not all arguments used by a format"));
    }
    budget::charge(state, out.len())?;
    Ok(Value::from(out))
}

/// One `%` field.
struct Field<'p> {
    /// The field without its key, as MiniJinja takes it.
    spec: String,
    key: Option<&'p str>,
    left: bool,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

impl<'p> Field<'p> {
    fn parse(text: &'p str) -> Result<(Self, &'p str), Error> {
        let bad = || fault("malformed format");
        let mut rest = &text[1..];
        let mut key = None;
        if let Some(named) = rest.strip_prefix('(') {
            let (name, after) = named.split_once(')').ok_or_else(bad)?;
            (key, rest) = (Some(name), after);
        }
        let start = rest;
        let flags = rest.trim_start_matches(['-', '+', ' ', '#', '0']);
        let left = rest[..rest.len() - flags.len()].contains('-');
        let (width, after) = number(flags)?;
        let (precision, after) = match after.strip_prefix('.') {
            Some(digits) => {
                let (precision, after) = number(digits)?;
                (Some(precision.unwrap_or(0)), after)
            }
            None => (None, after),
        };
        let after_length = after.trim_start_matches(['h', 'l', 'L']);
        let kind = after_length.chars().next().ok_or_else(bad)?;
        let spec = format!("%{}{kind}", &start[..start.len() - after.len()]);
        let after = &after_length[kind.len_utf8()..];
        Ok((
            Self {
                spec,
                key,
                left,
                width: width.unwrap_or(0),
                precision,
                kind,
            },
            after,
        ))
    }

    fn push(&self, state: &mut State, out: &mut String, item: &Value) -> Result<(), Error> {
        let text = match self.kind {
            's' => print::to_text(item)?,
            'r' | 'a' => {
                let mut text = String::new();
                print::push_repr(&mut text, item, 0)?;
                text
            }
            'd' | 'i' | 'u' => {
                let number = match print::float(item) {
                    Some(number) if number.is_finite() => Value::from(number.trunc() as i128),
                    _ => item.clone(),
                };
                let spec = self.spec.replace(['i', 'u'], "d");
                out.push_str(&format(FormatStyle::Printf, &spec, &[number])?);
                return Ok(());
            }
            _ => {
                out.push_str(&format(
                    FormatStyle::Printf,
                    &self.spec,
                    std::slice::from_ref(item),
                )?);
                return Ok(());
            }
        };
        let text = match self.precision {
            Some(precision) => &text[..byte_offset(&text, precision)],
            None => &text,
        };
        let how = if self.left { "ljust" } else { "rjust" };
        let padded = justify(state, text, how, self.width as i64, " ")?;
        out.push_str(padded.as_str().unwrap_or_default());
        Ok(())
    }
}

/// The number that `text` starts with, and what follows.
fn number(text: &str) -> Result<(Option<usize>, &str), Error> {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - after.len()];
    if digits.is_empty() {
        return Ok((None, after));
    }
    match digits.parse() {
        Ok(number) if number <= MAX_WIDTH => Ok((Some(number), after)),
        _ => Err(budget::too_large()),
    }
}

/// `pattern.format(*values)`.
pub(super) fn str_format(
    state: &mut State,
    pattern: &str,
    values: &[Value],
) -> Result<Value, Error> {
    let mut digits = 0;
    let wide = pattern.bytes().any(|byte| {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        digits > 6
    });
    if wide {
        return Err(budget::too_large());
    }
    let plain = values.iter().all(|value| {
        matches!(
            value.kind(),
            ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::Map
        )
    });
    let text = match plain {
        true => format(FormatStyle::StrFormat, pattern, values)?,
        // MiniJinja prints lists in its own way.
        false => {
            let printed = |value: &Value| match value.kind() {
                ValueKind::Seq | ValueKind::Iterable | ValueKind::None => {
                    print::to_text(value).map(Value::from)
                }
                _ => Ok(value.clone()),
            };
            let values: Vec<Value> = values.iter().map(printed).collect::<Result<_, _>>()?;
            format(FormatStyle::StrFormat, pattern, &values)?
        }
    };
    budget::charge(state, text.len())?;
    Ok(Value::from(text))
}
