//! Text to token ids and back, with proof of where a text may be cut.
//!
//! A [`Tokenizer`] is loaded from a `tokenizer.json`. Two engines are built: the
//! fast one, and the reference, which encodes a battery of texts with it. Where
//! all ids agree the reference is dropped and the fast engine used. Where one
//! differs, the fast engine is tried again with a guard for text that its scanner
//! misreads, then without the scanner; if that differs too, or it cannot load the
//! model, the reference stays.
//! [`Tokenizer::fallback`] says why.
//!
//! [`BoundaryProof`] says after which added tokens ids may be appended.
//! [`Tokenizer::encode_pieces`] encodes a text from cut to cut and reports each
//! boundary with its place in the text and among the ids.

mod battery;
mod boundary;
mod byte_level;
mod decode_stream;
mod definition;
mod engine;
mod split;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use serde_json::Value;

pub use boundary::{Boundary, BoundaryProof, Unsafe};
pub use decode_stream::DecodeStream;
pub use definition::AddedToken;
pub use engine::{EngineKind, Special};

use crate::error::{Error, ErrorKind, Result};
use definition::Definition;
use engine::Engine;
use split::Splitter;

/// A boundary met while encoding: ids may be appended after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Ids encoded so far, the boundary's own included.
    pub tokens: usize,
    /// Bytes of text encoded so far, the boundary's literal included.
    pub text: usize,
}

/// A loaded tokenizer. `Send + Sync`; every method takes `&self`.
pub struct Tokenizer {
    engine: Engine,
    fallback: Option<String>,
    proof: BoundaryProof,
    splitter: Splitter,
    /// The literal that an [anchored](BoundaryProof::anchored) piece is encoded after.
    anchor: Option<String>,
    added: Vec<AddedToken>,
    /// The decoder is GPT-2's byte-level one.
    byte_level: bool,
    /// Ids from 0 up to here may be given to this model.
    id_limit: u32,
    digest: [u8; 32],
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("engine", &self.engine.kind())
            .field("fallback", &self.fallback)
            .field("id_limit", &self.id_limit)
            .finish_non_exhaustive()
    }
}

/// What to load a [`Tokenizer`] with besides its `tokenizer.json`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerOptions<'a> {
    /// The parsed `tokenizer_config.json`, whose `added_tokens_decoder` is merged.
    pub config: Option<&'a Value>,
    /// The model's embedding rows (`vocab_size` in `config.json`): models pad
    /// them beyond the tokenizer's vocabulary, and may sample such ids.
    pub embedding_rows: Option<u32>,
    /// Use the reference engine, for comparisons.
    pub reference_only: bool,
}

