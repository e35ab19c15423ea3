//! Finding and reading the files of a Hugging Face model folder.

use std::{
    env, fs,
    io::ErrorKind as IoErrorKind,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// No file of a model that is read here is larger; the largest tokenizers in
/// use have 35 MB.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Where a model's files are. Paths set here win over the folder's own.
#[derive(Clone, Debug, Default)]
pub struct ModelFiles {
    /// A folder in Hugging Face's layout.
    pub folder: Option<PathBuf>,
    /// `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<PathBuf>,
    /// The chat template: a Jinja file, or a JSON file with `chat_template`.
    pub chat_template: Option<PathBuf>,
    /// `config.json`.
    pub config: Option<PathBuf>,
    /// `generation_config.json`.
    pub generation_config: Option<PathBuf>,
}

impl ModelFiles {
    /// A folder, or `org/name[@revision]` in the local Hugging Face cache.
    /// Nothing is fetched.
    ///
    /// # Errors
    /// `ModelNotFound` when there is neither.
    pub fn locate(name: &str) -> Result<Self> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::folder(path));
        }
        match cached_snapshot(name) {
            Some(snapshot) => Ok(Self::folder(&snapshot)),
            None => Err(Error::new(
                ErrorKind::ModelNotFound,
                format!(
                    "There is no model folder at {name:?}{}. Give the path of a folder with \
                     tokenizer.json, or download the model into the Hugging Face cache first.",
                    if is_repo_name(name) {
                        ", and the local Hugging Face cache has no snapshot of that name"
                    } else {
                        ""
                    }
                ),
            )),
        }
    }

    fn folder(path: &Path) -> Self {
        Self {
            folder: Some(path.to_owned()),
            ..Self::default()
        }
    }

    /// The bytes of `tokenizer.json`.
    pub(super) fn read_tokenizer(&self) -> Result<Vec<u8>> {
        if let Some(bytes) = self.read(self.tokenizer.as_deref(), "tokenizer.json")? {
            return Ok(bytes);
        }
        let Some(folder) = &self.folder else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "No tokenizer was given: name a model folder or a tokenizer.json.",
            ));
        };
        let other = [
            "tokenizer.model",
            "tiktoken.model",
            "vocab.json",
            "vocab.txt",
            "tekken.json",
        ]
        .into_iter()
        .find(|name| folder.join(name).exists());
        Err(match other {
            Some(name) => Error::new(
                ErrorKind::TokenizerUnsupported,
                format!(
                    "The model has {name} but no tokenizer.json. Convert it once: \
                     AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
                ),
            ),
            None => Error::new(
                ErrorKind::ModelFile,
                format!("The folder {} has no tokenizer.json.", folder.display()),
            ),
        })
    }

    pub(super) fn read_tokenizer_config(&self) -> Result<Option<Value>> {
        self.read_json(self.tokenizer_config.as_deref(), "tokenizer_config.json")
    }

    pub(super) fn read_special_tokens_map(&self) -> Result<Option<Value>> {
        self.read_json(None, "special_tokens_map.json")
    }

    pub(super) fn read_config(&self) -> Result<Option<Value>> {
        self.read_json(self.config.as_deref(), "config.json")
    }

    pub(super) fn read_generation_config(&self) -> Result<Option<Value>> {
        self.read_json(self.generation_config.as_deref(), "generation_config.json")
    }

    /// The chat templates by name, `default` among them, in the order in which
    /// transformers 5 looks: chat_template.jinja with
    /// additional_chat_templates/, chat_template.json, tokenizer_config.json.
    pub(super) fn read_templates(&self, config: Option<&Value>) -> Result<Vec<(String, String)>> {
        if let Some(path) = &self.chat_template {
            let text = text_of(read_file(path)?.ok_or_else(|| missing(path))?, path)?;
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let json: Value = serde_json::from_str(&text).map_err(|e| not_json(path, &e))?;
                return Ok(named_templates(json.get("chat_template")));
            }
            return Ok(vec![("default".to_owned(), text)]);
        }
        if let Some(folder) = &self.folder {
            let mut templates = Vec::new();
            let main = folder.join("chat_template.jinja");
            if let Some(bytes) = read_file(&main)? {
                templates.push(("default".to_owned(), text_of(bytes, &main)?));
            }
            if let Ok(entries) = fs::read_dir(folder.join("additional_chat_templates")) {
                for path in entries.flatten().map(|entry| entry.path()) {
                    let name = path.file_stem().and_then(|stem| stem.to_str());
                    if let (Some(name), true) =
                        (name, path.extension().is_some_and(|e| e == "jinja"))
                        && let Some(bytes) = read_file(&path)?
                    {
                        templates.push((name.to_owned(), text_of(bytes, &path)?));
                    }
                }
            }
            if !templates.is_empty() {
                templates.sort();
                return Ok(templates);
            }
            if let Some(json) = self.read_json(None, "chat_template.json")? {
                return Ok(named_templates(json.get("chat_template")));
            }
        }
        Ok(named_templates(
            config.and_then(|config| config.get("chat_template")),
        ))
    }

    fn read_json(&self, given: Option<&Path>, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.read(given, name)? else {
            return Ok(None);
        };
        let path = given.map_or_else(|| PathBuf::from(name), Path::to_owned);
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Some(value)),
            Ok(_) => Err(Error::new(
                ErrorKind::ModelFile,
                format!("{} is not a JSON object.", path.display()),
            )),
            Err(e) => Err(not_json(&path, &e)),
        }
    }

    /// A file that was given must be there; one of the folder may be missing.
    fn read(&self, given: Option<&Path>, name: &str) -> Result<Option<Vec<u8>>> {
        match (given, &self.folder) {
            (Some(path), _) => read_file(path)?.ok_or_else(|| missing(path)).map(Some),
            (None, Some(folder)) => read_file(&folder.join(name)),
            (None, None) => Ok(None),
        }
    }
}

