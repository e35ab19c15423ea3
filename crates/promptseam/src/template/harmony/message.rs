//! Messages as vLLM 0.32 reads them for Harmony.
//!
//! It works on the validated message itself, without the preparation that
//! templates get. What it sees of a list of parts depends on the type that won
//! the validation (see [`message`](crate::template::message)): the catch-all
//! type gives a list; OpenAI's gives an iterator, which only user and plain
//! assistant messages are read from, and which is no content elsewhere. A part
//! that is not text, an image say, counts as empty text there, and so here.

use std::sync::Arc;

use super::reserved;
use crate::{
    error::Result,
    json::Json,
    template::{
        data::{Data, Key, Map},
        invalid,
        message::Source,
        tools,
    },
};

/// Reads the message at `at`. What follows from the other messages (dropped
/// analysis, a result's function name) is left to the rendering.
pub(in crate::template) fn read(at: usize, message: &Json<'_>) -> Result<Arc<Map>> {
    let source = Source::new(at, message)?;
    let calls = source.tool_calls()?;
    let reader = Reader {
        general: source.general_wins(calls)?,
        source,
        calls,
    };
    reader.read().map(|entries| Arc::new(Map::new(entries)))
}

struct Reader<'m, 'a> {
    source: Source<'m, 'a>,
    calls: Option<&'m [Json<'a>]>,
    /// The catch-all type won.
    general: bool,
}

impl<'a> Reader<'_, 'a> {
    fn read(&self) -> Result<Vec<(Key, Data)>> {
        let role = self.source.role;
        let mut entries: Vec<(Key, Data)> = vec![("role".into(), Data::str(role))];
        let mut add = |key: &'static str, value| entries.push((key.into(), value));
        match role {
            "system" | "developer" => {
                // The first one's content is not looked at otherwise.
                if self.source.at > 0 {
                    self.texts()?;
                }
                add("content", self.joined()?.map_or(Data::Null, Data::Str));
            }
            "user" => add("content", texts_as_data(self.texts()?)),
            "assistant" => {
                let calls = self.calls.is_some_and(|calls| !calls.is_empty());
                let content = if calls {
                    self.joined()?
                        .filter(|text| !text.is_empty())
                        .map(Data::Str)
                } else {
                    let texts = self.texts()?;
                    let printed = texts.first().is_some_and(|first| !first.is_empty());
                    printed.then(|| texts_as_data(texts))
                };
                add("content", content.unwrap_or(Data::Null));
                if let Some(reasoning) = self.reasoning()? {
                    add("reasoning", reasoning);
                }
            }
            "tool" => {
                add("content", self.joined()?.map_or(Data::str(""), Data::Str));
                if let Some(id) = self.source.get("tool_call_id").and_then(Json::as_str) {
                    add("tool_call_id", Data::str(id));
                }
            }
            _ => {
                return Err(invalid(
                    &self.path("role"),
                    "must be user, assistant, system, developer or tool",
                ));
            }
        }
        let calls = self.function_calls()?;
        if !calls.is_empty() {
            add("tool_calls", Data::list(calls));
        }
        Ok(entries)
    }

    fn path(&self, field: &str) -> String {
        format!("messages[{}].{field}", self.source.at)
    }

    fn reasoning(&self) -> Result<Option<Data>> {
        match self.source.reasoning() {
            Some(Json::String(text)) if !text.is_empty() => Ok(Some(Data::str(text))),
            Some(value) if value.is_truthy() => {
                Err(invalid(&self.path("reasoning"), "must be a string"))
            }
            _ => Ok(None),
        }
    }

    /// The content as one text; `None` where vLLM finds none.
    fn joined(&self) -> Result<Option<Arc<str>>> {
        match self.source.get("content") {
            Some(Json::String(text)) => Ok(Some(text.as_ref().into())),
            Some(Json::Array(parts)) if self.general => {
                let mut texts = Vec::with_capacity(parts.len());
                for (at, part) in parts.iter().enumerate() {
                    match part.as_object().map_or(Some(part), |part| part.get("text")) {
                        Some(Json::String(text)) => texts.push(text.as_ref()),
                        None | Some(Json::Null) => {}
                        Some(_) => return Err(self.bad_part(at)),
                    }
                }
                Ok((!texts.is_empty()).then(|| texts.concat().into()))
            }
            _ => Ok(None),
        }
    }

    /// The content as texts that are encoded apart.
    fn texts(&self) -> Result<Vec<Arc<str>>> {
        let parts = match self.source.get("content") {
            Some(Json::String(text)) => return Ok(vec![text.as_ref().into()]),
            Some(Json::Array(parts)) => parts,
            Some(Json::Object(object)) if !object.is_empty() => {
                return Err(invalid(
                    &self.path("content"),
                    "must be a string or a list of parts",
                ));
            }
            _ => return Ok(Vec::new()),
        };
        let text = |(at, part): (usize, &Json<'a>)| {
            if !self.general && !self.source.role_allows(part) {
                return Err(self.bad_part(at));
            }
            match part.as_object().map(|part| part.get("text")) {
                Some(Some(Json::String(text))) => Ok(text.as_ref().into()),
                Some(None) => Ok("".into()),
                _ => Err(self.bad_part(at)),
            }
        };
        parts.iter().enumerate().map(text).collect()
    }

    fn bad_part(&self, at: usize) -> crate::Error {
        invalid(
            &self.path(&format!("content[{at}]")),
            "must be a part whose text, if any, is a string",
        )
    }

    /// The calls with what Harmony prints of them: id, name, arguments as text.
    ///
    /// Results find their function's name in any message before or after them,
    /// whatever its role, only not in the instructions.
    fn function_calls(&self) -> Result<Vec<Data>> {
        let assistant = self.source.role == "assistant";
        if self.source.at == 0 && matches!(self.source.role, "system" | "developer") {
            return Ok(Vec::new());
        }
        if !assistant && self.source.get("tool_calls").is_some_and(Json::is_null) {
            return Err(invalid(&self.path("tool_calls"), "must be a list of calls"));
        }
        let read = |(at, call): (usize, &Json<'a>)| {
            let bad = |what| invalid(&self.path(&format!("tool_calls[{at}]")), what);
            let entry = call.as_object();
            let text = |key| Some(Data::str(entry?.get(key)?.as_str()?));
            let function = |key| entry?.get("function")?.as_object()?.get(key)?.as_str();
            let (name, arguments) = if tools::is_function_call(call) {
                let name = function("name").unwrap_or_default();
                if assistant && reserved::is_in(name) {
                    return Err(bad("has a special token in its function's name"));
                }
                (
                    Data::str(name),
                    Data::str(function("arguments").unwrap_or_default()),
                )
            } else if assistant && tools::is_custom_call(call) {
                // vLLM looks for a function in these and finds none.
                (Data::Null, Data::str(""))
            } else {
                return Err(bad(
                    "must be a function call: id, type \"function\", function.name and \
                     function.arguments, all strings",
                ));
            };
            Ok(Data::map(vec![
                ("id".into(), text("id").unwrap_or(Data::Null)),
                ("name".into(), name),
                ("arguments".into(), arguments),
            ]))
        };
        let calls = self.calls.unwrap_or_default().iter().enumerate();
        calls.map(read).collect()
    }
}

/// One text as it is, more as a list.
fn texts_as_data(texts: Vec<Arc<str>>) -> Data {
    match texts.as_slice() {
        [] => Data::str(""),
        [text] => Data::Str(text.clone()),
        _ => Data::list(texts.into_iter().map(Data::Str).collect()),
    }
}
