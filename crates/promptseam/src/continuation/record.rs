//! Artifacts as bytes, to outlive their process: what each adds to its parent,
//! and its id, which is the digest of just these bytes.
//!
//! An id names the parent's id too, so whoever knows the id of the last artifact
//! of a chain has all of the chain checked by restoring it: nothing in a record
//! can be changed, left out or put elsewhere without changing that id.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    artifact::{Added, Answer, Artifact, ArtifactId, LONGEST_TAIL, SampledSpan, Seam, State},
    environment::{Environment, FieldDigest, Identity},
    history::{self, History, HistoryDigest},
    members::Members,
    outcome::Field,
    planner::Planner,
    traits::Traits,
};
use crate::{
    error::{Error, ErrorKind, Result},
    prompt::{BoundaryRow, Prompt},
    template::Now,
};

/// What an artifact adds to its parent. The order of the members is the format:
/// a change of it is a new version of [`crate::store`]'s records.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    parent: Option<ArtifactId>,
    tenant: &'a str,
    /// By the clock that its template was shown, in milliseconds.
    clock_ms: i64,
    fingerprint: [FieldDigest; Field::ALL.len()],
    /// None: the parent's; as are the next two.
    #[serde(borrow)]
    environment: Option<EnvironmentRecord<'a>>,
    others: Option<MemberList<'a>>,
    history: Option<HistoryRecord<'a>>,
    state: Option<StateRecord<'a>>,
    answer: &'a str,
    #[serde(borrow)]
    sampled: Option<Ids<'a>>,
}

type MemberList<'a> = Vec<(&'a str, &'a str)>;

#[derive(Serialize, Deserialize)]
struct EnvironmentRecord<'a> {
    model: &'a str,
    lora: &'a str,
    served: &'a str,
    salt: &'a str,
    #[serde(borrow)]
    fields: MemberList<'a>,
}

#[derive(Serialize, Deserialize)]
struct HistoryRecord<'a> {
    digest: HistoryDigest,
    completed: bool,
    traits: Traits,
    calls: Vec<(u64, u64)>,
    /// Where each message ends in the text.
    ends: Vec<u32>,
    text: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct StateRecord<'a> {
    tokenizer: Option<[u8; 32]>,
    /// Ids of the parent's prompt that stay.
    kept: usize,
    #[serde(borrow)]
    ids: Ids<'a>,
    /// Distances between the append boundaries in them, from `kept` on.
    boundaries: Vec<usize>,
    rows: Vec<BoundaryRow>,
    #[serde(borrow)]
    seam: Option<(BoundaryRow, &'a str)>,
    spans: Vec<SampledSpan>,
}

/// No text is as long as that, so that offsets into it can be added up.
const LONGEST_TEXT: usize = u32::MAX as usize;

/// Ids in four bytes each, the lowest first.
#[derive(Serialize, Deserialize)]
struct Ids<'a>(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>);

impl Ids<'_> {
    fn with_room_for(count: usize) -> Vec<u8> {
        Vec::with_capacity(4 * count)
    }

    fn put(bytes: &mut Vec<u8>, ids: &[u32]) {
        for id in ids {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
    }

    fn of(ids: &[u32]) -> Self {
        let mut bytes = Self::with_room_for(ids.len());
        Self::put(&mut bytes, ids);
        Self(Cow::Owned(bytes))
    }

    fn to_vec(&self) -> Result<Vec<u32>> {
        let (ids, rest) = self.0.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(refused("ids are cut off"));
        }
        Ok(ids.iter().map(|id| u32::from_le_bytes(*id)).collect())
    }
}

/// The id of the artifact that `record` is of. O(bytes).
pub(crate) fn id_of(record: &[u8]) -> ArtifactId {
    blake3::derive_key("promptseam prompt artifact v2", record)
}

/// Whether `record` is of an artifact that went on from another.
pub(crate) fn has_parent(record: &[u8]) -> bool {
    // The first member is an option, whose tag comes first.
    record.first().is_some_and(|tag| *tag != 0)
}

fn refused(why: &str) -> Error {
    Error::new(
        ErrorKind::RecordRefused,
        format!("A record of a conversation cannot be used: {why}."),
    )
}

