//! From a request body to the prompt that the server would make of it.

use super::Model;
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    prompt::{Growth, Prompt},
    template::{
        ChatRequest, Now, Renderer,
        harmony::marked::{self, Piece},
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
        let text = renderer.render(&renderer.prepare(&request)?, now)?;
        self.check_bytes(text.len())?;
        cancel.check()?;
        Ok(text)
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
        let digest = *self.tokenizer.digest();
        let mut growth = previous
            .and_then(|previous| Growth::after(previous, text, digest))
            .unwrap_or_else(|| Growth::new(text, digest));
        let mut boundaries = Vec::new();
        let (rest, continues) = (growth.rest(), growth.continues());
        self.encode_rendered(
            rest,
            continues,
            &mut growth.ids,
            |met| boundaries.push((met.tokens, met.text)),
            || cancel.check(),
        )?;
        Ok(growth.finish(&boundaries))
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
