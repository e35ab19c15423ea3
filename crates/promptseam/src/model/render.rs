//! From a request body to the prompt that the server would make of it.

use std::sync::LazyLock;

use super::Model;
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    prompt::{BoundaryRow, Growth, Prompt},
    template::{ChatRequest, Literals, Now},
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
        let text = self.render_text(body, options.now, cancel)?;
        let prompt = self.encode_prompt(&text, options.previous, cancel)?;
        self.check_length(&prompt)?;
        Ok(prompt)
    }

    /// The text that the chat template makes of a request.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_text(&self, body: &[u8], now: Now, cancel: &Cancel) -> Result<String> {
        cancel.check()?;
        self.check_bytes(body.len())?;
        let request = ChatRequest::parse(body)?;
        cancel.check()?;
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
        let text = self.render_request(&request, now)?;
        self.check_bytes(text.len())?;
        cancel.check()?;
        Ok(text)
    }

    /// The text that the chat template makes of a parsed request.
    ///
    /// # Errors
    /// What rendering gives.
    pub(crate) fn render_request(&self, request: &ChatRequest, now: Now) -> Result<String> {
        let template = self.templates()?.select(request)?;
        template.render(&template.prepare(request), now)
    }

    /// The digest of the template that a request gets, if there is one.
    pub(crate) fn template_digest(&self, request: &ChatRequest) -> Option<[u8; 32]> {
        let template = self.templates().ok()?.select(request).ok()?;
        Some(*template.digest().as_bytes())
    }

    /// What the template of a request looks for in content.
    pub(crate) fn literals(&self, request: &ChatRequest) -> &Literals {
        static NONE: LazyLock<Literals> = LazyLock::new(Literals::default);
        let template = self.templates().and_then(|set| set.select(request));
        template.map_or(&*NONE, |template| template.literals())
    }

    /// Where in `text` the first token stands that can end an answer.
    pub(crate) fn first_close(&self, text: &str) -> Option<usize> {
        self.tokenizer.first_of(text, &self.stop_token_ids)
    }

    /// The prompt of a rendered text.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn encode_prompt(
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
        self.tokenizer.encode_pieces(
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
}
