//! The rule by which vLLM's prefix cache names a block of ids.
//!
//! Block `i` of a prompt, `block size` ids long, has the hash
//! `H((hash of block i - 1, (ids...), extra))`, where the block before the first
//! is `H(hash seed)`. `H` is SHA-256 or XXH3-128 over canonical CBOR, in which a
//! tuple is an array, a hash is a byte string and an integer takes its shortest
//! form. `extra` is null or the keys that tell equal ids apart: the LoRA adapter
//! on every block, the cache salt on the first. Images and prompt embeddings
//! have keys too, which no prompt of bare ids needs.
//!
//! Source: vLLM 0.32, `v1/core/kv_cache_utils.py` and `utils/hashing.py`, and
//! hashes that its code gave.

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use crate::{Error, ErrorKind, Result};

/// The most ids that a block may have.
pub const MAX_BLOCK_SIZE: usize = 4_096;
/// The most characters of a hash seed, a cache salt and a LoRA name.
const MAX_TEXT: usize = 1_000;
/// The most characters of a LoRA path.
const MAX_PATH: usize = 4_096;

/// What vLLM 0.32 hashes in place of `PYTHONHASHSEED` where that is not set and
/// the algorithm resists collisions.
const DEFAULT_SEED: &str = "vllm-none-hash";

/// How hashes are made: vLLM's `--prefix-caching-hash-algo`, of which those
/// that pickle Python objects are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockHashAlgorithm {
    /// `sha256_cbor`: 32 bytes.
    Sha256Cbor,
    /// `xxhash_cbor`: XXH3-128, 16 bytes, big-endian.
    XxhashCbor,
}

impl BlockHashAlgorithm {
    /// Bytes of a hash.
    pub const fn digest_length(self) -> usize {
        match self {
            Self::Sha256Cbor => 32,
            Self::XxhashCbor => 16,
        }
    }

    /// Appends the hash of `bytes` to `out`.
    pub(super) fn digest(self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Sha256Cbor => out.extend_from_slice(&Sha256::digest(bytes)),
            Self::XxhashCbor => out.extend_from_slice(&xxh3_128(bytes).to_be_bytes()),
        }
    }
}

/// How a release of vLLM writes extra keys into the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtraKeys {
    /// `("lora", name, path)` and `("cache_salt", salt)`: vLLM 0.32.
    #[default]
    Tagged,
    /// `name` and `salt`: releases before. They leave the path out.
    Bare,
}

/// A LoRA adapter as the server was given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lora<'a> {
    /// Its name, which requests ask for as their model.
    pub name: &'a str,
    /// Its path on the server; needed where extra keys are tagged.
    pub path: Option<&'a str>,
}

/// What [`BlockHashProfile::new`] makes a profile of.
#[derive(Clone, Copy, Debug)]
pub struct BlockHashOptions<'a> {
    /// The server's hash algorithm.
    pub algorithm: BlockHashAlgorithm,
    /// Ids in a block, from 1 to [`MAX_BLOCK_SIZE`]. vLLM's is 16 unless told
    /// otherwise, on CPU 128.
    pub block_size: usize,
    /// The server's `PYTHONHASHSEED`. None where it has none, which only
    /// `sha256_cbor` of vLLM 0.32 allows: `xxhash_cbor`, and releases before,
    /// then draw a seed that nobody else knows.
    pub hash_seed: Option<&'a str>,
    /// The request's `cache_salt`. An empty one counts as none.
    pub cache_salt: Option<&'a str>,
    /// The adapter that the request asks for.
    pub lora: Option<Lora<'a>>,
    /// How the server's release writes the two before.
    pub extra_keys: ExtraKeys,
}

/// All that block hashes depend on besides the ids, checked and encoded.
#[derive(Clone, Debug)]
pub struct BlockHashProfile {
    algorithm: BlockHashAlgorithm,
    block_size: usize,
    /// The hash before the first block's.
    none: Vec<u8>,
    /// The extra keys of the first block, as CBOR.
    first_extra: Vec<u8>,
    /// Those of all others.
    extra: Vec<u8>,
    key: [u8; 32],
}

