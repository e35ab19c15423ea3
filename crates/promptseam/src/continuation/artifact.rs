//! The record of one conversation state: the prompt that was sent, the messages
//! it was made of, and what the model answered.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    environment::{Environment, Fingerprint},
    history::{History, HistoryDigest},
    members::Members,
    record,
};
use crate::{
    prompt::{BoundaryRow, Prompt},
    template::Now,
};

/// Identifies an artifact: BLAKE3 over its [record](Artifact::encode), which holds
/// its parent's id and all it adds to it.
pub type ArtifactId = [u8; 32];

/// The longest tail that is kept, in bytes.
pub(crate) const LONGEST_TAIL: usize = 4096;

/// Where a prompt may be sewn on, and the text of it that history repeats from
/// there on.
#[derive(Clone)]
pub(crate) struct Seam {
    pub(crate) row: BoundaryRow,
    pub(crate) tail: Box<str>,
}

impl fmt::Debug for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seam")
            .field("tokens", &self.row.tokens)
            .finish_non_exhaustive()
    }
}

/// Ids that stand in a prompt for the history form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SampledSpan {
    /// The first of them in the prompt.
    pub start: usize,
    /// Behind the last of them.
    pub end: usize,
    /// How many ids the full render has in their place.
    pub rendered: usize,
}

/// A prompt with what is known of its making.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) prompt: Prompt,
    pub(crate) seam: Option<Seam>,
    pub(crate) spans: Arc<[SampledSpan]>,
}

/// What the model answered.
#[derive(Clone, Default)]
pub struct Answer {
    /// The assistant's message as JSON, as the client is given it.
    pub message: String,
    /// The ids the model generated, stop token included, where they are known.
    pub sampled: Option<Vec<u32>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never its text: it may end up in a log.
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// What of an artifact is not its parent's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Added {
    pub(crate) history: bool,
    pub(crate) environment: bool,
    pub(crate) others: bool,
    /// The ids behind so many of the parent's prompt.
    pub(crate) ids_from: usize,
}

/// An immutable record of one conversation state. Shares its messages and ids
/// with the state it went on from.
#[derive(Debug)]
pub struct Artifact {
    /// Once somebody asked for it: most commits leave that to the thread that
    /// encodes the record for its store.
    pub(crate) id: OnceLock<ArtifactId>,
    pub(crate) parent: Option<ArtifactId>,
    pub(crate) added: Added,
    pub(crate) tenant: Box<str>,
    pub(crate) history: Arc<History>,
    pub(crate) environment: Arc<Environment>,
    pub(crate) fingerprint: Arc<Fingerprint>,
    /// The members of the request that cannot change a prompt.
    pub(crate) others: Members,
    pub(crate) now: Now,
    /// None where the server rendered.
    pub(crate) state: Option<State>,
    pub(crate) answer: Answer,
    pub(crate) own_bytes: usize,
    /// With those of the artifacts it grew from.
    pub(crate) bytes: usize,
}

impl Artifact {
    /// Its id. O(what it added) where it was not encoded before.
    ///
    /// # Panics
    /// For a history that was damaged in memory.
    pub fn id(&self) -> &ArtifactId {
        self.id.get_or_init(|| {
            let record = self.record().expect("a history is as it was packed");
            record::id_of(&record)
        })
    }

    /// The id of the artifact it went on from.
    pub fn parent(&self) -> Option<&ArtifactId> {
        self.parent.as_ref()
    }

    /// The digest of the history that was sent, without the answer.
    pub fn digest(&self) -> &HistoryDigest {
        self.history.digest()
    }

    /// The tenant it belongs to.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// How many messages were sent.
    pub fn message_count(&self) -> usize {
        self.history.count()
    }

    /// The prompt that was sent, unless the server rendered it.
    pub fn prompt(&self) -> Option<&Prompt> {
        self.state.as_ref().map(|state| &state.prompt)
    }

    /// What the model answered.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Packs the messages that it added, once its turn is over. O(their text).
    pub fn pack(&self) {
        self.history.pack();
    }

    /// About how many heap bytes it adds to what it shares.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// About how many heap bytes it holds, what it shares with the artifacts it
    /// grew from included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
