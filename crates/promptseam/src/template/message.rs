//! One message of a request: which shapes vLLM accepts, and how it reads them.
//!
//! vLLM validates a message against a union: a type per OpenAI role, whose
//! lists are only checked when they are read, and a catch-all type with all
//! fields, whose lists are checked at once. Of the types that fit, the one with
//! more fields set wins, OpenAI's on a tie. The two differ in which content
//! parts they allow, so the choice decides whether a message is accepted.

use std::sync::{Arc, LazyLock};

use super::{
    data::{Data, Key, Map},
    invalid, lax_bool, tools,
};
use crate::{
    error::{Error, ErrorKind, Result},
    json::{Json, Object},
};

/// A validated message.
#[derive(Clone, Debug)]
pub(crate) struct TemplateMessage {
    pub(super) role: Arc<str>,
    content: Vec<Part>,
    pub(super) tool_calls: Vec<Data>,
    /// Any value: vLLM does not insist on text here.
    pub(super) reasoning: Option<Data>,
    pub(super) tool_call_id: Option<Data>,
    name: Option<Data>,
    task: Option<Data>,
    /// A developer message's tools.
    tools: Data,
}

/// A piece of a message's content that vLLM turns into text, or hands on.
#[derive(Clone, Debug)]
enum Part {
    Text {
        text: Arc<str>,
        extra: Vec<(Key, Data)>,
    },
    ToolReference(Option<Arc<str>>),
    /// A text that is empty and no string: only seen by templates that get
    /// parts.
    Hollow {
        text: Data,
        extra: Vec<(Key, Data)>,
    },
}

/// How a template wants a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentFormat {
    /// One string, the parts joined by line feeds.
    String,
    /// A list of parts.
    Parts,
}

/// The field that made a type unfit, and what it should be.
type Misfit = (&'static str, &'static str);

/// Fields of content parts that are not handed on to a template.
const PART_FIELDS: [&str; 18] = [
    "audio_embeds",
    "audio_url",
    "closed",
    "data",
    "file",
    "image_embeds",
    "image_pil",
    "image_url",
    "input_audio",
    "name",
    "prompt_cache_breakpoint",
    "refusal",
    "text",
    "thinking",
    "type",
    "uuid",
    "video_embeds",
    "video_url",
];
/// Fields and types that make a part something else than text.
const MEDIA: [&str; 11] = [
    "image_url",
    "input_image",
    "image_pil",
    "image_embeds",
    "audio_url",
    "input_audio",
    "audio_embeds",
    "video_url",
    "video_embeds",
    "prompt_embeds",
    "file",
];

/// A header that some gateways put first in a system prompt; vLLM drops the
/// line, as it differs from request to request.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

impl TemplateMessage {
    /// Reads the message that is the `at`th of its request.
    ///
    /// # Errors
    /// As [`super::ChatRequest::parse`].
    pub(super) fn parse(at: usize, message: &Json<'_>) -> Result<Self> {
        Source::new(at, message)?.read()
    }

    /// The message as a template gets it.
    pub(super) fn prepare(&self, format: ContentFormat) -> Map {
        let mut entries: Vec<(Key, Data)> = Vec::with_capacity(6);
        entries.push(("role".into(), Data::Str(self.role.clone())));
        entries.push(("content".into(), self.content(format)));
        if !self.tool_calls.is_empty() {
            entries.push(("tool_calls".into(), Data::list(self.tool_calls.clone())));
        }
        if let Some(reasoning) = &self.reasoning {
            entries.push(("reasoning".into(), reasoning.clone()));
            entries.push(("reasoning_content".into(), reasoning.clone()));
        }
        let mut add = |key: &'static str, value: &Option<Data>| {
            entries.extend(value.clone().map(|value| (key.into(), value)));
        };
        add("tool_call_id", &self.tool_call_id);
        add("name", &self.name);
        add("task", &self.task);
        if &*self.role == "developer" {
            entries.push(("tools".into(), self.tools.clone()));
        }
        Map::new(entries)
    }

    /// The texts of its content, in order.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.content.iter().map(|part| &**part.text())
    }

    fn content(&self, format: ContentFormat) -> Data {
        let references = self
            .content
            .iter()
            .any(|part| matches!(part, Part::ToolReference(_)));
        match format {
            ContentFormat::Parts if &*self.role != "tool" || references => {
                Data::list(self.content.iter().map(Part::prepare).collect())
            }
            // Templates expect a tool's result to be text.
            ContentFormat::Parts => join(self.content.iter().map(Part::text)),
            ContentFormat::String => join(
                self.content
                    .iter()
                    .map(Part::text)
                    .filter(|text| !text.is_empty()),
            ),
        }
    }
}