impl Artifact {
    /// What it adds to its parent, as bytes: always the same ones. Not compressed.
    /// O(what it added).
    ///
    /// # Errors
    /// `Internal` for a history that was damaged in memory.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let record = self.record()?;
        self.id.get_or_init(|| id_of(&record));
        Ok(record)
    }

    pub(crate) fn record(&self) -> Result<Vec<u8>> {
        let environment = &self.environment;
        let identity = &environment.identity;
        let record = Record {
            parent: self.parent,
            tenant: &self.tenant,
            clock_ms: self.now.millis(),
            fingerprint: self.fingerprint.map(|(_, digest)| digest),
            environment: self.added.environment.then(|| EnvironmentRecord {
                model: &identity.model,
                lora: &identity.lora,
                served: &identity.served,
                salt: &identity.salt,
                fields: environment.fields.iter().collect(),
            }),
            others: self.added.others.then(|| self.others.iter().collect()),
            history: match self.added.history {
                true => Some(history_record(&self.history)?),
                false => None,
            },
            state: self
                .state
                .as_ref()
                .map(|state| state_record(state, self.added.ids_from)),
            answer: &self.answer.message,
            sampled: self.answer.sampled.as_deref().map(Ids::of),
        };
        let bytes = Vec::with_capacity(self.own_bytes);
        postcard::to_extend(&record, bytes).map_err(|error| {
            Error::new(ErrorKind::Internal, "an artifact could not be written").with_source(error)
        })
    }
}

fn history_record(history: &History) -> Result<HistoryRecord<'static>> {
    Ok(HistoryRecord {
        digest: *history.digest(),
        completed: history.is_completed(),
        traits: *history.traits(),
        calls: history.own_calls().to_vec(),
        ends: history.own_ends().to_vec(),
        text: Cow::Owned(history.own_text()?),
    })
}

fn state_record(state: &State, kept: usize) -> StateRecord<'_> {
    let prompt = &state.prompt;
    let mut ids = Ids::with_room_for(prompt.len() - kept);
    prompt.for_each_run_from(kept, |run| Ids::put(&mut ids, run));
    let mut last = kept;
    let boundaries = prompt.boundaries_from(kept).into_iter().map(|at| {
        let distance = at - last;
        last = at;
        distance
    });
    StateRecord {
        tokenizer: prompt.tokenizer().copied(),
        kept,
        ids: Ids(Cow::Owned(ids)),
        boundaries: boundaries.collect(),
        rows: prompt.rows_from(kept),
        seam: (state.seam.as_ref()).map(|seam| (seam.row, &*seam.tail)),
        spans: state.spans.to_vec(),
    }
}

