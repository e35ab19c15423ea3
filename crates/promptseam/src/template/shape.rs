//! What of a message can decide how a template prints the others: its role, and
//! what it has.

use super::{Data, Dialect, Found, Literals, Map, Message, invalid, message::TemplateMessage};
use crate::{error::Result, json::Json};

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    /// Whoever else a template may know.
    Other,
}

/// What a message is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) role: Role,
    /// It has content that is not empty.
    pub(crate) content: bool,
    /// It has reasoning that is not empty.
    pub(crate) reasoning: bool,
    /// Tool calls: none, one, or more.
    pub(crate) calls: u8,
    /// What of the template's [`Literals`] its texts hold.
    pub(crate) literals: Found,
}

impl Shape {
    /// The shape of `message`. O(its text).
    pub(crate) fn of(message: &Message, literals: &Literals) -> Self {
        match message {
            Message::Template(message) => Self::of_template(message, literals),
            // Harmony looks for nothing in content.
            Message::Harmony(message) => Self::of_harmony(message),
        }
    }

    fn of_template(message: &TemplateMessage, literals: &Literals) -> Self {
        let reasoning = match &message.reasoning {
            Some(Data::Str(text)) => Some(&**text),
            Some(_) => Some("not a text"),
            None => None,
        };
        Self {
            role: Role::of(&message.role),
            content: message.texts().any(|text| !text.is_empty()),
            reasoning: reasoning.is_some_and(|text| !text.is_empty()),
            calls: message.tool_calls.len().min(2) as u8,
            literals: found_in(message, literals)
                .and(reasoning.map_or_else(Found::default, |text| literals.found_in(text))),
        }
    }

    fn of_harmony(message: &Map) -> Self {
        let content = match message.get("content") {
            Some(Data::Str(text)) => !text.is_empty(),
            Some(Data::List(_)) => true,
            _ => false,
        };
        Self {
            role: Role::of(text(message, "role")),
            content,
            reasoning: message.get("reasoning").is_some(),
            calls: calls(message).len().min(2) as u8,
            literals: Found::default(),
        }
    }
}

/// What a template finds in a message's content. How it sees several parts is its
/// own affair, so nothing is known of where something stands in them.
fn found_in(message: &TemplateMessage, literals: &Literals) -> Found {
    let mut texts = message.texts();
    match (texts.next(), texts.next()) {
        (None, _) => Found::default(),
        (Some(text), None) => literals.found_in(text),
        _ => {
            let parts: Vec<&str> = message.texts().collect();
            let joined = [parts.concat(), parts.join("\n")];
            match joined
                .iter()
                .all(|text| literals.found_in(text).is_nothing())
            {
                true => Found::default(),
                false => Found::SOMETHING,
            }
        }
    }
}

impl Role {
    fn of(name: &str) -> Self {
        match name {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            _ => Self::Other,
        }
    }
}

fn text<'a>(map: &'a Map, key: &str) -> &'a str {
    map.get(key).and_then(Data::as_str).unwrap_or_default()
}

fn calls(message: &Map) -> &[Data] {
    let calls = message.get("tool_calls").and_then(Data::as_list);
    calls.unwrap_or_default()
}

impl Message {
    /// Its shape, whatever a template looks for.
    pub(crate) fn bare_shape(&self) -> Shape {
        Shape::of(self, &Literals::default())
    }

    /// Whether both say the same, reasoning aside.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Template(ours), Self::Template(theirs)) => {
                // No content and an empty one say the same.
                let said = |text: &&str| !text.is_empty();
                ours.role == theirs.role
                    && ours.tool_calls == theirs.tool_calls
                    && ours.texts().filter(said).eq(theirs.texts().filter(said))
            }
            (Self::Harmony(ours), Self::Harmony(theirs)) => {
                let said = |message: &Map| match message.get("content") {
                    Some(Data::Str(text)) if text.is_empty() => None,
                    Some(Data::Null) | None => None,
                    Some(content) => Some(content.clone()),
                };
                text(ours, "role") == text(theirs, "role")
                    && calls(ours) == calls(theirs)
                    && said(ours) == said(theirs)
            }
            _ => false,
        }
    }

    /// Reads an assistant's message.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(crate) fn parse_answer(message: &Json<'_>, dialect: Dialect) -> Result<Self> {
        let message = Self::parse(0, message, dialect)?;
        match message.bare_shape().role {
            Role::Assistant => Ok(message),
            _ => Err(invalid("role", "of an answer must be \"assistant\"")),
        }
    }

    /// The ids and names of its tool calls.
    pub(crate) fn call_names(&self) -> Vec<(&str, &str)> {
        let (calls, nested) = match self {
            Self::Template(message) => (&*message.tool_calls, true),
            Self::Harmony(message) => (calls(message), false),
        };
        let names = calls.iter().filter_map(|call| {
            let call = call.as_map()?;
            let function = match nested {
                true => call.get("function")?.as_map()?,
                false => call,
            };
            Some((text(call, "id"), text(function, "name")))
        });
        names.collect()
    }

    /// The id of the call whose result it is.
    pub(crate) fn answered_call(&self) -> Option<&str> {
        match self {
            Self::Template(message) => message.tool_call_id.as_ref()?.as_str(),
            Self::Harmony(message) => message.get("tool_call_id")?.as_str(),
        }
    }
}
