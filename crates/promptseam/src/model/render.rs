//! From a request body to the prompt that the server would make of it.

use super::Model;
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    prompt::{Growth, Prompt},
    template::{ChatRequest, Now},
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
        if let Some(longest) = self.max_model_length
            && prompt.len() > longest
        {
            return Err(Error::new(
                ErrorKind::ContextOverflow,
                format!(
                    "The prompt has {} tokens, more than the model's context of {longest}. \
                     Shorten the conversation.",
                    prompt.len()
                ),
            ));
        }
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
        let template = self.templates()?.select(&request)?;
        let text = template.render(&template.prepare(&request), now)?;
        self.check_bytes(text.len())?;
        cancel.check()?;
        Ok(text)
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
        let tokenizer = &self.tokenizer;
        let digest = *tokenizer.digest();
        let mut growth = previous
            .and_then(|previous| Growth::after(previous, text, digest))
            .unwrap_or_else(|| Growth::new(text, digest));
        let mut boundaries = Vec::new();
        let (rest, continues) = (growth.rest(), growth.continues());
        tokenizer.encode_pieces(
            rest,
            continues,
            &mut growth.ids,
            |met| boundaries.push((met.tokens, met.text)),
            || cancel.check(),
        )?;
        Ok(growth.finish(&boundaries))
    }
}
