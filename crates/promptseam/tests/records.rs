//! Records of golden conversations: what was restored goes on as what was not.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{collections::HashMap, sync::Arc};

use promptseam::{
    Cancel, ErrorKind,
    continuation::{Answer, Artifact, Found, Identity, Planner, ShadowPolicy, Turn},
    model::{LoadOptions, Model, ModelFiles},
    store,
};
use promptseam_fixtures::{FAMILIES, golden, model_folder};
use support::{options, planner};

/// An artifact with its own record and those of its ancestors, the oldest first.
#[derive(Clone)]
struct Kept {
    artifact: Arc<Artifact>,
    chain: Vec<u8>,
}

type Known = HashMap<[u8; 32], Kept>;

fn find(known: &Known, turn: &Turn) -> Option<(usize, Kept)> {
    turn.candidates()
        .find_map(|(count, digest)| Some((count, known.get(&digest)?.clone())))
}

fn fresh(family: &str) -> Planner {
    let files = ModelFiles::locate(model_folder(family).to_str().unwrap()).unwrap();
    let model = Model::load(&files, &LoadOptions::default()).unwrap();
    Planner::new(Arc::new(model), ShadowPolicy::default())
}

/// Plays the golden conversations of a family, and gives what was kept of each.
fn play(family: &str, mut look: impl FnMut(&Turn, Option<(usize, Kept)>, &Kept)) {
    let identity = Identity::default();
    let planner = planner(family);
    let mut all: HashMap<String, Known> = HashMap::new();
    for line in golden().into_iter().filter(|line| line.family == family) {
        let key = line.conversation().to_owned();
        let known = all.entry(key).or_default();
        let turn = Turn::request(line.request.clone().into_bytes()).unwrap();
        let before = find(known, &turn);
        let found = before.as_ref().map(|(count, kept)| Found {
            artifact: Arc::clone(&kept.artifact),
            count: *count,
        });
        let options = options(&line, &identity);
        let plan = planner.plan(&turn, found.as_ref(), &options, &Cancel::default());
        let plan = plan.unwrap().unwrap();
        let answer = Answer {
            message: r#"{"role":"assistant","content":"?"}"#.to_owned(),
            sampled: Some(vec![1, 2, 3]),
        };
        let artifact = Arc::new(plan.commit(answer).unwrap());
        let mut chain = before
            .as_ref()
            .map_or_else(Vec::new, |(_, kept)| kept.chain.clone());
        chain.extend(store::pack(&artifact).unwrap());
        let kept = Kept { artifact, chain };
        look(&turn, before, &kept);
        known.insert(*kept.artifact.digest(), kept);
    }
}

#[test]
fn what_was_restored_goes_on_as_what_was_not() {
    let identity = Identity::default();
    for family in FAMILIES {
        let other = fresh(family);
        let lines: Vec<_> = golden()
            .into_iter()
            .filter(|line| line.family == *family)
            .collect();
        let mut lines = lines.iter();
        let mut turns = 0;
        play(family, |turn, before, after| {
            let line = lines.next().unwrap();
            let again = store::restore(&other, &after.chain, None, "t", after.artifact.id());
            let again = again.unwrap();
            assert_eq!(again.encode().unwrap(), after.artifact.encode().unwrap());
            let Some((count, kept)) = before else {
                return;
            };
            turns += 1;
            let restored = store::restore(&other, &kept.chain, None, "t", kept.artifact.id());
            let plan = |planner: &Planner, artifact| {
                let found = Found { artifact, count };
                let options = options(line, &identity);
                let plan = planner.plan(turn, Some(&found), &options, &Cancel::default());
                plan.unwrap().unwrap()
            };
            let theirs = plan(planner(family), kept.artifact);
            let ours = plan(&other, restored.unwrap());
            assert_eq!(ours.outcome(), theirs.outcome(), "{}", line.id);
            assert_eq!(ours.prompt(), theirs.prompt(), "{}", line.id);
            assert_eq!(ours.seam(), theirs.seam());
            let combined = |plan: &promptseam::continuation::Plan| {
                plan.certificate()
                    .map(|certificate| certificate.combined_id)
            };
            assert_eq!(combined(&ours), combined(&theirs));
        });
        assert!(turns > 10, "{family}: {turns}");
    }
}

