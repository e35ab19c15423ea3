//! Full chunks' ids, each kept once in the process however many prompts were
//! built with them.
//!
//! Two prompts that were encoded apart but begin alike then share their ids:
//! they cost memory once, and comparing them is comparing pointers. A lookup
//! goes by the fingerprint of the whole prefix, and ids are compared before
//! they are shared, so a collision costs the sharing and nothing else.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use super::fingerprint::Fingerprint;

/// Threads that fill chunks at once seldom meet in one of so many.
const SHARDS: usize = 32;

type Shard = HashMap<Fingerprint, Weak<InternedIds>>;

static TABLE: LazyLock<[Mutex<Shard>; SHARDS]> = LazyLock::new(Default::default);

/// Ids of a full chunk, shared by all prompts that have them at the same place
/// after the same prefix.
pub(crate) struct InternedIds {
    prefix: Fingerprint,
    ids: Box<[u32]>,
}

impl Deref for InternedIds {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.ids
    }
}

/// The one copy of `ids`, which end the prefix with this fingerprint. O(ids).
pub(crate) fn intern(prefix: Fingerprint, ids: Vec<u32>) -> Arc<InternedIds> {
    let mut shard = shard(prefix);
    let known = shard.get(&prefix).and_then(Weak::upgrade);
    match known {
        Some(known) if *known.ids == *ids => {
            drop(shard);
            known
        }
        // Other ids with the same fingerprint: they stay unshared.
        Some(known) => {
            // Unlocked before `known` is let go, whose end takes the lock again.
            drop(shard);
            drop(known);
            Arc::new(InternedIds::new(prefix, ids))
        }
        None => {
            let new = Arc::new(InternedIds::new(prefix, ids));
            shard.insert(prefix, Arc::downgrade(&new));
            new
        }
    }
}

impl InternedIds {
    fn new(prefix: Fingerprint, ids: Vec<u32>) -> Self {
        let ids = ids.into_boxed_slice();
        Self { prefix, ids }
    }
}

impl Drop for InternedIds {
    fn drop(&mut self) {
        let mut shard = shard(self.prefix);
        // Another thread may have put a new copy in this one's place already.
        if shard
            .get(&self.prefix)
            .is_some_and(|known| known.strong_count() == 0)
        {
            shard.remove(&self.prefix);
        }
    }
}

fn shard(prefix: Fingerprint) -> MutexGuard<'static, Shard> {
    let index = prefix.0 as usize % SHARDS;
    // No shard is ever left half changed.
    TABLE[index].lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ids_are_kept_once_and_forgotten_with_their_last_owner() {
        let prefix = Fingerprint(u128::MAX - 7);
        let ids = |first| (first..first + 1024).collect::<Vec<u32>>();
        let first = intern(prefix, ids(1));
        let again = intern(prefix, ids(1));
        assert!(Arc::ptr_eq(&first, &again));

        let collision = intern(prefix, ids(2));
        assert_eq!(collision[0], 2, "a fingerprint is no proof");
        drop(collision);
        assert!(Arc::ptr_eq(&first, &intern(prefix, ids(1))));

        drop((first, again));
        assert!(!shard(prefix).contains_key(&prefix));
    }
}
