//! The class of a transition from one prompt to the next: all that can decide
//! whether a template leaves the first prompt as it was, and what it appends.

use super::traits::{Head, Traits};
use crate::template::{Found, Role, Shape};

/// More runs of new messages than these are not certified: each kind of them
/// costs a battery of its own.
const LONGEST: usize = 12;

/// A history and what follows it, up to what makes no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) head: Head,
    /// Whom the sent prompt's last message is from: a user or a tool.
    pub(crate) last: Role,
    pub(crate) tools: bool,
    pub(crate) reasoned: bool,
    pub(crate) unanswered: bool,
    /// What the template looks for and finds in the history, by role.
    pub(crate) literals: [Found; 4],
    /// The answer, and what follows it.
    pub(crate) after: Box<[Run]>,
}

/// Messages of one shape in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    pub(crate) shape: Shape,
    /// There is more than one.
    pub(crate) many: bool,
}

/// Why a transition has no class that could be certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclassed {
    /// The template looks for something that content holds.
    ContentTested,
    /// Roles or an order of messages that the battery does not know.
    Unknown,
}

impl Class {
    /// The class in which messages of the shapes `after` follow a history.
    pub(crate) fn of(before: &Traits, after: &[Shape]) -> Result<Self, Unclassed> {
        let last = match before.last {
            Some(last @ (Role::User | Role::Tool)) if !before.odd => last,
            _ => return Err(Unclassed::Unknown),
        };
        let known = |shape: &Shape| matches!(shape.role, Role::User | Role::Assistant | Role::Tool);
        if after
            .first()
            .is_none_or(|shape| shape.role != Role::Assistant)
            || !after.iter().all(known)
        {
            return Err(Unclassed::Unknown);
        }
        let found = after.iter().map(|shape| shape.literals);
        if !found.chain(before.literals).all(Found::is_known) {
            return Err(Unclassed::ContentTested);
        }
        let mut runs: Vec<Run> = Vec::new();
        for shape in after {
            match runs.last_mut() {
                Some(run) if run.shape == *shape => run.many = true,
                _ => runs.push(Run {
                    shape: *shape,
                    many: false,
                }),
            }
        }
        if runs.len() > LONGEST {
            return Err(Unclassed::Unknown);
        }
        Ok(Self {
            head: before.head,
            last,
            tools: before.tools,
            reasoned: before.reasoned,
            unanswered: before.unanswered,
            literals: before.literals,
            after: runs.into(),
        })
    }

    /// Whether the template finds something that it looks for.
    pub(crate) fn is_tested(&self) -> bool {
        let after = self.after.iter().map(|run| run.shape.literals);
        !after.chain(self.literals).all(Found::is_nothing)
    }
}
