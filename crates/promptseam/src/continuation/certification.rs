//! Certification: whether, for a class of transitions, a template leaves the
//! prompt that was sent as it was up to its seam, and appends what a short
//! stand-in history gives.
//!
//! A chat template is a program, and nothing in general makes it append-only. So
//! each class is tried on a battery of synthetic conversations, with the
//! arguments and tools of the environment it is used in. For each, with P(H) the
//! rendered prompt of history H, generation prompt included, the answer A and
//! what follows it D:
//!
//! - P(H), less what history does not repeat of the generation prompt, must begin
//!   P(H + A + D);
//! - the rest must be what follows the stand-in's own prompt in
//!   P(stand-in + A + D).
//!
//! That is a test, not a proof. What it misses is caught by comparing planned
//! prompts with full renders: the first ones of each class, later a share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    class::{Class, Run},
    probes::{self, MARKER},
    traits::Head,
};
use crate::{
    error::Result,
    model::Model,
    template::{ChatRequest, Found, Message, Now, Prepared, Role, Shape},
};

/// Probes for each class.
const PROBES: u64 = 12;
/// And for those in which the template finds what it looks for.
const TESTED_PROBES: u64 = 32;
/// With fewer that could be rendered a class is not certified.
const LEAST: u64 = 4;
/// How many are made for each that is needed, where a template refuses some.
const TRIES: u64 = 3;
/// A battery that takes longer ends there.
const TIME_BOX: Duration = Duration::from_millis(100);
/// Classes that are remembered for an environment.
const CLASSES: usize = 512;

/// What is known of one environment's template.
#[derive(Debug)]
pub(crate) struct Table {
    head: ChatRequest,
    /// What the generation prompt ends with and history does not repeat.
    extra: String,
    classes: Mutex<HashMap<Class, Arc<ClassState>>>,
}

/// What the battery said of a class.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It holds.
    Certified(StandIn),
    /// The template prints earlier text otherwise.
    Rewrites,
    /// It could not be shown.
    Unknown,
}

/// A short history of a class.
#[derive(Debug)]
pub(crate) struct StandIn {
    prepared: Prepared,
    /// Of the tools only the first one is printed: a class without calls and
    /// results has no use for the others.
    one_tool: bool,
    /// What its prompt has behind the marker, less what history does not repeat.
    between: String,
}

/// A class with its verdict and what became of it since.
#[derive(Debug)]
pub(crate) struct ClassState {
    pub(crate) verdict: Verdict,
    passed: AtomicU32,
    planned: AtomicU32,
    decertified: AtomicBool,
}

impl ClassState {
    fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            passed: AtomicU32::new(0),
            planned: AtomicU32::new(0),
            decertified: AtomicBool::new(false),
        }
    }

    /// The stand-in, while the class is certified.
    pub(crate) fn stand_in(&self) -> Option<&StandIn> {
        match &self.verdict {
            Verdict::Certified(stand_in) if !self.is_decertified() => Some(stand_in),
            _ => None,
        }
    }

    pub(crate) fn is_decertified(&self) -> bool {
        self.decertified.load(Ordering::Relaxed)
    }

    /// Whether the next planned prompt is to be compared with the full render:
    /// until `first` have passed always, then one in `every`.
    pub(crate) fn wants_check(&self, first: u32, every: u32) -> bool {
        let planned = self.planned.fetch_add(1, Ordering::Relaxed);
        let settled = self.passed.load(Ordering::Relaxed) >= first;
        !settled || every > 0 && planned.is_multiple_of(every)
    }

    pub(crate) fn pass(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// The class is not planned with any more in this process.
    pub(crate) fn decertify(&self) {
        self.decertified.store(true, Ordering::Relaxed);
    }
}

impl Table {
    /// A table for requests like `head`. Some ten short renderings.
    pub(crate) fn new(model: &Model, head: &ChatRequest, now: Now) -> Self {
        let head = head.with_messages(Vec::new());
        let extra = unrepeated(model, &head, now).unwrap_or_default();
        Self {
            head,
            extra,
            classes: Mutex::default(),
        }
    }

