//! Jinja2's small helpers `cycler` and `joiner`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Object, ObjectRepr, Rest},
};

use super::fault;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    // MiniJinja's own invention.
    environment.remove_global("debug");
    environment.add_function("cycler", cycler);
    environment.add_function("joiner", joiner);
}

/// Gives its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    if items.is_empty() {
        return Err(fault("cycler takes at least one item"));
    }
    let items = items.to_vec();
    Ok(Value::from_object(Cycler {
        items,
        at: AtomicUsize::new(0),
    }))
}

impl Cycler {
    fn item(&self, at: usize) -> Value {
        self.items
            .get(at % self.items.len())
            .cloned()
            .unwrap_or_default()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.item(self.at.load(Ordering::Relaxed)))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match (method, args) {
            ("next", []) => Ok(self.item(self.at.fetch_add(1, Ordering::Relaxed))),
            ("reset", []) => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Gives nothing the first time and its separator from then on.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicBool,
}

fn joiner(separator: Option<Value>) -> Value {
    Value::from_object(Joiner {
        separator: separator.unwrap_or_else(|| Value::from(", ")),
        used: AtomicBool::new(false),
    })
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        match self.used.swap(true, Ordering::Relaxed) {
            true => Ok(self.separator.clone()),
            false => Ok(Value::from("")),
        }
    }
}
