//! Block hashes against what vLLM's own code gave, and against a plain reading
//! of the rule.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::thread;

use promptseam::prompt::{
    BlockHashAlgorithm, BlockHashOptions, BlockHashProfile, BlockHashes, ExtraKeys, Lora, Prompt,
};
use promptseam_fixtures::{Rng, golden_block_hashes};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

const PLAIN: BlockHashOptions<'static> = BlockHashOptions {
    algorithm: BlockHashAlgorithm::XxhashCbor,
    block_size: 16,
    hash_seed: Some("0"),
    cache_salt: None,
    lora: None,
    extra_keys: ExtraKeys::Tagged,
};

/// A value as Python has it, for an encoder that knows nothing of prompts.
enum Value {
    Null,
    Unsigned(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Value>),
}

fn encode(value: &Value) -> Vec<u8> {
    let head = |major: u8, number: u64| {
        let bytes = number.to_be_bytes();
        let (info, width) = match number {
            0..24 => return vec![major << 5 | number as u8],
            24..256 => (24, 1),
            256..65_536 => (25, 2),
            65_536..4_294_967_296 => (26, 4),
            _ => (27, 8),
        };
        [&[major << 5 | info], &bytes[8 - width..]].concat()
    };
    match value {
        Value::Null => vec![0xf6],
        Value::Unsigned(number) => head(0, *number),
        Value::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
        Value::Text(text) => [head(3, text.len() as u64), text.clone().into_bytes()].concat(),
        Value::Array(all) => {
            let mut out = head(4, all.len() as u64);
            all.iter().for_each(|one| out.extend(encode(one)));
            out
        }
    }
}

/// The hashes as the rule has them, from the first id on.
fn naive(ids: &[u32], options: &BlockHashOptions<'_>) -> Vec<Vec<u8>> {
    let hash = |value: &Value| match options.algorithm {
        BlockHashAlgorithm::Sha256Cbor => Sha256::digest(encode(value)).to_vec(),
        BlockHashAlgorithm::XxhashCbor => xxh3_128(&encode(value)).to_be_bytes().to_vec(),
    };
    let text = |text: &str| Value::Text(text.to_owned());
    let tagged = options.extra_keys == ExtraKeys::Tagged;
    let mut parent = hash(&text(options.hash_seed.unwrap_or("vllm-none-hash")));
    let mut hashes = Vec::new();
    for (index, block) in ids.chunks_exact(options.block_size).enumerate() {
        let mut extra = Vec::new();
        if let Some(Lora { name, path }) = options.lora {
            extra.push(match path {
                Some(path) if tagged => Value::Array(vec![text("lora"), text(name), text(path)]),
                _ => text(name),
            });
        }
        if let (0, Some(salt)) = (index, options.cache_salt) {
            extra.push(if tagged {
                Value::Array(vec![text("cache_salt"), text(salt)])
            } else {
                text(salt)
            });
        }
        let ids = block.iter().map(|id| Value::Unsigned(u64::from(*id)));
        parent = hash(&Value::Array(vec![
            Value::Bytes(parent),
            Value::Array(ids.collect()),
            if extra.is_empty() {
                Value::Null
            } else {
                Value::Array(extra)
            },
        ]));
        hashes.push(parent.clone());
    }
    hashes
}

fn profile(options: &BlockHashOptions<'_>) -> BlockHashProfile {
    BlockHashProfile::new(options).unwrap()
}

fn hex(hashes: &BlockHashes) -> Vec<String> {
    let digits = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hashes.iter().map(digits).collect()
}

fn listed(hashes: &BlockHashes) -> Vec<Vec<u8>> {
    hashes.iter().map(<[u8]>::to_vec).collect()
}

