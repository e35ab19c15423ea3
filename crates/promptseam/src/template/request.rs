//! A chat completion request, as far as it can change the prompt.

use std::sync::Arc;

use super::{
    data::{Data, Key, Map},
    harmony, invalid, lax_bool,
    message::TemplateMessage,
    tools,
};
use crate::{
    error::{Error, ErrorKind, Result},
    json::{self, Json, Object},
};

/// A validated chat completion request: its messages and what it hands to the
/// chat template. Fields that cannot change the prompt are not looked at.
///
/// What is accepted and how it is read follows vLLM 0.32
/// (`ChatCompletionRequest` and its merging of template arguments).
#[derive(Clone, Debug)]
pub struct ChatRequest {
    pub(super) dialect: Dialect,
    pub(super) messages: Vec<Message>,
    pub(super) arguments: Arc<Arguments>,
    tool_choice: ToolChoice,
    add_special_tokens: bool,
    truncates: bool,
    brings_token_ids: bool,
}

/// Which way of vLLM's a request is read for. They accept different messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The way to a chat template.
    #[default]
    Template,
    /// The way to Harmony (gpt-oss).
    Harmony,
}

/// A message of a request, read in one dialect.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Template(TemplateMessage),
    /// As it is rendered.
    Harmony(Arc<Map>),
}

impl Message {
    /// Reads the message that is the `at`th of its request. O(n).
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub(crate) fn parse(at: usize, message: &Json<'_>, dialect: Dialect) -> Result<Self> {
        match dialect {
            Dialect::Template => TemplateMessage::parse(at, message).map(Self::Template),
            Dialect::Harmony => harmony::read(at, message).map(Self::Harmony),
        }
    }
}

/// What a template gets besides the messages.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arguments {
    pub(super) tools: Option<Data>,
    pub(super) documents: Option<Data>,
    pub(super) add_generation_prompt: bool,
    pub(super) continue_final_message: bool,
    /// The rest, by name.
    pub(super) named: Map,
}

/// Which tools the model may or must call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// None; the tools are still printed, as vLLM does by default.
    None,
    /// As the model likes.
    Auto,
    /// At least one.
    Required,
    /// The tool of this name.
    Named(String),
}

/// Names that vLLM consumes before the template is reached.
const CONSUMED: [&str; 7] = [
    "tokenize",
    "return_dict",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "tokenizer_kwargs",
];
/// Names that collide with arguments of the functions between.
const COLLIDING: [&str; 5] = [
    "conversation",
    "model_config",
    "tokenizer",
    "messages",
    "self",
];
/// Jinja's own globals, which vLLM does not let a request replace.
const GLOBALS: [&str; 6] = ["range", "dict", "lipsum", "cycler", "joiner", "namespace"];

const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

impl ChatRequest {
    /// Reads a request body for a chat template. O(n).
    ///
    /// # Errors
    /// `InvalidJson` and `InvalidUnicode` as [`json::parse`]; `InvalidRequest`,
    /// naming the path, where vLLM would refuse; `UnsupportedContent` for
    /// images, audio, video and files.
    pub fn parse(body: &[u8]) -> Result<Self> {
        Self::parse_as(body, Dialect::Template)
    }

    /// Reads a request body in a dialect, that of the
    /// [`Renderer`](super::Renderer) it is for. O(n).
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_as(body: &[u8], dialect: Dialect) -> Result<Self> {
        match json::parse(body)? {
            Json::Object(object) => Self::from_object(&object, dialect),
            _ => Err(Error::new(
                ErrorKind::InvalidRequest,
                "a chat request is a JSON object",
            )),
        }
    }

