//! A turn as it came in: a whole request, or messages to append. Nothing of what
//! may be known already is parsed.

use std::borrow::Cow;

use super::{
    environment::{FIELDS, Fields, Identity},
    history::{self, HistoryDigest},
};
use crate::{
    error::{Error, ErrorKind, Result},
    json::{self, Json, Span, Style},
};

/// A turn's messages, and the members of its request that can change a prompt.
#[derive(Debug)]
pub struct Turn {
    /// The body of a request, or a list of messages.
    text: String,
    messages: Vec<Span>,
    /// After each message, where these are a whole history.
    digests: Vec<HistoryDigest>,
    /// How many messages each history has that may be known, the longest first.
    candidates: Vec<usize>,
    /// The members of an append, or of the request.
    members: Vec<(String, String)>,
    /// The other members as JSON, without braces.
    others: String,
    choices: usize,
    served: Option<String>,
    salt: Option<String>,
}

impl Turn {
    /// A whole chat request, as the bytes of its JSON body. O(bytes), at the speed
    /// of a search for quotes and of BLAKE3.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidUnicode`, `InvalidRequest` where there are no
    /// messages. What stands in messages and members is read when it is needed.
    pub fn request(body: Vec<u8>) -> Result<Self> {
        let (text, members) = read_members(body)?;
        let span = |name: &str| members.iter().find(|(key, _)| key == name);
        let invalid = |what: &str| Error::new(ErrorKind::InvalidRequest, what);
        let list = span("messages")
            .ok_or_else(|| invalid("messages is missing"))?
            .1;
        if !list.of(&text).starts_with('[') {
            return Err(invalid("messages must be a list"));
        }
        let messages = json::items(&text, list)?;
        if messages.is_empty() {
            return Err(invalid("messages must not be empty"));
        }
        let digests = history::digests(None, messages.iter().map(|span| span.of(&text)));
        let answered = |count: &usize| {
            // The word may stand elsewhere; then there is one candidate too many.
            messages.get(*count).is_none_or(|next| {
                memchr::memmem::find(next.of(&text).as_bytes(), b"assistant").is_some()
            })
        };
        let candidates = (1..=messages.len()).rev().filter(answered).collect();
        let others = other_members(&text, &members)?;
        Ok(Self {
            choices: choices(&text, &members),
            served: member(&text, &members, "model").map(str::to_owned),
            salt: member(&text, &members, "cache_salt").map(salt_identity),
            members: prompt_members(&text, &members),
            others,
            messages,
            digests,
            candidates,
            text,
        })
    }

    /// Messages to append: a JSON list of them, and a JSON object of those members
    /// of the request that differ from the turn before.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn append(messages: Vec<u8>, members: Option<Vec<u8>>) -> Result<Self> {
        let text = text_of(messages)?;
        let all = Span {
            start: 0,
            end: text.len(),
        };
        let messages = json::items(&text, all)?;
        let (members_text, members) = match members {
            None => ("{}".to_owned(), Vec::new()),
            Some(members) => read_members(members)?,
        };
        Ok(Self {
            choices: choices(&members_text, &members),
            served: member(&members_text, &members, "model").map(str::to_owned),
            salt: member(&members_text, &members, "cache_salt").map(salt_identity),
            others: other_members(&members_text, &members)?,
            members: prompt_members(&members_text, &members),
            digests: Vec::new(),
            candidates: Vec::new(),
            text,
            messages,
        })
    }

    /// How many messages it has.
    pub fn message_count(&self) -> usize {
        self.messages.len()
    }

    /// How many answers are asked for (`n`).
    pub fn choices(&self) -> usize {
        self.choices
    }

    /// The histories that may be known: how many messages each has, and its
    /// digest, the longest first. An answer follows each but the whole.
    pub fn candidates(&self) -> impl Iterator<Item = (usize, HistoryDigest)> + '_ {
        let counts = self.candidates.iter();
        counts.map(|count| (*count, self.digests[count - 1]))
    }

    /// The members that cannot change the prompt, as a JSON object.
    pub fn others_json(&self) -> String {
        format!("{{{}}}", self.others)
    }

    /// The identity of the turn: what `given` says, and the served model and the
    /// salt of the request, or else those of the turn before.
    pub(crate) fn identity(&self, given: &Identity, before: Option<&Identity>) -> Identity {
        let or_before = |own: &Option<String>, before: Option<&String>| {
            own.as_ref().or(before).cloned().unwrap_or_default()
        };
        // A whole request says all there is to say.
        let before = before.filter(|_| self.digests.is_empty());
        Identity {
            served: or_before(&self.served, before.map(|before| &before.served)),
            salt: or_before(&self.salt, before.map(|before| &before.salt)),
            ..given.clone()
        }
    }

    /// The JSON of its messages.
    pub(crate) fn messages(&self) -> impl ExactSizeIterator<Item = &str> {
        self.messages.iter().map(|span| span.of(&self.text))
    }

    /// The digest after all messages of a whole request.
    pub(crate) fn digest(&self) -> Option<&HistoryDigest> {
        self.digests.last()
    }

    pub(crate) fn fields(&self) -> Fields<'_> {
        self.members
            .iter()
            .map(|(name, raw)| (Cow::Borrowed(&**name), &**raw))
            .collect()
    }
}