/// Ids of every length that CBOR has for them.
fn ids(rng: &mut Rng, length: usize) -> Vec<u32> {
    (0..length)
        .map(|_| match rng.below(5) {
            0 => rng.below(24) as u32,
            1 => rng.below(256) as u32,
            2 => rng.below(65_536) as u32,
            3 => rng.below(200_000) as u32,
            _ => u32::MAX - rng.below(3) as u32,
        })
        .collect()
}

#[test]
fn hashes_are_those_of_vllm() {
    let lines = golden_block_hashes();
    assert!(lines.len() >= 24);
    for line in lines {
        let algorithm = match line.algorithm.as_str() {
            "sha256_cbor" => BlockHashAlgorithm::Sha256Cbor,
            "xxhash_cbor" => BlockHashAlgorithm::XxhashCbor,
            other => panic!("{other}"),
        };
        let options = BlockHashOptions {
            algorithm,
            block_size: line.block_size,
            hash_seed: Some(&line.hash_seed),
            cache_salt: line.cache_salt.as_deref(),
            ..PLAIN
        };
        let hashes = Prompt::from_ids(&line.token_ids).block_hashes(&profile(&options));
        assert_eq!(hex(&hashes), line.block_hashes, "{options:?}");
        assert_eq!(listed(&hashes), naive(&line.token_ids, &options));
    }
}

/// Of `get_request_block_hasher` of vLLM 0.32 for the ids 0 to 39.
#[test]
fn adapters_and_servers_without_a_seed_are_hashed_as_vllm_does() {
    let prompt = Prompt::from_ids(&(0..40).collect::<Vec<_>>());
    let plain = BlockHashOptions {
        algorithm: BlockHashAlgorithm::Sha256Cbor,
        ..PLAIN
    };
    let lora = Some(Lora {
        name: "sql",
        path: Some("/adapters/sql"),
    });
    let salted = BlockHashOptions {
        cache_salt: Some("tenant"),
        lora,
        ..plain
    };
    let seedless = BlockHashOptions {
        hash_seed: None,
        ..plain
    };
    for (options, hashes) in [
        (
            BlockHashOptions { lora, ..plain },
            [
                "350a4da5e633d110d868f4f306baf2fffff5e45ae028dcedc1c0b29bd9f0d7ea",
                "4f52dddee6051b6124ab12fd5daaf2f1bb732a81b3de956ac90fec91c257a8f2",
            ],
        ),
        (
            salted,
            [
                "6d4986eeffc8294195e71094957b28b238ec2a586ff04408dec82da37e941626",
                "18fcce6f4575468ff715b7833a7407c5c6a8a9fa70a72b2800fb637dfcd93409",
            ],
        ),
        (
            seedless,
            [
                "dc918a88b139e5afe60b88eda27508d4aee16c10fdc354791efea06206ac0749",
                "c300ec275d7bf08af8fc63e76cdc0086911bbc7091e03c5cf892553bef84ef0c",
            ],
        ),
    ] {
        assert_eq!(hex(&prompt.block_hashes(&profile(&options))), hashes);
    }
}

#[test]
fn only_full_blocks_have_hashes() {
    for (length, blocks) in [
        (0, 0),
        (1, 0),
        (15, 0),
        (16, 1),
        (31, 1),
        (32, 2),
        (1040, 65),
    ] {
        let prompt = Prompt::from_ids(&vec![9; length]);
        let hashes = prompt.block_hashes(&profile(&PLAIN));
        assert_eq!(hashes.len(), blocks, "{length}");
        assert_eq!(hashes.is_empty(), blocks == 0);
    }
}

