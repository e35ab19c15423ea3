//! Growing a prompt from the text it is encoded from: where rows are set, and
//! which row of an earlier prompt a text still matches.

use super::{BoundaryRow, Prompt};

/// Rows stand at least this many ids apart, but for a prompt's last boundary.
///
/// Going back to a row instead of the nearest boundary encodes at most this
/// many ids again, some 7 microseconds; a digest at every boundary would cost
/// more than that on every turn.
const ROW_SPACING: usize = 256;

/// The digest of a text, taken further as the text goes on.
#[derive(Clone, Default)]
pub(crate) struct TextDigest {
    hasher: blake3::Hasher,
    hashed: usize,
}

impl TextDigest {
    /// Takes the digest on to the first `to` bytes of `text`, whose beginning
    /// it must have been taken of before.
    fn advance(&mut self, text: &str, to: usize) {
        self.hasher.update(&text.as_bytes()[self.hashed..to]);
        self.hashed = to;
    }

    fn value(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// The last of `rows` whose text `text` begins with, and the digest of that
/// text. O(length of the text up to the last row), hashing each byte at most
/// about twice.
pub(crate) fn last_match(rows: &[BoundaryRow], text: &str) -> Option<(BoundaryRow, TextDigest)> {
    let fits = rows.partition_point(|row| row.text <= text.len());
    let rows = &rows[..fits];
    let mut known = TextDigest::default();
    let (mut low, mut high) = (0, rows.len());
    // That all still matches is the usual case, so the first look is at the
    // last row; then by halves: if a row matches, so do all before it.
    let mut probe = rows.len().checked_sub(1)?;
    while low < high {
        let mut digest = known.clone();
        digest.advance(text, rows[probe].text);
        if digest.value() == rows[probe].digest {
            known = digest;
            low = probe + 1;
        } else {
            high = probe;
        }
        probe = low + (high - low) / 2;
    }
    Some((*rows.get(low.checked_sub(1)?)?, known))
}

/// What is being appended to a prompt.
pub(crate) struct Growth<'a> {
    text: &'a str,
    digest: TextDigest,
    base: Prompt,
    keep: usize,
    kept_text: usize,
    last_row: usize,
    /// The ids after those kept.
    pub(crate) ids: Vec<u32>,
    boundaries: Vec<usize>,
    rows: Vec<BoundaryRow>,
}

impl<'a> Growth<'a> {
    /// Starts a prompt of `text` with nothing kept.
    pub(crate) fn new(text: &'a str, tokenizer: [u8; 32]) -> Self {
        Self::on(
            Prompt::empty(Some(tokenizer)),
            0,
            0,
            TextDigest::default(),
            text,
        )
    }

    /// Starts from the last row of `previous` that `text` matches; `None` where
    /// no row does, or another tokenizer made it.
    pub(crate) fn after(previous: &Prompt, text: &'a str, tokenizer: [u8; 32]) -> Option<Self> {
        if previous.tokenizer != Some(tokenizer) {
            return None;
        }
        let (row, digest) = last_match(&previous.rows(), text)?;
        // Equal digests of equal lengths: the same bytes, so a character boundary.
        text.is_char_boundary(row.text)
            .then(|| Self::on(previous.clone(), row.tokens, row.text, digest, text))
    }

    fn on(base: Prompt, keep: usize, kept_text: usize, digest: TextDigest, text: &'a str) -> Self {
        Self {
            text,
            digest,
            base,
            keep,
            kept_text,
            last_row: keep,
            ids: Vec::new(),
            boundaries: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// The text that is still to be encoded.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.kept_text..]
    }

    /// Whether that text follows a boundary.
    pub(crate) fn continues(&self) -> bool {
        self.kept_text > 0
    }

    /// The prompt. `boundaries` are the places met in [`Self::rest`]: ids and
    /// bytes from its start.
    pub(crate) fn finish(mut self, boundaries: &[(usize, usize)]) -> Prompt {
        for (index, (tokens, text)) in boundaries.iter().enumerate() {
            let tokens = self.keep + tokens;
            self.boundaries.push(tokens);
            let last = index + 1 == boundaries.len();
            if last || tokens >= self.last_row + ROW_SPACING {
                let text = self.kept_text + text;
                self.digest.advance(self.text, text);
                self.last_row = tokens;
                self.rows.push(BoundaryRow {
                    tokens,
                    text,
                    digest: self.digest.value(),
                });
            }
        }
        self.base
            .extended(self.keep, &self.ids, &self.boundaries, &self.rows)
    }
}
