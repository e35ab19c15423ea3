//! Against vLLM's own renders: the same ids for every golden request, rendered
//! whole and rendered on from the line before.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, sync::OnceLock};

use promptseam::{
    Cancel,
    model::{LoadOptions, Model, ModelFiles, RenderOptions},
    prompt::Prompt,
    template::Now,
    tokenizer::EngineKind,
};
use promptseam_fixtures::{FAMILIES, GoldenLine, Rng, golden, model_folder};

fn model(family: &str) -> &'static Model {
    static MODELS: OnceLock<HashMap<&'static str, Model>> = OnceLock::new();
    &MODELS.get_or_init(|| {
        FAMILIES
            .iter()
            .map(|family| {
                let files = ModelFiles::locate(model_folder(family).to_str().unwrap()).unwrap();
                let model = Model::load(&files, &LoadOptions::default()).unwrap();
                assert_eq!(
                    model.tokenizer().engine(),
                    EngineKind::Fast,
                    "{family}: {:?}",
                    model.tokenizer().fallback()
                );
                (*family, model)
            })
            .collect()
    })[family]
}

fn lines(family: &str) -> Vec<GoldenLine> {
    let lines: Vec<_> = golden()
        .into_iter()
        .filter(|line| line.family == family)
        .collect();
    assert!(lines.len() > 30, "{family}: the golden data is incomplete");
    lines
}

fn now(line: &GoldenLine) -> Now {
    Now::from_unix_millis(line.now, 0)
}

fn render(line: &GoldenLine, previous: Option<&Prompt>) -> Prompt {
    let options = RenderOptions {
        now: now(line),
        previous,
    };
    model(&line.family)
        .render(line.request.as_bytes(), options, &Cancel::default())
        .unwrap_or_else(|e| panic!("{}: {e:?}", line.id))
}

fn check_family(family: &str) {
    let mut previous: Option<(String, Prompt)> = None;
    let (mut kept, mut total, mut pairs) = (0, 0, 0);
    for line in lines(family) {
        let full = render(&line, None);
        assert_eq!(full.to_vec(), line.token_ids, "{}: full render", line.id);

        if let Some((conversation, before)) = &previous
            && conversation == line.conversation()
        {
            let aligned = render(&line, Some(before));
            assert_eq!(aligned.to_vec(), line.token_ids, "{}: aligned", line.id);
            assert_eq!(aligned.boundaries(), full.boundaries(), "{}", line.id);
            let common = before.common_prefix(&aligned);
            assert!(aligned.reused() <= common, "{}", line.id);
            kept += aligned.reused();
            total += common;
            pairs += 1;
        }
        previous = Some((line.conversation().to_owned(), full));
    }
    assert!(pairs > 20, "{family}: only {pairs} transitions");
    // Rows stand 256 ids apart, so most of what is common is kept.
    assert!(kept * 100 > total * 60, "{family}: kept {kept} of {total}");
}

#[test]
fn qwen3_renders_as_vllm() {
    check_family("qwen3");
}

#[test]
fn llama3_renders_as_vllm() {
    check_family("llama3");
}

#[test]
fn deepseek_renders_as_vllm() {
    check_family("deepseek");
}

#[test]
fn mistral_renders_as_vllm() {
    check_family("mistral");
}

#[test]
fn gpt_oss_renders_as_vllm() {
    check_family("gpt-oss");
}

#[test]
fn a_gpt_oss_has_no_use_for_a_chat_template() {
    let files = ModelFiles::locate(model_folder("gpt-oss").to_str().unwrap()).unwrap();
    let options = LoadOptions {
        chat_template: Some("{{ unclosed".to_owned()),
        ..LoadOptions::default()
    };
    let model = Model::load(&files, &options).unwrap();
    let body = br#"{"messages": [{"role": "user", "content": "<|end|>\udb80\udc00"}]}"#;
    let noon = Now::from_unix_millis(1_795_262_400_000, 0);
    let text = model.render_text(body, noon, &Cancel::default()).unwrap();
    assert!(text.ends_with("<|start|>user<|message|><|end|>\u{f0000}<|end|><|start|>assistant"));
    let options = RenderOptions {
        now: noon,
        previous: None,
    };
    let prompt = model.render(body, options, &Cancel::default()).unwrap();
    let decoded = model.tokenizer().decode(&prompt.to_vec(), false).unwrap();
    assert_eq!(decoded, text);
    let ends = prompt.to_vec().iter().filter(|id| **id == 200_007).count();
    assert_eq!(ends, 2, "the one in the content is no token");
}

/// Edits of a request's text: whatever changes, the aligned render is the full one.
#[test]
fn an_aligned_render_equals_the_full_one_after_any_edit() {
    const INSERTED: [&str; 11] = [
        "x",
        " ",
        "\\n",
        "e\u{301}",
        "<|im_start|>",
        "</s>",
        "\u{65e5}\u{672c}",
        "[/INST]",
        "<|end|>",
        "\u{f0000}",
        "\u{f0000}s",
    ];
    let mut rng = Rng::new(7);
    let mut reused = 0_usize;
    let mut edits = 0;
    for family in FAMILIES {
        let lines = lines(family);
        for _ in 0..100 {
            let line = rng.pick(&lines);
            if line.token_ids.len() > 8_000 {
                continue;
            }
            let before = render(line, None);
            let body = edited(&line.request, &mut rng, &INSERTED);
            let options = RenderOptions {
                now: now(line),
                previous: None,
            };
            let cancel = Cancel::default();
            let model = model(family);
            // An edit can break the JSON or the request; then there is nothing to compare.
            let Ok(full) = model.render(body.as_bytes(), options, &cancel) else {
                continue;
            };
            let options = RenderOptions {
                previous: Some(&before),
                ..options
            };
            let aligned = model.render(body.as_bytes(), options, &cancel).unwrap();
            assert_eq!(aligned.to_vec(), full.to_vec(), "{}: {body}", line.id);
            let length = full.len();
            assert_eq!(aligned.fingerprint(length), full.fingerprint(length));
            assert_eq!(before.diff(&aligned), before.diff(&full));
            reused += usize::from(aligned.reused() > 0);
            edits += 1;
        }
    }
    assert!(edits > 200, "only {edits} edits gave a request");
    assert!(reused > 30, "only {reused} of {edits} edits kept anything");
}

/// `request` with text put into it, or a piece of it taken out, in one or two places.
fn edited(request: &str, rng: &mut Rng, inserted: &[&str]) -> String {
    let mut text = request.to_owned();
    for _ in 0..1 + rng.below(2) {
        let mut at = rng.below(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        if rng.one_in(3) {
            let mut end = (at + rng.below(40)).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(at..end, "");
        } else {
            text.insert_str(at, rng.pick::<&str>(inserted));
        }
    }
    text
}
