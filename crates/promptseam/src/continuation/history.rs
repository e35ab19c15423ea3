//! The messages of a conversation as they were sent, and the digest by which
//! they are found again.
//!
//! A history is a chain of what each turn added. Messages are kept as their JSON,
//! whose key order and number spellings a template may print, and nothing of them
//! is parsed again until a prompt has to be rendered whole.

use std::sync::Arc;

use super::traits::Traits;

/// Rolling BLAKE3 over the JSON of each message as it was sent.
///
/// Equal digests mean equal messages, byte for byte, so the same prompt under
/// the same environment.
pub type HistoryDigest = [u8; 32];

/// The digest of no messages.
const EMPTY: HistoryDigest = *b"promptseam history of messages 1";

/// The digest where a message is appended to a history.
pub(crate) fn extend(digest: &HistoryDigest, message: &str) -> HistoryDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(digest).update(message.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The digests after each of `messages`, which follow `before`.
pub(crate) fn digests<'a>(
    before: Option<&HistoryDigest>,
    messages: impl Iterator<Item = &'a str>,
) -> Vec<HistoryDigest> {
    let mut digest = *before.unwrap_or(&EMPTY);
    messages
        .map(|message| {
            digest = extend(&digest, message);
            digest
        })
        .collect()
}

/// Messages appended by a turn, behind those of the turn before.
#[derive(Debug)]
pub(crate) struct History {
    parent: Option<Arc<History>>,
    /// The appended messages, one after the other.
    text: Box<str>,
    ends: Box<[u32]>,
    /// All messages up to here.
    count: usize,
    digest: HistoryDigest,
    traits: Traits,
    /// The appended tool calls: hashes of id and name.
    calls: Box<[(u64, u64)]>,
}

impl History {
    /// `messages`, of which there is at least one, behind `parent`. `digest` is
    /// of what was sent, which `messages` may complete.
    pub(crate) fn new(
        parent: Option<Arc<Self>>,
        messages: &[&str],
        digest: HistoryDigest,
        traits: Traits,
        calls: Vec<(u64, u64)>,
    ) -> Self {
        let mut ends = Vec::with_capacity(messages.len());
        let mut end = 0;
        for message in messages {
            end += message.len() as u32;
            ends.push(end);
        }
        Self {
            count: messages.len() + parent.as_ref().map_or(0, |parent| parent.count),
            parent,
            text: messages.concat().into(),
            ends: ends.into(),
            digest,
            traits,
            calls: calls.into(),
        }
    }

    /// How many messages it has.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The digest of all its messages.
    pub(crate) fn digest(&self) -> &HistoryDigest {
        &self.digest
    }

    pub(crate) fn traits(&self) -> &Traits {
        &self.traits
    }

    /// Whether a call here has this id, but another name.
    pub(crate) fn renames(&self, id: u64, name: u64) -> bool {
        self.chain()
            .any(|link| link.calls.iter().any(|call| call.0 == id && call.1 != name))
    }

    /// The JSON of every message, in order. O(turns + messages).
    pub(crate) fn messages(&self) -> Vec<&str> {
        let mut links: Vec<&Self> = self.chain().collect();
        links.reverse();
        let mut messages = Vec::with_capacity(self.count);
        for link in links {
            messages.extend(link.own());
        }
        messages
    }

    /// The JSON of the messages that were appended here.
    pub(crate) fn own(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.text[start as usize..*end as usize])
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |link| link.parent.as_deref())
    }

    /// Heap bytes of what was appended here.
    pub(crate) fn own_bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + 4 * self.ends.len() + 16 * self.calls.len()
    }
}

impl Drop for History {
    /// A long chain is let go of link by link: dropping it in depth would need as
    /// much stack as it has turns.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut link) = parent.and_then(Arc::into_inner) {
            parent = link.parent.take();
        }
    }
}

/// A hash to compare call ids and names by.
pub(crate) fn short_hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_a_million_turns_is_dropped_without_recursion() {
        let mut last: Option<Arc<History>> = None;
        for _ in 0..1_000_000 {
            let history = History::new(last, &["{}"], EMPTY, Traits::default(), Vec::new());
            last = Some(Arc::new(history));
        }
        let last = last.unwrap();
        assert_eq!(last.count(), 1_000_000);
        drop(last);
    }

    #[test]
    fn messages_come_back_in_order() {
        let link = |parent, messages: &[&str]| {
            let digest = *digests(None, messages.iter().copied()).last().unwrap();
            Arc::new(History::new(
                parent,
                messages,
                digest,
                Traits::default(),
                Vec::new(),
            ))
        };
        let first = link(None, &["1", "22"]);
        let second = link(Some(Arc::clone(&first)), &["333"]);
        let branch = link(Some(first), &["4", "", "5"]);
        assert_eq!(second.messages(), ["1", "22", "333"]);
        assert_eq!(branch.messages(), ["1", "22", "4", "", "5"]);
    }

    #[test]
    fn a_digest_depends_on_every_message_and_their_borders() {
        let digest = |messages: &[&str]| *digests(None, messages.iter().copied()).last().unwrap();
        let all = [
            digest(&["ab", "c"]),
            digest(&["a", "bc"]),
            digest(&["abc"]),
            digest(&["ab"]),
            digest(&["c", "ab"]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }
}
