//! Tools and tool calls in the shape vLLM hands them to a template.
//!
//! Request tools are rebuilt from their model (`ChatCompletionToolsParam`):
//! known keys in its order, a missing description or parameters `null`, the
//! rest dropped. Calls in messages are typed dictionaries: known keys in their
//! order, then the rest as given.

use std::sync::Arc;

use super::{
    data::{Data, Key, Map},
    invalid, lax_bool,
};
use crate::{
    error::{ErrorKind, Result},
    json::{self, Json, Object},
};

/// The name of a request's tool, as a client wrote it.
pub(super) fn name<'a>(tool: &'a Json<'_>) -> Option<&'a str> {
    tool.as_object()?
        .get("function")?
        .as_object()?
        .get("name")?
        .as_str()
}

pub(super) fn request_tools(items: &[Json<'_>]) -> Result<Data> {
    let tools = items
        .iter()
        .enumerate()
        .map(|(at, item)| request_tool(at, item));
    Ok(Data::list(tools.collect::<Result<_>>()?))
}

fn request_tool(at: usize, tool: &Json<'_>) -> Result<Data> {
    let bad = |field: &str, what: &str| invalid(&format!("tools[{at}]{field}"), what);
    let object = tool
        .as_object()
        .ok_or_else(|| bad("", "must be an object"))?;
    if object
        .get("type")
        .is_some_and(|kind| kind.as_str() != Some("function"))
    {
        return Err(bad(".type", "must be \"function\""));
    }
    let function = object
        .get("function")
        .and_then(Json::as_object)
        .ok_or_else(|| bad(".function", "must be an object"))?;
    let name = function
        .get("name")
        .and_then(Json::as_str)
        .ok_or_else(|| bad(".function.name", "must be a string"))?;
    let description = match function.get("description") {
        None | Some(Json::Null) => Data::Null,
        Some(Json::String(text)) => Data::str(text),
        Some(_) => return Err(bad(".function.description", "must be a string")),
    };
    let parameters = match function.get("parameters") {
        None | Some(Json::Null) => Data::Null,
        Some(value @ Json::Object(_)) => Data::from_json(value),
        Some(_) => return Err(bad(".function.parameters", "must be an object")),
    };
    let optional = |object: &Object<'_>, key: &str, field: &str| match object.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => lax_bool(value)
            .map(Some)
            .ok_or_else(|| bad(field, "must be true or false")),
    };
    let strict = optional(function, "strict", ".function.strict")?;
    let defer = optional(object, "defer_loading", ".defer_loading")?;
    let function_defer = optional(function, "defer_loading", ".function.defer_loading")?.or(defer);

    let mut entries: Vec<(Key, Data)> = vec![
        ("name".into(), Data::str(name)),
        ("description".into(), description),
        ("parameters".into(), parameters),
    ];
    entries.extend(strict.map(|value| ("strict".into(), Data::Bool(value))));
    entries.extend(function_defer.map(|value| ("defer_loading".into(), Data::Bool(value))));
    let mut tool = vec![
        ("type".into(), Data::str("function")),
        ("function".into(), remembering(entries)),
    ];
    tool.extend(defer.map(|value| ("defer_loading".into(), Data::Bool(value))));
    Ok(remembering(tool))
}

/// A dictionary that every turn prints.
fn remembering(entries: Vec<(Key, Data)>) -> Data {
    Data::Map(Arc::new(Map::new(entries).remembering()))
}

/// Whether a message's tool call is what vLLM takes for a function call.
pub(super) fn is_function_call(call: &Json<'_>) -> bool {
    let Some(call) = call.as_object() else {
        return false;
    };
    let text =
        |object: &Object<'_>, key: &str| object.get(key).is_some_and(|v| v.as_str().is_some());
    let function = call.get("function").and_then(Json::as_object);
    text(call, "id")
        && call.get("type").and_then(Json::as_str) == Some("function")
        && function.is_some_and(|function| text(function, "arguments") && text(function, "name"))
}

