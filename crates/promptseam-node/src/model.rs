//! The native side of `Model`: work goes to the model's pool, answers come back
//! as promises.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use napi::{
    Env, JsDeferred,
    bindgen_prelude::{BufferSlice, Either, Object, ToNapiValue, Uint32Array},
};
use napi_derive::napi;
use promptseam::{
    Cancel,
    continuation::{Planner, ShadowPolicy},
    model::{LoadOptions, Model, ModelFiles, RenderOptions},
    template::Now,
    tokenizer::{DecodeStream, EngineKind, Special},
};

use crate::{
    outcome::{Failure, Outcome, guarded},
    pool::{Pool, Refused},
    prompt::{NativePrompt, report_memory},
};

/// Cancels calls it was given to, before and between their stages.
#[napi]
#[derive(Default)]
pub struct NativeCancel {
    cancel: Cancel,
}

#[napi]
impl NativeCancel {
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    #[napi]
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// Where a model is and how to load it; see `Model.load`.
#[napi(object)]
pub struct NativeSource {
    /// A folder, or a name in the Hugging Face cache.
    pub name: Option<String>,
    pub tokenizer: Option<String>,
    pub tokenizer_config: Option<String>,
    pub chat_template_file: Option<String>,
    pub config: Option<String>,
    pub generation_config: Option<String>,
    /// A template's source.
    pub chat_template: Option<String>,
    pub max_model_length: Option<u32>,
    pub max_bytes: u32,
    pub threads: u32,
    pub queue_limit: u32,
}

/// What a model is like; see `Model.info`.
#[napi(object)]
pub struct NativeInfo {
    pub engine: String,
    pub fallback: Option<String>,
    pub vocab_size: u32,
    pub id_limit: u32,
    pub max_model_length: Option<u32>,
    pub stop_token_ids: Vec<u32>,
    pub has_chat_template: bool,
    pub boundaries: Vec<NativeBoundary>,
}

/// An added token and what the boundary proof says of it.
#[napi(object)]
pub struct NativeBoundary {
    pub id: u32,
    pub content: String,
    pub safe: bool,
    pub reason: Option<String>,
    pub because: Option<String>,
}

/// How to render; see `Model.render`.
#[napi(object)]
pub struct NativeRender {
    pub unix_millis: f64,
    pub utc_offset_minutes: i32,
    /// Write the ids as JSON too, for `NativePrompt.takeWritten`.
    pub write_ids: Option<bool>,
}

struct Shared {
    model: Arc<Model>,
    pool: Arc<Pool>,
}

/// A handle to a loaded model.
#[napi]
pub struct NativeModel {
    shared: Option<Arc<Shared>>,
}

type Settle<T> = JsDeferred<Outcome<T>, Box<dyn FnOnce(Env) -> napi::Result<Outcome<T>>>>;

fn settle<T: ToNapiValue + Send + 'static>(deferred: Settle<T>, outcome: Outcome<T>) {
    deferred.resolve(Box::new(move |env| {
        report_memory(&env);
        Ok(outcome)
    }));
}

/// Runs `work` on `pool` and gives the promise of its outcome.
pub(crate) fn promise<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    pool: &Pool,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> napi::Result<Object<'env>> {
    let (deferred, promise) = env.create_deferred::<Outcome<T>, _>()?;
    // Shared, because a refused job is dropped with all it owns.
    let slot = Arc::new(Mutex::new(Some(deferred)));
    let job = {
        let slot = Arc::clone(&slot);
        move || {
            let outcome = guarded(work);
            if let Some(deferred) = take(&slot) {
                settle(deferred, outcome);
            }
        }
    };
    if let Err(refused) = pool.submit(job)
        && let Some(deferred) = take(&slot)
    {
        settle(deferred, Either::A(refusal(&refused)));
    }
    Ok(promise)
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn refusal(refused: &Refused) -> Failure {
    match refused {
        Refused::Full(limit) => Failure::new(
            "PS_OVERLOADED",
            format!(
                "A queue of {limit} calls is full; try again later, or raise the model's \
                 queueLimit or threads when loading it."
            ),
        ),
        Refused::Closed(owner) => Failure::closed(owner),
    }
}

pub(crate) fn cancel_of(cancel: Option<&NativeCancel>) -> Cancel {
    cancel
        .map(|cancel| cancel.cancel.clone())
        .unwrap_or_default()
}

