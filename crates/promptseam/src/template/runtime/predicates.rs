//! Tests (`is ...`) that Jinja2 decides otherwise than MiniJinja.

use minijinja::{
    Environment, Value,
    value::ValueKind,
};

use super::{objects::BigInt, print};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("number", |value: &Value| {
        value.is_number() || value.kind() == ValueKind::Bool || is_big(value)
    });
    environment.add_test("integer", |value: &Value| value.is_integer() || is_big(value));
    environment.add_test("float", |value: &Value| print::float(value).is_some());
    environment.add_test("callable", is_callable);
    for name in ["int", "startingwith", "endingwith", "safe"] {
        environment.remove_test(name);
    }
}

fn is_big(value: &Value) -> bool {
    value.downcast_object_ref::<BigInt>().is_some()
}

/// What has a length and can be indexed: strings and dictionaries too, and,
/// oddly, undefined values.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Bytes | ValueKind::Iterable
    )
}

fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.is_undefined()
}

fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain && !is_big(value)
}
