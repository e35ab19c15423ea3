//! Messages as vLLM prepares them for a template or for Harmony, kept apart from
//! rendering.

use std::sync::Arc;

use super::{
    data::{Data, Map},
    message::ContentFormat,
    request::{Arguments, ChatRequest, Message},
};
use crate::error::{Error, ErrorKind, Result};

/// Prepared messages and the arguments they are rendered with.
///
/// Messages are shared: slices of them, for stand-in histories, cost O(1) per
/// message.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    messages: Vec<Arc<Map>>,
    arguments: Arc<Arguments>,
}

impl Prepared {
    /// Prepares `request` for a template that wants `format` and that knows the
    /// developer role or not. O(messages).
    ///
    /// # Errors
    /// `InvalidArgument` for a request that was read for Harmony.
    pub(super) fn for_template(
        request: &ChatRequest,
        format: ContentFormat,
        developer: bool,
    ) -> Result<Self> {
        let messages = request.messages.iter().map(|message| match message {
            Message::Template(message) => Ok(Arc::new(message.prepare(format))),
            Message::Harmony(_) => Err(other_dialect()),
        });
        let mut messages: Vec<_> = messages.collect::<Result<_>>()?;
        if !developer && messages.iter().any(|message| role(message) == "developer") {
            for message in &mut messages {
                if role(message) == "developer" {
                    *message = Arc::new(as_system(message));
                }
            }
            messages = merge_system(messages);
        }
        Ok(Self {
            messages,
            arguments: request.arguments.clone(),
        })
    }

    /// Prepares `request` for Harmony, whose messages are read in that form.
    /// O(messages).
    ///
    /// # Errors
    /// `InvalidArgument` for a request that was read for a chat template.
    pub(super) fn for_harmony(request: &ChatRequest) -> Result<Self> {
        let messages = request.messages.iter().map(|message| match message {
            Message::Harmony(message) => Ok(Arc::clone(message)),
            Message::Template(_) => Err(other_dialect()),
        });
        Ok(Self {
            messages: messages.collect::<Result<_>>()?,
            arguments: request.arguments.clone(),
        })
    }

    /// The messages, in the form the template gets them.
    pub fn messages(&self) -> &[Arc<Map>] {
        &self.messages
    }

    /// Other messages with the same arguments.
    #[must_use]
    pub fn with_messages(&self, messages: Vec<Arc<Map>>) -> Self {
        Self {
            messages,
            arguments: self.arguments.clone(),
        }
    }

    /// These messages, then those of `later`. O(messages).
    #[must_use]
    pub(crate) fn followed_by(&self, later: &Self) -> Self {
        Self {
            messages: [self.messages.as_slice(), &later.messages].concat(),
            arguments: later.arguments.clone(),
        }
    }

    /// The same with no more than the first of the tools.
    #[must_use]
    pub(crate) fn with_one_tool(self) -> Self {
        let tools = self.arguments.tools.as_ref().and_then(Data::as_list);
        match tools {
            Some([first, _, ..]) => Self {
                arguments: Arc::new(Arguments {
                    tools: Some(Data::list(vec![first.clone()])),
                    ..(*self.arguments).clone()
                }),
                ..self
            },
            _ => self,
        }
    }

    /// The same with or without a generation prompt, and not continuing the
    /// final message.
    #[must_use]
    pub fn with_generation_prompt(&self, add: bool) -> Self {
        let arguments = Arguments {
            add_generation_prompt: add,
            continue_final_message: false,
            ..(*self.arguments).clone()
        };
        Self {
            messages: self.messages.clone(),
            arguments: Arc::new(arguments),
        }
    }

    /// The tools, rebuilt as vLLM does.
    pub fn tools(&self) -> Option<&Data> {
        self.arguments.tools.as_ref()
    }

    /// The documents.
    pub fn documents(&self) -> Option<&Data> {
        self.arguments.documents.as_ref()
    }

    /// Whether the template is to open the assistant's next message.
    pub fn add_generation_prompt(&self) -> bool {
        self.arguments.add_generation_prompt
    }

    /// Whether the final message is left open for the model to go on with.
    pub fn continue_final_message(&self) -> bool {
        self.arguments.continue_final_message
    }

    /// The other template arguments, by name.
    pub fn arguments(&self) -> &Map {
        &self.arguments.named
    }

    pub(super) fn shared_arguments(&self) -> Arc<Arguments> {
        self.arguments.clone()
    }
}

fn other_dialect() -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "The request was read for another kind of model; read it with this model's renderer.",
    )
}

fn role(message: &Map) -> &str {
    message
        .get("role")
        .and_then(Data::as_str)
        .unwrap_or_default()
}

fn as_system(message: &Map) -> Map {
    let entries = message
        .entries()
        .iter()
        .filter(|(key, _)| key.as_str() != "tools");
    Map::new(entries.cloned().collect()).with("role", Data::str("system"))
}

/// Puts all system messages into one at the front, as vLLM does once it turned
/// a developer message into one. A single one at the front stays as it is.
fn merge_system(messages: Vec<Arc<Map>>) -> Vec<Arc<Map>> {
    let is_system = |message: &Arc<Map>| role(message) == "system";
    if !messages.iter().skip(1).any(is_system) {
        return messages;
    }
    let contents: Vec<String> = messages
        .iter()
        .filter(|message| is_system(message))
        .map(|message| system_text(message))
        .filter(|text| !text.is_empty())
        .collect();
    let merged = Map::new(vec![
        ("role".into(), Data::str("system")),
        ("content".into(), Data::str(&contents.join("\n\n"))),
    ]);
    let mut all = vec![Arc::new(merged)];
    all.extend(messages.into_iter().filter(|message| !is_system(message)));
    all
}

fn system_text(message: &Map) -> String {
    match message.get("content") {
        Some(Data::List(parts)) => {
            let texts: Vec<&str> = parts
                .items()
                .iter()
                .filter_map(|part| part.as_map()?.get("text")?.as_str())
                .collect();
            texts.join("\n")
        }
        Some(Data::Str(text)) => text.to_string(),
        _ => String::new(),
    }
}
