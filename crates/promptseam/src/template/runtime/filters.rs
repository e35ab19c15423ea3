//! Filters that Jinja2 has otherwise than MiniJinja, or alone.

use minijinja::{
    Environment, Error, State, Value,
    value::{Rest, Tuple, ValueKind, ValueOrKwargs},
};

use super::{
    arguments::{Arguments, integer},
    budget, fault, methods,
    objects::BigInt,
    predicates::is_big,
    print, printf, text,
    tojson::tojson,
};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    // MiniJinja's own inventions.
    for name in ["bool", "split", "lines", "chain", "zip"] {
        environment.remove_filter(name);
    }
    environment.add_filter("tojson", tojson);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("trim", trim);
    environment.add_filter("string", |value: &Value| print::to_text(value));
    environment.add_filter("join", join);
    environment.add_filter("list", list);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("round", round);
    environment.add_filter("replace", replace);
    environment.add_filter("upper", |value: &Value| {
        print::to_text(value).map(|text| text.to_uppercase())
    });
    environment.add_filter("lower", |value: &Value| {
        print::to_text(value).map(|text| text.to_lowercase())
    });
    environment.add_filter("capitalize", |value: &Value| {
        print::to_text(value).map(|text| methods::capitalize(&text))
    });
    environment.add_filter("title", title);
    environment.add_filter("center", center);
    environment.add_filter("indent", indent);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("format", format);
    environment.add_filter("items", items);
    environment.add_filter("first", first);
    environment.add_filter("last", last);
    environment.add_filter("attr", attr);
    environment.add_filter("abs", abs);
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, move |value: &Value| {
            if value.is_safe() && name != "forceescape" {
                return Ok(value.clone());
            }
            print::to_text(value).map(|text| Value::from_safe_string(print::escape(&text)))
        });
    }
}

fn length(value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().count());
    }
    match value.len() {
        Some(length) => Ok(length),
        None if value.is_undefined() => Ok(0),
        None => Err(fault("the value has no length")),
    }
}

fn trim(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["chars"])?;
    let printed = match value.as_str() {
        Some(_) => None,
        None => Some(print::to_text(value)?),
    };
    let text = printed.as_deref().or(value.as_str()).unwrap_or_default();
    let trimmed = match args.optional_text(0)? {
        None => text::strip(text),
        Some(set) => text.trim_matches(|c| set.contains(c)),
    };
    if trimmed.len() == text.len() && printed.is_none() {
        return Ok(value.clone());
    }
    Ok(Value::from(trimmed))
}

fn join(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["d", "attribute"])?;
    let between = args
        .get(0)
        .map(print::to_text)
        .transpose()?
        .unwrap_or_default();
    let mut out = String::new();
    for (at, item) in iterate(value)?.into_iter().enumerate() {
        if at > 0 {
            out.push_str(&between);
        }
        let before = out.len();
        match args.some(1) {
            Some(attribute) => print::push_str(&mut out, &by_attribute(&item, attribute)?)?,
            None => print::push_str(&mut out, &item)?,
        }
        budget::charge(state, out.len() - before + between.len())?;
    }
    Ok(Value::from(out))
}

/// An item's attribute as Jinja2's filters look it up: a path of keys.
fn by_attribute(item: &Value, attribute: &Value) -> Result<Value, Error> {
    let Some(path) = attribute.as_str() else {
        return item.get_item(attribute);
    };
    let mut item = item.clone();
    for part in path.split('.') {
        let key = part
            .parse::<u64>()
            .map_or_else(|_| Value::from(part), Value::from);
        item = item.get_item(&key)?;
    }
    Ok(item)
}

/// What Python iterates over: an undefined value is empty, a string gives its
/// characters.
fn iterate(value: &Value) -> Result<Vec<Value>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().map(Value::from).collect());
    }
    if value.is_undefined() {
        return Ok(Vec::new());
    }
    if value.is_none() {
        return Err(fault("None is not iterable"));
    }
    Ok(value.try_iter()?.collect())
}

fn list(state: &mut State, value: &Value) -> Result<Value, Error> {
    let items = iterate(value)?;
    budget::charge(state, items.len())?;
    Ok(Value::from(items))
}

