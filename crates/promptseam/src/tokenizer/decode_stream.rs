//! Decoding ids as they arrive, never giving out half a character.

use super::Tokenizer;
use crate::error::Result;

/// A character spans at most four tokens (one per UTF-8 byte), and decoders look
/// back at most a few; text of more pending tokens than this is given out even
/// if it ends in a replacement character.
const MAX_PENDING: usize = 24;

/// Turns ids into text piece by piece.
///
/// The pieces joined are the text that [`Tokenizer::decode`] gives for all ids,
/// for text that the tokenizer can encode; bytes that are no UTF-8 become
/// U+FFFD, whose number may differ in runs longer than 24 tokens.
#[derive(Debug, Default)]
pub struct DecodeStream {
    skip_special: bool,
    /// Ids that decoders need to see for context, then those not given out yet.
    window: Vec<u32>,
    /// How many ids of the window are only context.
    context: usize,
    /// The text of the context.
    context_text: String,
}

impl DecodeStream {
    /// A stream at its start. `skip_special` leaves out special added tokens.
    pub fn new(skip_special: bool) -> Self {
        Self {
            skip_special,
            ..Self::default()
        }
    }

    /// Takes the next ids and returns the text that is certain by now, possibly
    /// none. O(ids + 24).
    ///
    /// # Errors
    /// `InvalidTokenId` for an id outside the vocabulary; the stream is then as
    /// it was before the call.
    pub fn push(&mut self, tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
        tokenizer.check_ids(ids)?;
        let mut out = String::new();
        for &id in ids {
            self.window.push(id);
            let text = tokenizer.decode_unchecked(&self.window, self.skip_special)?;
            let pending = self.window.len() - self.context;
            let new = text.get(self.context_text.len()..).unwrap_or_default();
            if pending < MAX_PENDING && (new.is_empty() || new.ends_with('\u{fffd}')) {
                continue;
            }
            out.push_str(new);
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.context_text = tokenizer.decode_unchecked(&self.window, self.skip_special)?;
        }
        Ok(out)
    }

    /// Ends the stream and returns what was held back.
    ///
    /// # Errors
    /// `Internal` if the tokenizer's decoder fails.
    pub fn finish(mut self, tokenizer: &Tokenizer) -> Result<String> {
        let text = tokenizer.decode_unchecked(&self.window, self.skip_special)?;
        let rest = text.get(self.context_text.len()..).unwrap_or_default();
        self.window.clear();
        Ok(rest.to_owned())
    }
}
