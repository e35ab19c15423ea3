//! The native side of `Prompt`.

use std::sync::atomic::{AtomicI64, Ordering};

use napi::{
    Env,
    bindgen_prelude::{AsyncTask, Buffer, BufferSlice, Either, Task, Uint8Array, Uint32Array},
};
use napi_derive::napi;
use promptseam::prompt::{Fingerprint, Prompt, read_answer};

use crate::{
    outcome::{Failure, Outcome, guarded},
    seam::hex,
};

/// Bytes that live prompts have told V8 of, for the next report.
pub(crate) static UNREPORTED: AtomicI64 = AtomicI64::new(0);

/// Tells V8 of native memory. Changes made off the main thread wait in
/// [`UNREPORTED`] for the next call.
pub(crate) fn report_memory(env: &Env) {
    let change = UNREPORTED.swap(0, Ordering::Relaxed);
    if change != 0 {
        // V8 only uses it to pace collections; there is nothing to do if it fails.
        let _ = env.adjust_external_memory(change);
    }
}

/// Bytes of room before the ids that `takeWritten` gives.
#[allow(unreachable_pub, reason = "napi takes no less")]
#[napi]
pub const ROOM_BEFORE: u32 = 32 << 10;
/// Bytes of room after them.
#[allow(unreachable_pub, reason = "napi takes no less")]
#[napi]
pub const ROOM_AFTER: u32 = 64;

/// A handle to a prompt.
#[napi]
pub struct NativePrompt {
    prompt: Option<Prompt>,
    bytes: i64,
    /// The ids as a JSON array, with room around it, for the next body.
    written: Option<Vec<u8>>,
}

/// How two prompts differ; see `Prompt.diff`.
#[napi(object)]
pub struct NativeDiff {
    pub common_prefix: u32,
    pub boundary: u32,
    pub removed: u32,
    pub appended: u32,
}

/// One answer without its id lists; see `readEvent`.
#[napi]
pub struct NativeAnswer {
    json: String,
    prompt: Option<NativePrompt>,
    choices: Vec<Option<Vec<u32>>>,
}

impl NativePrompt {
    pub(crate) fn new(prompt: Prompt) -> Self {
        let bytes = i64::try_from(prompt.unshared_bytes()).unwrap_or(i64::MAX);
        UNREPORTED.fetch_add(bytes, Ordering::Relaxed);
        Self {
            prompt: Some(prompt),
            bytes,
            written: None,
        }
    }

    /// This prompt with its ids written down for the body that is to come.
    pub(crate) fn written(mut self) -> Self {
        if let Some(prompt) = &self.prompt {
            let (before, after) = (ROOM_BEFORE as usize, ROOM_AFTER as usize);
            let mut text = Vec::with_capacity(before + 7 * prompt.len() + 2 + after);
            text.resize(before, b' ');
            prompt.write_json(&mut text);
            text.resize(text.len() + after, b' ');
            self.written = Some(text);
        }
        self
    }

    pub(crate) fn get(&self) -> Result<&Prompt, Failure> {
        self.prompt
            .as_ref()
            .ok_or_else(|| Failure::closed("prompt"))
    }
}