impl Tokenizer {
    /// Loads a tokenizer from the bytes of its `tokenizer.json` and checks the
    /// fast engine against the reference. About a second for a vocabulary of
    /// 150,000 on two cores.
    ///
    /// # Errors
    /// `ModelFile` when the file is broken, `TokenizerUnsupported` when the
    /// reference does not load it.
    pub fn load(tokenizer_json: &[u8], options: TokenizerOptions<'_>) -> Result<Self> {
        let Definition {
            json,
            added,
            merged,
        } = Definition::parse(tokenizer_json, options.config)?;
        let proof = BoundaryProof::new(&json, &added)?;
        let splitter = Splitter::new(&proof, &added)?;
        let anchor = proof
            .anchored
            .then(|| proof.safe().next().map(|token| token.content.clone()))
            .flatten();

        let byte_level = json["decoder"]["type"] == "ByteLevel";
        let unfit = match (options.reference_only, definition::model_kind_of(&json)) {
            (true, _) => Some("the reference was asked for".to_owned()),
            (false, "BPE") => None,
            (false, kind) => Some(format!("the fast engine has no {kind:?} model")),
        };
        let (fast, reference) = thread::scope(|scope| {
            let fast = match unfit {
                Some(reason) => Err(reason),
                None => Ok(scope.spawn(move || quiet(|| Engine::fast(json)))),
            };
            let reference = quiet(|| Engine::reference(tokenizer_json, &merged));
            let fast = fast.and_then(|thread| built(thread.join().ok().flatten()));
            (fast, reference)
        });
        let reference = reference.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::TokenizerUnsupported,
                "tokenizer.json made the `tokenizers` library panic; is it damaged?",
            ))
        })?;
        let parse = || Definition::parse(tokenizer_json, options.config);
        let (engine, fallback) = choose(fast, reference, &added, || Ok(parse()?.json))?;

        let highest = added.iter().map(|token| token.id + 1).max();
        let id_limit = (engine.vocab_size() as u32)
            .max(highest.unwrap_or(0))
            .max(options.embedding_rows.unwrap_or(0));
        Ok(Self {
            digest: digest(tokenizer_json, &merged),
            engine,
            fallback,
            proof,
            splitter,
            anchor,
            added,
            byte_level,
            id_limit,
        })
    }

    /// Which engine encodes.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// Why another engine than [`EngineKind::Fast`] is used, if so.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Which added tokens always split, and why the others may not.
    pub fn boundaries(&self) -> &BoundaryProof {
        &self.proof
    }

    /// The added vocabulary, in the order of `tokenizer.json`.
    pub fn added_tokens(&self) -> &[AddedToken] {
        &self.added
    }

    /// One more than the highest id that this model may be given: the
    /// vocabulary, or the embedding rows where they are more.
    pub fn id_limit(&self) -> u32 {
        self.id_limit
    }

    /// Distinct tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.engine.vocab_size()
    }

    /// BLAKE3 of the definition: equal digests give equal ids.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The ids of `text`, without those a post-processor adds (as vLLM 0.32
    /// encodes rendered templates). O(length).
    ///
    /// # Errors
    /// `Internal` if the engine fails.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.engine.encode_into(text, special, &mut ids)?;
        Ok(ids)
    }

    /// As [`Self::encode`], appending to `ids`.
    pub(crate) fn encode_into(
        &self,
        text: &str,
        special: Special,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        self.engine.encode_into(text, special, ids)
    }

    /// Appends the ids of `text` to `ids`, cut by cut, and reports every append
    /// boundary met. `continues`: the text follows a boundary rather than
    /// starting a prompt. O(length).
    ///
    /// `check` runs between pieces; its error ends the work.
    ///
    /// # Errors
    /// That of `check`; `Internal` if the engine fails.
    pub fn encode_pieces(
        &self,
        text: &str,
        continues: bool,
        ids: &mut Vec<u32>,
        mut met: impl FnMut(Met),
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        // About one id in four bytes; a fifth more saves the growing.
        ids.reserve(text.len() / 3);
        let base = ids.len();
        let mut from = 0;
        let mut after_boundary = continues;
        for cut in self.splitter.cuts(text) {
            if self.splitter.all_safe {
                self.encode_piece(&text[from..cut.start], Special::Text, after_boundary, ids)?;
                ids.push(cut.id);
            } else {
                self.encode_piece(
                    &text[from..cut.end],
                    Special::Recognize,
                    after_boundary,
                    ids,
                )?;
            }
            from = cut.end;
            after_boundary = true;
            met(Met {
                tokens: ids.len() - base,
                text: from,
            });
            check()?;
        }
        let special = if self.splitter.all_safe {
            Special::Text
        } else {
            Special::Recognize
        };
        self.encode_piece(&text[from..], special, after_boundary, ids)
    }

    /// Where in `text` the first of the added tokens `ids` stands.
    pub(crate) fn first_of(&self, text: &str, ids: &[u32]) -> Option<usize> {
        let cuts = self.splitter.cuts(text);
        let found = cuts.iter().find(|cut| ids.contains(&cut.id))?;
        Some(found.start)
    }

    /// Encodes one piece as it stands in the whole text: behind an anchor where
    /// the pre-tokenizer treats the first piece apart.
    fn encode_piece(
        &self,
        piece: &str,
        special: Special,
        after_boundary: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        match &self.anchor {
            Some(anchor) if after_boundary && !piece.is_empty() => {
                let mut behind = Vec::new();
                let text = [anchor.as_str(), piece].concat();
                // The anchor itself must be recognized; in an all-safe tokenizer
                // the piece holds no other literal.
                self.engine
                    .encode_into(&text, Special::Recognize, &mut behind)?;
                ids.extend_from_slice(&behind[1..]);
                Ok(())
            }
            _ => self.engine.encode_into(piece, special, ids),
        }
    }

    /// The text of `ids`. Ids of padding rows, which have no token, give
    /// nothing; bytes that are no UTF-8 give U+FFFD. O(ids).
    ///
    /// # Errors
    /// `InvalidTokenId` for an id not below [`Self::id_limit`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.check_ids(ids)?;
        self.decode_unchecked(ids, skip_special)
    }

    fn is_byte_level(&self) -> bool {
        self.byte_level
    }

    fn is_special(&self, id: u32) -> bool {
        self.added
            .iter()
            .any(|token| token.id == id && token.special)
    }

    fn decode_unchecked(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.engine.decode(ids, skip_special)
    }

    /// Fails if an id is not one of this model.
    ///
    /// # Errors
    /// `InvalidTokenId`, with the first such id and its place.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().position(|id| *id >= self.id_limit) {
            None => Ok(()),
            Some(at) => Err(Error::new(
                ErrorKind::InvalidTokenId,
                format!(
                    "Token id {} at position {at} is outside the model's vocabulary of {} ids.",
                    ids[at], self.id_limit
                ),
            )),
        }
    }

    /// The token of `id` as the vocabulary spells it, if it has one.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.engine.id_to_token(id)
    }

    /// The id of a token as the vocabulary spells it, added tokens first.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.engine.token_to_id(token)
    }
}

