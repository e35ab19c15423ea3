//! The storage of prompts: runs of 1,024 ids that prompts share.
//!
//! A chunk only ever grows at its end, until it is full. A prompt keeps its
//! chunks and its own length, and reads no further, so the prompt that a chunk
//! grew with and every one before it share the chunk: extending the newest
//! prompt of a conversation copies nothing. Extending an older one, whose last
//! chunk has gone on without it, copies at most that one chunk.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{
    fingerprint::{self, BLOCK, Fingerprint},
    intern::{InternedIds, intern},
    remembered::Remembered,
};

/// Ids in a full chunk.
pub(crate) const CHUNK: usize = 1024;
const WORDS: usize = CHUNK / 64;

/// A place in a prompt tied to the text that was encoded up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BoundaryRow {
    /// Ids before the place.
    pub tokens: usize,
    /// Bytes of text before the place.
    pub text: usize,
    /// Whether the digest is that of the row before, and of the text since, as
    /// where a prompt went on from another without its whole text being there.
    pub linked: bool,
    /// BLAKE3 of that text.
    pub digest: [u8; 32],
}

/// The ids of a run: its own while it grows, everyone's once it is full.
pub(crate) enum Ids {
    Growing(Vec<u32>),
    Full(Arc<InternedIds>),
}

impl Ids {
    /// Whether both are one storage. They may be equal without that.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Full(ours), Self::Full(theirs)) if Arc::ptr_eq(ours, theirs))
    }

    fn push(&mut self, ids: &[u32]) {
        match self {
            Self::Growing(own) => own.extend_from_slice(ids),
            Self::Full(_) => debug_assert!(ids.is_empty(), "a full run does not grow"),
        }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::Growing(Vec::new())
    }
}

impl Deref for Ids {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Self::Growing(own) => own,
            Self::Full(shared) => shared,
        }
    }
}

/// The ids of a chunk with all that belongs to them.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) ids: Ids,
    /// The fingerprint chain after each whole block.
    chain: Vec<Fingerprint>,
    /// A bit for each id after which others may be appended.
    boundaries: [u64; WORDS],
    rows: Vec<BoundaryRow>,
}

/// Ids to append, with their boundaries and rows counted from the whole
/// prompt's start.
pub(crate) struct Appended<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) boundaries: &'a [usize],
    pub(crate) rows: &'a [BoundaryRow],
}

impl Run {
    /// The first `length` ids of this run, as a run of their own.
    fn head(&self, start: usize, length: usize) -> Self {
        let mut boundaries = [0; WORDS];
        for (word, (to, from)) in boundaries.iter_mut().zip(&self.boundaries).enumerate() {
            let bits = length.saturating_sub(64 * word).min(64);
            *to = if bits == 64 {
                *from
            } else {
                *from & ((1 << bits) - 1)
            };
        }
        Self {
            ids: Ids::Growing(self.ids[..length].to_vec()),
            chain: self.chain[..length / BLOCK].to_vec(),
            boundaries,
            rows: self.rows_to(start + length).to_vec(),
        }
    }

    /// Appends what fits, from chunk offset `start` in the prompt.
    fn append(&mut self, start: usize, parent: Fingerprint, new: &Appended<'_>) {
        let from = start + self.ids.len();
        self.ids.push(new.ids);
        let to = start + self.ids.len();
        while (self.chain.len() + 1) * BLOCK <= self.ids.len() {
            let at = self.chain.len() * BLOCK;
            let before = self.chain.last().copied().unwrap_or(parent);
            let next = fingerprint::extend(before, &self.ids[at..at + BLOCK]);
            self.chain.push(next);
        }
        let first = new.boundaries.partition_point(|at| *at <= from);
        for at in new.boundaries[first..].iter().take_while(|at| **at <= to) {
            let bit = at - start - 1;
            self.boundaries[bit / 64] |= 1 << (bit % 64);
        }
        let first = new.rows.partition_point(|row| row.tokens <= from);
        let rows = new.rows[first..].iter().take_while(|row| row.tokens <= to);
        self.rows.extend(rows.copied());
    }

