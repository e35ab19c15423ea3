//! Hugging Face's `tojson`: Python's `json.dumps` without escapes for HTML.

use minijinja::{
    Error, State, Value,
    value::{ObjectRepr, Rest, ValueKind, ValueOrKwargs},
};

use super::{
    arguments::{Arguments, integer},
    budget, fault,
    objects::BigInt,
    print,
};
use crate::{
    json::{Encoder, Indent, MAX_DEPTH, Style, push_float_repr},
    template::{
        MAX_OUTPUT,
        data::{List, Map},
    },
};

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &mut State,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let args = Arguments::new(
        &args.into_values(),
        ["ensure_ascii", "indent", "separators", "sort_keys"],
    )?;
    let indent = match args.some(1) {
        None => None,
        Some(text) if text.as_str().is_some() => {
            text.as_str().map(|text| Indent::Text(text.into()))
        }
        Some(count) => Some(Indent::Spaces(integer(count)?.clamp(0, 1 << 16) as usize)),
    };
    let mut style = Style {
        ensure_ascii: args.flag(0, false),
        indent,
        sort_keys: args.flag(3, false),
        ..Style::default()
    };
    if let Some(separators) = args.some(2) {
        let mut parts = separators.try_iter()?;
        let mut part = || {
            parts
                .next()
                .and_then(|part| part.as_str().map(str::to_owned))
        };
        let (Some(item), Some(key)) = (part(), part()) else {
            return Err(fault("separators are two strings"));
        };
        style.item_separator = Some(item);
        style.key_separator = Some(key);
    }
    if let Some(text) = value
        .downcast_object_ref::<Map>()
        .and_then(|map| map.remembered_json(&style))
    {
        budget::charge(state, text.len())?;
        return Ok(Value::from(text));
    }
    let mut out = String::new();
    encode(&mut Encoder::new(&mut out, &style), value, 0)?;
    budget::charge(state, out.len())?;
    Ok(Value::from(out))
}

fn encode(encoder: &mut Encoder<'_>, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(fault("a value for tojson is nested too deeply"));
    }
    if encoder.len() > MAX_OUTPUT {
        return Err(budget::too_large());
    }
    if let Some(text) = value.as_str() {
        encoder.string(text);
        return Ok(());
    }
    match value.kind() {
        ValueKind::None => encoder.raw("null"),
        ValueKind::Bool => encoder.bool(value.is_true()),
        ValueKind::Number => match print::float(value) {
            Some(number) => encoder.float(number),
            None => encoder.raw(&value.to_string()),
        },
        _ => {
            if let Some(map) = value.downcast_object_ref::<Map>() {
                map.encode(encoder);
            } else if let Some(list) = value.downcast_object_ref::<List>() {
                list.encode(encoder);
            } else if let Some(BigInt(text)) = value.downcast_object_ref() {
                encoder.raw(text);
            } else {
                return encode_object(encoder, value, depth);
            }
        }
    }
    Ok(())
}

fn encode_object(encoder: &mut Encoder<'_>, value: &Value, depth: usize) -> Result<(), Error> {
    match value.as_object().map(|object| object.repr()) {
        Some(ObjectRepr::Seq | ObjectRepr::Iterable) => {
            encoder.begin('[');
            for item in value.try_iter()? {
                encoder.item();
                encode(encoder, &item, depth + 1)?;
            }
            encoder.end(']');
        }
        Some(ObjectRepr::Map) => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                entries.push((key_text(&key)?, value.get_item(&key)?));
            }
            if encoder.sorts_keys() {
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            }
            encoder.begin('{');
            for (key, value) in entries {
                encoder.key(&key);
                encode(encoder, &value, depth + 1)?;
            }
            encoder.end('}');
        }
        _ => return Err(fault("value is not serializable to JSON")),
    }
    Ok(())
}

/// A dictionary's key as `json.dumps` writes it.
fn key_text(key: &Value) -> Result<String, Error> {
    if let Some(number) = print::float(key) {
        let mut text = String::new();
        push_float_repr(&mut text, number);
        return Ok(text);
    }
    match key.kind() {
        ValueKind::String | ValueKind::Number => Ok(key.to_string()),
        ValueKind::None => Ok("null".into()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
        _ => Err(fault("keys of JSON objects are strings or numbers")),
    }
}
