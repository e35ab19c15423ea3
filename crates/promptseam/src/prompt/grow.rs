//! Growing a prompt from the text it is encoded from: where rows are set, and
//! which row of an earlier prompt a text still matches.

use super::{BoundaryRow, Prompt};

/// Rows stand at least this many ids apart, but for a prompt's seam and its last
/// boundary.
///
/// Going back to a row instead of the nearest boundary encodes at most this
/// many ids again, some 7 microseconds; a digest at every boundary would cost
/// more than that on every turn.
const ROW_SPACING: usize = 256;

/// The digests of places in a text, in order.
#[derive(Clone)]
enum Digests {
    /// Of all text before a place.
    Whole(Box<blake3::Hasher>),
    /// Of the digest at the place before and the text since.
    Linked([u8; 32]),
}

impl Digests {
    fn start() -> Self {
        Self::Whole(Box::default())
    }

    /// The digest where `text`, which follows the place before, ends.
    fn advance(&mut self, text: &str) -> [u8; 32] {
        match self {
            Self::Whole(hasher) => *hasher.update(text.as_bytes()).finalize().as_bytes(),
            Self::Linked(last) => {
                *last = linked(last, text);
                *last
            }
        }
    }

    fn are_linked(&self) -> bool {
        matches!(self, Self::Linked(_))
    }
}

fn linked(before: &[u8; 32], text: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(text.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The last of `rows` whose text `text` begins with, and the digest there, to
/// go on from. O(length of the text up to the last row), hashing each byte at
/// most about twice.
fn last_match(rows: &[BoundaryRow], text: &str) -> Option<(BoundaryRow, Digests)> {
    let fits = rows.partition_point(|row| row.text <= text.len());
    let rows = &rows[..fits];
    // Only a prompt's first rows can do without the one before.
    let (whole, links) = rows.split_at(rows.partition_point(|row| !row.linked));
    let (low, known) = last_whole_match(whole, text);
    let mut last = *whole.get(low.checked_sub(1)?)?;
    if low < whole.len() || links.is_empty() {
        return Some((last, Digests::Whole(known)));
    }
    for row in links {
        match text.get(last.text..row.text) {
            Some(between) if linked(&last.digest, between) == row.digest => last = *row,
            _ => break,
        }
    }
    Some((last, Digests::Linked(last.digest)))
}

/// How many of `rows`, whose digests are of all text before them, match.
fn last_whole_match(rows: &[BoundaryRow], text: &str) -> (usize, Box<blake3::Hasher>) {
    let mut known = Box::<blake3::Hasher>::default();
    let mut hashed = 0;
    let (mut low, mut high) = (0, rows.len());
    // That all still matches is the usual case, so the first look is at the
    // last row; then by halves: if a row matches, so do all before it.
    let mut probe = rows.len().saturating_sub(1);
    while low < high {
        let row = &rows[probe];
        let mut digest = known.clone();
        digest.update(&text.as_bytes()[hashed..row.text]);
        if *digest.finalize().as_bytes() == row.digest {
            (known, hashed) = (digest, row.text);
            low = probe + 1;
        } else {
            high = probe;
        }
        probe = low + (high - low) / 2;
    }
    (low, known)
}

/// What is being appended to a prompt.
pub(crate) struct Growth<'a> {
    base: Prompt,
    /// Ids of the base that stay.
    keep: usize,
    /// The row that digests go on from, if any.
    from: Option<BoundaryRow>,
    digests: Digests,
    /// The text after that row.
    text: &'a str,
    /// Bytes of it that the ids given beforehand stand for.
    given_text: usize,
    /// How many those ids are.
    given: usize,
    /// The ids after those kept.
    pub(crate) ids: Vec<u32>,
}

impl<'a> Growth<'a> {
    /// Starts a prompt of `text` with nothing kept.
    pub(crate) fn new(text: &'a str, tokenizer: [u8; 32]) -> Self {
        Self {
            base: Prompt::empty(Some(tokenizer)),
            keep: 0,
            from: None,
            digests: Digests::start(),
            text,
            given_text: 0,
            given: 0,
            ids: Vec::new(),
        }
    }

    /// Starts from the last row of `previous` that `text` matches; `None` where
    /// no row does, or another tokenizer made it.
    pub(crate) fn after(previous: &Prompt, text: &'a str, tokenizer: [u8; 32]) -> Option<Self> {
        if previous.tokenizer != Some(tokenizer) {
            return None;
        }
        let (row, digests) = last_match(&previous.rows(), text)?;
        // Equal digests of equal lengths: the same bytes, so a character boundary.
        let rest = text.get(row.text..)?;
        Some(Self {
            digests,
            ..Self::sewn(previous, row, rest)
        })
    }

    /// Starts from `row` of `previous`; `rest` is the text behind it.
    pub(crate) fn sewn(previous: &Prompt, row: BoundaryRow, rest: &'a str) -> Self {
        Self {
            base: previous.clone(),
            keep: row.tokens,
            from: Some(row),
            digests: Digests::Linked(row.digest),
            text: rest,
            given_text: 0,
            given: 0,
            ids: Vec::new(),
        }
    }

    /// As [`Self::sewn`], but all of `previous` is kept, and `sampled` follows it:
    /// together they stand for the first `close` bytes of `rest`.
    pub(crate) fn spliced(
        previous: &Prompt,
        row: BoundaryRow,
        rest: &'a str,
        close: usize,
        sampled: &[u32],
    ) -> Self {
        Self {
            keep: previous.len(),
            given_text: close,
            given: sampled.len(),
            ids: sampled.to_vec(),
            ..Self::sewn(previous, row, rest)
        }
    }

    /// Bytes of the whole text before the part that this growth is given.
    pub(crate) fn offset(&self) -> usize {
        self.from.map_or(0, |row| row.text)
    }

    /// The text that is still to be encoded.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.given_text..]
    }

    /// Whether that text follows a boundary, or begins with one.
    pub(crate) fn continues(&self) -> bool {
        self.from.is_some()
    }

    /// The prompt, and its row at the last boundary within the first `repeated`
    /// bytes of the text behind what was kept. `boundaries` are the places met in
    /// [`Self::rest`]: ids and bytes from its start.
    pub(crate) fn finish(
        mut self,
        boundaries: &[(usize, usize)],
        repeated: usize,
    ) -> (Prompt, Option<BoundaryRow>) {
        let offset = self.offset();
        let mut last_row = self.keep;
        let seam = boundaries.partition_point(|(_, text)| self.given_text + text <= repeated);
        let mut hashed = 0;
        let mut all = Vec::with_capacity(boundaries.len());
        let mut rows = Vec::new();
        let mut seam_row = self.from.filter(|_| seam == 0);
        for (index, (tokens, text)) in boundaries.iter().enumerate() {
            let tokens = self.keep + self.given + tokens;
            all.push(tokens);
            let wanted = index + 1 == boundaries.len() || index + 1 == seam;
            if wanted || tokens >= last_row + ROW_SPACING {
                let text = self.given_text + text;
                let row = BoundaryRow {
                    tokens,
                    text: offset + text,
                    linked: self.digests.are_linked(),
                    digest: self.digests.advance(&self.text[hashed..text]),
                };
                (hashed, last_row) = (text, tokens);
                rows.push(row);
                if index + 1 == seam {
                    seam_row = Some(row);
                }
            }
        }
        let prompt = self.base.extended(self.keep, &self.ids, &all, &rows);
        (prompt, seam_row)
    }
}
