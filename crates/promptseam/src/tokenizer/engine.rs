//! The two engines behind one face: `fastokens` where it is proved equal at
//! load, `tokenizers` where it is not.

use fastokens::AddedTokenPolicy;
use tokenizers::{Model as _, Normalizer as _, OffsetType};
use tokenizers::{NormalizedString, PreTokenizedString, PreTokenizer as _};

use crate::error::{Error, ErrorKind, Result};

/// What becomes of text that spells an added token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Special {
    /// It becomes that token: for text a chat template made.
    #[default]
    Recognize,
    /// It is encoded as ordinary text, so that untrusted text cannot bring in
    /// control tokens.
    Text,
}

/// Which engine encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// `fastokens` with its hand-written scanner, where it has one; pieces that
    /// the scanner is known to misread go by regular expression.
    Fast,
    /// `fastokens` with the model's own regular expressions: some 7 times
    /// slower, for models on which the scanner differs from the reference.
    FastRegex,
    /// `tokenizers`.
    Reference,
}

/// Long s. Where a pattern ignores case, as o200k's contractions do, it is an
/// `s`; fastokens 0.3.5's scanner does not fold it.
const MISREAD: &str = "\u{17f}";

pub(crate) enum Engine {
    Fast {
        engine: Box<fastokens::Tokenizer>,
        /// What encodes text with [`MISREAD`], where `engine` gets it wrong.
        guard: Option<Box<fastokens::Tokenizer>>,
        kind: EngineKind,
    },
    Reference(Box<tokenizers::Tokenizer>),
}

impl Engine {
    /// The fast engine for `definition`, or why it cannot be.
    pub(crate) fn fast(definition: serde_json::Value) -> Result<Self, String> {
        Ok(Self::Fast {
            engine: fastokens_from(definition)?,
            guard: None,
            kind: EngineKind::Fast,
        })
    }

    /// The fast engine kept from recognizing the pre-tokenizer's pattern, so
    /// that it runs it as a regular expression.
    pub(crate) fn fast_regex(mut definition: serde_json::Value) -> Result<Self, String> {
        hide_patterns(&mut definition["pre_tokenizer"]);
        Ok(Self::Fast {
            engine: fastokens_from(definition)?,
            guard: None,
            kind: EngineKind::FastRegex,
        })
    }

    /// This engine, with `regex` for the text that its scanner misreads.
    pub(crate) fn guarded_by(self, regex: Self) -> Self {
        match (self, regex) {
            (Self::Fast { engine, kind, .. }, Self::Fast { engine: regex, .. }) => Self::Fast {
                engine,
                guard: Some(regex),
                kind,
            },
            (engine, _) => engine,
        }
    }

    /// The engine that guards this one, by itself; one without a guard as it is.
    pub(crate) fn guard(self) -> Self {
        match self {
            Self::Fast {
                guard: Some(engine),
                ..
            } => Self::Fast {
                engine,
                guard: None,
                kind: EngineKind::FastRegex,
            },
            engine => engine,
        }
    }

    /// The reference engine, from the bytes of `tokenizer.json`.
    pub(crate) fn reference(tokenizer_json: &[u8], merged: &[super::AddedToken]) -> Result<Self> {
        let failed = |e: tokenizers::Error| {
            Error::new(
                ErrorKind::TokenizerUnsupported,
                "tokenizer.json is not one that the `tokenizers` library loads; \
                 promptseam supports its BPE, Unigram, WordPiece and WordLevel models.",
            )
            .with_source(e)
        };
        let mut engine = tokenizers::Tokenizer::from_bytes(tokenizer_json).map_err(failed)?;
        engine.with_truncation(None).map_err(failed)?;
        engine.with_padding(None);
        if !merged.is_empty() {
            let tokens = merged.iter().map(|token| {
                tokenizers::AddedToken::from(token.content.clone(), token.special)
                    .single_word(token.single_word)
                    .lstrip(token.lstrip)
                    .rstrip(token.rstrip)
                    .normalized(token.normalized)
            });
            engine.add_tokens(tokens).map_err(failed)?;
        }
        Ok(Self::Reference(Box::new(engine)))
    }

