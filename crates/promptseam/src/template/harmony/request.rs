//! What of a request besides its messages reaches a Harmony prompt.
//!
//! vLLM 0.32 reads the tools and the reasoning effort. Templates and their
//! arguments, documents, and how the last message is to be continued are
//! checked and not used.

use super::number;
use crate::{
    error::Result,
    json::{Json, Object},
    template::{
        data::{Data, Map},
        invalid,
        request::{self, Arguments},
    },
};

const EFFORTS: [&str; 3] = ["low", "medium", "high"];
/// The deepest nesting of a tool's parameters that oss-harmony's reader takes.
const MAX_SCHEMA_DEPTH: usize = 118;

/// The arguments of a request with these `tools`.
pub(in crate::template) fn arguments(body: &Object<'_>, tools: Option<Data>) -> Result<Arguments> {
    for name in ["add_generation_prompt", "continue_final_message"] {
        request::flag(body, name, false)?;
    }
    let wants = |name| body.get(name).is_some_and(Json::is_truthy);
    if wants("continue_final_message") && wants("add_generation_prompt") {
        return Err(invalid(
            "continue_final_message",
            "needs add_generation_prompt to be false",
        ));
    }
    let object_or_null = |name| matches!(body.get(name), None | Some(Json::Null | Json::Object(_)));
    if !object_or_null("chat_template_kwargs") {
        return Err(invalid("chat_template_kwargs", "must be an object"));
    }
    if !matches!(
        body.get("chat_template"),
        None | Some(Json::Null | Json::String(_))
    ) {
        return Err(invalid("chat_template", "must be a string"));
    }
    if let Some(documents) = body.get("documents").filter(|value| !value.is_null()) {
        request::documents(documents)?;
    }
    if !is_truncation(body.get("truncate_prompt_tokens")) {
        return Err(invalid(
            "truncate_prompt_tokens",
            "must be an integer from -1 on",
        ));
    }
    if let Some(tools) = &tools {
        check_tools(tools)?;
    }
    let effort = match body.get("reasoning_effort") {
        None | Some(Json::Null) => None,
        Some(Json::String(text)) if EFFORTS.contains(&&**text) => Some(text),
        Some(_) => {
            return Err(invalid(
                "reasoning_effort",
                "must be low, medium or high for Harmony",
            ));
        }
    };
    Ok(Arguments {
        tools,
        documents: None,
        // Whatever the request says: vLLM always opens the answer.
        add_generation_prompt: true,
        continue_final_message: false,
        named: Map::new(
            effort
                .map(|effort| ("reasoning_effort".into(), Data::str(effort)))
                .into_iter()
                .collect(),
        ),
    })
}

/// Whether `value` may be given; its effect is on other models' prompts only.
fn is_truncation(value: Option<&Json<'_>>) -> bool {
    match value {
        None | Some(Json::Null) => true,
        Some(Json::Number(number)) => {
            let number = number.to_f64();
            number >= -1.0 && number < i64::MAX as f64 && number.fract() == 0.0
        }
        Some(_) => false,
    }
}

/// Refuses parameters that oss-harmony cannot read from JSON.
fn check_tools(tools: &Data) -> Result<()> {
    for (at, tool) in tools.as_list().unwrap_or_default().iter().enumerate() {
        let function = tool
            .as_map()
            .and_then(|tool| tool.get("function")?.as_map());
        let parameters = function.and_then(|function| function.get("parameters"));
        if parameters.is_some_and(|parameters| !is_readable(parameters, 1)) {
            return Err(invalid(
                &format!("tools[{at}].function.parameters"),
                &format!(
                    "must be JSON with finite numbers, nested at most {MAX_SCHEMA_DEPTH} deep"
                ),
            ));
        }
    }
    Ok(())
}

fn is_readable(value: &Data, depth: usize) -> bool {
    match value {
        Data::List(_) | Data::Map(_) if depth > MAX_SCHEMA_DEPTH => false,
        Data::List(items) => items
            .items()
            .iter()
            .all(|item| is_readable(item, depth + 1)),
        Data::Map(map) => {
            let mut entries = map.entries().iter();
            entries.all(|(_, value)| is_readable(value, depth + 1))
        }
        value => number::is_readable(value),
    }
}