impl Drop for NativePrompt {
    fn drop(&mut self) {
        UNREPORTED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[napi]
impl NativePrompt {
    #[napi(factory)]
    pub fn from_ids(env: Env, ids: Uint32Array) -> Self {
        let native = Self::new(Prompt::from_ids(&ids));
        report_memory(&env);
        native
    }

    #[napi]
    pub fn continued(&self, keep: u32, ids: Uint32Array) -> Outcome<NativePrompt> {
        guarded(|| Ok(Self::new(self.get()?.continued(keep as usize, &ids))))
    }

    /// [length, reused]
    #[napi]
    pub fn lengths(&self) -> Outcome<(u32, u32)> {
        guarded(|| {
            let prompt = self.get()?;
            Ok((prompt.len() as u32, prompt.reused() as u32))
        })
    }

    #[napi]
    pub fn token_ids(&self) -> Outcome<Uint32Array> {
        guarded(|| Ok(Uint32Array::new(self.get()?.to_vec())))
    }

    #[napi]
    pub fn boundaries(&self) -> Outcome<Uint32Array> {
        guarded(|| {
            let boundaries = self.get()?.boundaries();
            Ok(boundaries
                .into_iter()
                .map(|at| at as u32)
                .collect::<Vec<_>>()
                .into())
        })
    }

    #[napi]
    pub fn fingerprint(&self, tokens: u32) -> Outcome<String> {
        guarded(|| Ok(self.get()?.fingerprint(tokens as usize).to_string()))
    }

    #[napi]
    pub fn has_prefix(&self, fingerprint: String, tokens: u32) -> Outcome<bool> {
        guarded(|| {
            let fingerprint = u128::from_str_radix(&fingerprint, 16).map_err(|_| {
                Failure::new(
                    "PS_INVALID_ARGUMENT",
                    "A fingerprint is a string of 32 hexadecimal digits.",
                )
            })?;
            Ok(self
                .get()?
                .has_prefix(Fingerprint(fingerprint), tokens as usize))
        })
    }

    #[napi]
    pub fn diff(&self, later: &NativePrompt) -> Outcome<NativeDiff> {
        guarded(|| {
            let diff = self.get()?.diff(later.get()?);
            Ok(NativeDiff {
                common_prefix: diff.common_prefix as u32,
                boundary: diff.boundary as u32,
                removed: diff.removed as u32,
                appended: diff.appended as u32,
            })
        })
    }

    #[napi]
    pub fn equals(&self, other: &NativePrompt) -> Outcome<bool> {
        guarded(|| Ok(self.get()? == other.get()?))
    }

    /// `before`, the ids from `from` on as a JSON array, and `after`, as one buffer.
    #[napi]
    pub fn write_json(
        &self,
        before: Either<String, Uint8Array>,
        after: Either<String, Uint8Array>,
        from: Option<u32>,
    ) -> Outcome<Buffer> {
        guarded(|| {
            let prompt = self.get()?;
            let from = from.unwrap_or(0) as usize;
            let (before, after) = (bytes_of(&before), bytes_of(&after));
            Ok(Buffer::from(body_of(prompt, from, before, after)))
        })
    }

    /// BLAKE3 over the first `tokens` ids in hexadecimal.
    #[napi]
    pub fn hash(&self, tokens: u32) -> Outcome<String> {
        guarded(|| {
            let (prompt, tokens) = (self.get()?, tokens as usize);
            if tokens > prompt.len() {
                let what = format!("The prompt has {} tokens.", prompt.len());
                return Err(Failure::new("PS_INVALID_ARGUMENT", what));
            }
            Ok(hex(&prompt.hash(0, tokens)))
        })
    }

    /// What `writeIds` of a rendering wrote, once: `ROOM_BEFORE` bytes, the ids
    /// as a JSON array, `ROOM_AFTER` bytes.
    #[napi]
    pub fn take_written(&mut self) -> Option<Buffer> {
        self.written.take().map(Buffer::from)
    }

    /// As `writeJson`, off the event loop.
    #[napi(ts_return_type = "Promise<Failure | Buffer>")]
    pub fn write_json_aside(&self, before: String, after: String) -> AsyncTask<WriteJson> {
        AsyncTask::new(WriteJson {
            prompt: self.get().cloned(),
            before,
            after,
        })
    }

    /// Heap bytes of the whole prompt, what it shares included.
    #[napi]
    pub fn bytes(&self) -> Outcome<f64> {
        guarded(|| Ok(self.get()?.bytes() as f64))
    }

    /// Lets go of the ids now rather than at the next collection.
    #[napi]
    pub fn close(&mut self, env: Env) {
        self.prompt = None;
        self.written = None;
        UNREPORTED.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        report_memory(&env);
    }
}

/// Writing a body on libuv's threads: a promise of theirs costs the event loop a
/// third of what one of a model's pool does, and the work is a tenth of a
/// millisecond that nothing cancels.
pub struct WriteJson {
    prompt: Result<Prompt, Failure>,
    before: String,
    after: String,
}

impl Task for WriteJson {
    type Output = Outcome<Buffer>;
    type JsValue = Outcome<Buffer>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(guarded(|| {
            let prompt = self.prompt.as_ref().map_err(Clone::clone)?;
            let (before, after) = (self.before.as_bytes(), self.after.as_bytes());
            Ok(Buffer::from(body_of(prompt, 0, before, after)))
        }))
    }

    fn resolve(&mut self, _: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output)
    }
}

fn body_of(prompt: &Prompt, from: usize, before: &[u8], after: &[u8]) -> Vec<u8> {
    let ids = prompt.len().saturating_sub(from);
    let mut body = Vec::with_capacity(before.len() + after.len() + 7 * ids + 2);
    body.extend_from_slice(before);
    prompt.write_json_from(from, &mut body);
    body.extend_from_slice(after);
    body
}

fn bytes_of(part: &Either<String, Uint8Array>) -> &[u8] {
    match part {
        Either::A(text) => text.as_bytes(),
        Either::B(bytes) => bytes,
    }
}

#[napi]
impl NativeAnswer {
    /// The JSON with null where the lists were.
    #[napi(getter)]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Takes the prompt's ids out, once.
    #[napi]
    pub fn take_prompt(&mut self) -> Option<NativePrompt> {
        self.prompt.take()
    }

    /// Takes the ids of each choice out, once.
    #[napi]
    pub fn take_choices(&mut self) -> Vec<Option<Uint32Array>> {
        std::mem::take(&mut self.choices)
            .into_iter()
            .map(|ids| ids.map(Uint32Array::new))
            .collect()
    }
}

/// Takes the id lists out of one event or answer of a server.
#[napi]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "napi exports it, but not into a test build"
)]
pub fn read_event(data: BufferSlice) -> Outcome<NativeAnswer> {
    guarded(|| {
        let answer = read_answer(&data)?;
        Ok(NativeAnswer {
            json: answer.json,
            prompt: answer
                .prompt
                .map(|ids| NativePrompt::new(Prompt::from_ids(&ids))),
            choices: answer.choices,
        })
    })
}
