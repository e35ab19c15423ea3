//! The messages of a conversation as they were sent, and the digest by which
//! they are found again.
//!
//! A history is a chain of what each turn added. Messages are kept as their JSON,
//! whose key order and number spellings a template may print, and nothing of them
//! is parsed again until a prompt has to be rendered whole. Until then they can be
//! packed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::traits::Traits;
use crate::error::{Error, ErrorKind, Result};

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

/// Texts below this length hardly get shorter.
const PACKED_FROM: usize = 512;

/// A text, or its LZ4 block.
enum Text {
    Plain(Box<str>),
    Packed(Box<[u8]>),
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the text itself: it may end up in a log.
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Packed(_) => "Packed",
        })
    }
}

/// All messages of a history.
pub(crate) struct Messages {
    text: String,
    ends: Vec<usize>,
}

impl Messages {
    /// The JSON of each, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.text[*start..*end])
    }

    /// Bytes of all of them.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

/// Messages appended by a turn, behind those of the turn before.
#[derive(Debug)]
pub(crate) struct History {
    parent: Option<Arc<History>>,
    /// The appended messages, one after the other.
    text: Mutex<Text>,
    ends: Box<[u32]>,
    /// Bytes of them.
    length: usize,
    /// All messages up to here.
    count: usize,
    digest: HistoryDigest,
    /// Something in it was put back that the client had left out.
    completed: bool,
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
        completed: bool,
        traits: Traits,
        calls: Vec<(u64, u64)>,
    ) -> Self {
        let completed = completed || parent.as_ref().is_some_and(|parent| parent.completed);
        let mut ends = Vec::with_capacity(messages.len());
        let mut end = 0;
        for message in messages {
            end += message.len() as u32;
            ends.push(end);
        }
        Self {
            count: messages.len() + parent.as_ref().map_or(0, |parent| parent.count),
            parent,
            text: Mutex::new(Text::Plain(messages.concat().into())),
            ends: ends.into(),
            length: end as usize,
            digest,
            completed,
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

    /// Whether it holds more than the client sent.
    pub(crate) fn is_completed(&self) -> bool {
        self.completed
    }

    pub(crate) fn traits(&self) -> &Traits {
        &self.traits
    }

    /// Whether a call here has this id, but another name.
    pub(crate) fn renames(&self, id: u64, name: u64) -> bool {
        self.chain()
            .any(|link| link.calls.iter().any(|call| call.0 == id && call.1 != name))
    }

    /// The calls in the messages appended here: hashes of id and name.
    pub(crate) fn own_calls(&self) -> &[(u64, u64)] {
        &self.calls
    }

    /// Where each message appended here ends in [`Self::own_text`].
    pub(crate) fn own_ends(&self) -> &[u32] {
        &self.ends
    }

    /// The messages appended here, one after the other. O(text).
    ///
    /// # Errors
    /// `Internal` for a text that was damaged in memory.
    pub(crate) fn own_text(&self) -> Result<String> {
        let mut text = String::with_capacity(self.length);
        self.append_text(&mut text)?;
        Ok(text)
    }

    fn append_text(&self, text: &mut String) -> Result<()> {
        match &*self.lock() {
            Text::Plain(own) => text.push_str(own),
            Text::Packed(block) => {
                let damaged = || Error::new(ErrorKind::Internal, "a history was damaged");
                let own = lz4_flex::block::decompress(block, self.length);
                let own = own.map_err(|error| damaged().with_source(error))?;
                text.push_str(std::str::from_utf8(&own).map_err(|_| damaged())?);
            }
        }
        Ok(())
    }

    /// Every message, in order. O(text).
    ///
    /// # Errors
    /// `Internal` for a text that was damaged in memory.
    pub(crate) fn messages(&self) -> Result<Messages> {
        let mut links: Vec<&Self> = self.chain().collect();
        links.reverse();
        let length = links.iter().map(|link| link.length).sum();
        let mut text = String::with_capacity(length);
        let mut ends = Vec::with_capacity(self.count);
        for link in links {
            let start = text.len();
            link.append_text(&mut text)?;
            ends.extend(link.ends.iter().map(|end| start + *end as usize));
        }
        Ok(Messages { text, ends })
    }

    /// Packs what was appended here, once nobody is expected to need it soon. Code
    /// and prose shrink by about a half. O(text), some two microseconds for each
    /// kilobyte.
    pub(crate) fn pack(&self) {
        if self.length < PACKED_FROM {
            return;
        }
        let mut text = self.lock();
        if let Text::Plain(plain) = &*text {
            let block = lz4_flex::block::compress(plain.as_bytes());
            if block.len() < self.length / 8 * 7 {
                *text = Text::Packed(block.into());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Text> {
        // It is replaced whole or not at all.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |link| link.parent.as_deref())
    }

    /// Heap bytes of what was appended here.
    pub(crate) fn own_bytes(&self) -> usize {
        size_of::<Self>() + self.length + 4 * self.ends.len() + 16 * self.calls.len()
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
            let history = History::new(last, &["{}"], EMPTY, false, Traits::default(), Vec::new());
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
                false,
                Traits::default(),
                Vec::new(),
            ))
        };
        let first = link(None, &["1", "22"]);
        let second = link(Some(Arc::clone(&first)), &["333"]);
        let branch = link(Some(first), &["4", "", "5"]);
        let all = |history: &History| -> Vec<String> {
            let messages = history.messages().unwrap();
            messages.iter().map(str::to_owned).collect()
        };
        assert_eq!(all(&second), ["1", "22", "333"]);
        assert_eq!(all(&branch), ["1", "22", "4", "", "5"]);
    }

    #[test]
    fn packed_messages_are_the_same() {
        let long = "the same words, ".repeat(100);
        let noise = (0..2000).map(|at| b' ' + (short_hash(&format!("{at}")) % 95) as u8);
        let noise: String = noise.map(char::from).collect();
        let texts = [long.as_str(), &noise, "short", ""];
        let mut last = None;
        for text in texts {
            let new = History::new(
                last,
                &[text, "x"],
                EMPTY,
                false,
                Traits::default(),
                Vec::new(),
            );
            last = Some(Arc::new(new));
        }
        let last = last.unwrap();
        for _ in 0..2 {
            let messages = last.messages().unwrap();
            let whole: Vec<&str> = messages.iter().collect();
            assert_eq!(whole, [&long, "x", &noise, "x", "short", "x", "", "x"]);
            last.chain().for_each(History::pack);
        }
        let packed = |link: &&History| matches!(*link.lock(), Text::Packed(_));
        assert_eq!(last.chain().filter(packed).count(), 1, "where it pays");
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
