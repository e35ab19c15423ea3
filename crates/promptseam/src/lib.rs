//! Token-exact prompts for long LLM conversations.
//!
//! A *token id* is a `u32` in a model's vocabulary. A [`Prompt`](prompt::Prompt)
//! is an immutable sequence of token ids that a model sees; it shares structure
//! with the prompt it grew from. An *append boundary* is a position in a prompt
//! after which tokens may be appended without changing an id before it. A
//! *boundary row* ties such a position to the text it was encoded from, by
//! digest, so that the next render of a longer conversation can keep every id
//! up to it.
//!
//! The crate knows neither a language binding nor a network. Its modules depend
//! on each other in one direction: [`tokenizer`] and [`template`] know nothing
//! of each other, [`prompt`] knows neither, [`model`] joins the three, and
//! [`continuation`] goes on from one prompt of a model to the next.

#![deny(missing_docs)]

pub mod cancel;
pub mod continuation;
pub mod error;
pub mod json;
pub mod model;
pub mod prompt;
pub mod store;
pub mod template;
pub mod tokenizer;

pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
