//! A `tokenizer.json` as both engines are to read it: parsed once, with what a
//! serving stack overrides on every call taken out.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// An entry of the added vocabulary: a literal that is looked for in the text
/// before anything else and becomes one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// The id it becomes.
    pub id: u32,
    /// The literal.
    pub content: String,
    /// Matches only between non-word characters.
    pub single_word: bool,
    /// Takes the white space before it.
    pub lstrip: bool,
    /// Takes the white space after it.
    pub rstrip: bool,
    /// Is looked for in the normalized text, after all that are not.
    pub normalized: bool,
    /// Is left out by decoders that skip special tokens.
    pub special: bool,
}

/// The parsed `tokenizer.json`, with added tokens of `tokenizer_config.json`
/// merged in.
pub(crate) struct Definition {
    pub(crate) json: Value,
    pub(crate) added: Vec<AddedToken>,
    /// Those of `added` that are not in `tokenizer.json` as they stand here.
    pub(crate) merged: Vec<AddedToken>,
}

impl Definition {
    /// Parses `tokenizer_json` and merges `added_tokens_decoder` of
    /// `tokenizer_config`, as transformers 5 does: new literals are added, known
    /// ones take the flags given there.
    pub(crate) fn parse(tokenizer_json: &[u8], tokenizer_config: Option<&Value>) -> Result<Self> {
        let mut json: Value = serde_json::from_slice(tokenizer_json).map_err(|e| {
            broken(format!(
                "it is not JSON (line {}, column {})",
                e.line(),
                e.column()
            ))
        })?;
        let root = json
            .as_object_mut()
            .ok_or_else(|| broken("it is not a JSON object"))?;

        let mut added = added_tokens(root.get("added_tokens"))?;
        let merged = tokenizer_config.map_or_else(Vec::new, |c| merge_decoder(&mut added, c));
        root.insert("added_tokens".into(), added.iter().map(to_json).collect());

        // Serving stacks turn both off on every call; tokenizers would apply them.
        root.insert("truncation".into(), Value::Null);
        root.insert("padding".into(), Value::Null);

        if root.get("normalizer").is_some_and(is_noop_normalizer) {
            root.insert("normalizer".into(), Value::Null);
        }
        let model = root
            .get_mut("model")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| broken("it has no `model` object"))?;
        if model_kind(model) == "BPE" {
            // fastokens 0.3.5 takes the type and this flag as given; tokenizers
            // takes an absent type as BPE and an absent flag as false.
            model.entry("type").or_insert_with(|| "BPE".into());
            let merges_ignored = model
                .entry("ignore_merges")
                .or_insert(Value::Bool(false))
                .as_bool();
            if merges_ignored != Some(true) {
                drop_added(model, &added);
            }
        }
        Ok(Self {
            json,
            added,
            merged,
        })
    }
}

/// The `type` of the model, such as `BPE`; empty where there is none.
pub(crate) fn model_kind_of(json: &Value) -> &str {
    json["model"].as_object().map_or("", model_kind)
}

/// Takes added tokens out of a BPE vocabulary that lists them too, behind a gap
/// in its ids, as o200k's does: fastokens takes only ids without gaps. The
/// battery tells if the model could give one after all.
fn drop_added(model: &mut Map<String, Value>, added: &[AddedToken]) {
    let Some(vocabulary) = model.get_mut("vocab").and_then(Value::as_object_mut) else {
        return;
    };
    let mut taken = vec![false; vocabulary.len() + 1];
    for id in vocabulary.values().filter_map(Value::as_u64) {
        if let Some(taken) = usize::try_from(id).ok().and_then(|id| taken.get_mut(id)) {
            *taken = true;
        }
    }
    let gap = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
    for token in added.iter().filter(|token| token.id as usize > gap) {
        let listed = vocabulary.get(&token.content).and_then(Value::as_u64);
        if listed == Some(token.id.into()) {
            vocabulary.swap_remove(&token.content);
        }
    }
}

fn model_kind(model: &Map<String, Value>) -> &str {
    match model.get("type").and_then(Value::as_str) {
        Some(kind) => kind,
        None if model.contains_key("merges") => "BPE",
        None => "",
    }
}

fn broken(what: impl AsRef<str>) -> Error {
    Error::new(
        ErrorKind::ModelFile,
        format!("tokenizer.json cannot be used: {}.", what.as_ref()),
    )
}

fn added_tokens(list: Option<&Value>) -> Result<Vec<AddedToken>> {
    let list = match list {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(broken("`added_tokens` is not a list")),
    };
    list.iter()
        .map(|entry| {
            let id = entry.get("id").and_then(Value::as_u64);
            let id = id.and_then(|id| u32::try_from(id).ok());
            id.and_then(|id| added_token(id, entry))
                .ok_or_else(|| broken("an entry of `added_tokens` lacks its id or content"))
        })
        // tokenizers ignores empty literals; they would match everywhere.
        .filter(|token| !matches!(token, Ok(token) if token.content.is_empty()))
        .collect()
}

fn added_token(id: u32, entry: &Value) -> Option<AddedToken> {
    let flag = |name| entry.get(name).and_then(Value::as_bool).unwrap_or(false);
    let special = flag("special");
    Some(AddedToken {
        id,
        content: entry.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word"),
        lstrip: flag("lstrip"),
        rstrip: flag("rstrip"),
        // tokenizers 0.23: absent means true for ordinary tokens only.
        normalized: entry
            .get("normalized")
            .and_then(Value::as_bool)
            .unwrap_or(!special),
        special,
    })
}

/// Merges `added_tokens_decoder`; returns the tokens that were new or had other
/// flags, in order of their ids.
fn merge_decoder(added: &mut Vec<AddedToken>, config: &Value) -> Vec<AddedToken> {
    let Some(decoder) = config
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
    else {
        return Vec::new();
    };
    let by_content: HashMap<String, usize> = added
        .iter()
        .enumerate()
        .map(|(index, token)| (token.content.clone(), index))
        .collect();
    let mut ids: HashSet<u32> = added.iter().map(|token| token.id).collect();
    let mut merged: Vec<AddedToken> = decoder
        .iter()
        .filter_map(|(id, entry)| added_token(id.parse().ok()?, entry))
        .filter(|token| !token.content.is_empty())
        .collect();
    merged.sort_by_key(|token| token.id);
    merged.retain(|token| match by_content.get(&token.content) {
        Some(&index) => {
            // The id stays: tokenizers looks a literal's id up before giving a new one.
            let token = AddedToken {
                id: added[index].id,
                ..token.clone()
            };
            let changed = added[index] != token;
            added[index] = token;
            changed
        }
        None => {
            let new = ids.insert(token.id);
            if new {
                added.push(token.clone());
            }
            new
        }
    });
    merged
}

fn to_json(token: &AddedToken) -> Value {
    serde_json::json!({
        "id": token.id,
        "content": token.content,
        "single_word": token.single_word,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.special,
    })
}

/// Whether `normalizer` returns every text as it is.
fn is_noop_normalizer(normalizer: &Value) -> bool {
    match normalizer {
        Value::Null => true,
        _ => match normalizer.get("normalizers") {
            Some(Value::Array(steps)) => steps.iter().all(is_noop_normalizer),
            _ => false,
        },
    }
}
