//! The variables a template starts with.

use std::sync::Arc;

use minijinja::{
    Error, State, Value,
    value::{Object, ObjectRepr},
};

use super::{fault, objects::to_value};
use crate::template::{Now, data::Map, request::Arguments};

/// Messages, arguments and special tokens by name. Arguments come before
/// special tokens, as in transformers.
#[derive(Debug)]
pub(in crate::template) struct Context {
    messages: Value,
    arguments: Arc<Arguments>,
    tokens: Arc<[(&'static str, Value)]>,
    strftime_now: Value,
}

impl Context {
    pub(in crate::template) fn new(
        messages: &[Arc<Map>],
        arguments: Arc<Arguments>,
        tokens: Arc<[(&'static str, Value)]>,
        now: Now,
    ) -> Self {
        let messages: Vec<Value> = messages
            .iter()
            .cloned()
            .map(Value::from_dyn_object)
            .collect();
        Self {
            messages: Value::from(messages),
            arguments,
            tokens,
            strftime_now: Value::from_object(StrftimeNow(now)),
        }
    }

    fn get(&self, name: &str) -> Option<Value> {
        let optional = |data: &Option<_>| Some(data.as_ref().map_or(Value::from(()), to_value));
        match name {
            "messages" => return Some(self.messages.clone()),
            "tools" => return optional(&self.arguments.tools),
            "documents" => return optional(&self.arguments.documents),
            "add_generation_prompt" => {
                return Some(Value::from(self.arguments.add_generation_prompt));
            }
            _ => {}
        }
        if let Some(data) = self.arguments.named.get(name) {
            return Some(to_value(data));
        }
        match self.tokens.iter().find(|(token, _)| *token == name) {
            Some((_, text)) => Some(text.clone()),
            None => (name == "strftime_now").then(|| self.strftime_now.clone()),
        }
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.get(key)
    }
}

/// The function `strftime_now(format)`.
#[derive(Debug)]
struct StrftimeNow(Now);

impl Object for StrftimeNow {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        match args {
            [format] => match format.as_str() {
                Some(format) => Ok(Value::from(self.0.strftime(format))),
                None => Err(fault("strftime_now takes a string")),
            },
            _ => Err(fault("strftime_now takes one argument")),
        }
    }
}