    /// How much of a prompt's text a longer prompt repeats.
    pub(crate) fn repeated(&self, prompt: &str) -> usize {
        prompt.strip_suffix(&*self.extra).unwrap_or(prompt).len()
    }

    /// The state of a class, if it is known.
    pub(crate) fn known(&self, class: &Class) -> Option<Arc<ClassState>> {
        self.lock().get(class).cloned()
    }

    /// The state of a class, which is certified now if it is not known: up to
    /// [`TIME_BOX`], usually two milliseconds.
    pub(crate) fn certify(&self, model: &Model, class: &Class, now: Now) -> Arc<ClassState> {
        if let Some(known) = self.known(class) {
            return known;
        }
        let verdict = self.examine(model, class, now).unwrap_or(Verdict::Unknown);
        let mut classes = self.lock();
        if classes.len() >= CLASSES {
            // Those in use come back within milliseconds each.
            classes.clear();
        }
        let state = || Arc::new(ClassState::new(verdict));
        classes.entry(class.clone()).or_insert_with(state).clone()
    }

    /// Certifies what conversations usually are made of.
    pub(crate) fn certify_usual(&self, model: &Model, now: Now) {
        let shape = |role, calls| Shape {
            role,
            content: calls == 0,
            reasoning: false,
            calls,
            literals: Found::default(),
        };
        let answer = shape(Role::Assistant, 0);
        let call = shape(Role::Assistant, 1);
        let user = shape(Role::User, 0);
        let result = shape(Role::Tool, 0);
        let run = |shape| Run { shape, many: false };
        let started = Instant::now();
        for head in [Head::System, Head::None] {
            for (last, tools, after) in [
                (Role::User, false, [answer, user]),
                (Role::User, false, [call, result]),
                (Role::Tool, true, [call, result]),
                (Role::Tool, true, [answer, user]),
                (Role::User, true, [answer, user]),
                (Role::User, true, [call, result]),
            ] {
                if started.elapsed() > TIME_BOX {
                    return;
                }
                let class = Class {
                    head,
                    last,
                    tools,
                    reasoned: false,
                    unanswered: false,
                    literals: Default::default(),
                    after: after.map(run).into(),
                };
                self.certify(model, &class, now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Class, Arc<ClassState>>> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn render(&self, model: &Model, messages: Vec<Message>, now: Now) -> Result<String> {
        model.render_request(&self.head.with_messages(messages), now)
    }

    fn examine(&self, model: &Model, class: &Class, now: Now) -> Result<Verdict> {
        let started = Instant::now();
        let stand_in = match self.stand_in(model, class, now) {
            Ok(Some(stand_in)) => stand_in,
            Ok(None) | Err(_) => return Ok(Verdict::Unknown),
        };
        let literals = model.literals(&self.head);
        let wanted = if class.is_tested() {
            TESTED_PROBES
        } else {
            PROBES
        };
        let mut held = 0;
        for seed in 1..=TRIES * wanted {
            if held == wanted || started.elapsed() > TIME_BOX {
                break;
            }
            let probe = probes::probe(class, seed, literals, model.dialect())?;
            let mut whole = probe.before.clone();
            whole.extend(probe.after.iter().cloned());
            let sent = self.render(model, probe.before, now);
            let (Ok(sent), Ok(next)) = (sent, self.render(model, whole, now)) else {
                // The template refuses this one; real requests like it fail too.
                continue;
            };
            let Some(rest) = next.strip_prefix(&sent[..self.repeated(&sent)]) else {
                return Ok(Verdict::Rewrites);
            };
            match stand_in.suffix(model, &self.head, &probe.after, now) {
                Ok(Some(suffix)) if suffix.text() == rest => held += 1,
                _ => return Ok(Verdict::Unknown),
            }
        }
        Ok(if held >= LEAST {
            Verdict::Certified(stand_in)
        } else {
            Verdict::Unknown
        })
    }

    fn stand_in(&self, model: &Model, class: &Class, now: Now) -> Result<Option<StandIn>> {
        let messages = probes::stand_in(class, model.dialect())?;
        let prepared = model.prepare(&self.head.with_messages(messages))?;
        let sent = model.render_prepared(&prepared, now)?;
        let repeated = &sent[..self.repeated(&sent)];
        let Some((_, between)) = repeated.split_once(&**MARKER) else {
            return Ok(None);
        };
        let between = between.to_owned();
        let one_tool = class.after.iter().all(|run| {
            let shape = run.shape;
            shape.calls == 0 && shape.role != Role::Tool
        });
        Ok(Some(StandIn {
            prepared,
            one_tool,
            between,
        }))
    }
}

/// The text that a template appends.
pub(crate) struct Suffix {
    rendered: String,
    from: usize,
}

impl Suffix {
    pub(crate) fn text(&self) -> &str {
        &self.rendered[self.from..]
    }

    /// How much of it a longer prompt repeats.
    pub(crate) fn repeated(&self, table: &Table) -> usize {
        table.repeated(&self.rendered).saturating_sub(self.from)
    }
}

impl StandIn {
    /// What the template appends for `after`; none where the stand-in's own text
    /// is not found as it was. O(stand-in + `after`).
    ///
    /// # Errors
    /// What rendering gives.
    pub(crate) fn suffix(
        &self,
        model: &Model,
        head: &ChatRequest,
        after: &[Message],
        now: Now,
    ) -> Result<Option<Suffix>> {
        let after = model.prepare(&head.with_messages(after.to_vec()))?;
        // No instruction is in what follows, so each part is prepared as in the whole.
        let mut whole = self.prepared.followed_by(&after);
        if self.one_tool {
            whole = whole.with_one_tool();
        }
        let rendered = model.render_prepared(&whole, now)?;
        let found = memchr::memmem::find(rendered.as_bytes(), MARKER.as_bytes());
        let Some(behind) = found.map(|at| at + MARKER.len()) else {
            return Ok(None);
        };
        Ok(rendered[behind..]
            .starts_with(&self.between)
            .then_some(behind + self.between.len())
            .map(|from| Suffix { rendered, from }))
    }
}

/// What a generation prompt ends with and history does not repeat.
fn unrepeated(model: &Model, head: &ChatRequest, now: Now) -> Result<String> {
    let shape = |role| Shape {
        role,
        content: true,
        reasoning: false,
        calls: 0,
        literals: Found::default(),
    };
    let class = Class {
        head: Head::None,
        last: Role::User,
        tools: false,
        reasoned: false,
        unanswered: false,
        literals: Default::default(),
        after: [Role::Assistant, Role::User]
            .map(|role| Run {
                shape: shape(role),
                many: false,
            })
            .into(),
    };
    let literals = model.literals(head);
    let mut repeated: Option<(usize, String)> = None;
    // Answers can begin as the generation prompt goes on: the shortest counts.
    for seed in 1..=4 {
        let probe = probes::probe(&class, seed, literals, model.dialect())?;
        let before = probes::stand_in(&class, model.dialect())?;
        let whole = [before.as_slice(), &probe.after].concat();
        let open = |generation: bool| {
            let head = head.with_messages(before.clone());
            model.render_request(&head.with_generation_prompt(generation), now)
        };
        let (sent, closed) = (open(true)?, open(false)?);
        let next = model.render_request(&head.with_messages(whole), now)?;
        let common = common_prefix(&sent, &next);
        if !sent.starts_with(&closed) || common < closed.len() {
            return Ok(String::new());
        }
        if repeated
            .as_ref()
            .is_none_or(|(shortest, _)| common < *shortest)
        {
            repeated = Some((common, sent[common..].to_owned()));
        }
    }
    Ok(repeated.map(|(_, extra)| extra).unwrap_or_default())
}

/// The bytes that both begin with, up to a character of both.
fn common_prefix(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    let mut common = pairs.take_while(|(a, b)| a == b).count();
    while !a.is_char_boundary(common) {
        common -= 1;
    }
    common
}
