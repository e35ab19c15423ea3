//! Which added tokens always split: the proof that `encode(a) ++ encode(b)` is
//! `encode(a ++ b)` for every `b` when `a` ends on such a token.
//!
//! An added token is looked for before normalizer, pre-tokenizer and model run,
//! and these see each piece between matches on its own. Matching is leftmost
//! first, then longest, without overlaps (`tokenizers` 0.23), and starts afresh
//! after a match. So a match that ends at `e` cuts the text at `e` for good,
//! unless text after `e` can undo the match, take part in it, or is treated by
//! where it stands. What can do so is what [`Unsafe`] lists; a token to which
//! none of it applies is safe.

use std::{collections::HashMap, fmt};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::definition::AddedToken;
use crate::error::{Error, ErrorKind, Result};

/// Why text after an added token may change ids before or at it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsafe {
    /// The token takes the white space that follows it.
    Rstrip,
    /// The token takes the white space before it. Text after it cannot change
    /// that, but the token then no longer stands for its literal alone.
    Lstrip,
    /// Whether the token matches depends on the character that follows it.
    SingleWord,
    /// The token is matched in normalized text, and the normalizer can change
    /// text across the cut.
    Normalized,
    /// Another added token contains this one and goes on after it, so a longer
    /// match can replace it.
    Extended {
        /// The other token's literal.
        by: String,
    },
    /// Another added token that is matched first begins inside this one.
    Overlapped {
        /// The other token's literal.
        by: String,
    },
    /// Another added token matches only between non-word characters, and this
    /// one ends in a word character, which the cut would hide.
    HidesWordEnd {
        /// The other token's literal.
        of: String,
    },
    /// Two added tokens have the same literal.
    Ambiguous,
    /// The pre-tokenizer is not known to treat every piece alike.
    PreTokenizer {
        /// Its type in `tokenizer.json`.
        kind: String,
    },
    /// The model encodes at random (BPE dropout).
    Dropout,
}

impl Unsafe {
    /// A stable name of the reason.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rstrip => "rstrip",
            Self::Lstrip => "lstrip",
            Self::SingleWord => "single_word",
            Self::Normalized => "normalized",
            Self::Extended { .. } => "extended",
            Self::Overlapped { .. } => "overlapped",
            Self::HidesWordEnd { .. } => "hides_word_end",
            Self::Ambiguous => "ambiguous",
            Self::PreTokenizer { .. } => "pre_tokenizer",
            Self::Dropout => "dropout",
        }
    }
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rstrip => f.write_str("it takes the white space that follows it"),
            Self::Lstrip => f.write_str("it takes the white space before it"),
            Self::SingleWord => f.write_str("whether it matches depends on the next character"),
            Self::Normalized => {
                f.write_str("it is matched in normalized text, and normalization can reach over it")
            }
            Self::Extended { by } => write!(f, "the longer added token {by:?} can replace it"),
            Self::Overlapped { by } => write!(f, "the added token {by:?} can begin inside it"),
            Self::HidesWordEnd { of } => {
                write!(f, "the added token {of:?} looks at the character before it")
            }
            Self::Ambiguous => f.write_str("another added token has the same literal"),
            Self::PreTokenizer { kind } => {
                write!(
                    f,
                    "the pre-tokenizer {kind} is not known to treat pieces alike"
                )
            }
            Self::Dropout => f.write_str("the model encodes at random"),
        }
    }
}

/// An added token with what the proof says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The id.
    pub id: u32,
    /// The literal.
    pub content: String,
    /// Why tokens may not be appended after it; `None` where they may.
    pub unsafe_because: Option<Unsafe>,
}

/// What the proof found for a whole tokenizer.
#[derive(Clone, Debug)]
pub struct BoundaryProof {
    /// Every added token, in order of its id.
    pub tokens: Vec<Boundary>,
    /// The first piece of a text is treated apart (Metaspace's prepend scheme
    /// `first`): text after a boundary must be encoded with the boundary's
    /// literal in front, whose id is then dropped.
    pub anchored: bool,
}

impl BoundaryProof {
    /// Proves for each added token whether it always splits. O(total
    /// length of the literals).
    pub(crate) fn new(json: &Value, added: &[AddedToken]) -> Result<Self> {
        let normalizes = !json["normalizer"].is_null();
        let pieces = Pieces::of(&json["pre_tokenizer"]);
        let dropout = json["model"]["dropout"].as_f64() > Some(0.0);

        let whole = if dropout {
            Some(Unsafe::Dropout)
        } else if let Pieces::Unknown(kind) = &pieces {
            Some(Unsafe::PreTokenizer { kind: kind.clone() })
        } else {
            None
        };
        let mut literals = HashMap::new();
        for token in added {
            *literals.entry(token.content.as_str()).or_insert(0_u32) += 1;
        }
        let neighbours = Neighbours::new(added)?;
        let mut tokens: Vec<Boundary> = added
            .iter()
            .enumerate()
            .map(|(index, token)| {
                let unsafe_because = if whole.is_some() {
                    whole.clone()
                } else if literals[token.content.as_str()] > 1 {
                    Some(Unsafe::Ambiguous)
                } else {
                    own_flags(token, normalizes).or_else(|| neighbours.threat_to(index))
                };
                Boundary {
                    id: token.id,
                    content: token.content.clone(),
                    unsafe_because,
                }
            })
            .collect();
        tokens.sort_by_key(|token| token.id);
        Ok(Self {
            tokens,
            anchored: matches!(pieces, Pieces::FirstApart),
        })
    }