/// `int(default=0, base=10)`.
fn int(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["default", "base"])?;
    let default = || args.get(0).cloned().unwrap_or(Value::from(0));
    if value.is_undefined() {
        return Err(fault("undefined value"));
    }
    if let Some(number) = print::float(value) {
        return Ok(whole(number).unwrap_or_else(default));
    }
    if let Some(text) = value.as_str() {
        let base = u32::try_from(args.optional_integer(1)?.unwrap_or(10)).unwrap_or(10);
        let parsed = parse_int(text::strip(text), base);
        let by_float = || parse_float(text).and_then(whole);
        return Ok(parsed
            .map(Value::from)
            .or_else(by_float)
            .unwrap_or_else(default));
    }
    match value.kind() {
        ValueKind::Number => Ok(value.clone()),
        ValueKind::Bool => integer(value).map(Value::from),
        _ if is_big(value) => Ok(value.clone()),
        _ => Ok(default()),
    }
}

fn whole(number: f64) -> Option<Value> {
    let whole = number.trunc();
    if whole.abs() < 9e18 {
        return Some(Value::from(whole as i64));
    }
    (whole.abs() < 1.7e38).then(|| Value::from(whole as i128))
}

fn parse_int(text: &str, base: u32) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        16 => ["0x", "0X"],
        8 => ["0o", "0O"],
        2 => ["0b", "0B"],
        _ => ["", ""],
    };
    let digits = prefix
        .iter()
        .find_map(|p| digits.strip_prefix(p).filter(|_| !p.is_empty()))
        .unwrap_or(digits);
    if !(2..=36).contains(&base) || digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&without_underscores(digits)?, base).ok()?;
    Some(if negative { -value } else { value })
}

/// Digits without the single underscores that Python allows between them.
fn without_underscores(digits: &str) -> Option<String> {
    let misplaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    (!misplaced).then(|| digits.replace('_', ""))
}

/// `float(default=0.0)`.
fn float(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["default"])?;
    let parsed = match value.kind() {
        ValueKind::String => value.as_str().and_then(parse_float),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Undefined => return Err(fault("undefined value")),
        _ if is_big(value) => parse_float(&print::to_text(value)?),
        _ => None,
    };
    Ok(match parsed {
        Some(number) => Value::from(number),
        None => args.get(0).cloned().unwrap_or(Value::from(0.0)),
    })
}

fn parse_float(text: &str) -> Option<f64> {
    without_underscores(text::strip(text))?.parse().ok()
}

/// `round(precision=0, method="common")`.
fn round(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["precision", "method"])?;
    let precision = i32::try_from(args.optional_integer(0)?.unwrap_or(0)).unwrap_or(0);
    let method = args.optional_text(1)?.unwrap_or("common");
    if is_big(value) && precision >= 0 {
        return Ok(value.clone());
    }
    let integer_in = print::float(value).is_none();
    let number = match value.kind() {
        ValueKind::Number => {
            f64::try_from(value.clone()).map_err(|_| fault("number out of range"))?
        }
        ValueKind::Bool => f64::from(u8::from(value.is_true())),
        _ => return Err(fault("round takes a number")),
    };
    let scale = 10f64.powi(precision);
    match method {
        "ceil" => Ok(Value::from((number * scale).ceil() / scale)),
        "floor" => Ok(Value::from((number * scale).floor() / scale)),
        "common" if value.kind() == ValueKind::Bool => integer(value).map(Value::from),
        "common" if integer_in && precision >= 0 => Ok(value.clone()),
        "common" if precision >= 0 => {
            // Python rounds the exact decimal value, ties to even; so does
            // Rust's formatting.
            let digits = usize::try_from(precision.min(340)).unwrap_or(0);
            let rounded = format!("{number:.digits$}").parse().unwrap_or(number);
            Ok(Value::from(rounded))
        }
        "common" => {
            let unit = 10f64.powi(-precision);
            let rounded = (number / unit).round_ties_even() * unit;
            Ok(if integer_in {
                Value::from(rounded as i64)
            } else {
                Value::from(rounded)
            })
        }
        _ => Err(fault("method must be common, ceil or floor")),
    }
}

fn replace(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["old", "new", "count"])?;
    let missing = || fault("replace takes two strings");
    let old = print::to_text(args.get(0).ok_or_else(missing)?)?;
    let new = print::to_text(args.get(1).ok_or_else(missing)?)?;
    methods::replace(
        state,
        &print::to_text(value)?,
        &old,
        &new,
        args.optional_integer(2)?,
    )
}

/// Jinja2's own `title`: words end at whitespace, hyphens and brackets.
fn title(value: &Value) -> Result<String, Error> {
    let text = print::to_text(value)?;
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for character in text.chars() {
        if start {
            out.extend(character.to_uppercase());
        } else {
            out.extend(character.to_lowercase());
        }
        start = text::is_space(character) || "-([{<".contains(character);
    }
    Ok(out)
}

