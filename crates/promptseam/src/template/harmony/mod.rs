//! Harmony, the format of gpt-oss: what vLLM 0.32 prints for these models in
//! place of a chat template, with oss-harmony 0.0.11.
//!
//! A conversation is a list of messages, each `<|start|>header<|message|>text`
//! and a closing token. The header names the author, the recipient and the
//! channel: `analysis` for reasoning, `commentary` for calls and their results,
//! `final` for answers. The first message is the system's own; the request's
//! instructions and tools make a developer message.

pub mod marked;
mod message;
mod number;
mod render;
mod request;
mod reserved;
#[cfg(test)]
mod tests;
mod typescript;

pub(super) use message::read;
pub(super) use request::arguments;

use super::{Now, Prepared};
use crate::error::{Error, ErrorKind, Result};
use marked::Token;

/// What can change the text is in this name: the versions it was made after.
const RENDERER: &str = "promptseam harmony 1: vLLM 0.32, oss-harmony 0.0.11";

/// The renderer for models of type `gpt_oss`.
#[derive(Clone, Debug)]
pub struct Harmony {
    ids: [u32; Token::ALL.len()],
}

impl Harmony {
    /// The renderer for a vocabulary that `id_of` looks literals up in.
    ///
    /// # Errors
    /// `ModelFile` if it lacks a special token of Harmony.
    pub fn new(id_of: impl Fn(&str) -> Option<u32>) -> Result<Self> {
        let mut ids = [0; Token::ALL.len()];
        for token in Token::ALL {
            let literal = token.literal();
            ids[token as usize] = id_of(literal).ok_or_else(|| {
                Error::new(
                    ErrorKind::ModelFile,
                    format!(
                        "The model is a gpt_oss, but its tokenizer.json has no {literal}; \
                         download it again."
                    ),
                )
            })?;
        }
        Ok(Self { ids })
    }

    /// The id of a special token.
    pub fn id(&self, token: Token) -> u32 {
        self.ids[token as usize]
    }

    /// A digest that changes when this renderer would print something else.
    pub fn digest(&self) -> blake3::Hash {
        blake3::hash(RENDERER.as_bytes())
    }

    /// The prompt as [`marked`] text. O(text).
    ///
    /// # Errors
    /// `TooLarge` where the tools' types are.
    pub fn render(&self, prepared: &Prepared, now: Now) -> Result<String> {
        render::conversation(prepared, now)
    }
}