    /// Reads a request from its parsed body.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_object(body: &Object<'_>, dialect: Dialect) -> Result<Self> {
        let messages = match body.get("messages") {
            Some(Json::Array(items)) => items,
            Some(_) => return Err(invalid("messages", "must be a list")),
            None => return Err(invalid("messages", "is missing")),
        };
        if messages.is_empty() && dialect == Dialect::Template {
            return Err(invalid("messages", "must not be empty"));
        }
        let numbered = messages.iter().enumerate();
        let messages = numbered.map(|(at, message)| Message::parse(at, message, dialect));
        let head = Self::head(body, dialect)?;
        Ok(head.with_messages(messages.collect::<Result<_>>()?))
    }

    /// A request of everything but its messages.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn head(body: &Object<'_>, dialect: Dialect) -> Result<Self> {
        let tool_choice = tool_choice(body)?;
        let tools = match body.get("tools") {
            None | Some(Json::Null) => None,
            Some(Json::Array(items)) => Some(tools::request_tools(items)?),
            Some(_) => return Err(invalid("tools", "must be a list")),
        };
        Ok(Self {
            dialect,
            messages: Vec::new(),
            arguments: Arc::new(match dialect {
                Dialect::Template => arguments(body, tools)?,
                Dialect::Harmony => harmony::arguments(body, tools)?,
            }),
            tool_choice,
            add_special_tokens: flag(body, "add_special_tokens", false)?,
            truncates: set(body, "truncate_prompt_tokens"),
            brings_token_ids: body
                .get("kv_transfer_params")
                .and_then(Json::as_object)
                .is_some_and(|params| set(params, "prompt_token_ids")),
        })
    }

    /// The dialect that it was read in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The same request with other messages.
    pub(crate) fn with_messages(&self, messages: Vec<Message>) -> Self {
        Self {
            messages,
            arguments: self.arguments.clone(),
            tool_choice: self.tool_choice.clone(),
            ..*self
        }
    }

    /// The same request with or without a generation prompt.
    pub(crate) fn with_generation_prompt(&self, add: bool) -> Self {
        let arguments = Arguments {
            add_generation_prompt: add,
            ..(*self.arguments).clone()
        };
        Self {
            arguments: Arc::new(arguments),
            ..self.clone()
        }
    }

    pub(crate) fn tools(&self) -> Option<&Data> {
        self.arguments.tools.as_ref()
    }

    pub(crate) fn documents(&self) -> Option<&Data> {
        self.arguments.documents.as_ref()
    }

    /// Template arguments that have no place of their own.
    pub(crate) fn named_arguments(&self) -> &Map {
        &self.arguments.named
    }

    pub(crate) fn add_generation_prompt(&self) -> bool {
        self.arguments.add_generation_prompt
    }

    pub(crate) fn continue_final_message(&self) -> bool {
        self.arguments.continue_final_message
    }

    /// How many messages there are.
    pub fn message_count(&self) -> usize {
        self.messages.len()
    }

    /// Whether the template gets tools, which is what selects a `tool_use`
    /// template.
    pub fn has_tools(&self) -> bool {
        self.arguments.tools.is_some()
    }

    /// Which tools may be called. It does not change the prompt.
    pub fn tool_choice(&self) -> &ToolChoice {
        &self.tool_choice
    }

    /// Whether the tokenizer is to add its special tokens to the rendered text
    /// (`add_special_tokens`, false unless the request says so).
    pub fn add_special_tokens(&self) -> bool {
        self.add_special_tokens
    }

    /// Whether the server cuts the prompt after tokenizing it
    /// (`truncate_prompt_tokens`).
    pub fn truncates_prompt(&self) -> bool {
        self.truncates
    }

    /// Whether the request carries token ids that the server takes instead of
    /// its messages (`kv_transfer_params.prompt_token_ids`).
    pub fn brings_token_ids(&self) -> bool {
        self.brings_token_ids
    }
}

fn set(body: &Object<'_>, name: &str) -> bool {
    body.get(name).is_some_and(|value| !value.is_null())
}

pub(super) fn flag(body: &Object<'_>, name: &'static str, default: bool) -> Result<bool> {
    match body.get(name) {
        None => Ok(default),
        Some(value) => lax_bool(value).ok_or_else(|| invalid(name, "must be true or false")),
    }
}

fn tool_choice(body: &Object<'_>) -> Result<ToolChoice> {
    let path = "tool_choice";
    let tools = body.get("tools");
    if matches!(tools, Some(Json::Array(items)) if items.is_empty()) {
        return Err(invalid("tools", "must not be an empty list"));
    }
    let choice = match body.get(path) {
        None if tools.is_some_and(Json::is_truthy) => return Ok(ToolChoice::Auto),
        None | Some(Json::Null) => return Ok(ToolChoice::None),
        Some(choice) => choice,
    };
    if choice.as_str() == Some("none") {
        return Ok(ToolChoice::None);
    }
    let Some(Json::Array(tools)) = tools else {
        return Err(invalid(path, "needs tools"));
    };
    match choice {
        Json::String(text) if text == "auto" => Ok(ToolChoice::Auto),
        Json::String(text) if text == "required" => Ok(ToolChoice::Required),
        Json::Object(object) => {
            let name = object
                .get("function")
                .and_then(Json::as_object)
                .and_then(|function| function.get("name"))
                .and_then(Json::as_str)
                .filter(|name| !name.is_empty())
                .ok_or_else(|| invalid("tool_choice.function.name", "must be a tool's name"))?;
            if object
                .get("type")
                .is_some_and(|kind| kind.as_str() != Some("function"))
            {
                return Err(invalid("tool_choice.type", "must be \"function\""));
            }
            let known = tools.iter().any(|tool| tools::name(tool) == Some(name));
            if !known {
                return Err(invalid(path, "names none of the tools"));
            }
            Ok(ToolChoice::Named(name.to_owned()))
        }
        _ => Err(invalid(
            path,
            "must be \"none\", \"auto\", \"required\" or a named tool",
        )),
    }
}

