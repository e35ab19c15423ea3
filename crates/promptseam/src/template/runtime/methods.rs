//! Python's methods of strings, dictionaries and lists.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Tuple, ValueKind},
};

use super::{
    arguments::{Arguments, integer},
    budget, fault, printf,
    text::{self, bounds, byte_offset, is_space},
};

/// The methods that Jinja2's sandbox finds on a dictionary.
pub(super) fn is_dict_method(name: &str) -> bool {
    matches!(
        name,
        "items"
            | "keys"
            | "values"
            | "get"
            | "copy"
            | "pop"
            | "popitem"
            | "update"
            | "setdefault"
            | "clear"
            | "fromkeys"
    )
}

/// Calls the method `name` of `value`.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => string_method(state, text, name, args),
            None => Err(unknown()),
        },
        ValueKind::Map => dict_method(value, name, args),
        ValueKind::Seq | ValueKind::Iterable => list_method(value, name, args),
        ValueKind::Number if name == "is_integer" && args.is_empty() => {
            let number = super::print::float(value);
            Ok(Value::from(
                number.is_none_or(|number| number.fract() == 0.0),
            ))
        }
        _ => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

fn dict_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let pairs = || -> Result<Vec<Value>, Error> {
        value
            .try_iter()?
            .map(|key| {
                let item = value.get_item(&key)?;
                Ok(Value::from(Tuple::from([key, item])))
            })
            .collect()
    };
    match name {
        "get" => {
            let args = Arguments::new(args, ["key", "default"])?;
            let key = args.get(0).ok_or_else(|| fault("get takes a key"))?;
            let found = value.get_item(key)?;
            if found.is_undefined() {
                return Ok(args.get(1).cloned().unwrap_or(Value::from(())));
            }
            Ok(found)
        }
        "items" if args.is_empty() => pairs().map(Value::from),
        "keys" if args.is_empty() => Ok(Value::from_iter(value.try_iter()?)),
        "values" if args.is_empty() => {
            let values: Result<Vec<_>, _> =
                value.try_iter()?.map(|key| value.get_item(&key)).collect();
            values.map(Value::from)
        }
        "copy" if args.is_empty() => Ok(value.clone()),
        _ if is_dict_method(name) => Err(fault("this method is not allowed in a template")),
        _ => Err(unknown()),
    }
}

fn list_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (name, args) {
        ("count", [wanted]) => Ok(Value::from(
            value.try_iter()?.filter(|item| item == wanted).count(),
        )),
        ("index", [wanted]) => {
            let at = value.try_iter()?.position(|item| item == *wanted);
            at.map(Value::from)
                .ok_or_else(|| fault("value is not in list"))
        }
        ("copy", []) => Ok(value.clone()),
        _ => Err(unknown()),
    }
}

/// What a character set, or whitespace by default, is trimmed off.
fn trims(set: Option<&str>) -> impl Fn(char) -> bool {
    let set: Option<Vec<char>> = set.map(|set| set.chars().collect());
    move |character| {
        set.as_ref()
            .map_or(is_space(character), |set| set.contains(&character))
    }
}