/// The role as shared text; the usual ones are not allocated.
fn shared_role(role: &str) -> Arc<str> {
    static USUAL: LazyLock<[Arc<str>; 4]> =
        LazyLock::new(|| ["user", "assistant", "tool", "system"].map(Into::into));
    match USUAL.iter().find(|usual| &***usual == role) {
        Some(usual) => usual.clone(),
        None => role.into(),
    }
}

/// The texts with line feeds between; one text is shared, not copied.
fn join<'a>(mut texts: impl Iterator<Item = &'a Arc<str>> + Clone) -> Data {
    let rest = texts.clone().nth(1).is_some();
    match texts.next() {
        None => Data::str(""),
        Some(text) if !rest => Data::Str(text.clone()),
        Some(first) => {
            let mut joined = first.to_string();
            for text in texts {
                joined.push('\n');
                joined.push_str(text);
            }
            Data::Str(joined.into())
        }
    }
}

impl Part {
    fn text(&self) -> &Arc<str> {
        static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        match self {
            Self::Text { text, .. } => text,
            Self::ToolReference(Some(name)) => name,
            Self::ToolReference(None) | Self::Hollow { .. } => &EMPTY,
        }
    }

    fn prepare(&self) -> Data {
        match self {
            Self::Text { text, extra } => text_part(Data::Str(text.clone()), extra),
            Self::Hollow { text, extra } => text_part(text.clone(), extra),
            Self::ToolReference(name) => Data::map(vec![
                ("type".into(), Data::str("tool_reference")),
                ("name".into(), name.clone().map_or(Data::Null, Data::Str)),
            ]),
        }
    }
}

fn text_part(text: Data, extra: &[(Key, Data)]) -> Data {
    let mut entries: Vec<(Key, Data)> =
        vec![("type".into(), Data::str("text")), ("text".into(), text)];
    entries.extend(extra.iter().cloned());
    Data::map(entries)
}

/// A message as it came.
pub(super) struct Source<'m, 'a> {
    pub(super) at: usize,
    object: &'m Object<'a>,
    pub(super) role: &'m str,
}

impl<'m, 'a> Source<'m, 'a> {
    pub(super) fn new(at: usize, message: &'m Json<'a>) -> Result<Self> {
        let object = message
            .as_object()
            .ok_or_else(|| invalid(&format!("messages[{at}]"), "must be an object"))?;
        let role = object
            .get("role")
            .and_then(Json::as_str)
            .ok_or_else(|| invalid(&format!("messages[{at}].role"), "must be a string"))?;
        Ok(Self { at, object, role })
    }

    pub(super) fn get(&self, field: &str) -> Option<&'m Json<'a>> {
        self.object.get(field)
    }

    fn misfit(&self, (field, what): Misfit) -> Error {
        invalid(&format!("messages[{}].{field}", self.at), what)
    }

    fn read(&self) -> Result<TemplateMessage> {
        let calls = self.tool_calls()?;
        let general_wins = self.general_wins(calls)?;
        let assistant = self.role == "assistant";
        Ok(TemplateMessage {
            role: shared_role(self.role),
            content: self.content(general_wins)?,
            tool_calls: match calls {
                Some(calls) if assistant => self.function_calls(calls)?,
                _ => Vec::new(),
            },
            reasoning: self.reasoning().filter(|_| assistant).map(Data::from_json),
            tool_call_id: self
                .get("tool_call_id")
                .filter(|_| self.role == "tool")
                .map(Data::from_json),
            name: self.text("name"),
            task: self.text("task"),
            tools: match self.get("tools") {
                Some(Json::Array(tools)) if self.role == "developer" && general_wins => {
                    Data::list(tools.iter().map(tools::developer_tool).collect())
                }
                Some(value) if self.role == "developer" => Data::from_json(value),
                _ => Data::Null,
            },
        })
    }

