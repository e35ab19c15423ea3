//! Prompts against plain vectors of ids.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::thread;

use promptseam::prompt::{BLOCK, Prompt};
use promptseam_fixtures::Rng;
use xxhash_rust::xxh3::xxh3_128;

fn ids(rng: &mut Rng, length: usize) -> Vec<u32> {
    (0..length).map(|_| rng.below(150_000) as u32).collect()
}

/// The fingerprint by its definition, block by block.
fn naive_fingerprint(ids: &[u32]) -> u128 {
    let mut chain = 0_u128;
    for block in ids.chunks(BLOCK) {
        let mut bytes = chain.to_le_bytes().to_vec();
        bytes.extend(block.iter().flat_map(|id| id.to_le_bytes()));
        chain = xxh3_128(&bytes);
    }
    chain
}

fn naive_common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[test]
fn a_prompt_gives_back_its_ids_and_any_fingerprint() {
    let mut rng = Rng::new(1);
    for length in [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 5000] {
        let ids = ids(&mut rng, length);
        let prompt = Prompt::from_ids(&ids);
        assert_eq!(prompt.to_vec(), ids);
        assert_eq!(prompt.len(), length);
        for at in [0, 1, 63, 64, 65, 1000, 1024, 1025, 4096, length] {
            let at = at.min(length);
            assert_eq!(
                prompt.fingerprint(at).0,
                naive_fingerprint(&ids[..at]),
                "{at}"
            );
        }
    }
}

#[test]
fn a_diff_counts_what_a_naive_comparison_counts() {
    let mut rng = Rng::new(2);
    for _ in 0..400 {
        let length = rng.below(4_000);
        let mut a = ids(&mut rng, length);
        let mut b = a.clone();
        match rng.below(4) {
            0 => b.truncate(rng.below(b.len() + 1)),
            1 => b.extend([1, 2, 3]),
            2 if !b.is_empty() => {
                let at = rng.below(b.len());
                b[at] ^= 1;
            }
            _ => {}
        }
        if rng.one_in(2) {
            std::mem::swap(&mut a, &mut b);
        }
        let common = naive_common(&a, &b);
        let (first, second) = (Prompt::from_ids(&a), Prompt::from_ids(&b));
        let diff = first.diff(&second);
        assert_eq!(diff.common_prefix, common);
        assert_eq!(diff.removed, a.len() - common);
        assert_eq!(diff.appended, b.len() - common);
        assert_eq!(diff.boundary, 0, "bare ids have no boundaries");
        assert_eq!(first == second, a == b);
        assert!(second.has_prefix(first.fingerprint(common), common));
    }
}

#[test]
fn prompts_that_grow_and_branch_share_storage_and_stay_right() {
    let mut rng = Rng::new(3);
    let mut all: Vec<(Prompt, Vec<u32>)> = vec![(Prompt::from_ids(&[]), Vec::new())];
    for _ in 0..600 {
        let (parent, parent_ids) = all[rng.below(all.len())].clone();
        let keep = match rng.below(3) {
            0 => parent_ids.len(),
            _ => rng.below(parent_ids.len() + 1),
        };
        let length = rng.below(700);
        let new = ids(&mut rng, length);
        let child = parent.continued(keep, &new);
        let mut expected = parent_ids[..keep].to_vec();
        expected.extend_from_slice(&new);
        assert_eq!(child.reused(), keep);
        all.push((child, expected));
    }
    for (prompt, ids) in &all {
        assert_eq!(&prompt.to_vec(), ids);
        assert_eq!(prompt.fingerprint(ids.len()).0, naive_fingerprint(ids));
    }
    for _ in 0..2_000 {
        let (a, b) = (&all[rng.below(all.len())], &all[rng.below(all.len())]);
        assert_eq!(a.0.common_prefix(&b.0), naive_common(&a.1, &b.1));
    }
}

#[test]
fn a_conversation_of_100_turns_holds_its_ids_once() {
    let mut rng = Rng::new(4);
    let mut prompt = Prompt::from_ids(&ids(&mut rng, 2_000));
    let mut turns = vec![prompt.clone()];
    for _ in 0..100 {
        let new = ids(&mut rng, 500);
        prompt = prompt.continued(prompt.len(), &new);
        turns.push(prompt.clone());
    }
    let shared: usize = prompt.bytes();
    let handles: usize = turns.iter().map(Prompt::unshared_bytes).sum();
    assert_eq!(prompt.len(), 52_000);
    assert!(shared < 5 * 52_000, "{shared} bytes for 52,000 ids");
    assert!(handles < 6 * 52_000, "{handles} bytes for all turns");
}

#[test]
fn two_threads_may_extend_one_prompt_at_once() {
    let mut rng = Rng::new(5);
    for _ in 0..50 {
        let base_ids = ids(&mut rng, 100);
        let base = Prompt::from_ids(&base_ids);
        let branches: Vec<Vec<u32>> = (0..4).map(|_| ids(&mut rng, 1_500)).collect();
        thread::scope(|scope| {
            for branch in &branches {
                let (base, base_ids) = (&base, &base_ids);
                scope.spawn(move || {
                    let mut prompt = base.clone();
                    let mut expected = base_ids.clone();
                    for piece in branch.chunks(37) {
                        prompt = prompt.continued(prompt.len(), piece);
                        expected.extend_from_slice(piece);
                        assert_eq!(prompt.common_prefix(base), base_ids.len());
                    }
                    assert_eq!(prompt.to_vec(), expected);
                });
            }
        });
        assert_eq!(base.to_vec(), base_ids);
    }
}
