//! What of a message can decide how a template prints the others: its role, and
//! what it has.

use super::{Data, Found, Literals, Message, invalid};
use crate::{error::Result, json::Json};

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
        let role = match &*message.role {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => Role::Other,
        };
        let reasoning = match &message.reasoning {
            Some(Data::Str(text)) => Some(&**text),
            Some(_) => Some("not a text"),
            None => None,
        };
        Self {
            role,
            content: message.texts().any(|text| !text.is_empty()),
            reasoning: reasoning.is_some_and(|text| !text.is_empty()),
            calls: message.tool_calls.len().min(2) as u8,
            literals: message
                .texts()
                .chain(reasoning)
                .fold(Found::default(), |found, text| {
                    found.and(literals.found_in(text))
                }),
        }
    }
}

impl Message {
    /// Its shape, whatever a template looks for.
    pub(crate) fn bare_shape(&self) -> Shape {
        Shape::of(self, &Literals::default())
    }

    /// Whether both say the same, reasoning aside.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.role == other.role
            && self.tool_calls == other.tool_calls
            && self.texts().eq(other.texts())
    }

    /// Reads an assistant's message.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(crate) fn parse_answer(message: &Json<'_>) -> Result<Self> {
        let message = Self::parse(0, message)?;
        match &*message.role {
            "assistant" => Ok(message),
            _ => Err(invalid("role", "of an answer must be \"assistant\"")),
        }
    }

    /// The ids and names of its tool calls.
    pub(crate) fn call_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tool_calls.iter().filter_map(|call| {
            let call = call.as_map()?;
            let function = call.get("function")?.as_map()?;
            Some((
                call.get("id")?.as_str()?,
                function.get("name")?.as_str().unwrap_or_default(),
            ))
        })
    }

    /// The id of the call whose result it is.
    pub(crate) fn answered_call(&self) -> Option<&str> {
        self.tool_call_id.as_ref()?.as_str()
    }
}
