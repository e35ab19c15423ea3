//! Records that were tampered with:
//! `fuzz records [--seconds N] [--most N] [--seed N] [--json]`.
//!
//! Some are changed as they lie in a store: they must be refused, or be what they
//! were. Others are changed inside and given an id that fits, as nobody can who
//! does not choose the id himself: whatever becomes of them, nothing panics, and no
//! more than an error comes of going on from them. Exits 1 where either fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::options::Options;
use promptseam::{
    Cancel, ErrorKind,
    continuation::{
        Answer, Artifact, Found, Identity, PlanOptions, Planner, Reason, ShadowPolicy, Turn,
    },
    model::{LoadOptions, Model, ModelFiles},
    store,
    template::Now,
};
use promptseam_fixtures::{Rng, golden, model_folder};

const FAMILIES: [&str; 3] = ["qwen3", "llama3", "gpt-oss"];
const TENANT: &str = "t";

/// An artifact, and its record behind those that it grew from.
struct Kept {
    artifact: Arc<Artifact>,
    parent: Option<Arc<Artifact>>,
    chain: Vec<u8>,
    /// What the artifact adds, before it was packed.
    record: Vec<u8>,
}

struct Family {
    planner: Planner,
    kept: Vec<Kept>,
}

#[derive(Default)]
struct Counts {
    refused: u64,
    same: u64,
    inside: u64,
    usable: u64,
    failures: Vec<String>,
}

fn options<'a>(identity: &'a Identity, now: i64) -> PlanOptions<'a> {
    PlanOptions {
        now: Now::from_unix_millis(now, 0),
        expires: i64::MAX,
        follow_clock: false,
        identity,
        tenant: TENANT,
        salt: "",
        sampled: true,
        restore_reasoning: true,
        missing: None,
        declined: None,
        previous: None,
        inline: false,
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    // A panic is counted, and needs no report of its own.
    std::panic::set_hook(Box::new(|_| {}));
    let families: Vec<Family> = FAMILIES.iter().map(|name| family(name)).collect();
    let start = Instant::now();
    let deadline = start + Duration::from_secs(options.seconds);
    let mut counts = Counts::default();
    let mut number = 0;
    while Instant::now() < deadline && number < options.most && counts.failures.len() < 10 {
        let seed = options.seed.wrapping_mul(1 << 40).wrapping_add(number);
        let mut rng = Rng::new(seed);
        let family = rng.pick(&families);
        let tried = catch_unwind(AssertUnwindSafe(|| {
            if rng.one_in(2) {
                try_outside(family, &mut rng, &mut counts)
            } else {
                try_inside(family, &mut rng, &mut counts)
            }
        }));
        match tried {
            Ok(Ok(())) => {}
            Ok(Err(what)) => counts.failures.push(format!("seed {seed}: {what}")),
            Err(_) => counts.failures.push(format!("seed {seed}: a panic")),
        }
        number += 1;
    }
    for failure in &counts.failures {
        eprintln!("{failure}");
    }
    let Counts {
        refused,
        same,
        inside,
        usable,
        failures,
    } = counts;
    let (failures, seconds) = (failures.len(), start.elapsed().as_secs_f64());
    if options.json {
        println!(
            "{{\"records\":{number},\"refused\":{refused},\"same\":{same},\"inside\":{inside},\"usable\":{usable},\"failures\":{failures},\"seconds\":{seconds:.1}}}"
        );
    } else {
        println!(
            "{number} records: of those changed from outside {refused} refused, {same} still the same; \
             of {inside} changed inside {usable} could be gone on from: {failures} failures in {seconds:.1} s"
        );
    }
    ExitCode::from(u8::from(failures > 0))
}