fn special_of(recognize: bool) -> Special {
    if recognize {
        Special::Recognize
    } else {
        Special::Text
    }
}

impl NativeModel {
    fn get(&self) -> Result<&Arc<Shared>, Failure> {
        self.shared.as_ref().ok_or_else(|| Failure::closed("model"))
    }

    /// A planner for this model, and the pool it is to work on.
    pub(crate) fn planner(
        &self,
        shadow: ShadowPolicy,
    ) -> Result<(Arc<Planner>, Arc<Pool>), Failure> {
        let shared = self.get()?;
        let planner = Planner::new(Arc::clone(&shared.model), shadow);
        Ok((Arc::new(planner), Arc::clone(&shared.pool)))
    }

    /// Runs `work` with the model on its pool.
    fn run<'env, T: ToNapiValue + Send + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&Model) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        match self.get() {
            Ok(shared) => {
                let model = Arc::clone(shared);
                promise(env, &shared.pool, move || work(&model.model))
            }
            Err(failure) => {
                let (deferred, promise) = env.create_deferred::<Outcome<T>, _>()?;
                settle(deferred, Either::A(failure));
                Ok(promise)
            }
        }
    }
}

#[napi]
impl NativeModel {
    /// Loads a model on a thread of its own.
    #[napi(ts_return_type = "Promise<Failure | NativeModel>")]
    pub fn load<'env>(env: &'env Env, source: NativeSource) -> napi::Result<Object<'env>> {
        // The loader's one job; dropping the pool lets it finish.
        let loader =
            Pool::new("model", 1, 1).map_err(|e| napi::Error::from_reason(e.to_string()))?;
        promise(env, &loader, move || {
            let pool = Pool::new(
                "model",
                source.threads as usize,
                source.queue_limit as usize,
            )
            .map_err(|e| Failure::new("PS_INTERNAL", format!("No threads: {e}.")))?;
            let model = load(source)?;
            release_unused_memory();
            Ok(NativeModel {
                shared: Some(Arc::new(Shared {
                    model: Arc::new(model),
                    pool: Arc::new(pool),
                })),
            })
        })
    }

    #[napi]
    pub fn info(&self) -> Outcome<NativeInfo> {
        guarded(|| {
            let model = &self.get()?.model;
            let tokenizer = model.tokenizer();
            Ok(NativeInfo {
                engine: match tokenizer.engine() {
                    EngineKind::Fast => "fast",
                    EngineKind::FastRegex => "fast_regex",
                    EngineKind::Reference => "reference",
                }
                .to_owned(),
                fallback: tokenizer.fallback().map(str::to_owned),
                vocab_size: tokenizer.vocab_size() as u32,
                id_limit: tokenizer.id_limit(),
                max_model_length: model.max_model_length().map(|length| length as u32),
                stop_token_ids: model.stop_token_ids().to_vec(),
                has_chat_template: model.renderer().is_ok(),
                boundaries: tokenizer
                    .boundaries()
                    .tokens
                    .iter()
                    .map(|token| NativeBoundary {
                        id: token.id,
                        content: token.content.clone(),
                        safe: token.unsafe_because.is_none(),
                        reason: token
                            .unsafe_because
                            .as_ref()
                            .map(|why| why.name().to_owned()),
                        because: token.unsafe_because.as_ref().map(ToString::to_string),
                    })
                    .collect(),
            })
        })
    }

    #[napi(ts_return_type = "Promise<Failure | NativePrompt>")]
    pub fn render<'env>(
        &self,
        env: &'env Env,
        body: BufferSlice,
        options: NativeRender,
        previous: Option<&NativePrompt>,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Object<'env>> {
        // JavaScript may write to its buffer while a thread reads: copy it.
        let body = body.to_vec();
        let previous = previous.map(|previous| previous.get().cloned());
        let cancel = cancel_of(cancel);
        self.run(env, move |model| {
            let previous = previous.transpose()?;
            let how = RenderOptions {
                now: now_of(&options),
                previous: previous.as_ref(),
            };
            let prompt = NativePrompt::new(model.render(&body, how, &cancel)?);
            Ok(if options.write_ids == Some(true) {
                prompt.written()
            } else {
                prompt
            })
        })
    }

    #[napi(ts_return_type = "Promise<Failure | string>")]
    pub fn render_text<'env>(
        &self,
        env: &'env Env,
        body: BufferSlice,
        options: NativeRender,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Object<'env>> {
        let body = body.to_vec();
        let cancel = cancel_of(cancel);
        self.run(env, move |model| {
            Ok(model.render_text(&body, now_of(&options), &cancel)?)
        })
    }

    #[napi(ts_return_type = "Promise<Failure | Uint32Array>")]
    pub fn encode<'env>(
        &self,
        env: &'env Env,
        text: String,
        recognize: bool,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Object<'env>> {
        let cancel = cancel_of(cancel);
        self.run(env, move |model| {
            cancel.check()?;
            model.check_bytes(text.len())?;
            let ids = model.tokenizer().encode(&text, special_of(recognize))?;
            Ok(Uint32Array::new(ids))
        })
    }

    #[napi]
    pub fn decode(&self, ids: Uint32Array, skip_special: bool) -> Outcome<String> {
        guarded(|| Ok(self.get()?.model.tokenizer().decode(&ids, skip_special)?))
    }

    #[napi]
    pub fn decode_prompt(&self, prompt: &NativePrompt, skip_special: bool) -> Outcome<String> {
        guarded(|| {
            let ids = prompt.get()?.to_vec();
            Ok(self.get()?.model.tokenizer().decode(&ids, skip_special)?)
        })
    }

    #[napi]
    pub fn decode_stream(&self, skip_special: bool) -> Outcome<NativeDecodeStream> {
        guarded(|| {
            Ok(NativeDecodeStream {
                shared: Arc::clone(self.get()?),
                stream: Some(DecodeStream::new(skip_special)),
            })
        })
    }

    #[napi]
    pub fn token_to_id(&self, token: String) -> Outcome<Option<u32>> {
        guarded(|| Ok(self.get()?.model.tokenizer().token_to_id(&token)))
    }

    #[napi]
    pub fn id_to_token(&self, id: u32) -> Outcome<Option<String>> {
        guarded(|| Ok(self.get()?.model.tokenizer().id_to_token(id)))
    }

    /// Ends the pool and lets go of the model; calls under way still answer.
    #[napi]
    pub fn close(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.pool.close();
        }
    }
}