    pub(crate) fn kind(&self) -> EngineKind {
        match self {
            Self::Fast { kind, .. } => *kind,
            Self::Reference(_) => EngineKind::Reference,
        }
    }

    /// Appends the ids of `text` to `ids`, without the tokens a post-processor
    /// would add.
    pub(crate) fn encode_into(
        &self,
        text: &str,
        special: Special,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match self {
            Self::Fast { engine, guard, .. } => {
                let engine = match guard {
                    Some(guard) if misreads(text) => guard,
                    _ => engine,
                };
                let policy = match special {
                    Special::Recognize => AddedTokenPolicy::All,
                    Special::Text => AddedTokenPolicy::None,
                };
                let new = engine
                    .encode_with_policy(text, false, policy)
                    .map_err(encode_failed)?;
                append(ids, new);
            }
            Self::Reference(engine) => match special {
                Special::Recognize => {
                    let encoding = engine.encode_fast(text, false).map_err(encode_failed)?;
                    ids.extend_from_slice(encoding.get_ids());
                }
                Special::Text => reference_text(engine, text, ids).map_err(encode_failed)?,
            },
        }
        Ok(())
    }

    /// The text of `ids`; ids without a token give nothing.
    pub(crate) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        match self {
            Self::Fast { engine, .. } => engine.decode(ids, skip_special).map_err(decode_failed),
            Self::Reference(engine) => engine.decode(ids, skip_special).map_err(decode_failed),
        }
    }

    pub(crate) fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Fast { engine, .. } => engine.id_to_token(id).map(str::to_owned),
            Self::Reference(engine) => engine.id_to_token(id),
        }
    }

    pub(crate) fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Fast { engine, .. } => engine.token_to_id(token),
            Self::Reference(engine) => engine.token_to_id(token),
        }
    }

    /// How many distinct tokens there are, added ones included.
    pub(crate) fn vocab_size(&self) -> usize {
        match self {
            Self::Fast { engine, .. } => engine.vocab_size(),
            Self::Reference(engine) => engine.get_vocab_size(true),
        }
    }
}

fn fastokens_from(definition: serde_json::Value) -> Result<Box<fastokens::Tokenizer>, String> {
    fastokens::Tokenizer::from_json(definition)
        .map(Box::new)
        .map_err(|e| e.to_string())
}

fn misreads(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), MISREAD.as_bytes()).is_some()
}

/// Wraps every pattern in a group, which changes nothing but its spelling.
fn hide_patterns(pre_tokenizer: &mut serde_json::Value) {
    if let Some(steps) = pre_tokenizer
        .get_mut("pretokenizers")
        .and_then(serde_json::Value::as_array_mut)
    {
        steps.iter_mut().for_each(hide_patterns);
    } else if let Some(serde_json::Value::String(regex)) =
        pre_tokenizer.pointer_mut("/pattern/Regex")
    {
        *regex = format!("(?:{regex})");
    }
}

/// `text` through normalizer, pre-tokenizer and model, past the added
/// vocabulary, which `tokenizers` has no option to leave out whole.
fn reference_text(
    engine: &tokenizers::Tokenizer,
    text: &str,
    ids: &mut Vec<u32>,
) -> tokenizers::Result<()> {
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = engine.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    let mut pieces = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = engine.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces)?;
    }
    pieces.tokenize(|piece| engine.get_model().tokenize(piece.get()))?;
    let encoding = pieces.into_encoding(None, 0, OffsetType::None)?;
    ids.extend_from_slice(encoding.get_ids());
    Ok(())
}

fn append(ids: &mut Vec<u32>, new: Vec<u32>) {
    if ids.is_empty() && ids.capacity() < new.len() {
        *ids = new;
    } else {
        ids.extend_from_slice(&new);
    }
}

fn encode_failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        ErrorKind::Internal,
        "The tokenizer could not encode the text.",
    )
    .with_source(source)
}

fn decode_failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        ErrorKind::Internal,
        "The tokenizer could not decode the ids.",
    )
    .with_source(source)
}