    /// The tokens after which ids may be appended.
    pub fn safe(&self) -> impl Iterator<Item = &Boundary> {
        self.tokens
            .iter()
            .filter(|token| token.unsafe_because.is_none())
    }
}

fn own_flags(token: &AddedToken, normalizes: bool) -> Option<Unsafe> {
    if token.rstrip {
        Some(Unsafe::Rstrip)
    } else if token.lstrip {
        Some(Unsafe::Lstrip)
    } else if token.single_word {
        Some(Unsafe::SingleWord)
    } else if token.normalized && normalizes {
        Some(Unsafe::Normalized)
    } else {
        None
    }
}

/// What the rest of the added vocabulary can do to each token.
struct Neighbours<'a> {
    added: &'a [AddedToken],
    /// For each token, one that contains it and goes on after it.
    extended: Vec<Option<usize>>,
    /// A token that looks at the character before it.
    single_word: Option<&'a AddedToken>,
}

impl<'a> Neighbours<'a> {
    /// One pass over all literals. O(total length + occurrences).
    fn new(added: &'a [AddedToken]) -> Result<Self> {
        let literals = AhoCorasick::new(added.iter().map(|token| &token.content)).map_err(|e| {
            Error::new(ErrorKind::ModelFile, "The added tokens are too many.").with_source(e)
        })?;
        let mut extended = vec![None; added.len()];
        for (index, longer) in added.iter().enumerate() {
            for found in literals.find_overlapping_iter(&longer.content) {
                let inner = found.pattern().as_usize();
                // Normalized literals are looked for after the raw ones were cut
                // out, so they cannot reach over a raw one.
                let sees = added[inner].normalized || !longer.normalized;
                if found.end() < longer.content.len() && sees {
                    extended[inner] = Some(index);
                }
            }
        }
        Ok(Self {
            added,
            extended,
            single_word: added.iter().find(|token| token.single_word),
        })
    }

    fn threat_to(&self, index: usize) -> Option<Unsafe> {
        let token = &self.added[index];
        if let Some(by) = self.extended[index] {
            let by = self.added[by].content.clone();
            return Some(Unsafe::Extended { by });
        }
        if token.normalized
            && let Some(raw) = self.added.iter().find(|other| {
                !other.normalized
                    && begins_inside(other.content.as_bytes(), token.content.as_bytes())
            })
        {
            let by = raw.content.clone();
            return Some(Unsafe::Overlapped { by });
        }
        if let Some(other) = self.single_word
            && token.content.chars().next_back().is_some_and(is_word)
        {
            let of = other.content.clone();
            return Some(Unsafe::HidesWordEnd { of });
        }
        None
    }
}

/// Whether an occurrence of `other` can start within `literal`.
fn begins_inside(other: &[u8], literal: &[u8]) -> bool {
    (0..literal.len()).any(|from| {
        let rest = &literal[from..];
        rest.starts_with(other) || other.starts_with(rest)
    })
}

/// A word character as `tokenizers` 0.23 sees it (`\w` of Unicode).
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How a pre-tokenizer treats the pieces between added tokens.
enum Pieces {
    /// Each on its own.
    Alike,
    /// The one at the start of the text apart from the others.
    FirstApart,
    /// Not known.
    Unknown(String),
}

impl Pieces {
    fn of(pre_tokenizer: &Value) -> Self {
        if pre_tokenizer.is_null() {
            return Self::Alike;
        }
        let kind = pre_tokenizer["type"].as_str().unwrap_or_default();
        match kind {
            // Each of these looks at one piece at a time in tokenizers 0.23.
            "BertPreTokenizer" | "ByteLevel" | "CharDelimiterSplit" | "Digits" | "FixedLength"
            | "Punctuation" | "Split" | "UnicodeScripts" | "Whitespace" | "WhitespaceSplit" => {
                Self::Alike
            }
            "Metaspace" => match pre_tokenizer["prepend_scheme"].as_str() {
                Some("always" | "never") => Self::Alike,
                Some("first") => Self::FirstApart,
                // Files from before the scheme: `add_prefix_space` alone.
                _ if pre_tokenizer["add_prefix_space"] == Value::Bool(false) => Self::Alike,
                _ => Self::FirstApart,
            },
            "Sequence" => {
                let steps = pre_tokenizer["pretokenizers"].as_array();
                steps.map_or_else(
                    || Self::Unknown(kind.to_owned()),
                    |steps| {
                        steps.iter().map(Self::of).fold(Self::Alike, |all, step| {
                            match (all, step) {
                                (Self::Unknown(kind), _) | (_, Self::Unknown(kind)) => {
                                    Self::Unknown(kind)
                                }
                                (Self::Alike, Self::Alike) => Self::Alike,
                                _ => Self::FirstApart,
                            }
                        })
                    },
                )
            }
            _ => Self::Unknown(if kind.is_empty() { "?" } else { kind }.to_owned()),
        }
    }
}
