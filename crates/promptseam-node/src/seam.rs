//! The native side of `Seam`: turns, plans and artifacts.

use std::sync::{Arc, atomic::Ordering};

use napi::{
    Env,
    bindgen_prelude::{AsyncTask, Buffer, BufferSlice, Object, Task, Uint32Array},
};
use napi_derive::napi;
use promptseam::{
    Cancel,
    continuation::{
        Answer, Artifact, Certificate, Field, Found, Identity, Plan, PlanOptions, Planner, Reason,
        ShadowPolicy, Turn,
    },
    store,
    template::Now,
};

use crate::{
    model::{NativeCancel, NativeModel, cancel_of, promise},
    outcome::{Failure, Outcome, guarded},
    pool::Pool,
    prompt::{NativePrompt, UNREPORTED, report_memory},
};

/// A planner for the conversations of a model.
#[napi]
pub struct NativeSeam {
    planner: Arc<Planner>,
    pool: Arc<Pool>,
    options: Arc<NativeSeamOptions>,
}

/// How a Seam plans all its turns; see `SeamOptions`.
#[napi(object)]
pub struct NativeSeamOptions {
    pub shadow_first: u32,
    pub shadow_every: u32,
    pub follow_clock: bool,
    pub sampled: bool,
    pub restore_reasoning: bool,
    pub revision: String,
}

/// A turn that was read but not parsed.
#[napi]
pub struct NativeTurn {
    turn: Arc<Turn>,
}

/// How to plan one turn; see `Seam.prepare`.
#[napi(object)]
pub struct NativePlanOptions {
    pub unix_millis: f64,
    pub utc_offset_minutes: i32,
    pub expires: f64,
    pub tenant: String,
    pub lora: String,
    /// The cache salt of a request that has none; empty for none.
    pub salt: String,
    /// Why nothing was found, by its name; empty where something was.
    pub missing: String,
    /// Why the server is to render, by its name; empty where it need not.
    pub declined: String,
}

/// A planned turn.
#[napi]
pub struct NativePlan {
    plan: Plan,
    turn: Arc<Turn>,
    planner: Arc<Planner>,
    pool: Arc<Pool>,
}

/// What a plan is like; see `Turn`.
#[napi(object)]
pub struct NativePlanInfo {
    pub rung: String,
    pub reason: Option<String>,
    pub field: Option<String>,
    pub from_token: Option<u32>,
    pub prefix_length: u32,
    pub prompt_length: Option<u32>,
    pub seam: Option<u32>,
    pub drift: String,
    pub wants_check: bool,
}

/// See `Certificate`.
#[napi(object)]
pub struct NativeCertificate {
    pub prefix_id: String,
    pub prefix_tokens: f64,
    pub boundary: f64,
    pub append_hash: String,
    pub append_tokens: f64,
    pub combined_id: String,
    pub combined_tokens: f64,
    pub environment: Vec<NativeFieldDigest>,
    pub tenant: String,
    pub expires: f64,
}

/// A field of the environment fingerprint.
#[napi(object)]
pub struct NativeFieldDigest {
    pub field: String,
    pub digest: String,
}

/// Why a certificate does not hold.
#[napi(object)]
pub struct NativeRefusal {
    pub reason: String,
    pub field: Option<String>,
}

/// Ids that stand for the history form of a message.
#[napi(object)]
pub struct NativeSpan {
    pub start: u32,
    pub end: u32,
    pub rendered: u32,
}

/// The record of a turn.
#[napi]
pub struct NativeArtifact {
    artifact: Arc<Artifact>,
    bytes: i64,
}

/// What a record is like; see `Artifact`.
#[napi(object)]
pub struct NativeArtifactInfo {
    pub id: String,
    pub parent: Option<String>,
    pub digest: String,
    pub bytes: u32,
    pub all_bytes: f64,
    pub messages: u32,
    pub tokens: Option<u32>,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    if text.len() == 2 * N && text.is_ascii() {
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            // What is no number is no digest either: it is found not to match.
            *byte = u8::from_str_radix(&text[at..at + 2], 16).unwrap_or(0);
        }
    }
    bytes
}

/// Packs what an artifact added. Nobody waits for it, and a full queue has better
/// things to do.
fn pack_later(pool: &Pool, artifact: &Arc<Artifact>) {
    let idle = Arc::clone(artifact);
    let _ = pool.submit(move || idle.pack());
}