impl Planner {
    /// The artifact that `record` is of, behind its parent. `tenant` is whose it
    /// must be. The text of its messages is checked against their digest. O(what
    /// it added), and reading its environment where that is not known yet.
    ///
    /// # Errors
    /// `RecordRefused` for what is no record, not this tenant's, or not this
    /// parent's child.
    pub fn restore(
        &self,
        record: &[u8],
        parent: Option<&Artifact>,
        tenant: &str,
    ) -> Result<Artifact> {
        let id = id_of(record);
        let own_bytes = record.len() + size_of::<Artifact>();
        let (record, rest): (Record<'_>, _) = postcard::take_from_bytes(record)
            .map_err(|error| refused("it is damaged").with_source(error))?;
        if !rest.is_empty() {
            return Err(refused("it is damaged"));
        }
        if record.tenant != tenant {
            return Err(refused("it is another tenant's"));
        }
        if record.parent.as_ref() != parent.map(Artifact::id) {
            return Err(refused("what it went on from is missing"));
        }
        let now = Now::from_unix_millis(record.clock_ms, 0);
        let added = Added {
            history: record.history.is_some(),
            environment: record.environment.is_some(),
            others: record.others.is_some(),
            ids_from: record.state.as_ref().map_or(0, |state| state.kept),
        };
        let inherited = || parent.ok_or_else(|| refused("it lacks what its parent has"));
        let environment = match &record.environment {
            None => Arc::clone(&inherited()?.environment),
            Some(spelled) => self.restore_environment(spelled, &record.fingerprint, now)?,
        };
        let others = match &record.others {
            None => inherited()?.others.clone(),
            Some(others) => members_of(others)?,
        };
        let history = match &record.history {
            None => Arc::clone(&inherited()?.history),
            Some(own) => {
                let before = parent.map(|parent| Arc::clone(&parent.history));
                Arc::new(restore_history(own, before)?)
            }
        };
        let state = match &record.state {
            None => None,
            Some(state) => {
                let before = parent.and_then(|parent| parent.state.as_ref());
                Some(restore_state(state, before.map(|state| &state.prompt))?)
            }
        };
        let mut digests = record.fingerprint.iter();
        let fingerprint =
            Field::ALL.map(|field| (field, digests.next().copied().unwrap_or_default()));
        let fingerprint = match parent {
            Some(parent) if *parent.fingerprint == fingerprint => Arc::clone(&parent.fingerprint),
            _ => Arc::new(fingerprint),
        };
        Ok(Artifact {
            id: id.into(),
            parent: record.parent,
            added,
            tenant: tenant.into(),
            history,
            environment,
            fingerprint,
            others,
            now,
            state,
            answer: Answer {
                message: record.answer.to_owned(),
                sampled: record.sampled.map(|ids| ids.to_vec()).transpose()?,
            },
            own_bytes,
            bytes: own_bytes + parent.map_or(0, Artifact::bytes),
        })
    }

    /// The environment as this model reads it; with the digests of the record,
    /// where this model is another than the one that it was made for.
    fn restore_environment(
        &self,
        record: &EnvironmentRecord<'_>,
        digests: &[FieldDigest; Field::ALL.len()],
        now: Now,
    ) -> Result<Arc<Environment>> {
        let identity = Identity {
            model: record.model.to_owned(),
            lora: record.lora.to_owned(),
            served: record.served.to_owned(),
            salt: record.salt.to_owned(),
        };
        let fields = members_of(&record.fields)?;
        let environment = self.known_or_read(&fields, &identity, now);
        let environment = environment
            .map_err(|error| refused("its environment is damaged").with_source(error))?;
        let read = environment.fingerprint(now).map(|(_, digest)| digest);
        if read == *digests {
            return Ok(environment);
        }
        Ok(Arc::new(environment.of_another_model(digests)))
    }
}

fn members_of(list: &[(&str, &str)]) -> Result<Members> {
    let members = Members::new(list.iter().copied());
    members
        .check()
        .map_err(|error| refused("a member of its request is damaged").with_source(error))?;
    Ok(members)
}

fn restore_history(record: &HistoryRecord<'_>, parent: Option<Arc<History>>) -> Result<History> {
    let mut start = 0;
    let mut messages = Vec::with_capacity(record.ends.len());
    for end in &record.ends {
        let end = *end as usize;
        let message = record.text.get(start..end);
        messages.push(message.ok_or_else(|| refused("its messages are damaged"))?);
        start = end;
    }
    if messages.is_empty() || start != record.text.len() {
        return Err(refused("its messages are damaged"));
    }
    let before = parent.as_ref().map(|parent| *parent.digest());
    let digests = history::digests(before.as_ref(), messages.iter().copied());
    // What was completed is not what was sent, which the digest is of.
    if !record.completed && digests.last() != Some(&record.digest) {
        return Err(refused("its messages are not those that were sent"));
    }
    Ok(History::new(
        parent,
        &messages,
        record.digest,
        record.completed,
        record.traits,
        record.calls.clone(),
    ))
}

fn restore_state(record: &StateRecord<'_>, before: Option<&Prompt>) -> Result<State> {
    let ids = record.ids.to_vec()?;
    let kept = record.kept;
    let base = match before {
        Some(before) if kept > 0 => {
            if kept > before.len() || before.tokenizer() != record.tokenizer.as_ref() {
                return Err(refused("its prompt is not its parent's"));
            }
            before.clone()
        }
        _ if kept > 0 => return Err(refused("its prompt's beginning is missing")),
        _ => Prompt::empty(record.tokenizer),
    };
    let length = kept + ids.len();
    let mut at = Some(kept);
    let boundaries = record.boundaries.iter().map(|distance| {
        at = at?
            .checked_add((*distance).max(1))
            .filter(|at| *at <= length);
        at
    });
    let boundaries: Option<Vec<usize>> = boundaries.collect();
    let boundaries = boundaries.ok_or_else(|| refused("its boundaries are damaged"))?;
    let inside =
        |row: &BoundaryRow| row.tokens > kept && row.tokens <= length && row.text <= LONGEST_TEXT;
    let sorted = record.rows.is_sorted_by_key(|row| (row.tokens, row.text));
    if !sorted || !record.rows.iter().all(inside) {
        return Err(refused("its rows are damaged"));
    }
    let seam = match &record.seam {
        None => None,
        Some((row, tail)) => {
            let fits = row.tokens <= length && row.text <= LONGEST_TEXT;
            if !fits || tail.len() > LONGEST_TAIL {
                return Err(refused("its seam is damaged"));
            }
            Some(Seam {
                row: *row,
                tail: (*tail).into(),
            })
        }
    };
    let mut last = 0;
    for span in &record.spans {
        if span.start < last || span.end < span.start || span.end > length {
            return Err(refused("its spans are damaged"));
        }
        last = span.end;
    }
    Ok(State {
        prompt: base.extended(kept, &ids, &boundaries, &record.rows),
        seam,
        spans: record.spans.as_slice().into(),
    })
}
