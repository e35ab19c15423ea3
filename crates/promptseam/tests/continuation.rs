//! Continuations against vLLM's own renders: along every golden conversation
//! every planned prompt has the server's ids.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{collections::HashMap, sync::Arc};

use promptseam::{
    Cancel,
    continuation::{
        Answer, Artifact, Certificate, Drift, Field, Found, Identity, Plan, PlanOptions, Reason,
        Rung, Turn,
    },
    template::Now,
    tokenizer::Special,
};
use promptseam_fixtures::{FAMILIES, golden};
use support::{options, planner};

/// The artifacts of a conversation, as a store finds them.
#[derive(Default)]
struct Known(HashMap<[u8; 32], Arc<Artifact>>);

impl Known {
    fn find(&self, turn: &Turn) -> Option<Found> {
        turn.candidates().find_map(|(count, digest)| {
            let artifact = Arc::clone(self.0.get(&digest)?);
            Some(Found { artifact, count })
        })
    }

    fn commit(&mut self, plan: &Plan) {
        let answer = Answer {
            message: r#"{"role":"assistant","content":"?"}"#.to_owned(),
            sampled: None,
        };
        let artifact = Arc::new(plan.commit(answer).unwrap());
        self.0.insert(*artifact.digest(), artifact);
    }
}

#[test]
fn golden_conversations_go_on_with_the_servers_ids() {
    let identity = Identity::default();
    for family in FAMILIES {
        let planner = planner(family);
        let mut conversation = String::new();
        let mut known = Known::default();
        let mut before: Option<Plan> = None;
        let (mut append_only, mut certified) = (0, 0);
        for line in golden().iter().filter(|line| line.family == family) {
            if conversation != line.conversation() {
                conversation = line.conversation().to_owned();
                known = Known::default();
                before = None;
            }
            let turn = Turn::request(line.request.clone().into_bytes()).unwrap();
            let found = known.find(&turn);
            let plan = planner
                .plan(
                    &turn,
                    found.as_ref(),
                    &options(line, &identity),
                    &Cancel::default(),
                )
                .unwrap_or_else(|e| panic!("{}: {e:?}", line.id))
                .unwrap();
            let prompt = plan.prompt().unwrap();
            assert_eq!(
                prompt.to_vec(),
                line.token_ids,
                "{}: {:?}",
                line.id,
                plan.outcome()
            );
            let shadow = plan.shadow_check(planner, &Cancel::default()).unwrap();
            assert!(shadow.is_none(), "{}", line.id);
            let outcome = plan.outcome();
            if let Some(sent) = &before {
                let seam = sent.seam().unwrap();
                let common = sent.prompt().unwrap().common_prefix(prompt);
                if common >= seam {
                    append_only += 1;
                    certified += usize::from(outcome.rung == Rung::CertifiedSuffix);
                } else {
                    let reason = Reason::TemplateRewroteHistory(common);
                    let expected = (Rung::AlignedRender, Some(reason));
                    assert_eq!((outcome.rung, outcome.reason), expected, "{}", line.id);
                }
            }
            known.commit(&plan);
            before = Some(plan);
        }
        assert!(append_only > 5, "{family}: {append_only} transitions");
        assert!(
            certified * 20 >= append_only * 19,
            "{family}: {certified} of {append_only}"
        );
    }
}

