//! From a chat request to the text a model sees.
//!
//! Three steps, each kept apart: [`ChatRequest::parse`] accepts and reads a
//! request as vLLM does; [`ChatTemplate::prepare`] gives its messages the form
//! vLLM hands to a chat template; [`ChatTemplate::render`] runs the template,
//! a MiniJinja environment set up to print what Python's Jinja2 prints under
//! Hugging Face's `apply_chat_template`. [`Harmony`] takes the place of a
//! template for gpt-oss; [`Renderer`] is whichever of the two a model has.

mod analysis;
mod chat_template;
mod clock;
mod data;
pub mod harmony;
mod literals;
mod message;
mod prepared;
mod renderer;
mod request;
mod rewrite;
mod runtime;
mod set;
mod shape;
mod syntax;
#[cfg(test)]
mod tests;
mod tools;

pub use chat_template::{ChatTemplate, MAX_FUEL, MAX_OUTPUT};
pub use clock::Now;
pub use data::{Data, Key, List, Map};
pub use harmony::Harmony;
pub use message::ContentFormat;
pub use prepared::Prepared;
pub use renderer::Renderer;
pub use request::{ChatRequest, Dialect, ToolChoice};
pub use set::{SpecialTokens, TemplateSet};

pub(crate) use literals::{Found, Literals, Place};
pub(crate) use request::Message;
pub(crate) use shape::{Role, Shape};

use crate::{
    error::{Error, ErrorKind},
    json::{Json, Number},
};

/// An `InvalidRequest` about the field at `path`.
#[cold]
fn invalid(path: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("{path} {what}"))
}

/// What pydantic, and so vLLM, reads as a boolean.
fn lax_bool(value: &Json<'_>) -> Option<bool> {
    match value {
        Json::Bool(value) => Some(*value),
        Json::Number(number @ (Number::Integer(_) | Number::Float(_))) => match number.to_f64() {
            0.0 => Some(false),
            1.0 => Some(true),
            _ => None,
        },
        Json::String(text) => match text.to_ascii_lowercase().as_str() {
            "0" | "off" | "f" | "false" | "n" | "no" => Some(false),
            "1" | "on" | "t" | "true" | "y" | "yes" => Some(true),
            _ => None,
        },
        _ => None,
    }
}
