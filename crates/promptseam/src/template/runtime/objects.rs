//! Prepared data as MiniJinja sees it, without copying it.

use std::{fmt, sync::Arc};

use minijinja::{
    Error, State, Value,
    value::{Enumerator, Object, ObjectRepr},
};

use super::{methods, print};
use crate::template::data::{Data, List, Map};

/// `data` as a value. O(1).
pub(super) fn to_value(data: &Data) -> Value {
    match data {
        Data::Null => Value::from(()),
        Data::Bool(value) => Value::from(*value),
        Data::Int(value) => Value::from(*value),
        Data::BigInt(text) => match text.parse::<i128>() {
            Ok(value) => Value::from(value),
            Err(_) => Value::from_object(BigInt(text.clone())),
        },
        Data::Float(value) => Value::from(*value),
        Data::Str(text) => Value::from(text.clone()),
        Data::List(list) => Value::from_dyn_object(list.clone()),
        Data::Map(map) => Value::from_dyn_object(map.clone()),
    }
}

/// Python's `int` beyond MiniJinja's range: it can be printed and tested, not
/// reckoned with.
#[derive(Debug)]
pub(super) struct BigInt(pub(super) Arc<str>);

impl Object for BigInt {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items().get(key.as_usize()?).map(to_value)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items().len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items().len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        print::push_list(&mut out, self);
        f.write_str(&out)
    }
}

impl Object for Map {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).map(to_value)
    }

    /// Attribute lookup: like Python, Jinja2 finds a dictionary's methods
    /// before its keys.
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if methods::is_dict_method(key) {
            return Some(Value::from_object(Method {
                receiver: Value::from_dyn_object(self.clone()),
                name: key.into(),
            }));
        }
        self.get(key).map(to_value)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let map = self.clone();
        let keys = (0..self.entries().len()).map(move |at| match map.entries().get(at) {
            Some((key, _)) => Value::from(key.as_str()),
            None => Value::UNDEFINED,
        });
        Enumerator::Iter(Box::new(keys))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries().len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        print::push_map(&mut out, self);
        f.write_str(&out)
    }
}

/// A method taken off its object without being called.
#[derive(Debug)]
struct Method {
    receiver: Value,
    name: Box<str>,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.receiver.call_method(state, &self.name, args)
    }
}
