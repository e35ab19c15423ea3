//! A prompt's block hashes, as one buffer.

use napi::{
    Env,
    bindgen_prelude::{AsyncTask, Buffer, Either, Task},
};
use napi_derive::napi;
use promptseam::prompt::{
    BlockHashAlgorithm, BlockHashOptions, BlockHashProfile, ExtraKeys, Lora, Prompt,
};

use crate::{
    outcome::{Outcome, guarded},
    prompt::NativePrompt,
};

/// Ids that are hashed on the event loop: at 20 ns for an id, that is less than
/// what a promise of another thread costs.
const HASHED_INLINE: usize = 4_096;

/// What the hashes are made with; see `Prompt.blockHashes`.
#[napi(object)]
pub struct NativeBlockHashOptions {
    pub sha256: bool,
    pub block_size: u32,
    pub hash_seed: Option<String>,
    pub cache_salt: Option<String>,
    pub lora_name: Option<String>,
    pub lora_path: Option<String>,
    pub tagged: bool,
}

impl NativeBlockHashOptions {
    fn profile(&self) -> promptseam::Result<BlockHashProfile> {
        let lora = self.lora_name.as_deref().map(|name| Lora {
            name,
            path: self.lora_path.as_deref(),
        });
        BlockHashProfile::new(&BlockHashOptions {
            algorithm: if self.sha256 {
                BlockHashAlgorithm::Sha256Cbor
            } else {
                BlockHashAlgorithm::XxhashCbor
            },
            block_size: self.block_size as usize,
            hash_seed: self.hash_seed.as_deref(),
            cache_salt: self.cache_salt.as_deref(),
            lora,
            extra_keys: if self.tagged {
                ExtraKeys::Tagged
            } else {
                ExtraKeys::Bare
            },
        })
    }
}

#[napi]
impl NativePrompt {
    /// The hashes of the full blocks, one behind the other: at once where little
    /// is to be hashed, else off the event loop.
    #[napi(ts_return_type = "Failure | Buffer | Promise<Failure | Buffer>")]
    pub fn block_hashes(
        &self,
        options: NativeBlockHashOptions,
    ) -> Outcome<Either<Buffer, AsyncTask<HashBlocks>>> {
        guarded(|| {
            let prompt = self.get()?;
            let profile = options.profile()?;
            if prompt.unhashed(&profile) <= HASHED_INLINE {
                let hashes = prompt.block_hashes(&profile).into_bytes();
                return Ok(Either::A(hashes.into()));
            }
            let prompt = prompt.clone();
            Ok(Either::B(AsyncTask::new(HashBlocks { prompt, profile })))
        })
    }
}

/// Hashing on libuv's threads, as nothing cancels it and it seldom takes longer
/// than a millisecond.
pub struct HashBlocks {
    prompt: Prompt,
    profile: BlockHashProfile,
}

impl Task for HashBlocks {
    type Output = Outcome<Buffer>;
    type JsValue = Outcome<Buffer>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(guarded(|| {
            Ok(self.prompt.block_hashes(&self.profile).into_bytes().into())
        }))
    }

    fn resolve(&mut self, _: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output)
    }
}