/// Whether it is what vLLM takes for a call of a custom tool.
pub(super) fn is_custom_call(call: &Json<'_>) -> bool {
    let Some(call) = call.as_object() else {
        return false;
    };
    let text =
        |object: &Object<'_>, key: &str| object.get(key).is_some_and(|v| v.as_str().is_some());
    let custom = call.get("custom").and_then(Json::as_object);
    text(call, "id")
        && call.get("type").and_then(Json::as_str) == Some("custom")
        && custom.is_some_and(|custom| text(custom, "input") && text(custom, "name"))
}

/// A function call with its arguments parsed. Arguments that are not a JSON
/// object become an empty one.
pub(super) fn function_call(path: impl Fn() -> String, call: &Object<'_>) -> Result<Data> {
    let function = call.get("function").and_then(Json::as_object);
    let function = function.ok_or_else(|| invalid(&path(), "is not a function call"))?;
    let arguments = function
        .get("arguments")
        .and_then(Json::as_str)
        .unwrap_or_default();
    let arguments = match json::parse_str(arguments) {
        Ok(Json::Object(object)) => Map::from_json(&object),
        Ok(_) => Map::default(),
        Err(error) if error.kind() == ErrorKind::InvalidUnicode || json::is_over_limit(&error) => {
            let at = format!("{}.function.arguments", path());
            return Err(crate::error::Error::new(
                error.kind(),
                format!("{at}: {}", error.message()),
            ));
        }
        Err(_) => Map::default(),
    };
    let mut entries = vec![("arguments".into(), Data::Map(Arc::new(arguments)))];
    append_in_order(&mut entries, function, &["arguments"], &["name"]);
    let function = Data::map(entries);

    let mut entries = Vec::new();
    append_in_order(&mut entries, call, &["function", "type"], &["id"]);
    entries.insert(1, ("function".into(), function));
    entries.insert(2, ("type".into(), Data::str("function")));
    Ok(Data::map(entries))
}

/// Whether a developer message's tool has the shape vLLM knows.
pub(super) fn is_developer_tool(tool: &Json<'_>) -> bool {
    let Some(tool) = tool.as_object() else {
        return false;
    };
    let Some(function) = tool.get("function").and_then(Json::as_object) else {
        return false;
    };
    let fits = |key: &str, test: fn(&Json<'_>) -> bool| function.get(key).is_none_or(test);
    tool.get("type").and_then(Json::as_str) == Some("function")
        && function
            .get("name")
            .is_some_and(|name| name.as_str().is_some())
        && fits("description", |value| value.as_str().is_some())
        && fits("parameters", |value| value.as_object().is_some())
        && fits("strict", |value| {
            value.is_null() || lax_bool(value).is_some()
        })
}

/// A developer message's tool, known keys first.
pub(super) fn developer_tool(tool: &Json<'_>) -> Data {
    let Some(object) = tool.as_object() else {
        return Data::from_json(tool);
    };
    let mut entries: Vec<(Key, Data)> = Vec::new();
    if let Some(function) = object.get("function").and_then(Json::as_object) {
        let mut known = Vec::new();
        append_in_order(
            &mut known,
            function,
            &[],
            &["name", "description", "parameters", "strict"],
        );
        for (key, value) in &mut known {
            if key.as_str() == "strict"
                && let Some(strict) = function.get("strict").and_then(lax_bool)
            {
                *value = Data::Bool(strict);
            }
        }
        entries.push(("function".into(), Data::map(known)));
    }
    append_in_order(&mut entries, object, &["function"], &["type"]);
    Data::map(entries)
}

/// Appends `object`'s `known` keys in that order, then its others as they come,
/// without those `done` already.
fn append_in_order(
    entries: &mut Vec<(Key, Data)>,
    object: &Object<'_>,
    done: &[&str],
    known: &[&'static str],
) {
    for &key in known {
        if let Some(value) = object.get(key) {
            entries.push((key.into(), Data::from_json(value)));
        }
    }
    for (key, value) in object.iter() {
        if !done.contains(&key) && !known.contains(&key) {
            entries.push((Arc::<str>::from(key).into(), Data::from_json(value)));
        }
    }
}