/// The artifacts of some golden conversations.
fn family(name: &str) -> Family {
    let files = ModelFiles::locate(model_folder(name).to_str().unwrap_or_default());
    let model = files.and_then(|files| Model::load(&files, &LoadOptions::default()));
    let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
    let planner = Planner::new(Arc::new(model), ShadowPolicy { first: 0, every: 0 });
    let identity = Identity::default();
    let mut kept: Vec<Kept> = Vec::new();
    for line in golden().iter().filter(|line| line.family == name).take(24) {
        let Ok(turn) = Turn::request(line.request.clone().into_bytes()) else {
            continue;
        };
        let known = turn.candidates().find_map(|(count, digest)| {
            let known = kept.iter().find(|one| *one.artifact.digest() == digest)?;
            Some((count, Arc::clone(&known.artifact), known.chain.clone()))
        });
        let found = known.as_ref().map(|(count, artifact, _)| Found {
            artifact: Arc::clone(artifact),
            count: *count,
        });
        let how = options(&identity, line.now);
        let plan = planner.plan(&turn, found.as_ref(), &how, &Cancel::default());
        let plan = plan.ok().flatten().expect("golden requests can be planned");
        let sampled = plan.prompt().map(|prompt| prompt.to_vec()[..9].to_vec());
        let message = r#"{"role":"assistant","content":"So it is.","reasoning":"Hm."}"#.to_owned();
        let artifact = plan.commit(Answer { message, sampled });
        let artifact = Arc::new(artifact.expect("an answer can be recorded"));
        let (parent, mut chain) = match known {
            Some((_, parent, chain)) => (Some(parent), chain),
            None => (None, Vec::new()),
        };
        chain.extend(store::pack(&artifact).expect("an artifact can be packed"));
        let record = artifact.encode().expect("an artifact can be written");
        kept.push(Kept {
            artifact,
            parent,
            chain,
            record,
        });
    }
    Family { planner, kept }
}

/// Changes bytes in a few ways that files go bad, and hands do.
fn tamper(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len());
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + 1 + rng.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let from = rng.below(other.len());
                let piece = &other[from..(from + rng.below(64)).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            5 => {
                let from = rng.below(other.len());
                let length = rng.below(256).min(other.len() - from).min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&other[from..from + length]);
            }
            _ => {
                let number = rng
                    .pick(&[u64::MAX, u64::from(u32::MAX), 1 << 31])
                    .to_le_bytes();
                let length = number.len().min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&number[..length]);
            }
        }
    }
}

fn try_outside(family: &Family, rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let kept = rng.pick(&family.kept);
    let other = &rng.pick(&family.kept).chain;
    let mut chain = kept.chain.clone();
    tamper(&mut chain, other, rng);
    match store::restore(&family.planner, &chain, None, TENANT, kept.artifact.id()) {
        Err(error) if error.kind() == ErrorKind::RecordRefused => counts.refused += 1,
        Err(error) => return Err(format!("not refused, but {:?}", error.kind())),
        Ok(artifact) => {
            if artifact.encode().ok().as_ref() != Some(&kept.record) {
                return Err("another artifact than the one that was kept".to_owned());
            }
            counts.same += 1;
        }
    }
    Ok(())
}

fn try_inside(family: &Family, rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let kept = rng.pick(&family.kept);
    let other = &rng.pick(&family.kept).record;
    let mut record = kept.record.clone();
    tamper(&mut record, other, rng);
    counts.inside += 1;
    let id = blake3::derive_key("promptseam prompt artifact v2", &record);
    let mut frame = vec![b'P', b'S', 1, 0];
    for _ in 0..2 {
        frame.extend((record.len() as u32).to_le_bytes());
    }
    frame.extend(&record);
    let parent = kept.parent.clone();
    let artifact = match store::restore(&family.planner, &frame, parent, TENANT, &id) {
        Ok(artifact) => artifact,
        Err(error) if error.kind() == ErrorKind::RecordRefused => return Ok(()),
        Err(error) => return Err(format!("not refused, but {:?}", error.kind())),
    };
    let identity = Identity::default();
    let append = br#"[{"role":"user","content":"And then?"}]"#.to_vec();
    let turn = Turn::append(append, None).map_err(|error| format!("{error:?}"))?;
    let how = options(&identity, 1_795_262_400_000);
    let (cancel, planner) = (Cancel::default(), &family.planner);
    if let Ok(Some(plan)) = planner.plan_append(&turn, &artifact, &how, &cancel) {
        counts.usable += 1;
        let _ = plan.rendered(planner, Reason::PrefixMismatch, &cancel);
        let _ = plan.messages_json();
        let message = r#"{"role":"assistant","content":"?"}"#.to_owned();
        let _ = plan
            .commit(Answer {
                message,
                sampled: None,
            })
            .map(|next| store::pack(&next));
    }
    Ok(())
}
