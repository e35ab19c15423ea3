//! The block hashes that a chunk remembers, for the profiles that were asked
//! for last.
//!
//! A chunk keeps the hashes of the blocks that end in it. It has one prefix for
//! life and its ids only grow at their end, so a hash once computed holds for
//! every prompt that shares the chunk and is long enough; a prompt that branches
//! off has a chunk of its own from there on. Hashes go when their chunk goes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::block_profile::BlockHashProfile;

/// Profiles that a chunk remembers.
const PROFILES: usize = 4;
/// Bytes of hashes that a chunk keeps for others than the profile asked for
/// last: that of four profiles with blocks of 16 ids and hashes of 32 bytes.
const BYTES: usize = 8 << 10;

/// The hashes of a chunk's blocks, by profile; the one asked for last first.
#[derive(Default)]
pub(super) struct Remembered(Mutex<Vec<Hashes>>);

struct Hashes {
    profile: [u8; 32],
    digests: Vec<u8>,
}

impl Remembered {
    fn lock(&self) -> MutexGuard<'_, Vec<Hashes>> {
        // Nothing under the lock leaves hashes half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the hashes of the first `blocks` blocks, as far as they are
    /// known, to `digests`; gives how many those were.
    pub(super) fn copy_to(
        &self,
        digests: &mut Vec<u8>,
        profile: &BlockHashProfile,
        blocks: usize,
    ) -> usize {
        let mut all = self.lock();
        let Some(at) = all.iter().position(|one| one.profile == *profile.key()) else {
            return 0;
        };
        all[..=at].rotate_right(1);
        let known = &all[0].digests;
        let known = &known[..known.len().min(blocks * profile.digest_length())];
        digests.extend_from_slice(known);
        known.len() / profile.digest_length()
    }

    /// How many of the first `blocks` blocks' hashes are known.
    pub(super) fn known(&self, profile: &BlockHashProfile, blocks: usize) -> usize {
        let all = self.lock();
        let known = all.iter().find(|one| one.profile == *profile.key());
        known.map_or(0, |one| {
            (one.digests.len() / profile.digest_length()).min(blocks)
        })
    }

    /// Keeps `digests`, those of the chunk's first blocks.
    pub(super) fn keep(&self, profile: &BlockHashProfile, digests: &[u8]) {
        let mut all = self.lock();
        match all.iter().position(|one| one.profile == *profile.key()) {
            Some(at) => {
                all[..=at].rotate_right(1);
                let known = &mut all[0].digests;
                // Another thread may have come further meanwhile.
                if let Some(new) = digests.get(known.len()..) {
                    known.reserve_exact(new.len());
                    known.extend_from_slice(new);
                }
            }
            None => {
                let new = Hashes {
                    profile: *profile.key(),
                    digests: digests.to_vec(),
                };
                // Most chunks are asked for one profile only.
                all.reserve_exact(1);
                all.insert(0, new);
            }
        }
        let mut bytes = 0;
        let kept = all.iter().take(PROFILES).take_while(|one| {
            bytes += one.digests.len();
            bytes <= BYTES
        });
        let kept = kept.count().max(1);
        all.truncate(kept);
    }

    /// Heap bytes held.
    pub(super) fn bytes(&self) -> usize {
        let all = self.lock();
        let digests: usize = all.iter().map(|one| one.digests.capacity()).sum();
        digests + all.capacity() * size_of::<Hashes>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{BlockHashAlgorithm, BlockHashOptions, ExtraKeys};

    fn profile(block_size: usize, salt: &str) -> BlockHashProfile {
        BlockHashProfile::new(&BlockHashOptions {
            algorithm: BlockHashAlgorithm::Sha256Cbor,
            block_size,
            hash_seed: Some("0"),
            cache_salt: Some(salt),
            lora: None,
            extra_keys: ExtraKeys::Tagged,
        })
        .unwrap()
    }

    #[test]
    fn the_profiles_asked_for_last_stay() {
        let chunk = Remembered::default();
        let profiles: Vec<_> = (0..5).map(|salt| profile(16, &salt.to_string())).collect();
        for profile in &profiles[..4] {
            chunk.keep(profile, &[7; 64 * 32]);
        }
        assert_eq!(chunk.copy_to(&mut Vec::new(), &profiles[0], 64), 64);
        chunk.keep(&profiles[4], &[7; 64 * 32]);
        let known: Vec<_> = profiles.iter().map(|one| chunk.known(one, 64)).collect();
        assert_eq!(known, [64, 0, 64, 64, 64]);
        assert!(chunk.bytes() <= BYTES + 1024);
    }

    #[test]
    fn small_blocks_leave_room_for_no_other_profile() {
        let chunk = Remembered::default();
        let (usual, small) = (profile(16, "s"), profile(1, "s"));
        chunk.keep(&usual, &[7; 64 * 32]);
        chunk.keep(&small, &[7; 1024 * 32]);
        assert_eq!(
            (chunk.known(&usual, 64), chunk.known(&small, 1024)),
            (0, 1024)
        );
        chunk.keep(&usual, &[7; 64 * 32]);
        assert_eq!(
            (chunk.known(&usual, 64), chunk.known(&small, 1024)),
            (64, 0)
        );
    }

    #[test]
    fn fewer_hashes_never_replace_more() {
        let chunk = Remembered::default();
        let profile = profile(16, "s");
        chunk.keep(&profile, &[7; 20 * 32]);
        chunk.keep(&profile, &[7; 3 * 32]);
        assert_eq!(chunk.known(&profile, 64), 20);
        assert_eq!(chunk.known(&profile, 5), 5);
    }
}