impl BlockHashProfile {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the block size is out of range, a text
    /// too long, the seed missing for an algorithm that has no default, or the
    /// adapter's path missing where the hash holds it.
    pub fn new(options: &BlockHashOptions<'_>) -> Result<Self> {
        let &BlockHashOptions {
            algorithm,
            block_size,
            hash_seed,
            cache_salt,
            lora,
            extra_keys,
        } = options;
        if !(1..=MAX_BLOCK_SIZE).contains(&block_size) {
            return Err(refused(format!(
                "A block has 1 to {MAX_BLOCK_SIZE} ids, not {block_size}."
            )));
        }
        let seed = match (hash_seed, algorithm) {
            (Some(seed), _) => limited(seed, "hash seed", MAX_TEXT)?,
            (None, BlockHashAlgorithm::Sha256Cbor) => DEFAULT_SEED,
            (None, BlockHashAlgorithm::XxhashCbor) => {
                return Err(refused(
                    "xxhash_cbor needs the server's hash seed: without PYTHONHASHSEED it draws a random one.",
                ));
            }
        };
        let salt = cache_salt.filter(|salt| !salt.is_empty());
        let salt = salt
            .map(|salt| limited(salt, "cache salt", MAX_TEXT))
            .transpose()?
            .map(|salt| salt_key(salt, extra_keys));
        let lora = lora.map(|lora| lora_key(lora, extra_keys)).transpose()?;

        let mut none = Vec::new();
        algorithm.digest(&text(seed), &mut none);
        let first_extra = tuple(lora.iter().chain(&salt));
        let extra = tuple(lora.iter());
        let mut hasher = blake3::Hasher::new();
        for part in [
            &[algorithm.digest_length() as u8][..],
            &(block_size as u64).to_le_bytes(),
            &none,
            &(first_extra.len() as u64).to_le_bytes(),
            &first_extra,
            &extra,
        ] {
            hasher.update(part);
        }
        Ok(Self {
            algorithm,
            block_size,
            none,
            first_extra,
            extra,
            key: *hasher.finalize().as_bytes(),
        })
    }

    /// Ids in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Bytes of a hash.
    pub fn digest_length(&self) -> usize {
        self.algorithm.digest_length()
    }

