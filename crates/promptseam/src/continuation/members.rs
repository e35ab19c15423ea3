//! Members of a request as they were spelled.

use std::{fmt, sync::Arc};

use crate::{
    error::Result,
    json::{self, Json, Span, Style},
};

/// Members of a JSON object: names, and the JSON of their values. Cloning is
/// O(1).
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Members(Arc<[(Box<str>, Box<str>)]>);

impl Members {
    /// Those of `spans` in `text`.
    pub(crate) fn of<'a>(text: &str, spans: impl Iterator<Item = &'a (String, Span)>) -> Self {
        let member = |(name, span): &(String, Span)| ((**name).into(), span.of(text).into());
        Self(spans.map(member).collect())
    }

    /// These members.
    pub(crate) fn new<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            members
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// A member's JSON; none for `null`, which vLLM takes for a member left out.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| **known == *name)?;
        Some(&**value).filter(|value| *value != "null")
    }

    /// Names and values, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// These, with those of `newer` in place of the same, or behind.
    pub(crate) fn with(&self, newer: &Self) -> Self {
        if newer.0.is_empty() {
            return self.clone();
        }
        let mut all = self.0.to_vec();
        for (name, value) in newer.0.iter() {
            match all.iter_mut().find(|(known, _)| known == name) {
                Some(member) => member.1.clone_from(value),
                None => all.push((name.clone(), value.clone())),
            }
        }
        Self(all.into())
    }

    /// Fails if a value is not JSON.
    ///
    /// # Errors
    /// As [`json::parse`].
    pub(crate) fn check(&self) -> Result<()> {
        self.iter()
            .try_for_each(|(_, value)| json::parse_at(value, 0, 1).map(drop))
    }

    /// The object. O(its length).
    pub(crate) fn json(&self) -> String {
        let mut text = String::from("{");
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            let name = Json::String(name.into());
            text.push_str(&json::dumps(&name, &Style::default()));
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }

    /// Bytes of names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum()
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values can be secrets, and names are not ours.
        write!(f, "Members({})", self.0.len())
    }
}
