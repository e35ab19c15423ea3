//! Planning a turn: the first rung of the ladder that holds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{
    artifact::{Artifact, LONGEST_TAIL, SampledSpan, Seam, State},
    certificate::Certificate,
    certification::{ClassState, StandIn, Table, Verdict},
    class::{Class, Unclassed},
    environment::{self, Environment, Fingerprint, Identity},
    history::{self, History, Messages, short_hash},
    members::Members,
    outcome::{Field, Outcome, Reason, Rung},
    plan::{Drift, Plan},
    sampled,
    traits::Traits,
    turn::Turn,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    json::{self, Json},
    model::Model,
    prompt::{BoundaryRow, Growth, Prompt},
    template::{ChatRequest, Dialect, Message, Now, Role, Shape},
};

/// Environments whose templates are remembered at once.
const TABLES: usize = 256;
/// A plan that would encode more new text than this is not made inline.
const INLINE_BYTES: usize = 16 << 10;

/// How many planned prompts are compared with the full render.
#[derive(Clone, Copy, Debug)]
pub struct ShadowPolicy {
    /// All of a class until so many of it have passed.
    pub first: u32,
    /// Then one in so many; 0 for none.
    pub every: u32,
}

impl Default for ShadowPolicy {
    fn default() -> Self {
        Self {
            first: 64,
            every: 16,
        }
    }
}

/// How to plan one turn.
#[derive(Clone, Debug)]
pub struct PlanOptions<'a> {
    /// The time of the turn.
    pub now: Now,
    /// Milliseconds of Unix time from which on the plan may not be sent.
    pub expires: i64,
    /// Take the turn's date rather than the conversation's.
    pub follow_clock: bool,
    /// What the request does not say of its environment.
    pub identity: &'a Identity,
    /// Who asks.
    pub tenant: &'a str,
    /// The cache salt of a request that has none; empty for none.
    pub salt: &'a str,
    /// Let the ids that the model sampled stand for its message.
    pub sampled: bool,
    /// Put reasoning that the client left out back inside a tool loop.
    pub restore_reasoning: bool,
    /// Why nothing was found to go on from, if that is known.
    pub missing: Option<Reason>,
    /// Why the server is to render, whatever could be done here.
    pub declined: Option<Reason>,
    /// An artifact of the same conversation, to align a render with.
    pub previous: Option<&'a Artifact>,
    /// Give no plan rather than work for long.
    pub inline: bool,
}

/// What a turn goes on from: an artifact, and how many of the request's messages
/// it was made of.
#[derive(Clone, Debug)]
pub struct Found {
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Messages of the request that its history has.
    pub count: usize,
}

/// Plans the turns of one model's conversations. `Send + Sync`.
#[derive(Debug)]
pub struct Planner {
    model: Arc<Model>,
    shadow: ShadowPolicy,
    tables: Mutex<HashMap<[u8; 32], Arc<Table>>>,
    /// By spelling, so that conversations with the same tools hold them once.
    environments: Mutex<HashMap<[u8; 32], Weak<Environment>>>,
}

/// A turn with what it goes on from resolved.
struct Draft<'a> {
    environment: Arc<Environment>,
    others: Members,
    now: Now,
    base: Option<&'a Arc<Artifact>>,
    /// The JSON of the messages behind the base's history.
    new: Vec<&'a str>,
    /// Something in them was put back that the client had left out.
    completed: bool,
    digest: history::HistoryDigest,
    options: &'a PlanOptions<'a>,
}

/// Why the first rung was not taken.
enum Declined {
    Because(Reason),
    /// It would have taken long.
    Deferred,
}

/// What the first rung gave.
struct Certified {
    state: State,
    boundary: usize,
    class: Option<Arc<ClassState>>,
    drift: Drift,
    shapes: Vec<Shape>,
    messages: Vec<Message>,
}

