//! What of a history can decide how a template goes on with it.

use serde::{Deserialize, Serialize};

use crate::template::{Found, Role, Shape};

/// The message a history begins with, where that is an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Head {
    #[default]
    None,
    System,
    Developer,
}

/// The traits of a history, taken message by message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Traits {
    pub(crate) head: Head,
    pub(crate) last: Option<Role>,
    /// A tool ever answered.
    pub(crate) tools: bool,
    /// The assistant reasoned since the last user message.
    pub(crate) reasoned: bool,
    /// The assistant reasoned since its last answer: content without calls.
    pub(crate) unanswered: bool,
    /// What the template looks for and finds in messages of each [`role`](place_of).
    pub(crate) literals: [Found; 4],
    /// Instructions within the conversation, or a role that is not known.
    pub(crate) odd: bool,
}

impl Traits {
    /// The traits with one more message.
    #[must_use]
    pub(crate) fn with(mut self, shape: &Shape) -> Self {
        match shape.role {
            Role::System if self.last.is_none() => self.head = Head::System,
            Role::Developer if self.last.is_none() => self.head = Head::Developer,
            Role::System | Role::Developer | Role::Other => self.odd = true,
            Role::User => self.reasoned = false,
            // Content that the template looks into may hold reasoning.
            Role::Assistant => {
                self.reasoned |= shape.reasoning || !shape.literals.is_nothing();
                let answered = shape.content && shape.calls == 0;
                self.unanswered = !answered && (self.unanswered || shape.reasoning);
            }
            Role::Tool => self.tools = true,
        }
        self.last = Some(shape.role);
        let literals = &mut self.literals[place_of(shape.role)];
        *literals = literals.and(shape.literals);
        self
    }
}

/// The place of a role among [`Traits::literals`].
pub(crate) fn place_of(role: Role) -> usize {
    match role {
        Role::User => 0,
        Role::Assistant => 1,
        Role::Tool => 2,
        Role::System | Role::Developer | Role::Other => 3,
    }
}