fn string_method(
    state: &mut State,
    text: &str,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let none = |value: Value| {
        if args.is_empty() {
            Ok(value)
        } else {
            Err(fault("this method takes no arguments"))
        }
    };
    let all =
        |test: fn(char) -> bool| none(Value::from(!text.is_empty() && text.chars().all(test)));
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let args = Arguments::new(args, ["chars"])?;
            let trim = trims(args.optional_text(0)?);
            let mut trimmed = text;
            if name != "rstrip" {
                trimmed = trimmed.trim_start_matches(&trim);
            }
            if name != "lstrip" {
                trimmed = trimmed.trim_end_matches(&trim);
            }
            Ok(Value::from(trimmed))
        }
        "startswith" | "endswith" => affix(text, name == "startswith", args),
        "split" | "rsplit" => split(text, name == "rsplit", args),
        "splitlines" => {
            let keep = Arguments::new(args, ["keepends"])?.flag(0, false);
            let lines = text::lines(text);
            Ok(lines
                .map(|line| if keep { line } else { text::without_end(line) })
                .map(Value::from)
                .collect())
        }
        "partition" | "rpartition" => partition(text, name == "rpartition", args),
        "find" | "rfind" | "index" | "rindex" => {
            let found = find(text, name.starts_with('r'), args)?;
            if found < 0 && name.ends_with("index") {
                return Err(fault("substring not found"));
            }
            Ok(Value::from(found))
        }
        "count" => {
            let (part, needle, _) = search(text, args)?;
            Ok(Value::from(match (part, &*needle) {
                (None, _) => 0,
                (Some(part), "") => part.chars().count() + 1,
                (Some(part), needle) => part.matches(needle).count(),
            }))
        }
        "replace" => {
            let args = Arguments::new(args, ["old", "new", "count"])?;
            replace(
                state,
                text,
                args.text(0)?,
                args.text(1)?,
                args.optional_integer(2)?,
            )
        }
        "removeprefix" | "removesuffix" => {
            let args = Arguments::new(args, ["affix"])?;
            let affix = args.text(0)?;
            let cut = if name == "removeprefix" {
                text.strip_prefix(affix)
            } else {
                text.strip_suffix(affix)
            };
            Ok(Value::from(cut.unwrap_or(text)))
        }
        "join" => {
            let args = Arguments::new(args, ["iterable"])?;
            let items = args.get(0).ok_or_else(|| fault("join takes an iterable"))?;
            let mut joined = String::new();
            for (at, item) in items.try_iter()?.enumerate() {
                if at > 0 {
                    joined.push_str(text);
                }
                joined.push_str(item.as_str().ok_or_else(|| fault("join takes strings"))?);
                budget::charge(state, text.len())?;
            }
            budget::charge(state, joined.len())?;
            Ok(Value::from(joined))
        }
        "ljust" | "rjust" | "center" => {
            let args = Arguments::new(args, ["width", "fillchar"])?;
            let fill = args.optional_text(1)?.unwrap_or(" ");
            let width = args.get(0).ok_or_else(|| fault("expected a width"))?;
            justify(state, text, name, integer(width)?, fill)
        }
        "zfill" => {
            let args = Arguments::new(args, ["width"])?;
            let width = args.get(0).ok_or_else(|| fault("expected a width"))?;
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let padded = justify(
                state,
                digits,
                "rjust",
                integer(width)?.saturating_sub(sign.len() as i64),
                "0",
            )?;
            Ok(Value::from(format!("{sign}{padded}")))
        }
        "upper" => none(Value::from(text.to_uppercase())),
        "lower" => none(Value::from(text.to_lowercase())),
        "casefold" => none(Value::from(text.to_lowercase().replace('ß', "ss"))),
        "swapcase" => none(Value::from(swap_case(text))),
        "capitalize" => none(Value::from(capitalize(text))),
        "title" => none(Value::from(title(text))),
        "isspace" => all(is_space),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        // Rust does not tell digits from other numbers such as fractions.
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isascii" => none(Value::from(text.is_ascii())),
        "islower" => none(Value::from(cased(
            text,
            char::is_lowercase,
            char::is_uppercase,
        ))),
        "isupper" => none(Value::from(cased(
            text,
            char::is_uppercase,
            char::is_lowercase,
        ))),
        "istitle" => none(Value::from(
            text.chars().any(char::is_alphabetic) && title(text) == text,
        )),
        "isidentifier" => {
            let mut characters = text.chars();
            let first = characters
                .next()
                .is_some_and(|c| c.is_alphabetic() || c == '_');
            none(Value::from(
                first && characters.all(|c| c.is_alphanumeric() || c == '_'),
            ))
        }
        "encode" => {
            let args = Arguments::new(args, ["encoding", "errors"])?;
            match args
                .optional_text(0)?
                .unwrap_or("utf-8")
                .to_ascii_lowercase()
                .as_str()
            {
                "utf-8" | "utf8" => Ok(Value::from_bytes(text.as_bytes().to_vec())),
                "ascii" if text.is_ascii() => Ok(Value::from_bytes(text.as_bytes().to_vec())),
                _ => Err(fault("only UTF-8 is supported here")),
            }
        }
        "expandtabs" => {
            let size = Arguments::new(args, ["tabsize"])?
                .optional_integer(0)?
                .unwrap_or(8);
            expand_tabs(state, text, usize::try_from(size).unwrap_or(0))
        }
        "format" => printf::str_format(state, text, args),
        _ => Err(unknown()),
    }
}

fn cased(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first
            .to_uppercase()
            .chain(characters.as_str().to_lowercase().chars())
            .collect(),
        None => String::new(),
    }
}

/// `str.title`.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    out
}

fn swap_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_uppercase() {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
    }
    out
}

/// The part of `text` between the optional bounds, the needle, and how many
/// characters come before that part. `None` if the bounds cross.
fn search<'t>(text: &'t str, args: &[Value]) -> Result<(Option<&'t str>, String, usize), Error> {
    let args = Arguments::new(args, ["sub", "start", "end"])?;
    let needle = args.text(0)?.to_owned();
    let (start, end) = (args.optional_integer(1)?, args.optional_integer(2)?);
    let (part, before) = between(text, start, end);
    Ok((part, needle, before))
}

fn between(text: &str, start: Option<i64>, end: Option<i64>) -> (Option<&str>, usize) {
    if start.is_none() && end.is_none() {
        return (Some(text), 0);
    }
    let length = text.chars().count();
    if start.is_some_and(|start| start > length as i64) {
        return (None, 0);
    }
    let (from, to) = bounds(length, start, end);
    let range = byte_offset(text, from)..byte_offset(text, to);
    (text.get(range).filter(|_| from <= to), from)
}

