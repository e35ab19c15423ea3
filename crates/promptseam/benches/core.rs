//! The core without JavaScript: `cargo bench -p promptseam`, or `npm run bench`
//! for a table with everything else.

#![allow(clippy::unwrap_used, reason = "a bench stops at a broken fixture")]

mod agent_text;

use std::{hint::black_box, time::Duration};

use agent_text::AgentText;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use promptseam::{
    Cancel,
    model::{LoadOptions, Model, ModelFiles, RenderOptions},
    prompt::{Prompt, write_ids},
    template::{ChatRequest, Now},
    tokenizer::Special,
};
use promptseam_fixtures::{Rng, model_folder};

const SIZES: [(usize, &str); 2] = [(28_000, "28k"), (128_000, "128k")];

fn turns(criterion: &mut Criterion) {
    let files = ModelFiles::locate(model_folder("qwen3").to_str().unwrap()).unwrap();
    let options = LoadOptions {
        // Texts of 128k tokens are longer than Qwen3's own limit allows.
        max_model_length: Some(200_000),
        ..LoadOptions::default()
    };
    let model = Model::load(&files, &options).unwrap();
    let now = Now::from_unix_millis(1_795_262_400_000, 0);
    let cancel = Cancel::default();
    let mut text = AgentText::load();
    let render = |body: &[u8], previous: Option<&Prompt>| {
        let options = RenderOptions { now, previous };
        model.render(body, options, &cancel).unwrap()
    };

    let mut group = criterion.benchmark_group("turn");
    // Each iteration gets a text of its own, made outside of the time.
    let batch = BatchSize::PerIteration;
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(30)
        .measurement_time(Duration::from_secs(2));
    for (tokens, label) in SIZES {
        group.bench_function(BenchmarkId::new("body to ids", label), |bencher| {
            bencher.iter_batched(
                || text.body(tokens).to_string(),
                |body| render(body.as_bytes(), None),
                batch,
            );
        });
        group.bench_function(BenchmarkId::new("parse", label), |bencher| {
            bencher.iter_batched(
                || text.body(tokens).to_string(),
                |body| ChatRequest::parse(body.as_bytes()).unwrap(),
                batch,
            );
        });
        group.bench_function(BenchmarkId::new("parse and render", label), |bencher| {
            bencher.iter_batched(
                || text.body(tokens).to_string(),
                |body| model.render_text(body.as_bytes(), now, &cancel).unwrap(),
                batch,
            );
        });
        group.bench_function(BenchmarkId::new("encode", label), |bencher| {
            bencher.iter_batched(
                || {
                    let body = text.body(tokens).to_string();
                    model.render_text(body.as_bytes(), now, &cancel).unwrap()
                },
                |text| model.tokenizer().encode(&text, Special::Recognize).unwrap(),
                batch,
            );
        });
        group.bench_function(
            BenchmarkId::new("aligned next turn (+500)", label),
            |bencher| {
                bencher.iter_batched(
                    || {
                        let body = text.body(tokens);
                        let previous = render(body.to_string().as_bytes(), None);
                        (previous, text.next_turn(&body).to_string())
                    },
                    |(previous, body)| render(body.as_bytes(), Some(&previous)),
                    batch,
                );
            },
        );
    }
    group.finish();
}

fn prompts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prompt");
    group.measurement_time(Duration::from_secs(1));
    let mut rng = Rng::new(11);
    for (tokens, label) in SIZES {
        let ids: Vec<u32> = (0..tokens).map(|_| rng.below(150_000) as u32).collect();
        let copy = ids.clone();
        // Built apart, as two requests are.
        let (one, other) = (Prompt::from_ids(&ids), Prompt::from_ids(&copy));
        group.bench_function(BenchmarkId::new("diff", label), |bencher| {
            bencher.iter(|| black_box(&one).diff(black_box(&other)));
        });
        // What looking at every id costs at the least.
        group.bench_function(
            BenchmarkId::new("two plain slices equal", label),
            |bencher| {
                bencher.iter(|| black_box(&ids) == black_box(&copy));
            },
        );
        let fingerprint = one.fingerprint(tokens - 5);
        group.bench_function(
            BenchmarkId::new("prefix check by fingerprint", label),
            |bencher| {
                bencher.iter(|| other.has_prefix(black_box(fingerprint), tokens - 5));
            },
        );
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("ids as JSON", label), |bencher| {
            bencher.iter(|| {
                out.clear();
                write_ids(&ids, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, turns, prompts);
criterion_main!(benches);
