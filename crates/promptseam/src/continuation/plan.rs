//! A planned turn: its prompt, the path it took, and what it will become part of.

use std::sync::{Arc, OnceLock};

use super::{
    artifact::{Added, Answer, Artifact, SampledSpan, State},
    certificate::{Certificate, Claim},
    certification::ClassState,
    environment::{Environment, Fingerprint},
    history::{History, HistoryDigest},
    members::Members,
    outcome::{Outcome, Reason, Rung},
    planner::{Planner, parse_messages},
};
use crate::{
    cancel::Cancel,
    error::{ErrorKind, Result},
    json,
    prompt::Prompt,
    template::{Message, Now},
};

/// How the history form of an answer stands to the ids that the model sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// They are not known.
    Unknown,
    /// It encodes to them.
    None,
    /// It has their text, but encodes to other ids.
    Drifted,
    /// It has other text.
    Rewritten,
}

impl Drift {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::Drifted => "drifted",
            Self::Rewritten => "rewritten",
        }
    }
}

/// A planned turn.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) outcome: Outcome,
    pub(crate) prefix_length: usize,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) base: Option<Arc<Artifact>>,
    pub(crate) tenant: Box<str>,
    pub(crate) history: Arc<History>,
    pub(crate) environment: Arc<Environment>,
    pub(crate) fingerprint: Arc<Fingerprint>,
    pub(crate) others: Members,
    pub(crate) now: Now,
    pub(crate) state: Option<State>,
    pub(crate) class: Option<Arc<ClassState>>,
    pub(crate) check: bool,
    pub(crate) drift: Drift,
}

impl Plan {
    /// The path it took.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The prompt, unless the server is to render.
    pub fn prompt(&self) -> Option<&Prompt> {
        self.state.as_ref().map(|state| &state.prompt)
    }

    /// Ids taken over from an earlier prompt.
    pub fn prefix_length(&self) -> usize {
        self.prefix_length
    }

    /// What binds the continuation, on the first rung.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// The digest of its history.
    pub fn digest(&self) -> &HistoryDigest {
        self.history.digest()
    }

    /// How the last answer's history form stands to its sampled ids.
    pub fn drift(&self) -> Drift {
        self.drift
    }

    /// Ids in the prompt that stand for the history form of messages.
    pub fn spans(&self) -> &[SampledSpan] {
        self.state.as_ref().map_or(&[], |state| &state.spans)
    }

    /// Where the prompt may be sewn on, in ids.
    pub fn seam(&self) -> Option<usize> {
        let seam = self.state.as_ref()?.seam.as_ref()?;
        Some(seam.row.tokens)
    }

    /// Whether the prompt is to be compared with the full render.
    pub fn wants_check(&self) -> bool {
        self.check
    }

