//! A turn as it came in: a whole request, or messages to append. Nothing of what
//! may be known already is parsed.

use std::fmt;

use super::{
    environment::FIELDS,
    history::{self, HistoryDigest},
    members::Members,
};
use crate::{
    error::{Error, ErrorKind, Result},
    json::{self, Span},
};

/// A turn's messages, and the members of its request.
pub struct Turn {
    /// The body of a request, or a list of messages.
    text: String,
    messages: Vec<Span>,
    /// After each message, where these are a whole history.
    digests: Vec<HistoryDigest>,
    /// How many messages each history has that may be known, the longest first.
    candidates: Vec<usize>,
    /// The members that can change a prompt.
    fields: Members,
    /// The others, but for the messages.
    others: Members,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never its text: it may end up in a log.
        f.debug_struct("Turn")
            .field("messages", &self.messages.len())
            .finish_non_exhaustive()
    }
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
        let (fields, others) = sorted(&text, &members)?;
        Ok(Self {
            fields,
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
        let (fields, others) = sorted(&members_text, &members)?;
        Ok(Self {
            fields,
            others,
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

    /// The histories that may be known: how many messages each has, and its
    /// digest, the longest first. An answer follows each but the whole.
    pub fn candidates(&self) -> impl Iterator<Item = (usize, HistoryDigest)> + '_ {
        let counts = self.candidates.iter();
        counts.map(|count| (*count, self.digests[count - 1]))
    }

    /// The messages as they came, as a JSON list.
    pub fn messages_json(&self) -> String {
        let messages: Vec<&str> = self.messages().collect();
        format!("[{}]", messages.join(","))
    }

    /// The JSON of its messages.
    pub(crate) fn messages(&self) -> impl ExactSizeIterator<Item = &str> {
        self.messages.iter().map(|span| span.of(&self.text))
    }

    /// The digest after all messages of a whole request.
    pub(crate) fn digest(&self) -> Option<&HistoryDigest> {
        self.digests.last()
    }

    /// The members that can change a prompt.
    pub(crate) fn fields(&self) -> &Members {
        &self.fields
    }

    /// The others.
    pub(crate) fn others(&self) -> &Members {
        &self.others
    }
}

type Spans = Vec<(String, Span)>;

fn read_members(body: Vec<u8>) -> Result<(String, Spans)> {
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

/// The members that can change a prompt, in an order of their own, and the
/// others, which are only checked to be JSON.
fn sorted(text: &str, members: &Spans) -> Result<(Members, Members)> {
    let named = |name: &&str| members.iter().find(|(key, _)| key == name);
    let fields = Members::of(text, FIELDS.iter().filter_map(named));
    let is_other = |(name, _): &&(String, Span)| name != "messages" && !FIELDS.contains(&&**name);
    let others = Members::of(text, members.iter().filter(is_other));
    others.check()?;
    Ok((fields, others))
}
