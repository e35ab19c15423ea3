//! The [`Prompt`]: an immutable sequence of token ids that a model sees.
//!
//! A prompt that grew from another shares that one's storage, so a conversation
//! of a hundred turns holds its ids once; prompts that were built apart share
//! every run of 1,024 ids that ends the same prefix. It carries a fingerprint
//! for any of its prefixes, its append boundaries, and boundary rows, which tie
//! places in it to the text it was encoded from; the text itself is not kept. What
//! a server's prefix cache calls its blocks can be asked for too.

mod block_hashes;
mod block_profile;
mod chunk;
mod compare;
mod fingerprint;
mod grow;
mod intern;
mod read;
mod remembered;
mod write;

use std::sync::Arc;

pub use block_hashes::BlockHashes;
pub use block_profile::{
    BlockHashAlgorithm, BlockHashOptions, BlockHashProfile, ExtraKeys, Lora, MAX_BLOCK_SIZE,
};
pub use chunk::BoundaryRow;
pub use fingerprint::{BLOCK, Fingerprint};
pub use read::{Answer, read_answer};
pub use write::write_ids;

pub(crate) use grow::Growth;

use chunk::{Appended, CHUNK, Chunk};

/// An immutable sequence of token ids. Cloning costs O(length / 1,024).
///
/// ```
/// use promptseam::prompt::Prompt;
///
/// let first = Prompt::from_ids(&[1, 2, 3, 4]);
/// let second = Prompt::from_ids(&[1, 2, 9]);
/// let diff = first.diff(&second);
/// assert_eq!((diff.common_prefix, diff.removed, diff.appended), (2, 2, 1));
/// assert_eq!(first.fingerprint(2), second.fingerprint(2));
/// ```
#[derive(Clone)]
pub struct Prompt {
    chunks: Vec<Arc<Chunk>>,
    length: usize,
    /// Digest of the tokenizer that made the rows; none for bare ids.
    tokenizer: Option<[u8; 32]>,
    reused: usize,
}

/// How one prompt differs from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Ids at the start that both have.
    pub common_prefix: usize,
    /// The last append boundary of the earlier prompt within them, in ids; 0
    /// where there is none.
    pub boundary: usize,
    /// Ids of the earlier prompt after the common prefix.
    pub removed: usize,
    /// Ids of the later prompt after the common prefix.
    pub appended: usize,
}

impl Prompt {
    /// A prompt of bare ids: no boundaries, no rows. O(ids).
    pub fn from_ids(ids: &[u32]) -> Self {
        Self::empty(None).extended(0, ids, &[], &[])
    }

    pub(crate) fn empty(tokenizer: Option<[u8; 32]>) -> Self {
        Self {
            chunks: Vec::new(),
            length: 0,
            tokenizer,
            reused: 0,
        }
    }

    /// How many ids it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The ids taken over from the prompt it was extended from; 0 for one made
    /// from nothing.
    pub fn reused(&self) -> usize {
        self.reused
    }

    /// Digest of the tokenizer that encoded it, unless it was made of bare ids.
    pub fn tokenizer(&self) -> Option<&[u8; 32]> {
        self.tokenizer.as_ref()
    }

    /// The chunk at `index` and how many of its ids are this prompt's.
    fn part(&self, index: usize) -> (&Arc<Chunk>, usize) {
        (
            &self.chunks[index],
            (self.length - index * CHUNK).min(CHUNK),
        )
    }

