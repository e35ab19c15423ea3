//! Jinja2's runtime, as Hugging Face sets it up, on MiniJinja.

mod arguments;
mod budget;
mod context;
mod filters;
mod globals;
mod methods;
mod objects;
pub(super) mod operators;
mod predicates;
mod print;
mod printf;
mod text;
mod tojson;

use std::{error, fmt};

use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

pub(super) use budget::TooLarge;
pub(super) use context::Context;
pub(super) use text::{strip, strip_end};

use super::syntax;

/// How deep macros, loops and the like may nest.
const MAX_RECURSION: usize = 200;

/// The text a template gave to `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Raised {}

/// An environment without templates.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax::config()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_debug(false);
    environment.set_formatter(print::emit);
    environment.set_unknown_method_callback(methods::call);
    environment.add_function("raise_exception", raise_exception);
    globals::add_to(&mut environment);
    filters::add_to(&mut environment);
    predicates::add_to(&mut environment);
    operators::add_to(&mut environment);
    Ok(environment)
}

fn raise_exception(_state: &State, message: &Value) -> Result<Value, Error> {
    let mut text = String::new();
    print::push_str(&mut text, message)?;
    Err(Error::new(ErrorKind::InvalidOperation, "the template raised").with_source(Raised(text)))
}

/// An error that says no more than what kind of thing went wrong: a value
/// could be a piece of the prompt.
#[cold]
fn fault(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
