//! Continuations against vLLM's own renders: along every golden conversation
//! every planned prompt has the server's ids.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use promptseam::{
    Cancel,
    continuation::{
        Answer, Artifact, Found, Identity, Plan, PlanOptions, Planner, Reason, Rung, ShadowPolicy,
        Turn,
    },
    model::{LoadOptions, Model, ModelFiles},
    template::Now,
};
use promptseam_fixtures::{FAMILIES, GoldenLine, golden, model_folder};

fn planner(family: &str) -> &'static Planner {
    static PLANNERS: OnceLock<HashMap<&'static str, Planner>> = OnceLock::new();
    &PLANNERS.get_or_init(|| {
        FAMILIES
            .iter()
            .map(|family| {
                let files = ModelFiles::locate(model_folder(family).to_str().unwrap()).unwrap();
                let model = Model::load(&files, &LoadOptions::default()).unwrap();
                let planner = Planner::new(Arc::new(model), ShadowPolicy::default());
                (*family, planner)
            })
            .collect()
    })[family]
}

fn options<'a>(line: &GoldenLine, identity: &'a Identity) -> PlanOptions<'a> {
    PlanOptions {
        now: Now::from_unix_millis(line.now, 0),
        expires: i64::MAX,
        follow_clock: false,
        identity,
        tenant: "t",
        sampled: false,
        restore_reasoning: false,
        missing: None,
        declined: None,
        previous: None,
        inline: false,
    }
}

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