    /// Whether the catch-all type wins over OpenAI's for the role.
    pub(super) fn general_wins(&self, calls: Option<&[Json<'a>]>) -> Result<bool> {
        match (self.general(calls), self.openai(calls)) {
            (Ok(general), Ok(openai)) => Ok(general > openai),
            (Ok(_), Err(())) => Ok(true),
            (Err(_), Ok(_)) => Ok(false),
            (Err(misfit), Err(())) => Err(self.unfit(misfit)),
        }
    }

    fn text(&self, field: &str) -> Option<Data> {
        self.get(field).and_then(Json::as_str).map(Data::str)
    }

    /// The reasoning under its new or its old name.
    pub(super) fn reasoning(&self) -> Option<&'m Json<'a>> {
        let given = |field| self.get(field).filter(|value| !value.is_null());
        given("reasoning").or_else(|| given("reasoning_content"))
    }

    /// The calls as a list. vLLM makes lists of other things that Python can
    /// iterate; their items are strings, so no valid calls.
    pub(super) fn tool_calls(&self) -> Result<Option<&'m [Json<'a>]>> {
        const NO_CALLS: &[Json<'_>] = &[Json::Null];
        match self.get("tool_calls") {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Array(calls)) => Ok(Some(calls)),
            Some(value @ (Json::Object(_) | Json::String(_))) => {
                Ok(Some(if value.is_truthy() { NO_CALLS } else { &[] }))
            }
            Some(_) => Err(self.misfit(("tool_calls", "must be a list of calls"))),
        }
    }