/// A planner's turn over some messages, after `found` if anything.
fn plan(family: &str, body: &str, known: &Known, change: impl Fn(&mut PlanOptions<'_>)) -> Plan {
    let identity = Identity::default();
    let mut options = PlanOptions {
        now: Now::from_unix_millis(1_795_262_400_000, 0),
        expires: 1_000,
        follow_clock: false,
        identity: &identity,
        tenant: "t",
        salt: "",
        sampled: false,
        restore_reasoning: false,
        missing: None,
        declined: None,
        previous: None,
        inline: false,
    };
    change(&mut options);
    let turn = Turn::request(body.as_bytes().to_vec()).unwrap();
    let found = known.find(&turn);
    let plan = planner(family).plan(&turn, found.as_ref(), &options, &Cancel::default());
    plan.unwrap().unwrap()
}

const ASK: &str = r#"{"role":"user","content":"Hello there."}"#;
const SAID: &str = r#"{"role":"assistant","content":"Good morning."}"#;
const MORE: &str = r#"{"role":"user","content":"And now?"}"#;

fn body(messages: &[&str]) -> String {
    format!(r#"{{"messages":[{}]}}"#, messages.join(","))
}

/// Qwen3's ids for a text, and the token that ends an answer.
fn sampled(pieces: &[&str]) -> Vec<u32> {
    let tokenizer = planner("qwen3").model().tokenizer();
    let ids = pieces
        .iter()
        .flat_map(|text| tokenizer.encode(text, Special::Recognize).unwrap());
    ids.chain([151_645]).collect()
}

fn after_answer(message: &str, ids: Option<Vec<u32>>) -> Known {
    let mut known = Known::default();
    let first = plan("qwen3", &body(&[ASK]), &known, |_| ());
    let artifact = first.commit(Answer {
        message: message.to_owned(),
        sampled: ids,
    });
    let artifact = Arc::new(artifact.unwrap());
    known.0.insert(*artifact.digest(), artifact);
    known
}

#[test]
fn every_field_of_a_certificate_is_checked() {
    let known = after_answer(SAID, None);
    let next = plan("qwen3", &body(&[ASK, SAID, MORE]), &known, |_| ());
    let good = next.certificate().unwrap().clone();
    assert_eq!(next.check_certificate(&good, "t", 999), Ok(()));

    let corrupt = |change: &dyn Fn(&mut Certificate)| {
        let mut bad = good.clone();
        change(&mut bad);
        next.check_certificate(&bad, "t", 999).unwrap_err()
    };
    let flip = |bytes: &mut [u8]| bytes[7] ^= 1;
    assert_eq!(corrupt(&|c| flip(&mut c.prefix_id)), Reason::ArtifactMiss);
    assert_eq!(corrupt(&|c| c.prefix_tokens += 1), Reason::PrefixMismatch);
    assert_eq!(corrupt(&|c| c.boundary -= 1), Reason::UnsafeBoundary);
    assert_eq!(
        corrupt(&|c| c.boundary = usize::MAX),
        Reason::UnsafeBoundary
    );
    assert_eq!(
        corrupt(&|c| flip(&mut c.append_hash)),
        Reason::PrefixMismatch
    );
    assert_eq!(corrupt(&|c| c.append_tokens -= 1), Reason::PrefixMismatch);
    assert_eq!(
        corrupt(&|c| flip(&mut c.combined_id)),
        Reason::PrefixMismatch
    );
    assert_eq!(corrupt(&|c| c.combined_tokens += 1), Reason::PrefixMismatch);
    assert_eq!(corrupt(&|c| c.tenant.push('x')), Reason::TenantMismatch);
    assert_eq!(corrupt(&|c| c.expires = 998), Reason::ArtifactExpired);
    for (at, field) in Field::ALL.into_iter().enumerate() {
        let reason = corrupt(&|c| flip(&mut c.environment[at].1));
        assert_eq!(reason, Reason::FingerprintMismatch(field));
    }
    let other = next.check_certificate(&good, "u", 999);
    assert_eq!(other, Err(Reason::TenantMismatch));
    let late = next.check_certificate(&good, "t", 1_000);
    assert_eq!(late, Err(Reason::ArtifactExpired));
}

#[test]
fn sampled_ids_are_compared_with_the_history_form() {
    let cases: [(&[&str], Drift); 3] = [
        (&["Good morning."], Drift::None),
        (&["Go", "od mor", "ning."], Drift::Drifted),
        (&["Good morning!"], Drift::Rewritten),
    ];
    for (pieces, drift) in cases {
        let known = after_answer(SAID, Some(sampled(pieces)));
        let next = plan("qwen3", &body(&[ASK, SAID, MORE]), &known, |_| ());
        assert_eq!(next.drift(), drift, "{pieces:?}");
        let other = plan(
            "qwen3",
            &body(&[ASK, &SAID.replace("Good", "A good"), MORE]),
            &known,
            |_| (),
        );
        assert_eq!(other.outcome().rung, Rung::CertifiedSuffix);
        assert_eq!(
            other.drift(),
            Drift::Unknown,
            "the client gave another answer"
        );
    }
}

#[test]
fn sampled_ids_stand_for_the_message_where_that_is_asked_for() {
    let ids = sampled(&["Go", "od mor", "ning."]);
    let mut known = after_answer(SAID, Some(ids.clone()));
    let sampling = |options: &mut PlanOptions<'_>| options.sampled = true;
    let next = plan("qwen3", &body(&[ASK, SAID, MORE]), &known, sampling);
    let full = plan(
        "qwen3",
        &body(&[ASK, SAID, MORE]),
        &Known::default(),
        |_| (),
    );
    let (planned, full) = (
        next.prompt().unwrap().to_vec(),
        full.prompt().unwrap().to_vec(),
    );
    let [span] = next.spans() else {
        panic!("{:?}", next.spans());
    };
    let kept = &ids[..ids.len() - 1];
    assert!(planned[span.start..span.end].ends_with(kept));
    assert_eq!(planned[..span.start], full[..span.start]);
    assert_eq!(planned[span.end..], full[span.start + span.rendered..]);
    assert!(
        next.shadow_check(planner("qwen3"), &Cancel::default())
            .unwrap()
            .is_none()
    );

    // The span stays where it is, turn after turn; a lower rung renders it again.
    known.commit(&next);
    let messages = [ASK, SAID, MORE, SAID, ASK];
    let later = plan("qwen3", &body(&messages), &known, sampling);
    assert_eq!(later.outcome().rung, Rung::CertifiedSuffix);
    assert_eq!(later.spans(), [*span]);
    let identity = Identity {
        model: "another".to_owned(),
        ..Identity::default()
    };
    let turn = Turn::request(body(&messages).into_bytes()).unwrap();
    let changed = PlanOptions {
        now: Now::from_unix_millis(1_795_262_400_000, 0),
        expires: 1_000,
        follow_clock: false,
        identity: &identity,
        tenant: "t",
        salt: "",
        sampled: true,
        restore_reasoning: false,
        missing: None,
        declined: None,
        previous: None,
        inline: false,
    };
    let found = known.find(&turn);
    let again = planner("qwen3").plan(&turn, found.as_ref(), &changed, &Cancel::default());
    let again = again.unwrap().unwrap();
    assert_eq!(
        again.outcome().reason,
        Some(Reason::FingerprintMismatch(Field::Model))
    );
    let full = plan("qwen3", &body(&messages), &Known::default(), |_| ());
    assert!(again.prompt() == full.prompt() && again.spans().is_empty());
}

#[test]
fn nothing_of_another_tenants_artifact_is_used() {
    let known = after_answer(SAID, None);
    let next = plan("qwen3", &body(&[ASK, SAID, MORE]), &known, |options| {
        options.tenant = "u"
    });
    assert_eq!(next.outcome().reason, Some(Reason::TenantMismatch));
    assert_eq!(
        (next.outcome().rung, next.prefix_length()),
        (Rung::FullRender, 0)
    );
}

#[test]
fn omitted_reasoning_is_put_back_inside_a_tool_loop_only() {
    const CALL: &str = r#""tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{}"}}]"#;
    let thought = format!(r#"{{"role":"assistant","content":"","reasoning":"Hm.",{CALL}}}"#);
    let bare = format!(r#"{{"role":"assistant","content":null,{CALL}}}"#);
    let result = r#"{"role":"tool","tool_call_id":"c1","content":"Seen."}"#;
    let restoring = |options: &mut PlanOptions<'_>| options.restore_reasoning = true;
    let known = after_answer(&thought, None);
    let text = |plan: &Plan| {
        let ids = plan.prompt().unwrap().to_vec();
        planner("qwen3")
            .model()
            .tokenizer()
            .decode(&ids, false)
            .unwrap()
    };
    let as_sent = plan("qwen3", &body(&[ASK, &bare, result]), &known, |_| ());
    assert!(!text(&as_sent).contains("Hm."));
    let restored = plan("qwen3", &body(&[ASK, &bare, result]), &known, restoring);
    assert!(text(&restored).contains("Hm."));
    assert_eq!(restored.outcome().rung, Rung::CertifiedSuffix);
    let full = plan(
        "qwen3",
        &body(&[ASK, &thought, result]),
        &Known::default(),
        |_| (),
    );
    assert!(restored.prompt() == full.prompt());
    let outside = plan("qwen3", &body(&[ASK, &bare, MORE]), &known, restoring);
    assert!(!text(&outside).contains("Hm."));
}