fn find(text: &str, from_right: bool, args: &[Value]) -> Result<i64, Error> {
    let (part, needle, before) = search(text, args)?;
    let found = part.and_then(|part| {
        let at = if from_right {
            part.rfind(&*needle)
        } else {
            part.find(&*needle)
        };
        at.map(|at| before + part[..at].chars().count())
    });
    Ok(found.map_or(-1, |at| at as i64))
}

fn affix(text: &str, start: bool, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::new(args, ["affix", "start", "end"])?;
    let (part, _) = between(text, args.optional_integer(1)?, args.optional_integer(2)?);
    let has = |affix: &Value| {
        let affix = affix
            .as_str()
            .ok_or_else(|| fault("expected a string or a tuple of them"))?;
        Ok(part.is_some_and(|part| {
            if start {
                part.starts_with(affix)
            } else {
                part.ends_with(affix)
            }
        }))
    };
    match args.get(0) {
        Some(affixes) if affixes.is_tuple() => {
            for affix in affixes.try_iter()? {
                if has(&affix)? {
                    return Ok(Value::from(true));
                }
            }
            Ok(Value::from(false))
        }
        Some(affix) => has(affix).map(Value::from),
        None => Err(fault("expected a string")),
    }
}

fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::new(args, ["sep", "maxsplit"])?;
    let limit = args.optional_integer(1)?.unwrap_or(-1);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX - 1) + 1;
    let mut parts: Vec<&str> = match args.optional_text(0)? {
        Some("") => return Err(fault("empty separator")),
        Some(separator) if from_right => text.rsplitn(limit, separator).collect(),
        Some(separator) => text.splitn(limit, separator).collect(),
        None => split_space(text, from_right, limit),
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Splits at runs of whitespace, at most into `limit` parts; from the right the
/// last comes first.
fn split_space(text: &str, from_right: bool, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let trim = |text: &'_ str| -> usize {
        if from_right {
            text.trim_end_matches(is_space).len()
        } else {
            text.len() - text.trim_start_matches(is_space).len()
        }
    };
    let mut rest = text;
    loop {
        let cut = trim(rest);
        rest = if from_right {
            &rest[..cut]
        } else {
            &rest[cut..]
        };
        if rest.is_empty() {
            return parts;
        }
        if parts.len() + 1 == limit {
            parts.push(rest);
            return parts;
        }
        if from_right {
            let start = rest.char_indices().rev().find(|&(_, c)| is_space(c));
            let at = start.map_or(0, |(at, c)| at + c.len_utf8());
            parts.push(&rest[at..]);
            rest = &rest[..at];
        } else {
            let at = rest.find(is_space).unwrap_or(rest.len());
            parts.push(&rest[..at]);
            rest = &rest[at..];
        }
    }
}

fn partition(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let args = Arguments::new(args, ["sep"])?;
    let separator = args.text(0)?;
    if separator.is_empty() {
        return Err(fault("empty separator"));
    }
    let found = if from_right {
        text.rsplit_once(separator)
    } else {
        text.split_once(separator)
    };
    let parts = match (found, from_right) {
        (Some((before, after)), _) => [before, separator, after],
        (None, true) => ["", "", text],
        (None, false) => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// `str.replace`, the result charged before it is made.
pub(super) fn replace(
    state: &mut State,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<Value, Error> {
    let count = count
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(usize::MAX);
    let hits = match old {
        "" => text.len() + 1,
        _ => text.matches(old).count(),
    };
    budget::charge(
        state,
        text.len()
            .saturating_add(hits.min(count).saturating_mul(new.len())),
    )?;
    Ok(Value::from(text.replacen(old, new, count)))
}

/// `str.ljust`, `str.rjust` and `str.center`.
pub(super) fn justify(
    state: &mut State,
    text: &str,
    how: &str,
    width: i64,
    fill: &str,
) -> Result<Value, Error> {
    if fill.chars().count() != 1 {
        return Err(fault("the fill character is one character"));
    }
    let length = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    let margin = width.saturating_sub(length);
    budget::charge(state, margin.saturating_mul(4).saturating_add(text.len()))?;
    let left = match how {
        "ljust" => 0,
        "rjust" => margin,
        // CPython's rounding: the odd one goes left if the width is odd too.
        _ => margin / 2 + (margin & width & 1),
    };
    let (left, right) = (fill.repeat(left), fill.repeat(margin - left));
    Ok(Value::from([&*left, text, &*right].concat()))
}

fn expand_tabs(state: &mut State, text: &str, size: usize) -> Result<Value, Error> {
    budget::charge(state, text.matches('\t').count().saturating_mul(size))?;
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(character);
                column = 0;
            }
            _ => {
                out.push(character);
                column += 1;
            }
        }
    }
    Ok(Value::from(out))
}