    /// The fingerprint of the first `length` ids of this run, which goes on
    /// from `parent`.
    pub(crate) fn fingerprint(&self, parent: Fingerprint, length: usize) -> Fingerprint {
        let blocks = length / BLOCK;
        let before = match blocks {
            0 => parent,
            _ => self.chain[blocks - 1],
        };
        fingerprint::extend(before, &self.ids[blocks * BLOCK..length])
    }

    /// The last boundary that is at most `length` ids into this run.
    pub(crate) fn last_boundary(&self, length: usize) -> Option<usize> {
        (0..WORDS).rev().find_map(|word| {
            let bits = length.saturating_sub(64 * word).min(64);
            let mask = if bits == 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            };
            let set = self.boundaries[word] & mask;
            (set != 0).then(|| 64 * word + 64 - set.leading_zeros() as usize)
        })
    }

    /// The rows up to `tokens` ids of the prompt.
    pub(crate) fn rows_to(&self, tokens: usize) -> &[BoundaryRow] {
        &self.rows[..self.rows.partition_point(|row| row.tokens <= tokens)]
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + 4 * self.ids.len()
            + 16 * self.chain.capacity()
            + size_of::<BoundaryRow>() * self.rows.capacity()
    }
}

/// A run that grows, then stays.
pub(crate) struct Chunk {
    full: OnceLock<Run>,
    growing: Mutex<Run>,
    /// Hashes of the blocks that end in it, once they were asked for.
    pub(super) hashes: Remembered,
}

impl Chunk {
    /// A chunk at `start` ids into the prompt, with as much of `new` as fits.
    pub(crate) fn new(start: usize, parent: Fingerprint, new: &Appended<'_>) -> Self {
        Self::from_run(Run::default(), start, parent, new)
    }

    fn from_run(mut run: Run, start: usize, parent: Fingerprint, new: &Appended<'_>) -> Self {
        run.append(start, parent, new);
        let chunk = Self {
            full: OnceLock::new(),
            growing: Mutex::new(Run::default()),
            hashes: Remembered::default(),
        };
        if run.ids.len() == CHUNK {
            let _ = chunk.full.set(run.sealed());
        } else {
            *chunk.lock() = run;
        }
        chunk
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        // A panic while the lock was held cannot have left a run half appended
        // that any prompt reads: prompts read no further than their length.
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run, if it is full: the one way that takes no lock.
    pub(crate) fn full(&self) -> Option<&Run> {
        self.full.get()
    }

    /// Looks at the run, which may be longer than the caller's part of it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Run) -> T) -> T {
        if let Some(run) = self.full.get() {
            return look(run);
        }
        let growing = self.lock();
        match self.full.get() {
            // It filled up while this thread waited.
            Some(run) => look(run),
            None => look(&growing),
        }
    }

    /// Appends to this chunk if it holds just `length` ids; tells whether it did.
    pub(crate) fn try_append(
        &self,
        start: usize,
        length: usize,
        parent: Fingerprint,
        new: &Appended<'_>,
    ) -> bool {
        if self.full.get().is_some() {
            return false;
        }
        let mut growing = self.lock();
        if self.full.get().is_some() || growing.ids.len() != length {
            return false;
        }
        growing.append(start, parent, new);
        if growing.ids.len() == CHUNK {
            let run = std::mem::take(&mut *growing);
            let _ = self.full.set(run.sealed());
        }
        true
    }

    /// A copy of the first `length` ids, with `new` appended.
    pub(crate) fn fork(
        &self,
        start: usize,
        length: usize,
        parent: Fingerprint,
        new: &Appended<'_>,
    ) -> Self {
        let head = self.read(|run| run.head(start, length));
        Self::from_run(head, start, parent, new)
    }

    /// Heap bytes held, allocation overhead not counted.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.read(Run::bytes) + self.hashes.bytes()
    }
}

impl Run {
    /// A run that grows no more: what growing reserved is given back, and its
    /// ids are shared with every prompt that has the same.
    fn sealed(mut self) -> Self {
        self.chain.shrink_to_fit();
        self.rows.shrink_to_fit();
        if let (Ids::Growing(ids), Some(prefix)) =
            (std::mem::take(&mut self.ids), self.chain.last())
        {
            self.ids = Ids::Full(intern(*prefix, ids));
        }
        self
    }
}