    /// Equal for profiles that give equal hashes, and for no others.
    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Appends the hash of each block of `ids`, whole blocks that go on where
    /// the hashes in `digests` end. O(ids).
    pub(super) fn extend(&self, digests: &mut Vec<u8>, ids: &[u32]) {
        debug_assert!(ids.len().is_multiple_of(self.block_size));
        let length = self.digest_length();
        let mut encoded = Vec::with_capacity(64 + 5 * self.block_size + self.first_extra.len());
        for block in ids.chunks_exact(self.block_size) {
            let (parent, extra) = match digests.len().checked_sub(length) {
                None => (&self.none[..], &self.first_extra),
                Some(last) => (&digests[last..], &self.extra),
            };
            encoded.clear();
            head(ARRAY, 3, &mut encoded);
            head(BYTES, length as u32, &mut encoded);
            encoded.extend_from_slice(parent);
            head(ARRAY, self.block_size as u32, &mut encoded);
            for id in block {
                head(UNSIGNED, *id, &mut encoded);
            }
            encoded.extend_from_slice(extra);
            self.algorithm.digest(&encoded, digests);
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn limited<'a>(text: &'a str, what: &str, most: usize) -> Result<&'a str> {
    // Bytes first: they bound the characters, and are known.
    if text.len() > most && text.chars().nth(most).is_some() {
        return Err(refused(format!("A {what} has at most {most} characters.")));
    }
    Ok(text)
}

fn salt_key(salt: &str, extra_keys: ExtraKeys) -> Vec<u8> {
    match extra_keys {
        ExtraKeys::Tagged => tuple([text("cache_salt"), text(salt)].iter()),
        ExtraKeys::Bare => text(salt),
    }
}

fn lora_key(lora: Lora<'_>, extra_keys: ExtraKeys) -> Result<Vec<u8>> {
    let name = text(limited(lora.name, "LoRA name", MAX_TEXT)?);
    if extra_keys == ExtraKeys::Bare {
        return Ok(name);
    }
    let path = lora.path.ok_or_else(|| {
        refused("vLLM 0.32 hashes a LoRA adapter's path too: give it as the server has it.")
    })?;
    let path = text(limited(path, "LoRA path", MAX_PATH)?);
    Ok(tuple([text("lora"), name, path].iter()))
}

/// CBOR's major types, where they stand in a head's first byte (RFC 8949).
const UNSIGNED: u8 = 0x00;
const BYTES: u8 = 0x40;
const TEXT: u8 = 0x60;
const ARRAY: u8 = 0x80;
const NULL: u8 = 0xf6;

/// The shortest head with this value: an integer's all, a string's length, an
/// array's count.
fn head(major: u8, value: u32, out: &mut Vec<u8>) {
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..=0xffff => {
            let [high, low] = (value as u16).to_be_bytes();
            out.extend_from_slice(&[major | 25, high, low]);
        }
        _ => {
            let [a, b, c, d] = value.to_be_bytes();
            out.extend_from_slice(&[major | 26, a, b, c, d]);
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + text.len());
    head(TEXT, text.len() as u32, &mut out);
    out.extend_from_slice(text.as_bytes());
    out
}

/// A tuple of encoded members; null where there are none, as vLLM has it.
fn tuple<'a>(members: impl Iterator<Item = &'a Vec<u8>> + Clone) -> Vec<u8> {
    let count = members.clone().count() as u32;
    if count == 0 {
        return vec![NULL];
    }
    let mut out = Vec::new();
    head(ARRAY, count, &mut out);
    members.for_each(|member| out.extend_from_slice(member));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BlockHashOptions<'static> = BlockHashOptions {
        algorithm: BlockHashAlgorithm::Sha256Cbor,
        block_size: 16,
        hash_seed: Some("0"),
        cache_salt: None,
        lora: None,
        extra_keys: ExtraKeys::Tagged,
    };

    fn encoded(value: u32) -> Vec<u8> {
        let mut out = Vec::new();
        head(UNSIGNED, value, &mut out);
        out
    }

    #[test]
    fn integers_take_their_shortest_form() {
        assert_eq!(encoded(23), [23]);
        assert_eq!(encoded(24), [0x18, 24]);
        assert_eq!(encoded(255), [0x18, 255]);
        assert_eq!(encoded(256), [0x19, 1, 0]);
        assert_eq!(encoded(0xffff), [0x19, 255, 255]);
        assert_eq!(encoded(0x1_0000), [0x1a, 0, 1, 0, 0]);
        assert_eq!(encoded(u32::MAX), [0x1a, 255, 255, 255, 255]);
    }

    #[test]
    fn the_adapter_is_in_every_block_and_the_salt_in_the_first() {
        let lora = Some(Lora {
            name: "sql",
            path: Some("/a"),
        });
        let options = BlockHashOptions {
            cache_salt: Some("s"),
            lora,
            ..OPTIONS
        };
        let tagged = BlockHashProfile::new(&options).unwrap();
        assert_eq!(
            tagged.first_extra,
            b"\x82\x83\x64lora\x63sql\x62/a\x82\x6acache_salt\x61s"
        );
        assert_eq!(tagged.extra, b"\x81\x83\x64lora\x63sql\x62/a");

        let bare = BlockHashProfile::new(&BlockHashOptions {
            extra_keys: ExtraKeys::Bare,
            ..options
        });
        let bare = bare.unwrap();
        assert_eq!(bare.first_extra, b"\x82\x63sql\x61s");
        assert_eq!(bare.extra, b"\x81\x63sql");
    }

    #[test]
    fn an_empty_salt_is_none() {
        let plain = BlockHashProfile::new(&OPTIONS).unwrap();
        let empty = BlockHashProfile::new(&BlockHashOptions {
            cache_salt: Some(""),
            ..OPTIONS
        });
        assert_eq!(plain.first_extra, [NULL]);
        assert_eq!(plain.key(), empty.unwrap().key());
    }

    #[test]
    fn every_member_tells_profiles_apart() {
        let keys: std::collections::HashSet<[u8; 32]> = [
            OPTIONS,
            BlockHashOptions {
                algorithm: BlockHashAlgorithm::XxhashCbor,
                ..OPTIONS
            },
            BlockHashOptions {
                block_size: 32,
                ..OPTIONS
            },
            BlockHashOptions {
                hash_seed: Some("1"),
                ..OPTIONS
            },
            BlockHashOptions {
                hash_seed: None,
                ..OPTIONS
            },
            BlockHashOptions {
                cache_salt: Some("s"),
                ..OPTIONS
            },
            BlockHashOptions {
                cache_salt: Some("s"),
                extra_keys: ExtraKeys::Bare,
                ..OPTIONS
            },
            BlockHashOptions {
                lora: Some(Lora {
                    name: "s",
                    path: None,
                }),
                extra_keys: ExtraKeys::Bare,
                ..OPTIONS
            },
        ]
        .iter()
        .map(|options| *BlockHashProfile::new(options).unwrap().key())
        .collect();
        assert_eq!(keys.len(), 8);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let long = "é".repeat(MAX_TEXT);
        let longer = format!("{long}.");
        let allowed = BlockHashOptions {
            cache_salt: Some(&long),
            ..OPTIONS
        };
        assert!(BlockHashProfile::new(&allowed).is_ok());
        let pathless = Some(Lora {
            name: "sql",
            path: None,
        });
        for options in [
            BlockHashOptions {
                block_size: 0,
                ..OPTIONS
            },
            BlockHashOptions {
                block_size: MAX_BLOCK_SIZE + 1,
                ..OPTIONS
            },
            BlockHashOptions {
                cache_salt: Some(&longer),
                ..OPTIONS
            },
            BlockHashOptions {
                hash_seed: Some(&longer),
                ..OPTIONS
            },
            BlockHashOptions {
                hash_seed: None,
                algorithm: BlockHashAlgorithm::XxhashCbor,
                ..OPTIONS
            },
            BlockHashOptions {
                lora: pathless,
                ..OPTIONS
            },
        ] {
            let error = BlockHashProfile::new(&options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!error.message().contains(&long), "a salt is a secret");
        }
    }
}
