//! The hashes by which vLLM's prefix cache finds the blocks of a prompt.

use super::{
    Prompt,
    block_profile::BlockHashProfile,
    chunk::{CHUNK, Chunk},
};

/// The hashes of a prompt's full blocks, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHashes {
    digests: Vec<u8>,
    digest_length: usize,
}

impl BlockHashes {
    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.digests.len() / self.digest_length
    }

    /// Whether the ids fill no block.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The hashes, 16 or 32 bytes each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.digests.chunks_exact(self.digest_length)
    }

    /// The hashes one behind the other.
    pub fn into_bytes(self) -> Vec<u8> {
        self.digests
    }
}

/// The blocks that end in a chunk, as far as a prompt reaches into it.
struct Blocks {
    /// Blocks that end before the chunk or where it starts.
    before: usize,
    /// Those that end in it.
    here: usize,
}

impl Prompt {
    /// The hashes that vLLM's prefix cache has for this prompt's full blocks.
    ///
    /// They are remembered with the storage that prompts share, for a few
    /// profiles: O(ids) the first time, then O(ids since + length / block size),
    /// the latter at the speed of a copy. A prompt that branches off inside a
    /// run of 1,024 ids hashes again what it shares of that run.
    ///
    /// ```
    /// use promptseam::prompt::{BlockHashAlgorithm, BlockHashOptions, BlockHashProfile, ExtraKeys, Prompt};
    ///
    /// let profile = BlockHashProfile::new(&BlockHashOptions {
    ///     algorithm: BlockHashAlgorithm::XxhashCbor,
    ///     block_size: 16,
    ///     hash_seed: Some("0"),
    ///     cache_salt: Some("tenant"),
    ///     lora: None,
    ///     extra_keys: ExtraKeys::Tagged,
    /// })?;
    /// let prompt = Prompt::from_ids(&[7; 40]);
    /// assert_eq!(prompt.block_hashes(&profile).len(), 2);
    /// # Ok::<(), promptseam::Error>(())
    /// ```
    pub fn block_hashes(&self, profile: &BlockHashProfile) -> BlockHashes {
        let digest_length = profile.digest_length();
        let size = profile.block_size();
        let mut digests = Vec::with_capacity(self.len() / size * digest_length);
        let mut ids = Vec::new();
        for index in 0..self.chunks.len() {
            let (chunk, Blocks { before, here }) = self.blocks(index, size);
            let known = chunk.hashes.copy_to(&mut digests, profile, here);
            if known < here {
                ids.clear();
                self.copy_ids((before + known) * size, (before + here) * size, &mut ids);
                // No lock is held meanwhile: two threads may both do this work.
                profile.extend(&mut digests, &ids);
                let new = &digests[before * digest_length..];
                chunk.hashes.keep(profile, new);
            }
        }
        BlockHashes {
            digests,
            digest_length,
        }
    }

    /// How many ids [`Self::block_hashes`] would have to hash. O(length / 1,024).
    pub fn unhashed(&self, profile: &BlockHashProfile) -> usize {
        let unknown = (0..self.chunks.len()).map(|index| {
            let (chunk, Blocks { here, .. }) = self.blocks(index, profile.block_size());
            here - chunk.hashes.known(profile, here)
        });
        unknown.sum::<usize>() * profile.block_size()
    }

    fn blocks(&self, index: usize, size: usize) -> (&Chunk, Blocks) {
        let (chunk, length) = self.part(index);
        let start = index * CHUNK;
        let before = start / size;
        let here = (start + length) / size - before;
        (chunk, Blocks { before, here })
    }

    /// Appends the ids from `start` to `end` to `out`.
    fn copy_ids(&self, start: usize, end: usize, out: &mut Vec<u32>) {
        for index in start / CHUNK..end.div_ceil(CHUNK) {
            let at = index * CHUNK;
            let (from, to) = (start.max(at) - at, end.min(at + CHUNK) - at);
            self.chunks[index].read(|run| out.extend_from_slice(&run.ids[from..to]));
        }
    }
}
