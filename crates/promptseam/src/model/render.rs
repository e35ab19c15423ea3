//! From a request body to the prompt that the server would make of it.

use std::{borrow::Cow, sync::LazyLock};

use super::Model;
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    prompt::{BoundaryRow, Growth, Prompt},
    template::{
        ChatRequest, Dialect, Literals, Now, Prepared, Renderer,
        harmony::marked::{self, Piece, Token},
    },
    tokenizer::{Met, Special},
};

/// How to render.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions<'a> {
    /// The time that the template may print.
    pub now: Now,
    /// A prompt of the same conversation: ids up to its last boundary row that
    /// the new text still matches are taken over, only what follows is encoded.
    pub previous: Option<&'a Prompt>,
}

impl Model {
    /// The prompt that vLLM 0.32 makes of a chat request, given as the bytes of
    /// its JSON body.
    ///
    /// With [`previous`](RenderOptions::previous) this is the *aligned render*:
    /// the text is rendered whole, and compared with the previous prompt's by
    /// digest; where it matches up to an append boundary, the ids up to there
    /// cannot differ. Exact for every template. O(text), of which encoding, the
    /// dearest part, only O(what follows).
    ///
    /// # Errors
    /// What parsing the request and rendering give; `TooLarge`;
    /// `ContextOverflow` for a prompt over the model's context; `Aborted`.
    pub fn render(
        &self,
        body: &[u8],
        options: RenderOptions<'_>,
        cancel: &Cancel,
    ) -> Result<Prompt> {
        let text = self.rendered(body, options.now, cancel)?;
        let prompt = self.encode_prompt(&text, options.previous, cancel)?;
        self.check_length(&prompt)?;
        Ok(prompt)
    }

