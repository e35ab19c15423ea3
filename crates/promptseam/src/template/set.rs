//! A model's chat templates by name, and its special tokens.

use super::ChatTemplate;
use crate::{
    error::{Error, ErrorKind, Result},
    json::Json,
};

/// The special tokens that templates print by name (`bos_token` and so on).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens(Vec<(&'static str, String)>);

/// The names transformers hands to a template.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl SpecialTokens {
    /// Those of a `tokenizer_config.json`: strings, or objects with `content`.
    /// Others are ignored.
    pub fn from_tokenizer_config(config: &Json<'_>) -> Self {
        let text = |name| match config.as_object()?.get(name)? {
            Json::String(text) => Some(text.to_string()),
            Json::Object(token) => token.get("content")?.as_str().map(str::to_owned),
            _ => None,
        };
        Self(
            NAMES
                .iter()
                .filter_map(|name| Some((*name, text(name)?)))
                .collect(),
        )
    }

    /// These, with those that only `other` has.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for (name, text) in other.0 {
            if self.get(name).is_none() {
                self.0.push((name, text));
            }
        }
        self
    }

    /// The text of the token called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| text)
    }

    /// Names and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, text)| (*name, text.as_str()))
    }
}

/// The chat templates of a model: one, or several by name.
#[derive(Debug)]
pub struct TemplateSet {
    default: Option<ChatTemplate>,
    tool_use: Option<ChatTemplate>,
}

impl TemplateSet {
    /// A set of one template for everything.
    pub fn single(template: ChatTemplate) -> Self {
        Self {
            default: Some(template),
            tool_use: None,
        }
    }

    /// The templates under `chat_template` in a tokenizer's configuration: a
    /// string, or a list of `{name, template}` of which `default` and
    /// `tool_use` count.
    ///
    /// # Errors
    /// `TemplateMissing` if there is none, `ModelFile` for any other shape, and
    /// what [`ChatTemplate::new`] gives.
    pub fn from_json(value: &Json<'_>, tokens: &SpecialTokens) -> Result<Self> {
        let entries = match value {
            Json::String(source) => return ChatTemplate::new(source, tokens).map(Self::single),
            Json::Array(entries) => entries,
            Json::Null => return Err(missing()),
            _ => return Err(misshapen()),
        };
        let mut sources = Vec::new();
        for entry in entries {
            let field = |name| entry.as_object()?.get(name)?.as_str();
            let (Some(name), Some(source)) = (field("name"), field("template")) else {
                return Err(misshapen());
            };
            sources.push((name, source));
        }
        Self::from_sources(sources, tokens)
    }

    /// The templates of `sources`, pairs of a name and a source, of which
    /// `default` and `tool_use` count. Of two with one name the last counts.
    ///
    /// # Errors
    /// `TemplateMissing` if none counts, and what [`ChatTemplate::new`] gives.
    pub fn from_sources<'a>(
        sources: impl IntoIterator<Item = (&'a str, &'a str)>,
        tokens: &SpecialTokens,
    ) -> Result<Self> {
        let mut set = Self {
            default: None,
            tool_use: None,
        };
        for (name, source) in sources {
            match name {
                "default" => set.default = Some(ChatTemplate::new(source, tokens)?),
                "tool_use" => set.tool_use = Some(ChatTemplate::new(source, tokens)?),
                _ => {}
            }
        }
        if set.default.is_none() && set.tool_use.is_none() {
            return Err(missing());
        }
        Ok(set)
    }

    /// The template for a request: `tool_use` if there is one and the request
    /// has tools, else `default`, as transformers chooses.
    ///
    /// # Errors
    /// `TemplateMissing` if there is no template for it.
    pub fn select(&self, has_tools: bool) -> Result<&ChatTemplate> {
        let tool_use = self.tool_use.as_ref().filter(|_| has_tools);
        tool_use.or(self.default.as_ref()).ok_or_else(missing)
    }

    /// All templates, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &ChatTemplate> {
        self.default.iter().chain(&self.tool_use)
    }
}

fn missing() -> Error {
    Error::new(
        ErrorKind::TemplateMissing,
        "the model has no default chat template",
    )
}

fn misshapen() -> Error {
    Error::new(
        ErrorKind::ModelFile,
        "chat_template must be a string or a list of {name, template}",
    )
}
