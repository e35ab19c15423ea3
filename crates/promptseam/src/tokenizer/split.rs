//! Where a text can be cut: the safe added tokens in it.

use aho_corasick::{AhoCorasick, MatchKind};

use super::boundary::BoundaryProof;
use super::definition::AddedToken;
use crate::error::{Error, ErrorKind, Result};

/// Finds the safe added tokens of a text as the tokenizer itself will.
pub(crate) struct Splitter {
    /// Literals matched in the raw text, then those matched in what is between.
    stages: [Option<Stage>; 2],
    /// Every added token is safe, so what lies between cuts is ordinary text.
    pub(crate) all_safe: bool,
}

struct Stage {
    literals: AhoCorasick,
    /// By pattern: the id where the token is safe.
    safe: Vec<Option<u32>>,
}

/// A cut: the safe token `id` stands at `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) id: u32,
}

impl Splitter {
    pub(crate) fn new(proof: &BoundaryProof, added: &[AddedToken]) -> Result<Self> {
        let is_safe = |token: &AddedToken| {
            proof
                .tokens
                .binary_search_by_key(&token.id, |boundary| boundary.id)
                .is_ok_and(|at| proof.tokens[at].unsafe_because.is_none())
        };
        let stage = |normalized: bool| -> Result<Option<Stage>> {
            let tokens: Vec<&AddedToken> = added
                .iter()
                .filter(|token| token.normalized == normalized)
                .collect();
            let safe: Vec<Option<u32>> = tokens
                .iter()
                .map(|token| is_safe(token).then_some(token.id))
                .collect();
            if safe.iter().all(Option::is_none) {
                return Ok(None);
            }
            let literals = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(tokens.iter().map(|token| &token.content))
                .map_err(|e| {
                    Error::new(ErrorKind::ModelFile, "The added tokens are too many.")
                        .with_source(e)
                })?;
            Ok(Some(Stage { literals, safe }))
        };
        Ok(Self {
            stages: [stage(false)?, stage(true)?],
            all_safe: added.iter().all(is_safe),
        })
    }

    /// The cuts of `text`, in order. O(length of the text).
    ///
    /// A raw literal that is not safe still hides what it covers, from the
    /// normalized ones too, as it does in the tokenizer.
    pub(crate) fn cuts(&self, text: &str) -> Vec<Cut> {
        let mut cuts = Vec::new();
        match &self.stages {
            [raw, None] => {
                if let Some(raw) = raw {
                    raw.find(text, 0, &mut cuts, |_| ());
                }
            }
            [None, Some(normalized)] => normalized.find(text, 0, &mut cuts, |_| ()),
            [Some(raw), Some(normalized)] => {
                let mut spans = Vec::new();
                raw.find(text, 0, &mut cuts, |span| spans.push(span));
                let mut from = 0;
                for (start, end) in spans.into_iter().chain([(text.len(), text.len())]) {
                    normalized.find(&text[from..start], from, &mut cuts, |_| ());
                    from = end;
                }
                cuts.sort_unstable_by_key(|cut| cut.start);
            }
        }
        cuts
    }
}

impl Stage {
    /// Adds the cuts of `text`, which stands at `offset`, and reports the span
    /// of every match, safe or not.
    fn find(
        &self,
        text: &str,
        offset: usize,
        cuts: &mut Vec<Cut>,
        mut matched: impl FnMut((usize, usize)),
    ) {
        for found in self.literals.find_iter(text) {
            let (start, end) = (offset + found.start(), offset + found.end());
            matched((start, end));
            if let Some(id) = self.safe[found.pattern().as_usize()] {
                cuts.push(Cut { start, end, id });
            }
        }
    }
}