/// A count of ids; what is none is more than any prompt has.
fn count_of(number: f64) -> usize {
    match number {
        0.0..=9_007_199_254_740_991.0 if number.fract() == 0.0 => number as usize,
        _ => usize::MAX,
    }
}

fn reason_of(name: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| reason.name() == name)
}

/// What a plan needs, held by the job that makes it.
pub struct Job {
    planner: Arc<Planner>,
    pool: Arc<Pool>,
    seam: Arc<NativeSeamOptions>,
    turn: Arc<Turn>,
    found: Option<Found>,
    append: bool,
    previous: Option<Arc<Artifact>>,
    options: NativePlanOptions,
}

impl Job {
    fn plan(self, inline: bool, cancel: &Cancel) -> Result<Option<NativePlan>, Failure> {
        let Self {
            planner,
            pool,
            seam,
            turn,
            found,
            append,
            previous,
            options,
        } = self;
        let identity = Identity {
            model: seam.revision.clone(),
            lora: options.lora,
            ..Identity::default()
        };
        let how = PlanOptions {
            now: Now::from_unix_millis(options.unix_millis as i64, options.utc_offset_minutes),
            expires: options.expires as i64,
            follow_clock: seam.follow_clock,
            identity: &identity,
            tenant: &options.tenant,
            salt: &options.salt,
            sampled: seam.sampled,
            restore_reasoning: seam.restore_reasoning,
            missing: reason_of(&options.missing),
            declined: reason_of(&options.declined),
            previous: previous.as_deref(),
            inline,
        };
        let plan = match &found {
            Some(found) if append => planner.plan_append(&turn, &found.artifact, &how, cancel)?,
            found => planner.plan(&turn, found.as_ref(), &how, cancel)?,
        };
        Ok(plan.map(|plan| NativePlan {
            plan,
            turn,
            planner,
            pool,
        }))
    }
}

/// Messages to append that nobody has read yet.
pub struct Append {
    messages: Vec<u8>,
    members: Option<Vec<u8>>,
    planner: Arc<Planner>,
    pool: Arc<Pool>,
    seam: Arc<NativeSeamOptions>,
    found: Arc<Artifact>,
    options: NativePlanOptions,
}

/// A plan made on a thread of libuv's: waking it costs less than the pool's, whose
/// threads settle a promise of their own each, and the main thread does nothing but
/// hand it over.
pub enum PlanAside {
    Read(Option<Job>),
    Append(Option<Append>),
}

impl PlanAside {
    fn plan(&mut self) -> Result<Option<NativePlan>, Failure> {
        let job = match self {
            Self::Read(job) => job.take(),
            Self::Append(append) => append.take().map(Append::read).transpose()?,
        };
        let job = job.ok_or_else(|| Failure::new("PS_INTERNAL", "a task ran twice"))?;
        job.plan(true, &Cancel::default())
    }
}

impl Append {
    fn read(self) -> Result<Job, Failure> {
        Ok(Job {
            turn: Arc::new(Turn::append(self.messages, self.members)?),
            planner: self.planner,
            pool: self.pool,
            seam: self.seam,
            found: Some(Found {
                artifact: self.found,
                count: 0,
            }),
            append: true,
            previous: None,
            options: self.options,
        })
    }
}

impl Task for PlanAside {
    type Output = Outcome<Option<NativePlan>>;
    type JsValue = Outcome<Option<NativePlan>>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(guarded(|| self.plan()))
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output)
    }
}

#[napi]
impl NativeTurn {
    /// Reads messages to append, and members of their request, at once.
    #[napi]
    pub fn append(messages: BufferSlice, members: Option<BufferSlice>) -> Outcome<NativeTurn> {
        guarded(|| {
            let members = members.map(|members| members.to_vec());
            let turn = Arc::new(Turn::append(messages.to_vec(), members)?);
            Ok(Self { turn })
        })
    }

    /// Reads a whole request at once.
    #[napi]
    pub fn request(body: BufferSlice) -> Outcome<NativeTurn> {
        guarded(|| {
            let turn = Arc::new(Turn::request(body.to_vec())?);
            Ok(Self { turn })
        })
    }

    /// How many messages the longest histories that may be known have.
    #[napi]
    pub fn candidate_counts(&self) -> Uint32Array {
        let candidates = self.turn.candidates();
        Uint32Array::new(candidates.map(|(count, _)| count as u32).collect())
    }

    /// Their digests in hexadecimal, 64 digits each.
    #[napi]
    pub fn candidate_digests(&self) -> String {
        let digests = self.turn.candidates().map(|(_, digest)| hex(&digest));
        digests.collect()
    }
}