impl Planner {
    /// A planner for `model`.
    pub fn new(model: Arc<Model>, shadow: ShadowPolicy) -> Self {
        Self {
            model,
            shadow,
            tables: Mutex::default(),
            environments: Mutex::default(),
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Certifies the usual classes of requests without template arguments, with
    /// and without tools. Some twenty milliseconds.
    pub fn warm_up(&self, now: Now) {
        let tool = r#"[{"type":"function","function":{"name":"look","description":"Looks.","parameters":{"type":"object","properties":{"path":{"type":"string"}}}}}]"#;
        let tools = format!(r#"{{"tools":{tool}}}"#);
        for request in ["{}".to_owned(), tools] {
            let Ok(turn) = Turn::append(b"[]".to_vec(), Some(request.into_bytes())) else {
                continue;
            };
            let fields = turn.fields();
            if let Ok(environment) = self.environment(fields, &Identity::default(), now) {
                environment.table.certify_usual(&self.model, now);
            }
        }
    }

    /// Plans a turn that goes on from `found`, or from nothing. None only where
    /// [`PlanOptions::inline`] says so. O(new text) on the first rung, O(whole
    /// text) on the others.
    ///
    /// # Errors
    /// What a request can be refused for, where the server would refuse it too;
    /// `ContextOverflow`, `Aborted`.
    pub fn plan(
        &self,
        turn: &Turn,
        found: Option<&Found>,
        options: &PlanOptions<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Plan>> {
        if options.inline && found.is_none() {
            return Ok(None);
        }
        if let Some(found) = found
            && *found.artifact.tenant != *options.tenant
        {
            // Nothing of it may be used, its length included.
            let options = PlanOptions {
                missing: Some(Reason::TenantMismatch),
                previous: None,
                ..options.clone()
            };
            return self.plan(turn, None, &options, cancel);
        }
        if let Some(found) = found
            && found.artifact.history.is_completed()
            && !options.restore_reasoning
        {
            // Its messages are not those that were sent.
            let options = PlanOptions {
                missing: Some(Reason::FingerprintMismatch(Field::Reasoning)),
                previous: Some(&found.artifact),
                ..options.clone()
            };
            return self.plan(turn, None, &options, cancel);
        }
        let base = found.map(|found| &found.artifact);
        let skipped = found.map_or(0, |found| found.count);
        let now = match base {
            Some(base) if !options.follow_clock || same_date(base.now, options.now) => base.now,
            _ => options.now,
        };
        let others = salted(turn.others().clone(), options.salt);
        let identity = options.identity.of(&others);
        let environment = self.environment_of(turn.fields(), &identity, base, options, now)?;
        let Some(environment) = environment else {
            return Ok(None);
        };
        let new: Vec<&str> = turn.messages().skip(skipped).collect();
        let draft = Draft {
            digest: *turn.digest().ok_or_else(no_messages)?,
            environment,
            others,
            now,
            base,
            new,
            completed: false,
            options,
        };
        self.plan_draft(draft, cancel)
    }

    /// Plans a turn that appends messages to what was answered last.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_append(
        &self,
        turn: &Turn,
        base: &Arc<Artifact>,
        options: &PlanOptions<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Plan>> {
        if *base.tenant != *options.tenant {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "The conversation to append to belongs to another tenant.",
            ));
        }
        let now = if options.follow_clock && !same_date(base.now, options.now) {
            options.now
        } else {
            base.now
        };
        let fields = base.environment.fields.with(turn.fields());
        let others = salted(base.others.with(turn.others()), options.salt);
        let mut identity = options.identity.of(&others);
        if identity.lora.is_empty() {
            identity.lora.clone_from(&base.environment.identity.lora);
        }
        let environment = self.environment_of(&fields, &identity, Some(base), options, now)?;
        let Some(environment) = environment else {
            return Ok(None);
        };
        let mut new = vec![&*base.answer.message];
        new.extend(turn.messages());
        let digests = history::digests(Some(base.digest()), new.iter().copied());
        let draft = Draft {
            digest: *digests.last().ok_or_else(no_messages)?,
            environment,
            others,
            now,
            base: Some(base),
            new,
            completed: false,
            options,
        };
        self.plan_draft(draft, cancel)
    }

    fn plan_draft(&self, mut draft: Draft<'_>, cancel: &Cancel) -> Result<Option<Plan>> {
        cancel.check()?;
        if draft.options.inline
            && draft.new.iter().map(|raw| raw.len()).sum::<usize>() > INLINE_BYTES
        {
            return Ok(None);
        }
        if draft.options.restore_reasoning {
            restore_reasoning(&mut draft, self.model.dialect());
        }
        let many = choices(&draft.others) > 1;
        let declined = draft.options.declined;
        if let Some(reason) = declined.or(many.then_some(Reason::MultipleChoices)) {
            return Ok(Some(self.messages_plan(&draft, reason)));
        }
        let reason = match self.certified(&draft, cancel)? {
            Ok(certified) => return Ok(Some(self.certified_plan(&draft, certified))),
            Err(Declined::Because(reason)) => reason,
            Err(Declined::Deferred) => return Ok(None),
        };
        if draft.options.inline {
            return Ok(None);
        }
        self.rendered_plan(&draft, reason, cancel).map(Some)
    }

    fn certified_plan(&self, draft: &Draft<'_>, certified: Certified) -> Plan {
        let Certified {
            state,
            boundary,
            class,
            drift,
            shapes,
            messages,
        } = certified;
        let history = history_of(draft, &shapes, &messages);
        let certificate = draft.base.map(|base| {
            let sent = base.prompt().map_or(0, Prompt::len);
            let (prompt, expires) = (&state.prompt, draft.options.expires);
            Certificate::new(
                base,
                sent,
                boundary,
                prompt,
                *fingerprint_of(draft),
                expires,
            )
        });
        let check = class
            .as_ref()
            .is_some_and(|class| class.wants_check(self.shadow.first, self.shadow.every));
        Plan {
            outcome: Outcome {
                rung: Rung::CertifiedSuffix,
                reason: None,
            },
            prefix_length: boundary,
            certificate,
            class,
            check,
            drift,
            ..self.plan_of(draft, history, Some(state))
        }
    }

    /// The lower rungs: the whole text rendered.
    fn rendered_plan(&self, draft: &Draft<'_>, reason: Reason, cancel: &Cancel) -> Result<Plan> {
        let known = draft.base.map(|base| base.history.messages()).transpose()?;
        let known = known.iter().flat_map(Messages::iter);
        let all: Vec<&str> = known.chain(draft.new.iter().copied()).collect();
        let messages = parse_messages(&all, 0, self.model.dialect());
        let rendered = messages.and_then(|messages| {
            environment::check_renderable(&draft.environment.head)?;
            let previous = previous_of(draft);
            let state = self.render(draft, messages.clone(), previous.as_ref(), cancel)?;
            Ok((state, messages, previous.is_some()))
        });
        let (state, messages, aligned) = match rendered {
            Ok(rendered) => rendered,
            Err(error) => {
                let reason = match error.kind() {
                    ErrorKind::UnsupportedContent => Reason::UnsupportedContent,
                    ErrorKind::TemplateMissing | ErrorKind::TemplateFailed => {
                        Reason::UncertifiedTemplate
                    }
                    _ => return Err(error),
                };
                return Ok(self.messages_plan(draft, reason));
            }
        };
        let prompt = &state.prompt;
        let sent = draft.base.and_then(|base| base.state.as_ref());
        let reason = match (reason, sent) {
            (
                Reason::UncertifiedTemplate
                | Reason::ContentTestsTemplate
                | Reason::UnsafeBoundary
                | Reason::ShadowMismatch,
                Some(sent),
            ) => {
                let seam = sent.seam.as_ref().map_or(0, |seam| seam.row.tokens);
                sampled::difference(&sent.prompt, &sent.spans, seam, prompt)
                    .map_or(reason, Reason::TemplateRewroteHistory)
            }
            (reason, _) => reason,
        };
        let new = match draft.base {
            Some(base) => &messages[base.history.count()..],
            None => &messages[..],
        };
        let shapes = self.shapes(&draft.environment.head, new);
        let history = history_of(draft, &shapes, new);
        let drift = self.rendered_drift(draft, &messages, prompt);
        let outcome = Outcome {
            rung: if aligned {
                Rung::AlignedRender
            } else {
                Rung::FullRender
            },
            reason: Some(reason),
        };
        Ok(Plan {
            outcome,
            prefix_length: prompt.reused(),
            drift,
            ..self.plan_of(draft, history, Some(state))
        })
    }

    fn plan_of(&self, draft: &Draft<'_>, history: Arc<History>, state: Option<State>) -> Plan {
        Plan {
            outcome: Outcome {
                rung: Rung::FullRender,
                reason: None,
            },
            prefix_length: 0,
            certificate: None,
            base: draft.base.cloned(),
            tenant: draft.options.tenant.into(),
            history,
            fingerprint: fingerprint_of(draft),
            environment: Arc::clone(&draft.environment),
            others: draft.others.clone(),
            now: draft.now,
            state,
            class: None,
            check: false,
            drift: Drift::Unknown,
        }
    }

    fn render(
        &self,
        draft: &Draft<'_>,
        messages: Vec<Message>,
        previous: Option<&Prompt>,
        cancel: &Cancel,
    ) -> Result<State> {
        let request = draft.environment.head.with_messages(messages);
        self.render_state(
            &request,
            &draft.environment.table,
            draft.now,
            previous,
            cancel,
        )
    }

    /// The prompt of a request's whole text, encoded from the last row of
    /// `previous` that still holds.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(crate) fn render_state(
        &self,
        request: &ChatRequest,
        table: &Table,
        now: Now,
        previous: Option<&Prompt>,
        cancel: &Cancel,
    ) -> Result<State> {
        let model = &self.model;
        let text = model.render_request(request, now)?;
        model.check_bytes(text.len())?;
        cancel.check()?;
        let repeated = table.repeated(&text);
        let growth = model.growth(&text, previous);
        let kept = growth.offset();
        let (prompt, row) = model.grow(growth, repeated.saturating_sub(kept), cancel)?;
        model.check_length(&prompt)?;
        Ok(State {
            seam: row.and_then(|row| seam_at(row, text.get(row.text..repeated)?)),
            prompt,
            spans: Arc::default(),
        })
    }

    /// The first rung.
    fn certified(&self, draft: &Draft<'_>, cancel: &Cancel) -> Result<Result<Certified, Declined>> {
        let because = |reason| Ok(Err(Declined::Because(reason)));
        let options = draft.options;
        let Some(base) = draft.base else {
            return because(options.missing.unwrap_or(Reason::NoCheckpoint));
        };
        if let Some(field) = base.environment.difference(&draft.environment) {
            return because(Reason::FingerprintMismatch(field));
        }
        if !same_date(base.now, draft.now) {
            return because(Reason::FingerprintMismatch(Field::Date));
        }
        let Some(sent) = &base.state else {
            return because(Reason::NoCheckpoint);
        };
        if !options.sampled && !sent.spans.is_empty() {
            return because(Reason::PrefixMismatch);
        }
        if draft.new.is_empty() {
            return Ok(Ok(Certified {
                boundary: sent.prompt.len(),
                state: sent.clone(),
                class: None,
                drift: Drift::Unknown,
                shapes: Vec::new(),
                messages: Vec::new(),
            }));
        }
        let messages = match parse_messages(&draft.new, base.history.count(), self.model.dialect())
        {
            Ok(messages) => messages,
            // The rungs below say what becomes of it.
            Err(_) => return because(Reason::UncertifiedTemplate),
        };
        if let Err(reason) = check_calls(&base.history, &messages) {
            return because(reason);
        }
        let head = &draft.environment.head;
        if !head.add_generation_prompt() || head.continue_final_message() {
            // What was sent ends in a message that the answer is a part of.
            return because(Reason::UncertifiedTemplate);
        }
        let shapes = self.shapes(head, &messages);
        let class = match Class::of(base.history.traits(), &shapes) {
            Ok(class) => class,
            Err(Unclassed::ContentTested) => return because(Reason::ContentTestsTemplate),
            Err(Unclassed::Unknown) => return because(Reason::UncertifiedTemplate),
        };
        let table = &draft.environment.table;
        let state = match table.known(&class) {
            Some(state) => state,
            None if options.inline => return Ok(Err(Declined::Deferred)),
            None => table.certify(&self.model, &class, draft.now),
        };
        let Some(stand_in) = state.stand_in() else {
            return because(match &state.verdict {
                Verdict::Certified(_) => Reason::ShadowMismatch,
                Verdict::Unknown if class.is_tested() => Reason::ContentTestsTemplate,
                Verdict::Rewrites | Verdict::Unknown => Reason::UncertifiedTemplate,
            });
        };
        let Some(seam) = &sent.seam else {
            return because(Reason::UnsafeBoundary);
        };
        // A template can refuse behind a short history what it takes behind this one.
        let suffix = stand_in.suffix(&self.model, head, &messages, draft.now);
        let Ok(Some(suffix)) = suffix else {
            return because(Reason::UncertifiedTemplate);
        };
        cancel.check()?;
        let repeated = suffix.repeated(table) + seam.tail.len();
        let rest = [&*seam.tail, suffix.text()].concat();
        let sewn = Sewn {
            sent,
            seam,
            rest: &rest,
            repeated,
            stand_in,
            messages: &messages,
        };
        let (new_state, boundary, drift) = self.sew(draft, base, &sewn, cancel)?;
        self.model.check_length(&new_state.prompt)?;
        Ok(Ok(Certified {
            state: new_state,
            boundary,
            class: Some(state),
            drift,
            shapes,
            messages,
        }))
    }

    /// Encodes the marginal suffix behind the seam, or behind the sampled ids.
    fn sew(
        &self,
        draft: &Draft<'_>,
        base: &Artifact,
        sewn: &Sewn<'_>,
        cancel: &Cancel,
    ) -> Result<(State, usize, Drift)> {
        let Sewn {
            sent,
            seam,
            rest,
            repeated,
            ..
        } = *sewn;
        let sampled = self.matching_sampled(draft, base, sewn.messages);
        let span = match &sampled {
            Some(_) if draft.options.sampled => self.close_of(draft, sewn)?,
            _ => None,
        };
        let (growth, boundary, spans) = match (&sampled, span) {
            (Some(sampled), Some(close)) => {
                let rendered = self.encoded_length(&rest[..close], cancel)?;
                let mut spans = sent.spans.to_vec();
                spans.push(SampledSpan {
                    start: seam.row.tokens,
                    end: sent.prompt.len() + sampled.len(),
                    rendered,
                });
                let growth = Growth::spliced(&sent.prompt, seam.row, rest, close, sampled);
                (growth, sent.prompt.len(), spans.into())
            }
            _ => {
                let growth = Growth::sewn(&sent.prompt, seam.row, rest);
                let kept = |span: &&SampledSpan| span.end <= seam.row.tokens;
                let spans = sent.spans.iter().filter(kept).copied().collect();
                (growth, seam.row.tokens, spans)
            }
        };
        let (prompt, row) = self.model.grow(growth, repeated, cancel)?;
        let drift = match &sampled {
            None => Drift::Unknown,
            Some(_) if span.is_some() => Drift::None,
            Some(sampled) => {
                let seen = sampled::behind(&sent.prompt, seam.row.tokens, sampled);
                if sampled::is_prefix(&seen, &prompt, seam.row.tokens) {
                    Drift::None
                } else {
                    let form = self.close_of(draft, sewn)?.map(|close| &rest[..close]);
                    let text = self.model.tokenizer().decode(&seen, false).ok();
                    match (form, text) {
                        (Some(form), Some(text)) if self.model.unmarked(form) == text => {
                            Drift::Drifted
                        }
                        _ => Drift::Rewritten,
                    }
                }
            }
        };
        let offset = seam.row.text;
        let new_seam = row.and_then(|row| seam_at(row, rest.get(row.text - offset..repeated)?));
        let state = State {
            prompt,
            seam: new_seam,
            spans,
        };
        Ok((state, boundary, drift))
    }

    /// The drift of an answer whose place in the prompt is not known: its ids, or
    /// its text, are looked for behind what both prompts have in common.
    fn rendered_drift(&self, draft: &Draft<'_>, messages: &[Message], prompt: &Prompt) -> Drift {
        let (Some(base), Some(answer)) = (
            draft.base,
            draft
                .base
                .and_then(|base| messages.get(base.history.count()..)),
        ) else {
            return Drift::Unknown;
        };
        let (Some(sent), Some(sampled)) =
            (base.prompt(), self.matching_sampled(draft, base, answer))
        else {
            return Drift::Unknown;
        };
        let mut ids = Vec::new();
        let common = sent.common_prefix(prompt);
        prompt.for_each_run_from(common, |run| ids.extend_from_slice(run));
        // What of the answer both have in common already was sent, not sampled.
        if sampled.is_empty() || ids.windows(sampled.len()).any(|window| window == sampled) {
            return Drift::None;
        }
        let tokenizer = self.model.tokenizer();
        let texts = [&ids, &sampled].map(|ids| tokenizer.decode(ids, false));
        match texts {
            [Ok(rest), Ok(text)] if rest.contains(&text) => Drift::Drifted,
            _ => Drift::Rewritten,
        }
    }

    /// The ids that the model generated for the answer which the client gives
    /// back, without the token that ended it.
    fn matching_sampled(
        &self,
        draft: &Draft<'_>,
        base: &Artifact,
        messages: &[Message],
    ) -> Option<Vec<u32>> {
        let ids = base.answer.sampled.as_deref()?;
        let given = messages.first()?;
        if draft.new.first() != Some(&&*base.answer.message) {
            let known = parse_messages(&[&*base.answer.message], 0, self.model.dialect()).ok()?;
            if !given.says_the_same(known.first()?) {
                return None;
            }
        }
        let stops = self.model.stop_token_ids();
        let ended = ids.last().is_some_and(|last| stops.contains(last));
        Some(ids[..ids.len() - usize::from(ended)].to_vec())
    }

    /// Where in the marginal suffix the answer's history form ends: before the
    /// token that closes it.
    fn close_of(&self, draft: &Draft<'_>, sewn: &Sewn<'_>) -> Result<Option<usize>> {
        let mut other = sewn.messages.to_vec();
        let Some(answer) = other.first_mut() else {
            return Ok(None);
        };
        *answer = sampled::otherwise(answer, self.model.dialect())?;
        let head = &draft.environment.head;
        let suffix = sewn.stand_in.suffix(&self.model, head, &other, draft.now);
        Ok(suffix.ok().flatten().and_then(|other| {
            let from = sewn.seam.tail.len();
            let close = sampled::close(&self.model, &sewn.rest[from..], other.text())?;
            Some(from + close)
        }))
    }

    fn encoded_length(&self, text: &str, cancel: &Cancel) -> Result<usize> {
        let mut ids = Vec::new();
        let check = || cancel.check();
        self.model
            .encode_rendered(text, true, &mut ids, |_| (), check)?;
        Ok(ids.len())
    }

    fn shapes(&self, head: &ChatRequest, messages: &[Message]) -> Vec<Shape> {
        let literals = self.model.literals(head);
        let shapes = messages.iter().map(|message| Shape::of(message, literals));
        shapes.collect()
    }

    /// The last rung: the server renders. The history is kept all the same.
    fn messages_plan(&self, draft: &Draft<'_>, reason: Reason) -> Plan {
        let history = match parse_messages(&draft.new, 0, self.model.dialect()) {
            Ok(messages) => {
                let shapes = self.shapes(&draft.environment.head, &messages);
                history_of(draft, &shapes, &messages)
            }
            Err(_) => {
                let odd = Traits {
                    odd: true,
                    ..Traits::default()
                };
                let parent = draft.base.map(|base| Arc::clone(&base.history));
                Arc::new(History::new(
                    parent,
                    &draft.new,
                    draft.digest,
                    false,
                    odd,
                    Vec::new(),
                ))
            }
        };
        let outcome = Outcome {
            rung: Rung::Messages,
            reason: Some(reason),
        };
        Plan {
            outcome,
            ..self.plan_of(draft, history, None)
        }
    }

    /// The environment of a turn; none where reading it would take long and
    /// [`PlanOptions::inline`] says not to.
    fn environment_of(
        &self,
        fields: &Members,
        identity: &Identity,
        base: Option<&Arc<Artifact>>,
        options: &PlanOptions<'_>,
        now: Now,
    ) -> Result<Option<Arc<Environment>>> {
        if let Some(base) = base
            && base.environment.is_spelled(&self.model, fields, identity)
        {
            return Ok(Some(Arc::clone(&base.environment)));
        }
        let spelling = Environment::spelling(fields, identity);
        if let Some(known) = self.environments().get(&spelling).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        if options.inline {
            return Ok(None);
        }
        self.environment(fields, identity, now).map(Some)
    }

    /// The environment of these members, read where it is not known.
    pub(crate) fn known_or_read(
        &self,
        fields: &Members,
        identity: &Identity,
        now: Now,
    ) -> Result<Arc<Environment>> {
        let spelling = Environment::spelling(fields, identity);
        let known = self.environments().get(&spelling).and_then(Weak::upgrade);
        known.map_or_else(|| self.environment(fields, identity, now), Ok)
    }

    fn environment(
        &self,
        fields: &Members,
        identity: &Identity,
        now: Now,
    ) -> Result<Arc<Environment>> {
        let environment = Environment::read(&self.model, fields, identity, |key, head| {
            self.table(key, head, now)
        })?;
        let environment = Arc::new(environment);
        let mut known = self.environments();
        known.retain(|_, environment| environment.strong_count() > 0);
        known.insert(environment.spelling, Arc::downgrade(&environment));
        Ok(environment)
    }

    fn table(&self, key: [u8; 32], head: &ChatRequest, now: Now) -> Arc<Table> {
        if let Some(known) = lock(&self.tables).get(&key) {
            return Arc::clone(known);
        }
        let table = Arc::new(Table::new(&self.model, head, now));
        let mut tables = lock(&self.tables);
        if tables.len() >= TABLES {
            tables.clear();
        }
        Arc::clone(tables.entry(key).or_insert(table))
    }

    fn environments(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<Environment>>> {
        lock(&self.environments)
    }
}

/// A marginal suffix with what it is sewn to.
struct Sewn<'a> {
    sent: &'a State,
    seam: &'a Seam,
    /// Tail and suffix.
    rest: &'a str,
    /// Bytes of it that history will repeat.
    repeated: usize,
    stand_in: &'a StandIn,
    messages: &'a [Message],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever was behind the lock is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many answers a request asks for (`n`).
fn choices(members: &Members) -> usize {
    let value = members
        .get("n")
        .and_then(|value| json::parse_str(value).ok());
    match value {
        Some(Json::Number(number)) => number.to_f64() as usize,
        _ => 1,
    }
}

/// The members with a cache salt, where they have none of their own.
fn salted(members: Members, salt: &str) -> Members {
    if salt.is_empty() || members.get("cache_salt").is_some() {
        return members;
    }
    let salt = json::dumps(&Json::String(salt.into()), &json::Style::default());
    members.with(&Members::new([("cache_salt", &*salt)].into_iter()))
}

#[cold]
fn no_messages() -> Error {
    Error::new(ErrorKind::InvalidRequest, "messages must not be empty")
}

fn same_date(a: Now, b: Now) -> bool {
    a == b || a.strftime("%Y-%m-%d") == b.strftime("%Y-%m-%d")
}

fn seam_at(row: BoundaryRow, tail: &str) -> Option<Seam> {
    (tail.len() <= LONGEST_TAIL).then(|| Seam {
        row,
        tail: tail.into(),
    })
}

/// A prompt of the same conversation, to align with.
fn previous_of(draft: &Draft<'_>) -> Option<Prompt> {
    let options = draft.options;
    let own = |artifact: &&Artifact| *artifact.tenant == *options.tenant;
    let artifact = draft.base.map(|base| &**base);
    let artifact = artifact.or(options.previous).filter(own);
    let State { prompt, spans, .. } = artifact?.state.as_ref()?;
    let prompt = match spans.first() {
        // Ids that stand for other text end what can be taken over.
        Some(span) => prompt.continued(span.start, &[]),
        None => prompt.clone(),
    };
    let usable = !matches!(
        draft.options.missing,
        Some(Reason::ArtifactExpired | Reason::TenantMismatch)
    );
    usable.then_some(prompt)
}

/// The history with the draft's messages, which have these shapes.
fn history_of(draft: &Draft<'_>, shapes: &[Shape], messages: &[Message]) -> Arc<History> {
    let parent = draft.base.map(|base| Arc::clone(&base.history));
    match parent {
        Some(parent) if draft.new.is_empty() => parent,
        parent => {
            let before = parent
                .as_ref()
                .map_or_else(Traits::default, |p| *p.traits());
            let traits = shapes.iter().fold(before, Traits::with);
            let names = messages.iter().flat_map(Message::call_names);
            let calls = names.map(|(id, name)| (short_hash(id), short_hash(name)));
            let calls = calls.collect();
            let (digest, completed) = (draft.digest, draft.completed);
            let history = History::new(parent, &draft.new, digest, completed, traits, calls);
            Arc::new(history)
        }
    }
}

/// The environment fingerprint, that of the turn before where nothing changed.
fn fingerprint_of(draft: &Draft<'_>) -> Arc<Fingerprint> {
    match draft.base {
        Some(base)
            if base.now == draft.now && Arc::ptr_eq(&base.environment, &draft.environment) =>
        {
            Arc::clone(&base.fingerprint)
        }
        _ => Arc::new(draft.environment.fingerprint(draft.now)),
    }
}

/// Reads messages, the first of which is the `first`th of its request.
///
/// # Errors
/// As [`ChatRequest::parse`].
pub(crate) fn parse_messages(
    messages: &[&str],
    first: usize,
    dialect: Dialect,
) -> Result<Vec<Message>> {
    let parse = |(at, raw): (usize, &&str)| {
        Message::parse(first + at, &json::parse_at(raw, 0, 2)?, dialect)
    };
    messages.iter().enumerate().map(parse).collect()
}

/// Whether the new calls and results can be understood without the history's: a
/// template may look up a result's call by its id.
fn check_calls(history: &History, messages: &[Message]) -> Result<(), Reason> {
    let mut known: Vec<(&str, &str)> = Vec::new();
    for message in messages {
        for (id, name) in message.call_names() {
            let other = known.iter().any(|call| call.0 == id && call.1 != name);
            if other || history.renames(short_hash(id), short_hash(name)) {
                return Err(Reason::UncertifiedTemplate);
            }
            known.push((id, name));
        }
        if let Some(id) = message.answered_call()
            && !known.iter().any(|call| call.0 == id)
        {
            return Err(Reason::UncertifiedTemplate);
        }
    }
    Ok(())
}

/// Where the answer that the client gives back lacks the reasoning that it had,
/// inside a tool loop, the stored answer takes its place.
fn restore_reasoning(draft: &mut Draft<'_>, dialect: Dialect) {
    let Some(base) = draft.base else {
        return;
    };
    let [given, next, ..] = draft.new.as_slice() else {
        return;
    };
    let Ok(read) = parse_messages(&[given, next, &base.answer.message], 1, dialect) else {
        return;
    };
    let [given, next, known] = read.as_slice() else {
        return;
    };
    let (given_shape, next_shape) = (given.bare_shape(), next.bare_shape());
    let lacks = given_shape.calls > 0 && !given_shape.reasoning && known.bare_shape().reasoning;
    if lacks && next_shape.role == Role::Tool && given.says_the_same(known) {
        draft.new[0] = &base.answer.message;
        draft.completed = true;
    }
}
