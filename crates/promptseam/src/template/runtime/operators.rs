//! Operators as filters, where MiniJinja's own differ from Python's or would
//! give results without bounds. The template's source is edited to use them.

use minijinja::{
    Environment, Error, State, Value,
    value::{Rest, Tuple, ValueKind, ValueOrKwargs},
};

use super::{
    arguments::{Arguments, integer},
    budget, fault, print, printf,
    text::positions,
};

pub(in crate::template) const ADD: &str = "__add__";
pub(in crate::template) const MULTIPLY: &str = "__mul__";
pub(in crate::template) const REMAINDER: &str = "__mod__";
pub(in crate::template) const CONCAT: &str = "__concat__";
pub(in crate::template) const SLICE: &str = "__slice__";
pub(in crate::template) const ITERATED: &str = "__iter__";

/// What one item of a list counts for.
const ITEM: usize = 16;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(ADD, add);
    environment.add_filter(MULTIPLY, multiply);
    environment.add_filter(REMAINDER, remainder);
    environment.add_filter(CONCAT, concat);
    environment.add_filter(SLICE, slice);
    environment.add_filter(ITERATED, iterated);
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// The items as what they came in: a tuple or a list.
fn sequence(tuple: bool, items: Vec<Value>) -> Value {
    if tuple {
        Value::from(Tuple::from(items))
    } else {
        Value::from(items)
    }
}

/// Two numbers as Python's arithmetic takes them.
enum Numbers {
    Integers(i128, i128),
    Floats(f64, f64),
}

fn numbers(left: &Value, right: &Value) -> Result<Numbers, Error> {
    let wrong = || fault("unsupported operand types");
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(left) || !is_number(right) {
        return Err(wrong());
    }
    let exact = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if print::float(value).is_some() => None,
        _ => i128::try_from(value.clone()).ok(),
    };
    if let (Some(left), Some(right)) = (exact(left), exact(right)) {
        return Ok(Numbers::Integers(left, right));
    }
    let rounded = |value: &Value| match value.kind() {
        ValueKind::Bool => Ok(f64::from(u8::from(value.is_true()))),
        _ => f64::try_from(value.clone()).map_err(|_| wrong()),
    };
    Ok(Numbers::Floats(rounded(left)?, rounded(right)?))
}

fn exact(result: Option<i128>) -> Result<Value, Error> {
    let result = result.ok_or_else(|| fault("integer out of range"))?;
    Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from))
}

fn add(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        budget::charge(state, left.len() + right.len())?;
        return Ok(Value::from([left, right].concat()));
    }
    if is_list(left) && is_list(right) && left.is_tuple() == right.is_tuple() {
        let length = left
            .len()
            .unwrap_or(0)
            .saturating_add(right.len().unwrap_or(0));
        budget::charge(state, length.saturating_mul(ITEM))?;
        let items = left.try_iter()?.chain(right.try_iter()?).collect();
        return Ok(sequence(left.is_tuple(), items));
    }
    match numbers(left, right)? {
        Numbers::Integers(left, right) => exact(left.checked_add(right)),
        Numbers::Floats(left, right) => Ok(Value::from(left + right)),
    }
}

fn multiply(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    let repeatable = |value: &Value| value.as_str().is_some() || is_list(value);
    let (what, times) = match (repeatable(left), repeatable(right)) {
        (true, false) => (left, right),
        (false, true) => (right, left),
        _ => {
            return match numbers(left, right)? {
                Numbers::Integers(left, right) => exact(left.checked_mul(right)),
                Numbers::Floats(left, right) => Ok(Value::from(left * right)),
            };
        }
    };
    let times = usize::try_from(integer(times)?).unwrap_or(0);
    if let Some(text) = what.as_str() {
        budget::charge(state, text.len().saturating_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    let items: Vec<Value> = what.try_iter()?.collect();
    budget::charge(
        state,
        items.len().saturating_mul(times).saturating_mul(ITEM),
    )?;
    Ok(sequence(
        what.is_tuple(),
        (0..times).flat_map(|_| items.iter().cloned()).collect(),
    ))
}

fn remainder(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(pattern) = left.as_str() {
        return printf::printf(state, pattern, right);
    }
    let by_zero = || fault("division by zero");
    match numbers(left, right)? {
        Numbers::Integers(_, 0) => Err(by_zero()),
        Numbers::Integers(left, right) => {
            let rest = left.checked_rem(right).unwrap_or(0);
            exact(Some(if rest != 0 && (rest < 0) != (right < 0) {
                rest + right
            } else {
                rest
            }))
        }
        Numbers::Floats(_, 0.0) => Err(by_zero()),
        Numbers::Floats(left, right) => {
            let rest = left % right;
            let rest = if rest == 0.0 {
                0.0_f64.copysign(right)
            } else {
                rest
            };
            Ok(Value::from(if (rest < 0.0) != (right < 0.0) {
                rest + right
            } else {
                rest
            }))
        }
    }
}

fn concat(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    let mut text = String::new();
    print::push_str(&mut text, left)?;
    print::push_str(&mut text, right)?;
    budget::charge(state, text.len())?;
    Ok(Value::from(text))
}

/// `value[start:stop:step]`.
fn slice(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Arguments::new(&args.into_values(), ["start", "stop", "step"])?;
    let (start, stop) = (args.optional_integer(0)?, args.optional_integer(1)?);
    let step = args.optional_integer(2)?.unwrap_or(1);
    if step == 0 {
        return Err(fault("slice step is zero"));
    }
    if let Some(text) = value.as_str() {
        return Ok(Value::from(slice_text(text, start, stop, step)));
    }
    if !is_list(value) {
        return Err(fault("this value can't be sliced"));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    budget::charge(state, items.len())?;
    let taken = positions(items.len(), start, stop, step).filter_map(|at| items.get(at).cloned());
    Ok(sequence(value.is_tuple(), taken.collect()))
}

fn slice_text(text: &str, start: Option<i64>, stop: Option<i64>, step: i64) -> String {
    if text.is_ascii() {
        let bytes = text.as_bytes();
        let taken = positions(bytes.len(), start, stop, step);
        return taken
            .filter_map(|at| bytes.get(at))
            .map(|&byte| char::from(byte))
            .collect();
    }
    let characters: Vec<char> = text.chars().collect();
    positions(characters.len(), start, stop, step)
        .filter_map(|at| characters.get(at))
        .collect()
}

/// What a `for` loop goes over: MiniJinja takes `None` for empty, Python
/// doesn't. `text` is what one round prints in any case.
fn iterated(state: &mut State, value: &Value, text: usize) -> Result<Value, Error> {
    if value.is_none() {
        return Err(fault("None is not iterable"));
    }
    budget::charge(state, value.len().unwrap_or(0).saturating_mul(text))?;
    Ok(value.clone())
}