#[test]
fn prompts_that_grow_and_branch_have_the_hashes_of_prompts_made_anew() {
    let lora = Some(Lora {
        name: "sql",
        path: Some("/adapters/sql"),
    });
    let mut kinds = Vec::new();
    for (at, block_size) in [1, 16, 48, 100, 128, 1000, 1024, 1500, 4096]
        .into_iter()
        .enumerate()
    {
        for algorithm in [
            BlockHashAlgorithm::XxhashCbor,
            BlockHashAlgorithm::Sha256Cbor,
        ] {
            kinds.push(BlockHashOptions {
                algorithm,
                block_size,
                cache_salt: [None, Some("ténant")][at % 2],
                lora: [None, None, lora][at % 3],
                extra_keys: [ExtraKeys::Tagged, ExtraKeys::Bare][at / 2 % 2],
                ..PLAIN
            });
        }
    }
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        // Few profiles meet again often, many crowd each other out.
        let kinds: Vec<_> = (0..1 + rng.below(7)).map(|_| *rng.pick(&kinds)).collect();
        let mut family = vec![(Prompt::from_ids(&[]), Vec::new())];
        for _ in 0..60 {
            let (prompt, plain): &(Prompt, Vec<u32>) = rng.pick(&family);
            let keep = match rng.below(3) {
                0 => rng.below(plain.len() + 1),
                1 => plain.len() - rng.below(plain.len().min(40) + 1),
                _ => plain.len(),
            };
            let length = *rng.pick(&[0, 1, 30, 500, 2_000]);
            let new = ids(&mut rng, length);
            let (prompt, plain) = (
                prompt.continued(keep, &new),
                [&plain[..keep], &new].concat(),
            );
            family.push((prompt, plain));
            let (prompt, plain) = rng.pick(&family);
            let options = *rng.pick(&kinds);
            let profile = profile(&options);
            let hashes = prompt.block_hashes(&profile);
            assert_eq!(
                listed(&hashes),
                naive(plain, &options),
                "{seed} {options:?}"
            );
            assert_eq!(prompt.unhashed(&profile), 0);
            let bytes = hashes.clone().into_bytes();
            assert_eq!(bytes, hashes.iter().flatten().copied().collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_a_prompt_has_of_its_past_is_not_hashed_again() {
    let ids = ids(&mut Rng::new(3), 30_000);
    let profile = profile(&PLAIN);
    let first = Prompt::from_ids(&ids[..28_000]);
    assert_eq!(first.unhashed(&profile), 28_000);
    let bytes = first.bytes();
    first.block_hashes(&profile);
    let kept = first.bytes() - bytes;
    assert!((28_000..34_000).contains(&kept), "a byte for an id: {kept}");

    let grown = first.continued(28_000, &ids[28_000..28_500]);
    assert_eq!(grown.unhashed(&profile), 496);
    // Its last run is its own, as another prompt went on from there.
    let branch = first.continued(27_990, &ids[28_500..29_000]);
    assert_eq!(branch.unhashed(&profile), 28_490 / 16 * 16 - 27 * 1024);
    assert_eq!(
        listed(&branch.block_hashes(&profile))[..1_749],
        listed(&grown.block_hashes(&profile))[..1_749]
    );

    // Block sizes that straddle runs go on as well.
    let straddling = self::profile(&BlockHashOptions {
        block_size: 48,
        ..PLAIN
    });
    first.block_hashes(&straddling);
    assert_eq!(
        grown.unhashed(&straddling),
        28_500 / 48 * 48 - 28_000 / 48 * 48
    );
}

#[test]
fn threads_that_ask_at_once_get_the_same() {
    let mut rng = Rng::new(4);
    let base = ids(&mut rng, 5_000);
    let prompt = Prompt::from_ids(&base[..4_200]);
    let kinds = [16, 48].map(|block_size| BlockHashOptions {
        block_size,
        ..PLAIN
    });
    thread::scope(|scope| {
        for worker in 0..8 {
            let (prompt, base) = (&prompt, &base);
            scope.spawn(move || {
                for round in 0..20 {
                    let length = 4_200 + 40 * round;
                    let grown = prompt.continued(4_200, &base[4_200..length]);
                    let options = kinds[(worker + round) % 2];
                    let hashes = grown.block_hashes(&profile(&options));
                    assert_eq!(listed(&hashes), naive(&base[..length], &options));
                }
            });
        }
    });
}