/// Runs `work`, with a panic in it as `None`.
fn quiet<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// The fastest engine that agrees with the reference, and why it is not the
/// plain fast one. `definition` is read anew only where that is not.
fn choose(
    fast: Result<Engine, String>,
    reference: Engine,
    added: &[AddedToken],
    definition: impl FnOnce() -> Result<Value>,
) -> Result<(Engine, Option<String>)> {
    let fast = match fast {
        Ok(fast) => fast,
        Err(reason) => return Ok((reference, Some(reason))),
    };
    let Some(reason) = disagreement(&fast, &reference, added) else {
        return Ok((fast, None));
    };
    let json = definition()?;
    let Ok(regex) = built(quiet(|| Engine::fast_regex(json))) else {
        return Ok((reference, Some(reason)));
    };
    let guarded = fast.guarded_by(regex);
    if disagreement(&guarded, &reference, added).is_none() {
        return Ok((guarded, None));
    }
    let regex = guarded.guard();
    Ok(match disagreement(&regex, &reference, added) {
        None => (regex, Some(reason)),
        Some(reason) => (reference, Some(reason)),
    })
}

fn built(engine: Option<Result<Engine, String>>) -> Result<Engine, String> {
    let failed = || Err("the fast engine panicked while loading".to_owned());
    engine.unwrap_or_else(failed)
}

/// Where `fast` differs from the reference on the battery, in words.
fn disagreement(fast: &Engine, reference: &Engine, added: &[AddedToken]) -> Option<String> {
    let literals: Vec<&str> = added.iter().map(|token| token.content.as_str()).collect();
    match quiet(|| battery::compare(fast, reference, &literals)) {
        Some(Ok(None)) => None,
        Some(Ok(Some(battery::Disagreement { index, at }))) => Some(format!(
            "the engines differ on text {index} of the battery, from id {at} on"
        )),
        Some(Err(error)) => Some(format!("the fast engine failed on the battery: {error}")),
        None => Some("the fast engine panicked on the battery".to_owned()),
    }
}

fn digest(tokenizer_json: &[u8], merged: &[AddedToken]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("promptseam tokenizer definition v1");
    hasher.update(tokenizer_json);
    for token in merged {
        hasher.update(format!("\n{token:?}").as_bytes());
    }
    *hasher.finalize().as_bytes()
}
