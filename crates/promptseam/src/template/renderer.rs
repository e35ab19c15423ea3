//! What makes a model's prompts: its chat templates, or Harmony.

use super::{ChatRequest, Dialect, Harmony, Now, Prepared, TemplateSet};
use crate::error::Result;

/// What turns a request into a prompt's text.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum Renderer {
    /// The model's chat templates.
    Template(TemplateSet),
    /// vLLM's own renderer for gpt-oss.
    Harmony(Harmony),
}

impl Renderer {
    /// Reads a request body in this renderer's dialect. O(n).
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub fn parse(&self, body: &[u8]) -> Result<ChatRequest> {
        ChatRequest::parse_as(body, self.dialect())
    }

    /// The dialect in which requests for this renderer are to be read.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Template(_) => Dialect::Template,
            Self::Harmony(_) => Dialect::Harmony,
        }
    }

    /// Gives the messages of `request` the form in which they are rendered.
    /// What depends on other messages is left to [`Self::render`], for a
    /// template and for Harmony alike. O(messages).
    ///
    /// # Errors
    /// `TemplateMissing` if there is no template for the request;
    /// `InvalidArgument` for a request that was read in another dialect.
    pub fn prepare(&self, request: &ChatRequest) -> Result<Prepared> {
        match self {
            Self::Template(set) => set.select(request.has_tools())?.prepare(request),
            Self::Harmony(_) => Prepared::for_harmony(request),
        }
    }

    /// The prompt's text, [marked](Self::is_marked) or not. O(text).
    ///
    /// # Errors
    /// As [`ChatTemplate::render`](super::ChatTemplate::render) and
    /// [`Harmony::render`].
    pub fn render(&self, prepared: &Prepared, now: Now) -> Result<String> {
        match self {
            Self::Template(set) => {
                let template = set.select(prepared.tools().is_some())?;
                template.render(prepared, now)
            }
            Self::Harmony(harmony) => harmony.render(prepared, now),
        }
    }

    /// A digest of what renders `prepared`: the template's source, or the
    /// version of the Harmony renderer.
    pub fn digest(&self, prepared: &Prepared) -> blake3::Hash {
        match self {
            Self::Template(set) => match set.select(prepared.tools().is_some()) {
                Ok(template) => template.digest(),
                // Nothing can be rendered, so all such are alike.
                Err(_) => blake3::hash(b""),
            },
            Self::Harmony(harmony) => harmony.digest(),
        }
    }

    /// Whether the text is [marked](super::harmony::marked): encoded by its
    /// marks, special tokens never being read from content.
    pub fn is_marked(&self) -> bool {
        matches!(self, Self::Harmony(_))
    }
}