#[napi]
impl NativeSeam {
    /// A planner on the pool of `model`.
    #[napi]
    pub fn on(model: &NativeModel, options: NativeSeamOptions) -> Outcome<NativeSeam> {
        guarded(|| {
            let (planner, pool) = model.planner(ShadowPolicy {
                first: options.shadow_first,
                every: options.shadow_every,
            })?;
            Ok(Self {
                planner,
                pool,
                options: Arc::new(options),
            })
        })
    }

    /// Certifies the usual classes.
    #[napi(ts_return_type = "Promise<Failure | null>")]
    pub fn warm_up<'env>(
        &self,
        env: &'env Env,
        unix_millis: f64,
        utc_offset_minutes: i32,
    ) -> napi::Result<Object<'env>> {
        let planner = Arc::clone(&self.planner);
        promise(env, &self.pool, move || {
            planner.warm_up(Now::from_unix_millis(
                unix_millis as i64,
                utc_offset_minutes,
            ));
            Ok(None::<u32>)
        })
    }

    /// Reads a whole request.
    #[napi(ts_return_type = "Promise<Failure | NativeTurn>")]
    pub fn read<'env>(&self, env: &'env Env, body: BufferSlice) -> napi::Result<Object<'env>> {
        let body = body.to_vec();
        promise(env, &self.pool, move || {
            let turn = Arc::new(Turn::request(body)?);
            Ok(NativeTurn { turn })
        })
    }

    /// Plans where that takes no longer than waking a thread of the pool; else
    /// gives null.
    #[napi(ts_return_type = "Promise<Failure | NativePlan | null>")]
    pub fn plan_aside(
        &self,
        turn: &NativeTurn,
        found: &NativeArtifact,
        count: u32,
        options: NativePlanOptions,
    ) -> AsyncTask<PlanAside> {
        let job = self.job(&turn.turn, false, Some(found), count, None, options);
        AsyncTask::new(PlanAside::Read(Some(job)))
    }

    /// Reads messages to append, and plans as [`Self::plan_aside`] does.
    #[napi(ts_return_type = "Promise<Failure | NativePlan | null>")]
    pub fn append_aside(
        &self,
        messages: BufferSlice,
        members: Option<BufferSlice>,
        found: &NativeArtifact,
        options: NativePlanOptions,
    ) -> AsyncTask<PlanAside> {
        AsyncTask::new(PlanAside::Append(Some(Append {
            messages: messages.to_vec(),
            members: members.map(|members| members.to_vec()),
            planner: Arc::clone(&self.planner),
            pool: Arc::clone(&self.pool),
            seam: Arc::clone(&self.options),
            found: Arc::clone(&found.artifact),
            options,
        })))
    }

    /// The artifact `id` from its record and those it grew from, or from those
    /// behind `known`.
    #[napi(ts_return_type = "Promise<Failure | NativeArtifact>")]
    pub fn restore<'env>(
        &self,
        env: &'env Env,
        records: BufferSlice,
        known: Option<&NativeArtifact>,
        tenant: String,
        id: String,
    ) -> napi::Result<Object<'env>> {
        let planner = Arc::clone(&self.planner);
        let pool = Arc::clone(&self.pool);
        let records = records.to_vec();
        let known = known.map(NativeArtifact::shared);
        promise(env, &self.pool, move || {
            let artifact = store::restore(&planner, &records, known, &tenant, &from_hex(&id))?;
            pack_later(&pool, &artifact);
            Ok(NativeArtifact::new(artifact))
        })
    }

    /// Plans on the pool.
    #[napi(ts_return_type = "Promise<Failure | NativePlan>")]
    #[allow(clippy::too_many_arguments, reason = "an object of handles costs more")]
    pub fn plan<'env>(
        &self,
        env: &'env Env,
        turn: &NativeTurn,
        append: bool,
        found: Option<&NativeArtifact>,
        count: u32,
        previous: Option<&NativeArtifact>,
        options: NativePlanOptions,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Object<'env>> {
        let job = self.job(&turn.turn, append, found, count, previous, options);
        let cancel = cancel_of(cancel);
        promise(env, &self.pool, move || job.plan(false, &cancel))
    }
}