fn center(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let width = Arguments::new(&args.into_values(), ["width"])?
        .optional_integer(0)?
        .unwrap_or(80);
    methods::justify(state, &print::to_text(value)?, "center", width, " ")
}

/// `indent(width=4, first=False, blank=False)`.
fn indent(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["width", "first", "blank"])?;
    let pad = match args.get(0) {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(integer(width)?.clamp(0, 1 << 16) as usize),
        },
    };
    let text = value
        .as_str()
        .ok_or_else(|| fault("indent takes a string"))?;
    let lines: Vec<&str> = text::lines(text).map(text::without_end).collect();
    // What ends in a line break has an empty last line.
    let open = text::lines(text)
        .last()
        .is_none_or(|line| text::without_end(line) != line);
    let lines = lines.into_iter().chain(open.then_some(""));
    let (first, blank) = (args.flag(1, false), args.flag(2, false));
    let mut out = String::with_capacity(text.len() * 2);
    for (at, line) in lines.enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let pads = if at == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if pads {
            out.push_str(&pad);
        }
        out.push_str(line);
        budget::charge(state, pad.len() + line.len())?;
    }
    Ok(Value::from(out))
}

/// `truncate(length=255, killwords=False, end="...", leeway=5)`.
fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(
        &args.into_values(),
        ["length", "killwords", "end", "leeway"],
    )?;
    let text = print::to_text(value)?;
    let end = args.optional_text(2)?.unwrap_or("...");
    let size = |at, default| -> Result<usize, Error> {
        Ok(usize::try_from(args.optional_integer(at)?.unwrap_or(default)).unwrap_or(0))
    };
    let (length, leeway) = (size(0, 255)?, size(3, 5)?);
    let end_length = end.chars().count();
    if length < end_length {
        return Err(fault("truncate needs room for its end"));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let kept = &text[..text::byte_offset(&text, length - end_length)];
    let kept = match kept.rsplit_once(' ') {
        Some((words, _)) if !args.flag(1, false) => words,
        _ => kept,
    };
    Ok(Value::from([kept, end].concat()))
}

fn wordcount(value: &Value) -> Result<usize, Error> {
    let text = print::to_text(value)?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    Ok(words.filter(|word| !word.is_empty()).count())
}

fn format(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let pattern = print::to_text(value)?;
    let filled = match args.into_values().as_slice() {
        [named] if named.is_kwargs() => {
            let pairs: Result<Vec<_>, Error> = named
                .try_iter()?
                .map(|key| Ok((key.to_string(), named.get_item(&key)?)))
                .collect();
            Value::from_pairs(pairs?)
        }
        values => Value::from(Tuple::from(values.to_vec())),
    };
    printf::printf(state, &pattern, &filled)
}

fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if value.kind() != ValueKind::Map {
        return Err(fault("items takes a mapping"));
    }
    let pairs: Result<Vec<_>, Error> = value
        .try_iter()?
        .map(|key| {
            let item = value.get_item(&key)?;
            Ok(Value::from(Tuple::from([key, item])))
        })
        .collect();
    pairs.map(Value::from)
}

fn first(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next().map_or(Value::UNDEFINED, Value::from));
    }
    Ok(iterate(value)?
        .into_iter()
        .next()
        .unwrap_or(Value::UNDEFINED))
}

fn last(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text
            .chars()
            .next_back()
            .map_or(Value::UNDEFINED, Value::from));
    }
    Ok(iterate(value)?
        .into_iter()
        .next_back()
        .unwrap_or(Value::UNDEFINED))
}

fn abs(value: &Value) -> Result<Value, Error> {
    if let Some(number) = print::float(value) {
        return Ok(Value::from(number.abs()));
    }
    if value.kind() == ValueKind::Number {
        let number = i128::try_from(value.clone())
            .ok()
            .and_then(i128::checked_abs);
        let number = number.ok_or_else(|| fault("integer out of range"))?;
        return Ok(i64::try_from(number).map_or_else(|_| Value::from(number), Value::from));
    }
    if let Some(BigInt(text)) = value.downcast_object_ref() {
        return Ok(Value::from_object(BigInt(
            text.trim_start_matches('-').into(),
        )));
    }
    integer(value).map(|number| Value::from(number.abs()))
}

/// `attr(name)`: attributes only, so a dictionary's keys are not found.
fn attr(value: &Value, _name: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(fault("undefined value"));
    }
    Ok(Value::UNDEFINED)
}