    /// All messages as a JSON list, as the prompt was made of them. O(text).
    ///
    /// # Errors
    /// `Internal` for a history that was damaged in memory.
    pub fn messages_json(&self) -> Result<String> {
        let messages = self.history.messages()?;
        let mut json = String::with_capacity(messages.len() + self.history.count() + 2);
        json.push('[');
        for (at, message) in messages.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            json.push_str(message);
        }
        json.push(']');
        Ok(json)
    }

    /// The members of the request that can change a prompt, as a JSON object.
    pub fn members_json(&self) -> String {
        self.environment.fields.json()
    }

    /// The other members, but for the messages, as a JSON object.
    pub fn others_json(&self) -> String {
        self.others.json()
    }

    /// Checks `certificate` against this plan, right before it is sent.
    ///
    /// # Errors
    /// The reason for which the prompt must not be sent.
    pub fn check_certificate(
        &self,
        certificate: &Certificate,
        tenant: &str,
        now_ms: i64,
    ) -> Result<(), Reason> {
        let (Some(prefix), Some(prompt)) = (&self.base, self.prompt()) else {
            return Err(Reason::ArtifactMiss);
        };
        certificate.check(&Claim {
            prefix,
            prompt,
            environment: &self.fingerprint,
            tenant,
            now_ms,
        })
    }

    /// This turn rendered whole, for `reason`. O(text).
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn rendered(&self, planner: &Planner, reason: Reason, cancel: &Cancel) -> Result<Self> {
        let state = self.full_state(planner, cancel)?;
        Ok(Self {
            outcome: Outcome {
                rung: Rung::FullRender,
                reason: Some(reason),
            },
            prefix_length: 0,
            certificate: None,
            state: Some(state),
            class: None,
            check: false,
            ..self.clone()
        })
    }

    /// The shadow check: none where the full render is this prompt, outside of
    /// sampled spans; else the class is decertified, and what is to be sent
    /// instead is given. O(text).
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn shadow_check(&self, planner: &Planner, cancel: &Cancel) -> Result<Option<Self>> {
        let (Some(class), Some(planned)) = (&self.class, &self.state) else {
            return Ok(None);
        };
        let full = match self.full_state(planner, cancel) {
            Ok(full) => full,
            Err(error) if error.kind() == ErrorKind::Aborted => return Err(error),
            Err(error) => {
                class.decertify();
                return Err(error);
            }
        };
        if equal_outside(&planned.prompt, &planned.spans, &full.prompt) {
            class.pass();
            return Ok(None);
        }
        class.decertify();
        Ok(Some(Self {
            outcome: Outcome {
                rung: Rung::FullRender,
                reason: Some(Reason::ShadowMismatch),
            },
            prefix_length: 0,
            certificate: None,
            state: Some(full),
            class: None,
            check: false,
            ..self.clone()
        }))
    }

    fn full_state(&self, planner: &Planner, cancel: &Cancel) -> Result<State> {
        let messages = self.history.messages()?;
        let messages: Vec<&str> = messages.iter().collect();
        let messages = parse_messages(&messages, 0, planner.model().dialect())?;
        let request = self.environment.head.with_messages(messages);
        planner.render_state(&request, &self.environment.table, self.now, None, cancel)
    }

    /// The record of this turn with its answer. O(what the turn appended).
    ///
    /// # Errors
    /// `InvalidRequest` where the answer is not an assistant's message.
    /// [`Tokenizer::check_ids`](crate::tokenizer::Tokenizer::check_ids) is up to
    /// the caller.
    pub fn commit(&self, answer: Answer) -> Result<Artifact> {
        let dialect = self.environment.head.dialect();
        Message::parse_answer(&json::parse_str(&answer.message)?, dialect)?;
        let added = self.added();
        let prompt = self.state.as_ref();
        let bytes = prompt.map_or(0, |state| {
            let tail = state.seam.as_ref().map_or(0, |seam| seam.tail.len());
            state.prompt.unshared_bytes() + tail + size_of_val::<[SampledSpan]>(&state.spans)
        }) + if added.history {
            self.history.own_bytes()
        } else {
            0
        } + if added.environment {
            self.environment.bytes()
        } else {
            0
        } + if added.others { self.others.bytes() } else { 0 }
            + answer.message.len()
            + 4 * answer.sampled.as_ref().map_or(0, Vec::len)
            + size_of::<Artifact>();
        Ok(Artifact {
            id: OnceLock::new(),
            parent: self.base.as_ref().map(|base| *base.id()),
            added,
            tenant: self.tenant.clone(),
            history: Arc::clone(&self.history),
            environment: Arc::clone(&self.environment),
            fingerprint: Arc::clone(&self.fingerprint),
            others: self.others.clone(),
            now: self.now,
            state: self.state.clone(),
            answer,
            own_bytes: bytes,
            bytes: bytes + self.base.as_ref().map_or(0, |base| base.bytes),
        })
    }

    /// What this turn does not take over from the one it goes on from.
    fn added(&self) -> Added {
        let Some(base) = &self.base else {
            return Added {
                history: true,
                environment: true,
                others: true,
                ids_from: 0,
            };
        };
        Added {
            history: !Arc::ptr_eq(&base.history, &self.history),
            environment: !Arc::ptr_eq(&base.environment, &self.environment),
            others: base.others != self.others,
            ids_from: match base.state {
                Some(_) => self.prefix_length,
                None => 0,
            },
        }
    }

    /// The environment fingerprint.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

/// Whether `planned` is `full` but for its spans.
fn equal_outside(planned: &Prompt, spans: &[SampledSpan], full: &Prompt) -> bool {
    if spans.is_empty() {
        return planned == full;
    }
    let (planned, full) = (planned.to_vec(), full.to_vec());
    let (mut ours, mut theirs) = (0, 0);
    for span in spans {
        let length = span.start - ours;
        let equal = full.get(theirs..theirs + length) == Some(&planned[ours..span.start]);
        if !equal {
            return false;
        }
        ours = span.end;
        theirs += length + span.rendered;
    }
    full.get(theirs..) == Some(&planned[ours..])
}
