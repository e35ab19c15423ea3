//! Tests (`is ...`) that Jinja2 decides otherwise than MiniJinja.

use minijinja::{Environment, Error, Value, value::ValueKind};

use super::{arguments::integer, fault, objects::BigInt, print};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_sequence);
    environment.add_test("number", |value: &Value| {
        value.is_number() || value.kind() == ValueKind::Bool || is_big(value)
    });
    environment.add_test("integer", |value: &Value| {
        value.is_integer() || is_big(value)
    });
    environment.add_test("float", |value: &Value| print::float(value).is_some());
    environment.add_test("callable", is_callable);
    environment.add_test("lower", |value: &Value| {
        cased(value, char::is_lowercase, char::is_uppercase)
    });
    environment.add_test("upper", |value: &Value| {
        cased(value, char::is_uppercase, char::is_lowercase)
    });
    environment.add_test("odd", |value: &Value| {
        Ok::<_, Error>(remainder(value, 2)? == 1.0)
    });
    environment.add_test("even", |value: &Value| {
        Ok::<_, Error>(remainder(value, 2)? == 0.0)
    });
    environment.add_test("divisibleby", |value: &Value, by: i64| {
        Ok::<_, Error>(remainder(value, by)? == 0.0)
    });
    for name in ["int", "startingwith", "endingwith", "safe"] {
        environment.remove_test(name);
    }
}

fn cased(value: &Value, wanted: fn(char) -> bool, other: fn(char) -> bool) -> Result<bool, Error> {
    let text = print::to_text(value)?;
    Ok(text.chars().any(wanted) && !text.chars().any(other))
}

/// Python's `value % by`.
fn remainder(value: &Value, by: i64) -> Result<f64, Error> {
    if by == 0 {
        return Err(fault("division by zero"));
    }
    if let Some(number) = print::float(value) {
        return Ok(number.rem_euclid(by as f64));
    }
    if let Some(BigInt(text)) = value.downcast_object_ref() {
        let digits = text.bytes().filter(u8::is_ascii_digit);
        let modulus = i128::from(by).abs();
        let rest = digits.fold(0, |rest, digit| {
            (rest * 10 + i128::from(digit - b'0')) % modulus
        });
        return Ok(rest as f64);
    }
    if let (ValueKind::Number, Ok(number)) = (value.kind(), i128::try_from(value.clone())) {
        return Ok(number.rem_euclid(i128::from(by)) as f64);
    }
    Ok(integer(value)?.rem_euclid(by) as f64)
}

pub(super) fn is_big(value: &Value) -> bool {
    value.downcast_object_ref::<BigInt>().is_some()
}

/// What has a length and can be indexed: strings and dictionaries too, and,
/// oddly, undefined values.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq
            | ValueKind::Map
            | ValueKind::String
            | ValueKind::Bytes
            | ValueKind::Iterable
            | ValueKind::Undefined
    )
}

fn is_callable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined) && !is_big(value)
}