    fn function_calls(&self, calls: &[Json<'a>]) -> Result<Vec<Data>> {
        let read = |(at, call): (usize, &Json<'a>)| {
            let path = || format!("messages[{}].tool_calls[{at}]", self.at);
            match call.as_object() {
                Some(object) if tools::is_function_call(call) => tools::function_call(path, object),
                _ => Err(invalid(
                    &path(),
                    "must be a function call: id, type \"function\", function.name and \
                     function.arguments, all strings",
                )),
            }
        };
        calls.iter().enumerate().map(read).collect()
    }

    /// How many fields the type of this role sets, if the message fits it.
    fn openai(&self, calls: Option<&[Json<'a>]>) -> Result<usize, ()> {
        let text = |field| {
            self.get(field)
                .is_some_and(|value| value.as_str().is_some())
        };
        let absent_or_text = |field| self.get(field).is_none() || text(field);
        let count = |fields: &[&str]| fields.iter().filter(|f| self.get(f).is_some()).count();
        let fit = |fits: bool, fields: usize| if fits { Ok(1 + fields) } else { Err(()) };
        let iterable = matches!(
            self.get("content"),
            Some(Json::String(_) | Json::Array(_) | Json::Object(_))
        );
        match self.role {
            "developer" | "system" | "user" => fit(
                iterable && absent_or_text("name"),
                count(&["content", "name"]),
            ),
            "assistant" => {
                let content = iterable || self.get("content").is_none_or(Json::is_null);
                let audio = self.optional_object("audio", &["id"]);
                let call = self.optional_object("function_call", &["arguments", "name"]);
                let refusal =
                    absent_or_text("refusal") || self.get("refusal").is_some_and(Json::is_null);
                let has_calls = self.get("tool_calls").is_none() || calls.is_some();
                let fits = content && refusal && has_calls && absent_or_text("name");
                let fields = count(&[
                    "audio",
                    "content",
                    "function_call",
                    "name",
                    "refusal",
                    "tool_calls",
                ]);
                fit(
                    fits && audio.is_some() && call.is_some(),
                    fields + audio.unwrap_or(0) + call.unwrap_or(0),
                )
            }
            "tool" => fit(iterable && text("tool_call_id"), 2),
            "function" => {
                let content = text("content") || self.get("content").is_some_and(Json::is_null);
                fit(content && text("name"), 2)
            }
            _ => Err(()),
        }
    }

    /// The fields set in an optional object of texts; `None` if it does not
    /// fit.
    fn optional_object(&self, field: &str, texts: &[&str]) -> Option<usize> {
        match self.get(field) {
            None | Some(Json::Null) => Some(0),
            Some(Json::Object(object)) => texts
                .iter()
                .all(|text| {
                    object
                        .get(text)
                        .is_some_and(|value| value.as_str().is_some())
                })
                .then_some(texts.len()),
            Some(_) => None,
        }
    }

    /// How many fields the catch-all type sets, if the message fits it.
    fn general(&self, calls: Option<&[Json<'a>]>) -> Result<usize, Misfit> {
        let mut fields = 1;
        match self.get("content") {
            None => {}
            Some(Json::String(_)) => fields += 1,
            Some(Json::Array(parts)) => {
                fields += 1;
                for part in parts {
                    fields +=
                        part_fields(part).ok_or(("content", "holds a part of no known type"))?;
                }
            }
            Some(_) => return Err(("content", "must be a string or a list of parts")),
        }
        for (field, nullable) in [("name", false), ("tool_call_id", true), ("task", true)] {
            match self.get(field) {
                None => {}
                Some(Json::String(_)) => fields += 1,
                Some(Json::Null) if nullable => fields += 1,
                Some(_) => return Err((field, "must be a string")),
            }
        }
        match self.get("reasoning").or(self.reasoning()) {
            None => {}
            Some(Json::Null | Json::String(_)) => fields += 1,
            Some(_) if self.reasoning().is_some_and(|r| r.as_str().is_some()) => fields += 1,
            Some(_) => return Err(("reasoning", "must be a string")),
        }
        if self.get("tool_calls").is_some() {
            fields += 1;
        }
        for call in calls.unwrap_or_default() {
            if !tools::is_function_call(call) {
                return Err(("tool_calls", "holds something else than function calls"));
            }
            fields += 5;
        }
        match self.get("tools") {
            None => {}
            Some(Json::Null) => fields += 1,
            Some(Json::Array(tools)) if tools.iter().all(tools::is_developer_tool) => {
                fields += 1 + 3 * tools.len();
            }
            Some(_) => return Err(("tools", "must be a list of tools")),
        }
        Ok(fields)
    }

    fn unfit(&self, misfit: Misfit) -> Error {
        if let ("content", Some(Json::Array(parts))) = (misfit.0, self.get("content")) {
            for (at, part) in parts.iter().enumerate() {
                if part_fields(part).is_none() {
                    return self.bad_part(at, part);
                }
            }
        }
        self.misfit(misfit)
    }

    fn bad_part(&self, at: usize, part: &Json<'_>) -> Error {
        let path = format!("messages[{}].content[{at}]", self.at);
        if is_media(part) {
            return Error::new(
                ErrorKind::UnsupportedContent,
                format!("{path} is not text: images, audio, video and files are not supported"),
            );
        }
        invalid(&path, "must be a text part")
    }

    fn content(&self, general: bool) -> Result<Vec<Part>> {
        let parts = match self.get("content") {
            Some(Json::String(text)) => {
                let part = self.text_part(text, Vec::new());
                return Ok(part.into_iter().collect());
            }
            Some(Json::Array(parts)) => parts,
            Some(Json::Object(object)) if !object.is_empty() => {
                return Err(self.misfit(("content", "must be a string or a list of parts")));
            }
            _ => return Ok(Vec::new()),
        };
        let mut content = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            if !general && !self.role_allows(part) {
                return Err(self.bad_part(at, part));
            }
            let read = match part {
                Json::String(text) => self.text_part(text, Vec::new()),
                Json::Object(object) => self.object_part(at, part, object)?,
                _ => return Err(self.bad_part(at, part)),
            };
            content.extend(read);
        }
        Ok(content)
    }

    /// Whether the type of this role allows `part`.
    pub(super) fn role_allows(&self, part: &Json<'_>) -> bool {
        let Some(object) = part.as_object() else {
            return false;
        };
        let kind = object.get("type").and_then(Json::as_str);
        let allowed = kind == Some("text") || kind == Some("refusal") && self.role == "assistant";
        allowed && typed_fields(object).is_some()
    }

    fn object_part(&self, at: usize, part: &Json<'_>, object: &Object<'_>) -> Result<Option<Part>> {
        let bad = || self.bad_part(at, part);
        let reference = || match object.get("name") {
            None | Some(Json::Null) => Ok(Some(Part::ToolReference(None))),
            Some(Json::String(name)) => Ok(Some(Part::ToolReference(Some(name.as_ref().into())))),
            Some(_) => Err(bad()),
        };
        let given = |field| object.get(field).filter(|value| !value.is_null());
        if given("uuid").is_some() || given("type").is_none() {
            return match object.contains_key("tool_reference") && !has_media_field(object) {
                true => reference(),
                false => Err(bad()),
            };
        }
        let text = match object.get("type").and_then(Json::as_str) {
            Some("tool_reference") => return reference(),
            Some("text" | "input_text" | "output_text") => given("text"),
            Some("refusal") => given("refusal"),
            Some("thinking") => given("thinking"),
            _ => return Err(bad()),
        };
        let kind = object.get("type").and_then(Json::as_str);
        let extra: Vec<_> = object
            .iter()
            .filter(|(key, _)| !PART_FIELDS.contains(key))
            .map(|(key, value)| (Arc::<str>::from(key).into(), Data::from_json(value)))
            .collect();
        match text {
            Some(Json::String(text)) if kind == Some("text") => Ok(self.text_part(text, extra)),
            Some(Json::String(text)) => Ok(Some(Part::Text {
                text: text.as_ref().into(),
                extra,
            })),
            None if matches!(kind, Some("text" | "refusal")) => Ok(None),
            None => Ok(Some(Part::Hollow {
                text: Data::Null,
                extra,
            })),
            Some(value) if !value.is_truthy() => Ok(Some(Part::Hollow {
                text: Data::from_json(value),
                extra,
            })),
            Some(_) => Err(bad()),
        }
    }

    /// A text, less the billing header of a system message.
    fn text_part(&self, text: &str, extra: Vec<(Key, Data)>) -> Option<Part> {
        let text = match self.role {
            "system" if text.starts_with(BILLING_HEADER) => {
                let (_, rest) = text.split_once('\n')?;
                Some(rest).filter(|rest| !rest.is_empty())?
            }
            _ => text,
        };
        Some(Part::Text {
            text: text.into(),
            extra,
        })
    }
}

/// How many fields a part sets in the catch-all type's union, if it fits. Some
/// of the union's types have no required field, so every object fits one.
fn part_fields(part: &Json<'_>) -> Option<usize> {
    match part {
        Json::String(_) => Some(0),
        Json::Object(object) => {
            let uuid = object.get("uuid");
            let loose = uuid.is_some_and(|uuid| uuid.is_null() || uuid.as_str().is_some());
            let fields = typed_fields(object).unwrap_or(0).max(usize::from(loose));
            Some(fields.max(media_fields(object)))
        }
        _ => None,
    }
}

/// As [`part_fields`], for the types of media: image, audio, video, file.
fn media_fields(object: &Object<'_>) -> usize {
    let set = |field| usize::from(object.contains_key(field));
    let kind = object
        .get("type")
        .and_then(Json::as_str)
        .unwrap_or_default();
    let inner = object.get(kind).and_then(Json::as_object);
    let text =
        |field| inner.is_some_and(|inner| inner.get(field).is_some_and(|v| v.as_str().is_some()));
    let typed = match kind {
        "image_url" | "audio_url" | "video_url" if text("url") => 3,
        "input_audio" if text("data") && text("format") => 4,
        "file" if inner.is_some() => 2,
        "image_embeds" | "audio_embeds" | "video_embeds" => 1 + set(kind),
        "prompt_embeds" => 1 + set("data"),
        _ => 0,
    };
    let address = |value: &Json<'_>| value.is_null() || value.as_str().is_some();
    let untyped = ["image_url", "audio_url", "video_url"]
        .into_iter()
        .any(|field| object.get(field).is_some_and(address));
    typed.max(usize::from(untyped))
}

/// As [`part_fields`], for the types that ask for something.
fn typed_fields(object: &Object<'_>) -> Option<usize> {
    let text = |field| {
        object
            .get(field)
            .is_some_and(|value| value.as_str().is_some())
    };
    let kind = match object.get("type") {
        None => "tool_reference",
        Some(kind) => kind.as_str()?,
    };
    match kind {
        "text" if text("text") => match object.get("prompt_cache_breakpoint") {
            None => Some(2),
            Some(Json::Object(point)) => {
                let mode = point.get("mode").and_then(Json::as_str) == Some("explicit");
                let ttl = point
                    .get("ttl")
                    .is_none_or(|ttl| matches!(ttl.as_str(), Some("30m" | "12h")));
                (mode && ttl).then_some(4)
            }
            Some(_) => None,
        },
        "refusal" if text("refusal") => Some(2),
        "thinking" if text("thinking") => match object.get("closed") {
            None => Some(2),
            Some(closed) => lax_bool(closed).map(|_| 3),
        },
        "tool_reference" if text("name") || !object.contains_key("name") => {
            let set = |field| usize::from(object.contains_key(field));
            Some(set("type") + set("name"))
        }
        _ => None,
    }
}

fn has_media_field(object: &Object<'_>) -> bool {
    MEDIA.iter().any(|field| object.contains_key(field))
}

fn is_media(part: &Json<'_>) -> bool {
    part.as_object().is_some_and(|object| {
        let kind = object.get("type").and_then(Json::as_str);
        kind.is_some_and(|kind| MEDIA.contains(&kind)) || has_media_field(object)
    })
}