type Members = Vec<(String, Span)>;

fn read_members(body: Vec<u8>) -> Result<(String, Members)> {
    let text = text_of(body)?;
    if !text.trim_ascii_start().starts_with('{') {
        // Not JSON, or not an object: the parser says which.
        json::parse_str(&text)?;
        let what = "a chat request is a JSON object";
        return Err(Error::new(ErrorKind::InvalidRequest, what));
    }
    let members = json::members(&text)?
        .into_iter()
        .map(|(name, span)| (name.into_owned(), span))
        .collect();
    Ok((text, members))
}

/// The bytes as text, without copying them where there is no byte order mark.
fn text_of(bytes: Vec<u8>) -> Result<String> {
    let (_, offset) = json::text_of(&bytes)?;
    let text = String::from_utf8(bytes);
    let mut text = text.map_err(|_| Error::new(ErrorKind::Internal, "checked UTF-8"))?;
    text.drain(..offset);
    Ok(text)
}

/// The members that cannot change a prompt, which are only checked to be JSON.
fn other_members(text: &str, members: &Members) -> Result<String> {
    let mut others = String::new();
    for (name, span) in members {
        if name == "messages" || FIELDS.contains(&&**name) {
            continue;
        }
        let value = span.of(text);
        json::parse_at(value, span.start, 1)?;
        if !others.is_empty() {
            others.push(',');
        }
        others.push_str(&json::dumps(
            &Json::String((&**name).into()),
            &Style::default(),
        ));
        others.push(':');
        others.push_str(value);
    }
    Ok(others)
}

/// The members that can change a prompt, in an order of their own.
fn prompt_members(text: &str, members: &Members) -> Vec<(String, String)> {
    let named = |name: &&str| members.iter().find(|(key, _)| key == name);
    FIELDS
        .iter()
        .filter_map(named)
        .map(|(name, span)| (name.clone(), span.of(text).to_owned()))
        .collect()
}

fn member<'a>(text: &'a str, members: &Members, name: &str) -> Option<&'a str> {
    let (_, span) = members.iter().find(|(key, _)| key == name)?;
    Some(span.of(text)).filter(|value| *value != "null")
}

/// What tells salts apart without telling them.
fn salt_identity(salt: &str) -> String {
    blake3::derive_key("promptseam salt identity v1", salt.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn choices(text: &str, members: &Members) -> usize {
    let value = member(text, members, "n").and_then(|value| json::parse_str(value).ok());
    match value {
        Some(Json::Number(number)) => number.to_f64() as usize,
        _ => 1,
    }
}
