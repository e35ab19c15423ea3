//! What tests of conversations share.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use promptseam::{
    continuation::{Identity, PlanOptions, Planner, ShadowPolicy},
    model::{LoadOptions, Model, ModelFiles},
    template::Now,
};
use promptseam_fixtures::{FAMILIES, GoldenLine, model_folder};

/// One planner for each family, shared by the tests of a binary.
pub(crate) fn planner(family: &str) -> &'static Planner {
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

/// How the turn of a golden line is planned.
pub(crate) fn options<'a>(line: &GoldenLine, identity: &'a Identity) -> PlanOptions<'a> {
    PlanOptions {
        now: Now::from_unix_millis(line.now, 0),
        expires: i64::MAX,
        follow_clock: false,
        identity,
        tenant: "t",
        salt: "",
        sampled: false,
        restore_reasoning: false,
        missing: None,
        declined: None,
        previous: None,
        inline: false,
    }
}
