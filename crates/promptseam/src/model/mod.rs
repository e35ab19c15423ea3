//! A model as far as its prompts are concerned: tokenizer, chat template, and
//! the limits of its context.

mod files;
mod render;

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

pub use files::ModelFiles;
pub use render::RenderOptions;

use crate::{
    error::{Error, ErrorKind, Result},
    json,
    template::{Harmony, Renderer, SpecialTokens, TemplateSet},
    tokenizer::{Tokenizer, TokenizerOptions},
};

/// The largest request body and the largest text that are taken, unless
/// [`LoadOptions`] says otherwise: some ten million tokens.
pub const DEFAULT_MAX_BYTES: usize = 32 << 20;

/// How to load a [`Model`].
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A chat template's source, instead of the model's own.
    pub chat_template: Option<String>,
    /// The longest prompt in tokens, instead of the one in `config.json`: what
    /// the server was started with (`--max-model-len`).
    pub max_model_length: Option<usize>,
    /// The largest request body or text in bytes.
    pub max_bytes: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            chat_template: None,
            max_model_length: None,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

/// A loaded model. `Send + Sync`; every method takes `&self`.
#[derive(Debug)]
pub struct Model {
    /// Told apart from every other model of the process.
    instance: u64,
    tokenizer: Tokenizer,
    renderer: Option<Renderer>,
    stop_token_ids: Vec<u32>,
    max_model_length: Option<usize>,
    max_bytes: usize,
}

impl Model {
    /// Loads a model from its files. Reads nothing else and fetches nothing.
    ///
    /// Missing parts are handled: without a chat template everything but
    /// [`render`](Self::render) works, without `config.json` the context has no
    /// known limit.
    ///
    /// # Errors
    /// `ModelFile`, `TokenizerUnsupported`, `TemplateSyntax`.
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self> {
        let tokenizer_config = files.read_tokenizer_config()?;
        let config = files.read_config()?;
        let generation_config = files.read_generation_config()?;

        let tokens = special_tokens(tokenizer_config.as_ref())?
            .or(special_tokens(files.read_special_tokens_map()?.as_ref())?);
        let text_config = config
            .as_ref()
            .map(|config| match config.get("text_config") {
                Some(text) if text.is_object() => text,
                _ => config,
            });
        let number = |name: &str| text_config?.get(name)?.as_u64();
        let tokenizer = Tokenizer::load(
            &files.read_tokenizer()?,
            TokenizerOptions {
                config: tokenizer_config.as_ref(),
                embedding_rows: number("vocab_size").and_then(|rows| rows.try_into().ok()),
                reference_only: false,
            },
        )?;

        let stop_token_ids = ids_at(generation_config.as_ref(), "eos_token_id")
            .or_else(|| ids_at(text_config, "eos_token_id"))
            .or_else(|| Some(vec![tokenizer.token_to_id(tokens.get("eos_token")?)?]))
            .unwrap_or_default();
        // vLLM decides by the type alone: a chat template, the model's own or
        // one that was given, is not looked at.
        let is_harmony = config
            .as_ref()
            .is_some_and(|config| config.get("model_type") == Some(&"gpt_oss".into()));
        let renderer = if is_harmony {
            let harmony = Harmony::new(|literal| tokenizer.token_to_id(literal))?;
            Some(Renderer::Harmony(harmony))
        } else {
            let sources = match &options.chat_template {
                Some(source) => vec![("default".to_owned(), source.clone())],
                None => files.read_templates(tokenizer_config.as_ref())?,
            };
            templates(&sources, &tokens)?.map(Renderer::Template)
        };
        // Where the model has no config.json, the tokenizer's own limit; some
        // give an absurd one for "none".
        let of_tokenizer = || {
            let length = tokenizer_config
                .as_ref()?
                .get("model_max_length")?
                .as_u64()?;
            (length < 1 << 32).then_some(length)
        };
        let max_model_length = options.max_model_length.or_else(|| {
            let length = number("max_position_embeddings").or_else(of_tokenizer)?;
            usize::try_from(length).ok()
        });
        // 0 is nobody.
        static INSTANCES: AtomicU64 = AtomicU64::new(1);
        Ok(Self {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            tokenizer,
            renderer,
            stop_token_ids,
            max_model_length,
            max_bytes: options.max_bytes,
        })
    }

    /// A number that no other model of the process has.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What renders requests: Harmony for models of type `gpt_oss`, else the
    /// chat templates.
    ///
    /// # Errors
    /// `TemplateMissing` if the model has none.
    pub fn renderer(&self) -> Result<&Renderer> {
        self.renderer.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::TemplateMissing,
                "The model has no chat template: neither chat_template.jinja, chat_template.json \
                 nor tokenizer_config.json brings one. Give one when loading it.",
            )
        })
    }

    /// Ids that end an answer (`generation_config.json`).
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stop_token_ids
    }

    /// The longest prompt, in tokens, where it is known.
    pub fn max_model_length(&self) -> Option<usize> {
        self.max_model_length
    }

    /// Fails if `bytes` of input are more than are taken.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn check_bytes(&self, bytes: usize) -> Result<()> {
        if bytes > self.max_bytes {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "The input has {bytes} bytes, more than the {} that are taken; \
                     raise maxBytes when loading the model if that is wanted.",
                    self.max_bytes
                ),
            ));
        }
        Ok(())
    }
}

fn templates(sources: &[(String, String)], tokens: &SpecialTokens) -> Result<Option<TemplateSet>> {
    if sources.is_empty() {
        return Ok(None);
    }
    let sources = sources.iter().map(|(name, source)| (&**name, &**source));
    TemplateSet::from_sources(sources, tokens).map(Some)
}

fn special_tokens(config: Option<&Value>) -> Result<SpecialTokens> {
    let Some(config) = config else {
        return Ok(SpecialTokens::default());
    };
    // Only the seven names are looked at; the rest of the file can be large.
    let named: serde_json::Map<String, Value> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.ends_with("_token"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let text = Value::Object(named).to_string();
    Ok(SpecialTokens::from_tokenizer_config(&json::parse(
        text.as_bytes(),
    )?))
}

/// An id or a list of ids.
fn ids_at(config: Option<&Value>, name: &str) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match config?.get(name)? {
        Value::Array(ids) => Some(ids.iter().filter_map(id).collect()),
        value => Some(vec![id(value)?]),
    }
}