    /// A copy of all ids. O(length).
    pub fn to_vec(&self) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.length);
        self.for_each_run(|run| ids.extend_from_slice(run));
        ids
    }

    /// Calls `look` with the ids, run by run. O(length).
    ///
    /// `look` must not touch prompts: the last run may be behind a lock.
    pub fn for_each_run(&self, mut look: impl FnMut(&[u32])) {
        for index in 0..self.chunks.len() {
            let (chunk, length) = self.part(index);
            chunk.read(|run| look(&run.ids[..length]));
        }
    }

    /// As [`Self::for_each_run`], from the id at `start` on. O(ids from there).
    pub fn for_each_run_from(&self, start: usize, mut look: impl FnMut(&[u32])) {
        for index in start / CHUNK..self.chunks.len() {
            let (chunk, length) = self.part(index);
            let from = start.saturating_sub(index * CHUNK).min(length);
            chunk.read(|run| look(&run.ids[from..length]));
        }
    }

    /// BLAKE3 over the ids from `start` to before `end`, four bytes each, the lowest
    /// first. O(those ids), some 40 microseconds for 30,000.
    pub fn hash(&self, start: usize, end: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = [0; 4096];
        let mut left = end.min(self.length).saturating_sub(start);
        self.for_each_run_from(start, |ids| {
            let ids = &ids[..ids.len().min(left)];
            left -= ids.len();
            for ids in ids.chunks(bytes.len() / 4) {
                for (to, id) in bytes.chunks_exact_mut(4).zip(ids) {
                    to.copy_from_slice(&id.to_le_bytes());
                }
                hasher.update(&bytes[..4 * ids.len()]);
            }
        });
        *hasher.finalize().as_bytes()
    }

    /// The fingerprint of the first `tokens` ids (all of them if there are
    /// fewer). O(1).
    pub fn fingerprint(&self, tokens: usize) -> Fingerprint {
        let tokens = tokens.min(self.length);
        if tokens == 0 {
            return Fingerprint::default();
        }
        let index = (tokens - 1) / CHUNK;
        let parent = self.fingerprint_before(index);
        self.chunks[index].read(|run| run.fingerprint(parent, tokens - index * CHUNK))
    }

    /// The fingerprint where chunk `index` starts.
    fn fingerprint_before(&self, index: usize) -> Fingerprint {
        // The chunks before the last are full, so their chain is whole.
        match index.checked_sub(1) {
            None => Fingerprint::default(),
            Some(before) => {
                self.chunks[before].read(|run| run.fingerprint(Fingerprint::default(), CHUNK))
            }
        }
    }

    /// Whether this prompt begins with the prefix of `tokens` ids that has this
    /// fingerprint. O(1); a fingerprint is no proof.
    pub fn has_prefix(&self, fingerprint: Fingerprint, tokens: usize) -> bool {
        tokens <= self.length && self.fingerprint(tokens) == fingerprint
    }

    /// The last append boundary at or before `tokens` ids; 0 where there is
    /// none. O(tokens / 64) at worst, O(1) in text with usual boundaries.
    pub fn boundary(&self, tokens: usize) -> usize {
        let tokens = tokens.min(self.length);
        let parts = tokens.div_ceil(CHUNK);
        (0..parts)
            .rev()
            .find_map(|index| {
                let length = (tokens - index * CHUNK).min(CHUNK);
                let last = self.chunks[index].read(|run| run.last_boundary(length));
                last.map(|at| index * CHUNK + at)
            })
            .unwrap_or(0)
    }

    /// All append boundaries, in order. O(length).
    pub fn boundaries(&self) -> Vec<usize> {
        self.boundaries_from(0)
    }

    /// The append boundaries behind the first `start` ids, in order.
    pub(crate) fn boundaries_from(&self, start: usize) -> Vec<usize> {
        let mut all = Vec::new();
        let mut at = self.boundary(self.length);
        while at > start {
            all.push(at);
            at = self.boundary(at - 1);
        }
        all.reverse();
        all
    }

    /// The boundary rows, in order. O(length / 256).
    pub fn rows(&self) -> Vec<BoundaryRow> {
        self.rows_from(0)
    }

    /// The boundary rows behind the first `start` ids, in order.
    pub(crate) fn rows_from(&self, start: usize) -> Vec<BoundaryRow> {
        let mut rows = Vec::new();
        for (index, chunk) in self.chunks.iter().enumerate().skip(start / CHUNK) {
            let to = (index * CHUNK + CHUNK).min(self.length);
            chunk.read(|run| {
                let behind = run.rows_to(to).iter().filter(|row| row.tokens > start);
                rows.extend(behind.copied());
            });
        }
        rows
    }

    /// How `later` differs from this prompt. O(common prefix / 1,024) where
    /// they share storage, which equal full runs do.
    pub fn diff(&self, later: &Self) -> Diff {
        let common_prefix = self.common_prefix(later);
        Diff {
            common_prefix,
            boundary: self.boundary(common_prefix),
            removed: self.length - common_prefix,
            appended: later.length - common_prefix,
        }
    }

    /// How many ids this prompt and `other` have in common at their start.
    pub fn common_prefix(&self, other: &Self) -> usize {
        let parts = self.chunks.len().min(other.chunks.len());
        for index in 0..parts {
            let (ours, length) = self.part(index);
            let (theirs, other_length) = other.part(index);
            let length = length.min(other_length);
            let common = if Arc::ptr_eq(ours, theirs) {
                length
            } else if let (Some(ours), Some(theirs)) = (ours.full(), theirs.full()) {
                if ours.ids.is_same(&theirs.ids) {
                    length
                } else {
                    compare::common_prefix(&ours.ids[..length], &theirs.ids[..length])
                }
            } else {
                // Copied so that two locks are never held at once.
                let ours = ours.read(|run| run.ids[..length].to_vec());
                theirs.read(|run| compare::common_prefix(&ours, &run.ids[..length]))
            };
            if common < length || length < CHUNK {
                return index * CHUNK + common;
            }
        }
        self.length.min(other.length)
    }

    /// A prompt of this one's first `keep` ids (all of them if there are fewer)
    /// and `ids`, sharing storage. It has the boundaries of what was kept, and
    /// none in `ids`. O(ids + length / 1,024).
    #[must_use]
    pub fn continued(&self, keep: usize, ids: &[u32]) -> Self {
        self.extended(keep.min(self.length), ids, &[], &[])
    }

    /// A prompt of this one's first `keep` ids and `ids`, sharing storage.
    ///
    /// `boundaries` and the rows' `tokens` count from the whole prompt's start,
    /// in order and after `keep`. O(new ids + length / 1,024), and up to 1,024
    /// more when another prompt already went on from here.
    pub(crate) fn extended(
        &self,
        keep: usize,
        ids: &[u32],
        boundaries: &[usize],
        rows: &[BoundaryRow],
    ) -> Self {
        debug_assert!(keep <= self.length);
        let mut chunks = Vec::with_capacity((keep + ids.len()).div_ceil(CHUNK));
        chunks.extend_from_slice(&self.chunks[..keep / CHUNK]);
        let mut extended = Self {
            chunks,
            length: keep - keep % CHUNK,
            tokenizer: self.tokenizer,
            reused: keep,
        };
        let mut rest = ids;
        let partial = keep % CHUNK;
        if partial > 0 {
            let start = extended.length;
            let parent = extended.fingerprint_before(extended.chunks.len());
            let (now, later) = rest.split_at(rest.len().min(CHUNK - partial));
            let new = Appended {
                ids: now,
                boundaries,
                rows,
            };
            let last = &self.chunks[keep / CHUNK];
            let last = if now.is_empty() || last.try_append(start, partial, parent, &new) {
                Arc::clone(last)
            } else {
                Arc::new(last.fork(start, partial, parent, &new))
            };
            extended.chunks.push(last);
            extended.length = keep + now.len();
            rest = later;
        }
        while !rest.is_empty() {
            let start = extended.length;
            let parent = extended.fingerprint_before(extended.chunks.len());
            let (now, later) = rest.split_at(rest.len().min(CHUNK));
            let new = Appended {
                ids: now,
                boundaries,
                rows,
            };
            extended
                .chunks
                .push(Arc::new(Chunk::new(start, parent, &new)));
            extended.length = start + now.len();
            rest = later;
        }
        extended
    }

    /// Heap bytes of the whole prompt, what it shares included.
    pub fn bytes(&self) -> usize {
        self.own_bytes() + self.chunks.iter().map(|chunk| chunk.bytes()).sum::<usize>()
    }

    /// Heap bytes of the prompt without its chunks.
    fn own_bytes(&self) -> usize {
        size_of::<Self>() + size_of::<Arc<Chunk>>() * self.chunks.capacity()
    }

    /// About how many heap bytes this prompt added to those it shares with the
    /// one it was extended from.
    pub fn unshared_bytes(&self) -> usize {
        // 4 for the id, a quarter for the chain, the rest for boundaries and rows.
        self.own_bytes() + (self.length - self.reused) * 9 / 2
    }
}

impl PartialEq for Prompt {
    /// Equal ids; where they came from does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && self.common_prefix(other) == self.length
    }
}

impl Eq for Prompt {}

impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prompt")
            .field("length", &self.length)
            .field("fingerprint", &self.fingerprint(self.length))
            .finish_non_exhaustive()
    }
}