impl NativeSeam {
    fn job(
        &self,
        turn: &Arc<Turn>,
        append: bool,
        found: Option<&NativeArtifact>,
        count: u32,
        previous: Option<&NativeArtifact>,
        options: NativePlanOptions,
    ) -> Job {
        Job {
            planner: Arc::clone(&self.planner),
            pool: Arc::clone(&self.pool),
            seam: Arc::clone(&self.options),
            turn: Arc::clone(turn),
            found: found.map(|found| Found {
                artifact: Arc::clone(&found.artifact),
                count: count as usize,
            }),
            append,
            previous: previous.map(|previous| Arc::clone(&previous.artifact)),
            options,
        }
    }
}

#[napi]
impl NativePlan {
    #[napi]
    pub fn info(&self) -> NativePlanInfo {
        let outcome = self.plan.outcome();
        let (field, from_token) = match outcome.reason {
            Some(Reason::FingerprintMismatch(field)) => (Some(field.name().to_owned()), None),
            Some(Reason::TemplateRewroteHistory(from)) => (None, Some(from as u32)),
            _ => (None, None),
        };
        NativePlanInfo {
            rung: outcome.rung.name().to_owned(),
            reason: outcome.reason.map(|reason| reason.name().to_owned()),
            field,
            from_token,
            prefix_length: self.plan.prefix_length() as u32,
            prompt_length: self.plan.prompt().map(|prompt| prompt.len() as u32),
            seam: self.plan.seam().map(|seam| seam as u32),
            drift: self.plan.drift().name().to_owned(),
            wants_check: self.plan.wants_check(),
        }
    }

    #[napi]
    pub fn prompt(&self) -> Option<NativePrompt> {
        self.plan.prompt().cloned().map(NativePrompt::new)
    }

    #[napi]
    pub fn certificate(&self) -> Option<NativeCertificate> {
        let certificate = self.plan.certificate()?;
        Some(NativeCertificate {
            prefix_id: hex(&certificate.prefix_id),
            prefix_tokens: certificate.prefix_tokens as f64,
            boundary: certificate.boundary as f64,
            append_hash: hex(&certificate.append_hash),
            append_tokens: certificate.append_tokens as f64,
            combined_id: hex(&certificate.combined_id),
            combined_tokens: certificate.combined_tokens as f64,
            environment: certificate
                .environment
                .iter()
                .map(|(field, digest)| NativeFieldDigest {
                    field: field.name().to_owned(),
                    digest: hex(digest),
                })
                .collect(),
            tenant: certificate.tenant.clone(),
            expires: certificate.expires as f64,
        })
    }

    /// Checks a certificate against this plan; null where it holds.
    #[napi]
    pub fn check(
        &self,
        certificate: NativeCertificate,
        tenant: String,
        now_ms: f64,
    ) -> Outcome<Option<NativeRefusal>> {
        guarded(|| {
            let mut digests = certificate.environment.iter();
            let certificate = Certificate {
                prefix_id: from_hex(&certificate.prefix_id),
                prefix_tokens: count_of(certificate.prefix_tokens),
                boundary: count_of(certificate.boundary),
                append_hash: from_hex(&certificate.append_hash),
                append_tokens: count_of(certificate.append_tokens),
                combined_id: from_hex(&certificate.combined_id),
                combined_tokens: count_of(certificate.combined_tokens),
                environment: Field::ALL.map(|field| {
                    let digest = digests.next().filter(|given| given.field == field.name());
                    (
                        field,
                        digest.map_or([0; 16], |given| from_hex(&given.digest)),
                    )
                }),
                tenant: certificate.tenant,
                expires: certificate.expires as i64,
            };
            let refused = self
                .plan
                .check_certificate(&certificate, &tenant, now_ms as i64);
            Ok(refused.err().map(|reason| NativeRefusal {
                reason: reason.name().to_owned(),
                field: match reason {
                    Reason::FingerprintMismatch(field) => Some(field.name().to_owned()),
                    _ => None,
                },
            }))
        })
    }