#[test]
fn a_record_behind_a_known_artifact_is_enough() {
    play("qwen3", |_, before, after| {
        let Some((_, kept)) = before else { return };
        let own = &after.chain[kept.chain.len()..];
        let known = Some(Arc::clone(&kept.artifact));
        let id = after.artifact.id();
        let again = store::restore(planner("qwen3"), own, known, "t", id).unwrap();
        assert_eq!(again.id(), id);
        let missing = store::restore(planner("qwen3"), own, None, "t", id);
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::RecordRefused);
    });
}

#[test]
fn what_was_tampered_with_is_refused() {
    let mut longest: Option<Kept> = None;
    play("qwen3", |_, _, after| {
        if longest
            .as_ref()
            .is_none_or(|kept| kept.chain.len() < after.chain.len())
        {
            longest = Some(after.clone());
        }
    });
    let Kept { artifact, chain } = longest.unwrap();
    let restored = |records: &[u8]| {
        store::restore(planner("qwen3"), records, None, "t", artifact.id())
            .map_err(|error| error.kind())
    };
    restored(&chain).unwrap();
    let step = (chain.len() / 600).max(1);
    for at in (0..chain.len()).step_by(step).chain(0..12) {
        let mut bad = chain.clone();
        bad[at] ^= 1 << (at % 8);
        assert_eq!(
            restored(&bad).unwrap_err(),
            ErrorKind::RecordRefused,
            "byte {at}"
        );
        assert_eq!(
            restored(&chain[..at]).unwrap_err(),
            ErrorKind::RecordRefused
        );
    }
    let twice = [&chain[..], &chain[..]].concat();
    restored(&twice).unwrap();
    let other = store::restore(planner("qwen3"), &chain, None, "u", artifact.id());
    assert_eq!(other.unwrap_err().kind(), ErrorKind::RecordRefused);
    let mut newer = chain;
    newer[2] += 1;
    let error = store::restore(planner("qwen3"), &newer, None, "t", artifact.id());
    assert!(error.unwrap_err().message().contains("version"));
}

#[test]
fn another_model_names_the_field_that_differs() {
    let identity = Identity::default();
    let revised = Identity {
        model: "other".to_owned(),
        ..Identity::default()
    };
    let line = golden()
        .into_iter()
        .find(|line| line.family == "qwen3")
        .unwrap();
    let turn = Turn::request(line.request.clone().into_bytes()).unwrap();
    let first = planner("qwen3");
    let plan = first.plan(&turn, None, &options(&line, &identity), &Cancel::default());
    let artifact = plan.unwrap().unwrap().commit(Answer {
        message: r#"{"role":"assistant","content":"?"}"#.to_owned(),
        sampled: None,
    });
    let artifact = artifact.unwrap();
    let record = store::pack(&artifact).unwrap();
    // The same bytes read by a model with another tokenizer and template.
    let other = planner("llama3");
    let restored = store::restore(other, &record, None, "t", artifact.id()).unwrap();
    let append = || Turn::append(br#"[{"role":"user","content":"x"}]"#.to_vec(), None).unwrap();
    let plan = |planner: &Planner, base: &Arc<Artifact>, identity: &Identity| {
        let options = options(&line, identity);
        let plan = planner.plan_append(&append(), base, &options, &Cancel::default());
        let reason = plan.unwrap().unwrap().outcome().reason.unwrap();
        format!("{reason:?}")
    };
    assert_eq!(
        plan(other, &restored, &identity),
        "FingerprintMismatch(Tokenizer)"
    );
    let restored = store::restore(first, &record, None, "t", artifact.id()).unwrap();
    assert_eq!(
        plan(first, &restored, &revised),
        "FingerprintMismatch(Model)"
    );
}