fn now_of(options: &NativeRender) -> Now {
    Now::from_unix_millis(options.unix_millis as i64, options.utc_offset_minutes)
}

fn load(source: NativeSource) -> Result<Model, Failure> {
    let mut files = match &source.name {
        Some(name) => ModelFiles::locate(name)?,
        None => ModelFiles::default(),
    };
    let set = |to: &mut Option<PathBuf>, from: Option<String>| {
        if let Some(path) = from {
            *to = Some(path.into());
        }
    };
    set(&mut files.tokenizer, source.tokenizer);
    set(&mut files.tokenizer_config, source.tokenizer_config);
    set(&mut files.chat_template, source.chat_template_file);
    set(&mut files.config, source.config);
    set(&mut files.generation_config, source.generation_config);
    let options = LoadOptions {
        chat_template: source.chat_template,
        max_model_length: source.max_model_length.map(|length| length as usize),
        max_bytes: source.max_bytes as usize,
    };
    Ok(Model::load(&files, &options)?)
}

/// Gives what loading used back to the system: the reference engine and the
/// parsed JSON are some 150 MB that glibc would keep.
#[allow(unsafe_code, reason = "a call into the C library")]
fn release_unused_memory() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's malloc_trim takes any pad, is thread-safe, and touches
        // only memory that the allocator knows to be free.
        unsafe {
            malloc_trim(0);
        }
    }
}

/// Decodes ids as they arrive; see `Model.decodeStream`.
#[napi]
pub struct NativeDecodeStream {
    shared: Arc<Shared>,
    stream: Option<DecodeStream>,
}

#[napi]
impl NativeDecodeStream {
    #[napi]
    pub fn push(&mut self, ids: Uint32Array) -> Outcome<String> {
        guarded(|| {
            let stream = self.stream.as_mut().ok_or_else(ended)?;
            Ok(stream.push(self.shared.model.tokenizer(), &ids)?)
        })
    }

    #[napi]
    pub fn finish(&mut self) -> Outcome<String> {
        guarded(|| {
            let stream = self.stream.take().ok_or_else(ended)?;
            Ok(stream.finish(self.shared.model.tokenizer())?)
        })
    }
}

fn ended() -> Failure {
    Failure::closed("decode stream")
}