    /// Compares the prompt with the full render: null where they are one, else
    /// the plan to send instead.
    #[napi(ts_return_type = "Promise<Failure | NativePlan | null>")]
    pub fn shadow_check<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Object<'env>> {
        let parts = self.parts();
        let cancel = cancel_of(cancel);
        promise(env, &self.pool, move || {
            let right = parts.plan.shadow_check(&parts.planner, &cancel)?;
            Ok(right.map(|plan| Self { plan, ..parts }))
        })
    }

    /// This turn rendered whole, for a reason.
    #[napi(ts_return_type = "Promise<Failure | NativePlan>")]
    pub fn rendered<'env>(
        &self,
        env: &'env Env,
        reason: String,
        cancel: Option<&NativeCancel>,
    ) -> napi::Result<Object<'env>> {
        let parts = self.parts();
        let cancel = cancel_of(cancel);
        promise(env, &self.pool, move || {
            let reason = reason_of(&reason).unwrap_or(Reason::PrefixMismatch);
            let plan = parts.plan.rendered(&parts.planner, reason, &cancel)?;
            Ok(Self { plan, ..parts })
        })
    }

    /// All messages as a JSON list.
    #[napi]
    pub fn messages_json(&self) -> Outcome<String> {
        guarded(|| Ok(self.plan.messages_json()?))
    }

    /// The members of the request that can change a prompt, as a JSON object.
    #[napi]
    pub fn members_json(&self) -> String {
        self.plan.members_json()
    }

    /// Its other members, as a JSON object.
    #[napi]
    pub fn others_json(&self) -> String {
        self.plan.others_json()
    }

    /// The messages of a whole request as they came, as a JSON list.
    #[napi]
    pub fn sent_messages_json(&self) -> String {
        self.turn.messages_json()
    }

    #[napi]
    pub fn spans(&self) -> Vec<NativeSpan> {
        let spans = self.plan.spans().iter();
        spans
            .map(|span| NativeSpan {
                start: span.start as u32,
                end: span.end as u32,
                rendered: span.rendered as u32,
            })
            .collect()
    }

    /// The record of this turn with its answer.
    #[napi]
    pub fn commit(
        &self,
        env: Env,
        message: String,
        sampled: Option<Uint32Array>,
    ) -> Outcome<NativeArtifact> {
        guarded(|| {
            let sampled = sampled.map(|ids| ids.to_vec());
            let tokenizer = self.planner.model().tokenizer();
            tokenizer.check_ids(sampled.as_deref().unwrap_or_default())?;
            let artifact = self.plan.commit(Answer { message, sampled })?;
            let artifact = Arc::new(artifact);
            pack_later(&self.pool, &artifact);
            let artifact = NativeArtifact::new(artifact);
            report_memory(&env);
            Ok(artifact)
        })
    }
}

impl NativePlan {
    /// A copy for another thread.
    fn parts(&self) -> Self {
        Self {
            plan: self.plan.clone(),
            turn: Arc::clone(&self.turn),
            planner: Arc::clone(&self.planner),
            pool: Arc::clone(&self.pool),
        }
    }
}

#[napi]
impl NativeArtifact {
    #[napi]
    pub fn info(&self) -> Outcome<NativeArtifactInfo> {
        let artifact = &self.artifact;
        guarded(|| {
            Ok(NativeArtifactInfo {
                id: hex(artifact.id()),
                parent: artifact.parent().map(|id| hex(id)),
                digest: hex(artifact.digest()),
                bytes: u32::try_from(artifact.own_bytes()).unwrap_or(u32::MAX),
                all_bytes: artifact.bytes() as f64,
                messages: artifact.message_count() as u32,
                tokens: artifact.prompt().map(|prompt| prompt.len() as u32),
            })
        })
    }

    /// What it adds to its parent, as bytes to be kept.
    #[napi(ts_return_type = "Promise<Failure | Buffer>")]
    pub fn record(&self) -> AsyncTask<Pack> {
        AsyncTask::new(Pack(Arc::clone(&self.artifact)))
    }

    /// The answer's message as JSON.
    #[napi]
    pub fn answer(&self) -> String {
        self.artifact.answer().message.clone()
    }
}

/// Packing a record on one of libuv's threads.
pub struct Pack(Arc<Artifact>);

impl Task for Pack {
    type Output = Outcome<Buffer>;
    type JsValue = Outcome<Buffer>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(guarded(|| Ok(Buffer::from(store::pack(&self.0)?))))
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output)
    }
}

impl NativeArtifact {
    /// A handle to what JavaScript's memory is told of.
    fn new(artifact: Arc<Artifact>) -> Self {
        let bytes = i64::try_from(artifact.own_bytes()).unwrap_or(i64::MAX);
        UNREPORTED.fetch_add(bytes, Ordering::Relaxed);
        Self { artifact, bytes }
    }

    pub(crate) fn shared(&self) -> Arc<Artifact> {
        Arc::clone(&self.artifact)
    }
}

impl Drop for NativeArtifact {
    fn drop(&mut self) {
        UNREPORTED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