    /// The text that the renderer makes of a request, special tokens by their
    /// literals. For Harmony, where content that spells a special token is not
    /// one, the text is for reading and does not encode to the prompt.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_text(&self, body: &[u8], now: Now, cancel: &Cancel) -> Result<String> {
        let text = self.rendered(body, now, cancel)?;
        Ok(match self.renderer()?.is_marked() {
            true => marked::plain(&text),
            false => text,
        })
    }

    /// The text as the renderer gives it, [marked](Renderer::is_marked) or not.
    fn rendered(&self, body: &[u8], now: Now, cancel: &Cancel) -> Result<String> {
        cancel.check()?;
        self.check_bytes(body.len())?;
        let renderer = self.renderer()?;
        let request = renderer.parse(body)?;
        cancel.check()?;
        if let Renderer::Template(_) = renderer {
            check_tokenizing(&request)?;
        }
        let text = self.render_request(&request, now)?;
        self.check_bytes(text.len())?;
        cancel.check()?;
        Ok(text)
    }

    /// The text that the renderer makes of a parsed request.
    ///
    /// # Errors
    /// What rendering gives.
    pub(crate) fn render_request(&self, request: &ChatRequest, now: Now) -> Result<String> {
        self.render_prepared(&self.prepare(request)?, now)
    }

    /// A request's messages in the form in which they are rendered.
    ///
    /// # Errors
    /// `TemplateMissing`.
    pub(crate) fn prepare(&self, request: &ChatRequest) -> Result<Prepared> {
        self.renderer()?.prepare(request)
    }

    /// The text of prepared messages.
    ///
    /// # Errors
    /// What rendering gives.
    pub(crate) fn render_prepared(&self, prepared: &Prepared, now: Now) -> Result<String> {
        self.renderer()?.render(prepared, now)
    }

    /// The dialect in which requests are read.
    pub(crate) fn dialect(&self) -> Dialect {
        self.renderer().map(Renderer::dialect).unwrap_or_default()
    }

    /// The digest of what renders a request, if anything does.
    pub(crate) fn renderer_digest(&self, request: &ChatRequest) -> Option<[u8; 32]> {
        let renderer = self.renderer().ok()?;
        let prepared = renderer.prepare(&request.with_messages(Vec::new())).ok()?;
        Some(*renderer.digest(&prepared).as_bytes())
    }

    /// What the template of a request looks for in content.
    pub(crate) fn literals(&self, request: &ChatRequest) -> &Literals {
        static NONE: LazyLock<Literals> = LazyLock::new(Literals::default);
        match self.renderer() {
            Ok(Renderer::Template(set)) => match set.select(request.has_tools()) {
                Ok(template) => template.literals(),
                Err(_) => &NONE,
            },
            _ => &NONE,
        }
    }

    /// Where in `text` the first token stands that can end an answer.
    pub(crate) fn first_close(&self, text: &str) -> Option<usize> {
        if !matches!(self.renderer(), Ok(Renderer::Harmony(_))) {
            return self.tokenizer.first_of(text, &self.stop_token_ids);
        }
        let mut from = 0;
        for (piece, end) in marked::pieces(text) {
            if let Piece::Special(Token::End | Token::Call) = piece {
                return Some(from);
            }
            from = end;
        }
        None
    }

    /// A text as [`decode`](crate::tokenizer::Tokenizer::decode) would give it.
    pub(crate) fn unmarked<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.renderer() {
            Ok(Renderer::Harmony(_)) => marked::plain(text).into(),
            _ => text.into(),
        }
    }

    /// The prompt of a text as the renderer gives it.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(crate) fn encode_prompt(
        &self,
        text: &str,
        previous: Option<&Prompt>,
        cancel: &Cancel,
    ) -> Result<Prompt> {
        let growth = self.growth(text, previous);
        let (prompt, _) = self.grow(growth, usize::MAX, cancel)?;
        Ok(prompt)
    }

    /// What a prompt of `text` can keep of `previous`.
    pub(crate) fn growth<'a>(&self, text: &'a str, previous: Option<&Prompt>) -> Growth<'a> {
        let digest = *self.tokenizer.digest();
        previous
            .and_then(|previous| Growth::after(previous, text, digest))
            .unwrap_or_else(|| Growth::new(text, digest))
    }

    /// Encodes what is left of `growth`; see [`Growth::finish`] for what comes
    /// with the prompt.
    ///
    /// # Errors
    /// `Aborted`; `Internal` if the engine fails.
    pub(crate) fn grow(
        &self,
        mut growth: Growth<'_>,
        repeated: usize,
        cancel: &Cancel,
    ) -> Result<(Prompt, Option<BoundaryRow>)> {
        let mut boundaries = Vec::new();
        let (rest, continues) = (growth.rest(), growth.continues());
        self.encode_rendered(
            rest,
            continues,
            &mut growth.ids,
            |met| boundaries.push((met.tokens, met.text)),
            || cancel.check(),
        )?;
        Ok(growth.finish(&boundaries, repeated))
    }

    /// Fails for a prompt over the model's context.
    ///
    /// # Errors
    /// `ContextOverflow`.
    pub(crate) fn check_length(&self, prompt: &Prompt) -> Result<()> {
        match self.max_model_length {
            Some(longest) if prompt.len() > longest => Err(Error::new(
                ErrorKind::ContextOverflow,
                format!(
                    "The prompt has {} tokens, more than the model's context of {longest}. \
                     Shorten the conversation.",
                    prompt.len()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Appends the ids of a text as the renderer gives it, or of what follows a
    /// boundary in one (`continues`), and reports every append boundary met.
    /// `check` runs between pieces; its error ends the work. O(length).
    pub(crate) fn encode_rendered(
        &self,
        text: &str,
        continues: bool,
        ids: &mut Vec<u32>,
        mut met: impl FnMut(Met),
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let Some(Renderer::Harmony(harmony)) = &self.renderer else {
            return self
                .tokenizer
                .encode_pieces(text, continues, ids, met, check);
        };
        ids.reserve(text.len() / 3);
        let base = ids.len();
        for (piece, end) in marked::pieces(text) {
            match piece {
                Piece::Text(text) => self.tokenizer.encode_into(&text, Special::Text, ids)?,
                // Pieces are encoded apart, so no text changes an id before this one.
                Piece::Special(token) => {
                    ids.push(harmony.id(token));
                    met(Met {
                        tokens: ids.len() - base,
                        text: end,
                    });
                    check()?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses what changes the prompt after its rendering.
fn check_tokenizing(request: &ChatRequest) -> Result<()> {
    for (set, name) in [
        (request.truncates_prompt(), "truncate_prompt_tokens"),
        (request.add_special_tokens(), "add_special_tokens"),
    ] {
        if set {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("Requests with {name} cannot be rendered here; leave it out."),
            ));
        }
    }
    Ok(())
}
