//! The core without JavaScript: `cargo bench -p promptseam`. Prints one line of
//! JSON rows {name, unit, median, p95, n, limit?}, which `npm run bench` tabulates.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints, and stops at a broken fixture"
)]

use std::{
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use promptseam::{
    Cancel,
    model::{LoadOptions, Model, ModelFiles, RenderOptions},
    prompt::{Prompt, write_ids},
    template::{ChatRequest, Now},
    tokenizer::Special,
};
use promptseam_fixtures::{Rng, golden, model_folder};

/// Texts before the first one that counts.
const WARM_UP: usize = 20;

struct Report(String);

impl Report {
    fn add(&mut self, name: &str, unit: &str, mut samples: Vec<f64>, limit: Option<f64>) {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[(share * (samples.len() - 1) as f64) as usize];
        let separator = if self.0.is_empty() { "" } else { "," };
        write!(
            self.0,
            "{separator}{{\"name\":\"core: {name}\",\"unit\":\"{unit}\",\"median\":{:.4},\"p95\":{:.4},\"n\":{}",
            at(0.5),
            at(0.95),
            samples.len()
        )
        .unwrap();
        if let Some(limit) = limit {
            write!(self.0, ",\"limit\":{limit}").unwrap();
        }
        self.0.push('}');
    }
}

/// Milliseconds of `work` on inputs that are made outside of the time, after
/// the warm-up.
fn timed<I, T>(
    samples: usize,
    mut input: impl FnMut() -> I,
    mut work: impl FnMut(I) -> T,
) -> Vec<f64> {
    (0..WARM_UP + samples)
        .map(|_| {
            let input = input();
            let start = Instant::now();
            black_box(work(input));
            start.elapsed()
        })
        .skip(WARM_UP)
        .map(|time| time.as_secs_f64() * 1e3)
        .collect()
}

/// Microseconds a call, for work too short to time alone.
fn repeated<T>(mut work: impl FnMut() -> T) -> Vec<f64> {
    (0..50)
        .map(|_| {
            let start = Instant::now();
            let mut calls = 0;
            while start.elapsed() < Duration::from_millis(4) {
                for _ in 0..16 {
                    black_box(work());
                }
                calls += 16;
            }
            start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        })
        .collect()
}

/// Real text, as the golden conversations have it.
fn words() -> Vec<String> {
    let mut words = Vec::new();
    for line in golden().iter().filter(|line| line.request.len() < 40_000) {
        words.extend(
            line.request
                .split("\\n")
                .map(|piece| piece.replace(['"', '\\'], " ")),
        );
    }
    words
}

/// A body of tool rounds with text that never came before.
fn body(rng: &mut Rng, words: &[String], tokens: usize, more: bool) -> Vec<u8> {
    let tools: Vec<String> = (0..12)
        .map(|index| format!(r#"{{"type":"function","function":{{"name":"tool_{index}","description":"Does the thing number {index}.","parameters":{{"type":"object","properties":{{"path":{{"type":"string"}}}}}}}}}}"#))
        .collect();
    let mut messages = vec![r#"{"role":"system","content":"You read a repository."}"#.to_owned()];
    let (mut length, wanted) = (0, tokens * 3);
    while length < wanted {
        let mut content = String::new();
        while content.len() < 1_500 {
            content.push_str(rng.pick(words).as_str());
            write!(content, " item{} ", rng.below(1 << 30)).unwrap();
        }
        length += content.len();
        let id = messages.len();
        messages.push(format!(r#"{{"role":"user","content":"Go on with {id}."}}"#));
        messages.push(format!(r#"{{"role":"assistant","content":"","tool_calls":[{{"id":"c{id}","type":"function","function":{{"name":"tool_1","arguments":"{{\"path\":\"src/{id}\"}}"}}}}]}}"#));
        messages.push(format!(
            r#"{{"role":"tool","tool_call_id":"c{id}","content":"{content}"}}"#
        ));
        messages.push(r#"{"role":"assistant","content":"I see."}"#.to_owned());
    }
    if more {
        messages.push(r#"{"role":"user","content":"And now?"}"#.to_owned());
    }
    format!(
        r#"{{"messages":[{}],"tools":[{}]}}"#,
        messages.join(","),
        tools.join(",")
    )
    .into_bytes()
}

/// The same body with some 500 tokens more.
fn next_turn(body: &[u8], rng: &mut Rng, words: &[String]) -> Vec<u8> {
    let text = std::str::from_utf8(body).unwrap();
    let (messages, tools) = text.split_once(r#"],"tools":["#).unwrap();
    let mut content = String::new();
    while content.len() < 1_500 {
        content.push_str(rng.pick(words).as_str());
    }
    format!(r#"{messages},{{"role":"user","content":"{content}"}}],"tools":[{tools}"#).into_bytes()
}

fn main() {
    // Cargo passes --bench; a filter would make a row that is not comparable.
    let files = ModelFiles::locate(model_folder("qwen3").to_str().unwrap()).unwrap();
    // The texts are a little longer or shorter than they are meant to be.
    let options = LoadOptions {
        max_model_length: Some(200_000),
        ..LoadOptions::default()
    };
    let model = Model::load(&files, &options).unwrap();
    let now = Now::from_unix_millis(1_795_262_400_000, 0);
    let cancel = Cancel::default();
    let words = words();
    let mut rng = Rng::new(11);
    let mut report = Report(String::new());
    let render = |body: &[u8], previous: Option<&Prompt>| {
        let options = RenderOptions { now, previous };
        model.render(body, options, &cancel).unwrap()
    };

    for (tokens, label, samples) in [(28_000, "28k", 60), (128_000, "128k", 15)] {
        let limit = (tokens == 28_000).then_some(2.0);
        let mut fresh = || body(&mut rng, &words, tokens, false);
        report.add(
            &format!("body to ids, {label}"),
            "ms",
            timed(samples, &mut fresh, |body| render(&body, None)),
            limit,
        );
        report.add(
            &format!("parse, {label}"),
            "ms",
            timed(samples, &mut fresh, |body| {
                ChatRequest::parse(&body).unwrap().message_count()
            }),
            None,
        );
        report.add(
            &format!("parse and render, {label}"),
            "ms",
            timed(samples, &mut fresh, |body| {
                model.render_text(&body, now, &cancel).unwrap()
            }),
            None,
        );
        report.add(
            &format!("encode, {label}"),
            "ms",
            timed(
                samples,
                || model.render_text(&fresh(), now, &cancel).unwrap(),
                |text| model.tokenizer().encode(&text, Special::Recognize).unwrap(),
            ),
            None,
        );
        let aligned = (0..WARM_UP + samples)
            .map(|_| {
                let body = body(&mut rng, &words, tokens, false);
                let previous = render(&body, None);
                let next = next_turn(&body, &mut rng, &words);
                let start = Instant::now();
                black_box(render(&next, Some(&previous)));
                start.elapsed().as_secs_f64() * 1e3
            })
            .skip(WARM_UP)
            .collect();
        report.add(
            &format!("aligned next turn (+500), {label}"),
            "ms",
            aligned,
            limit.map(|_| 1.0),
        );
    }

    for (tokens, label, limit) in [
        (1_000, "1k", None),
        (28_000, "28k", Some(2.0)),
        (128_000, "128k", Some(10.0)),
    ] {
        let ids: Vec<u32> = (0..tokens).map(|_| rng.below(150_000) as u32).collect();
        let (a, b) = (Prompt::from_ids(&ids), Prompt::from_ids(&ids));
        report.add(
            &format!("diff, {label}"),
            "µs",
            repeated(|| a.diff(&b)),
            limit,
        );
        let fingerprint = a.fingerprint(tokens - 5);
        let check = || b.has_prefix(fingerprint, tokens - 5);
        report.add(
            &format!("prefix check, {label}"),
            "µs",
            repeated(check),
            None,
        );
        let mut out = Vec::new();
        let write = || {
            out.clear();
            write_ids(&ids, &mut out);
            out.len()
        };
        report.add(
            &format!("ids as JSON, {label}"),
            "µs",
            repeated(write),
            None,
        );
    }
    println!("[{}]", report.0);
}
