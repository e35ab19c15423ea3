//! Prefix fingerprints: a rolling XXH3-128 chain over blocks of 64 ids.
//!
//! The chain starts at zero; block `i` gives `h(i) = XXH3-128(h(i-1) as 16
//! little-endian bytes ++ its 64 ids as little-endian u32)`. The fingerprint of
//! the first `n` ids is `h(n / 64)`, with the ids of a partial last block hashed
//! on in the same way. It tells different prefixes apart fast; it is no proof
//! that two are the same, since XXH3 is not collision resistant.

use xxhash_rust::xxh3::xxh3_128;

/// Ids in a block.
pub const BLOCK: usize = 64;

/// A fingerprint of a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The fingerprint of a prefix that goes on from `parent` with `ids`, of which
/// there are at most [`BLOCK`]; none give `parent` itself.
pub(crate) fn extend(parent: Fingerprint, ids: &[u32]) -> Fingerprint {
    debug_assert!(ids.len() <= BLOCK);
    if ids.is_empty() {
        return parent;
    }
    let mut bytes = [0_u8; 16 + 4 * BLOCK];
    bytes[..16].copy_from_slice(&parent.0.to_le_bytes());
    for (to, id) in bytes[16..].chunks_exact_mut(4).zip(ids) {
        to.copy_from_slice(&id.to_le_bytes());
    }
    Fingerprint(xxh3_128(&bytes[..16 + 4 * ids.len()]))
}