fn arguments(body: &Object<'_>, tools: Option<Data>) -> Result<Arguments> {
    if set(body, "chat_template") {
        return Err(untrusted_template("chat_template"));
    }
    let add_generation_prompt = flag(body, "add_generation_prompt", true)?;
    let continue_final_message = flag(body, "continue_final_message", false)?;
    if continue_final_message && add_generation_prompt {
        return Err(invalid(
            "continue_final_message",
            "needs add_generation_prompt to be false",
        ));
    }
    let documents = match body.get("documents") {
        None | Some(Json::Null) => None,
        Some(value) => Some(documents(value)?),
    };
    let effort = match body.get("reasoning_effort") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) if EFFORTS.contains(&&**text) => Some(text),
        Some(_) => return Err(invalid("reasoning_effort", "is not a known effort")),
    };
    let mut arguments = Arguments {
        tools,
        documents: None,
        add_generation_prompt,
        continue_final_message,
        named: Map::default(),
    };
    let mut named = Vec::new();
    let mut thinking_given = false;
    match body.get("chat_template_kwargs") {
        None | Some(Json::Null) => {}
        Some(Json::Object(kwargs)) => {
            thinking_given = kwargs.contains_key("enable_thinking");
            let given = kwargs
                .iter()
                .filter(|(name, _)| *name != "documents" || documents.is_none());
            for (name, value) in given {
                template_argument(&mut arguments, &mut named, name, value)?;
            }
        }
        Some(_) => return Err(invalid("chat_template_kwargs", "must be an object")),
    }
    if documents.is_some() {
        arguments.documents = documents;
    }
    if let Some(effort) = effort {
        named.push(("reasoning_effort".into(), Data::str(effort)));
        if !thinking_given {
            named.push(("enable_thinking".into(), Data::Bool(effort != "none")));
        }
    }
    arguments.named = Map::new(named);
    Ok(arguments)
}

/// Sorts one of the request's template arguments in. `null` and `"auto"` count
/// as not given.
fn template_argument(
    arguments: &mut Arguments,
    named: &mut Vec<(Key, Data)>,
    name: &str,
    value: &Json<'_>,
) -> Result<()> {
    let path = || format!("chat_template_kwargs.{name}");
    if value.is_null() || value.as_str() == Some("auto") {
        return Ok(());
    }
    // transformers goes over tools and documents and insists on objects; what
    // is empty passes, whatever it is.
    let hollow = matches!(value, Json::Object(_) | Json::String(_)) && !value.is_truthy();
    let objects = || match value.as_array() {
        Some(items) if items.iter().all(|item| item.as_object().is_some()) => {
            Ok(Data::from_json(value))
        }
        None if hollow => Ok(Data::from_json(value)),
        _ => Err(invalid(&path(), "must be a list of objects")),
    };
    match name {
        "chat_template" => return Err(untrusted_template("chat_template_kwargs.chat_template")),
        "add_generation_prompt" | "continue_final_message" => {}
        "return_assistant_tokens_mask" if !value.is_truthy() => {}
        "return_assistant_tokens_mask" => {
            return Err(invalid(&path(), "is not supported"));
        }
        "tools" => {
            arguments.tools = Some(if hollow {
                Data::list(Vec::new())
            } else {
                objects()?
            })
        }
        "documents" => arguments.documents = Some(objects()?),
        _ if CONSUMED.contains(&name) || GLOBALS.contains(&name) => {}
        _ if COLLIDING.contains(&name) => {
            return Err(invalid(&path(), "is a name vLLM uses itself"));
        }
        _ => named.push((Arc::<str>::from(name).into(), Data::from_json(value))),
    }
    Ok(())
}

pub(super) fn documents(value: &Json<'_>) -> Result<Data> {
    let is_text = |value: &Json<'_>| value.as_str().is_some();
    match value.as_array() {
        Some(items)
            if items.iter().all(|item| {
                item.as_object()
                    .is_some_and(|object| object.iter().all(|(_, value)| is_text(value)))
            }) =>
        {
            Ok(Data::from_json(value))
        }
        _ => Err(invalid("documents", "must be a list of objects of strings")),
    }
}

fn untrusted_template(path: &str) -> Error {
    invalid(
        path,
        "is refused: the template is the model's (vLLM refuses it too, unless started with \
         --trust-request-chat-template)",
    )
}
