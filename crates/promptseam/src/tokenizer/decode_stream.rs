//! Decoding ids as they arrive, never giving out half a character.

use super::{Tokenizer, byte_level};
use crate::error::Result;

/// Decoders other than byte-level ones look back a token or two, and spell a
/// character in at most four tokens; text of more pending ones than this is
/// given out even if it ends in a replacement character.
const MAX_PENDING: usize = 24;

/// Turns ids into text piece by piece.
///
/// The pieces joined are the text that [`Tokenizer::decode`] gives for all ids.
/// For byte-level tokenizers that holds for any ids; for others, runs of more
/// than 24 ids that spell no valid UTF-8 may give another number of U+FFFD.
#[derive(Debug, Default)]
pub struct DecodeStream {
    skip_special: bool,
    /// Byte-level: the bytes of a character that is not whole yet.
    bytes: Vec<u8>,
    window: Window,
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
    /// none. O(ids).
    ///
    /// # Errors
    /// `InvalidTokenId` for an id outside the vocabulary; the stream is then as
    /// it was before the call.
    pub fn push(&mut self, tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
        tokenizer.check_ids(ids)?;
        if !tokenizer.is_byte_level() {
            return self.window.push(tokenizer, ids, self.skip_special);
        }
        for &id in ids {
            if self.skip_special && tokenizer.is_special(id) {
                continue;
            }
            if let Some(token) = tokenizer.id_to_token(id) {
                byte_level::push_bytes(&token, &mut self.bytes);
            }
        }
        Ok(byte_level::take_text(&mut self.bytes))
    }

    /// Ends the stream and returns what was held back.
    ///
    /// # Errors
    /// `Internal` if the tokenizer's decoder fails.
    pub fn finish(self, tokenizer: &Tokenizer) -> Result<String> {
        if tokenizer.is_byte_level() {
            return Ok(String::from_utf8_lossy(&self.bytes).into_owned());
        }
        self.window.finish(tokenizer, self.skip_special)
    }
}

/// The last ids, decoded again with each new one: what is new in their text is
/// what the id added.
#[derive(Debug, Default)]
struct Window {
    /// Ids that decoders need to see for context, then those not given out yet.
    ids: Vec<u32>,
    /// How many of them are only context.
    context: usize,
    /// The text of the context.
    context_text: String,
}

impl Window {
    fn push(&mut self, tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut out = String::new();
        for &id in ids {
            self.ids.push(id);
            let text = tokenizer.decode_unchecked(&self.ids, skip_special)?;
            let pending = self.ids.len() - self.context;
            let new = text.get(self.context_text.len()..).unwrap_or_default();
            if pending < MAX_PENDING && (new.is_empty() || new.ends_with('\u{fffd}')) {
                continue;
            }
            out.push_str(new);
            self.ids.drain(..self.context);
            self.context = self.ids.len();
            self.context_text = tokenizer.decode_unchecked(&self.ids, skip_special)?;
        }
        Ok(out)
    }

    fn finish(&self, tokenizer: &Tokenizer, skip_special: bool) -> Result<String> {
        let text = tokenizer.decode_unchecked(&self.ids, skip_special)?;
        let rest = text.get(self.context_text.len()..).unwrap_or_default();
        Ok(rest.to_owned())
    }
}