fn missing(path: &Path) -> Error {
    Error::new(
        ErrorKind::ModelFile,
        format!("There is no file {}.", path.display()),
    )
}

fn not_json(path: &Path, e: &serde_json::Error) -> Error {
    Error::new(
        ErrorKind::ModelFile,
        format!(
            "{} is not JSON (line {}, column {}); download it again.",
            path.display(),
            e.line(),
            e.column()
        ),
    )
}

fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| {
        Error::new(
            ErrorKind::ModelFile,
            format!("{} is not UTF-8 text.", path.display()),
        )
    })
}

/// The bytes of a file; `None` where there is none.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let unreadable = |e: std::io::Error| {
        Error::new(
            ErrorKind::ModelFile,
            format!("{} cannot be read: {e}.", path.display()),
        )
        .with_source(e)
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "{} has {} bytes; a model's file may have {MAX_FILE_BYTES}.",
                path.display(),
                metadata.len()
            ),
        ));
    }
    fs::read(path).map(Some).map_err(unreadable)
}

/// A `chat_template` entry: one template, or a list of named ones.
fn named_templates(entry: Option<&Value>) -> Vec<(String, String)> {
    match entry {
        Some(Value::String(source)) => vec![("default".to_owned(), source.clone())],
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|item| {
                let name = item.get("name")?.as_str()?;
                let source = item.get("template")?.as_str()?;
                Some((name.to_owned(), source.to_owned()))
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn is_repo_name(name: &str) -> bool {
    let (name, _) = name.split_once('@').unwrap_or((name, ""));
    let mut parts = name.split('/');
    let part_is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let (first, second) = (parts.next(), parts.next());
    parts.next().is_none() && first.is_some_and(part_is_plain) && second.is_none_or(part_is_plain)
}

/// The snapshot folder of `org/name[@revision]` in huggingface_hub's cache,
/// found as huggingface_hub 1.x finds it.
fn cached_snapshot(name: &str) -> Option<PathBuf> {
    if !is_repo_name(name) {
        return None;
    }
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    if revision.contains("..") {
        return None;
    }
    let repo = hub_cache()?.join(format!("models--{}", name.replace('/', "--")));
    let commit = fs::read_to_string(repo.join("refs").join(revision))
        .map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
    let snapshot = repo.join("snapshots").join(commit);
    snapshot.is_dir().then_some(snapshot)
}

fn hub_cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")) {
        return Some(cache.into());
    }
    if let Some(home) = set("HF_HOME") {
        return Some(Path::new(&home).join("hub"));
    }
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&set("HOME")?).join(".cache")))?;
    Some(cache.join("huggingface").join("hub"))
}
