//! Sampled ids beside the history form of the message they were parsed to.

use super::artifact::SampledSpan;
use crate::{
    error::Result,
    json,
    model::Model,
    prompt::Prompt,
    template::{Dialect, Message},
};

/// The ids of `prompt` from `start` on, and `sampled`: what the model saw and
/// wrote behind the seam.
pub(crate) fn behind(prompt: &Prompt, start: usize, sampled: &[u32]) -> Vec<u32> {
    let mut ids = Vec::with_capacity(prompt.len() - start + sampled.len());
    prompt.for_each_run_from(start, |run| ids.extend_from_slice(run));
    ids.extend_from_slice(sampled);
    ids
}

/// Whether `prompt` has `ids` from `start` on.
pub(crate) fn is_prefix(ids: &[u32], prompt: &Prompt, start: usize) -> bool {
    let mut rest = ids;
    let mut equal = true;
    prompt.for_each_run_from(start, |run| {
        let common = run.len().min(rest.len());
        equal = equal && run[..common] == rest[..common];
        rest = &rest[common..];
    });
    equal && rest.is_empty()
}

/// Where `full`, a full render, first differs from a prompt before its seam,
/// sampled spans aside.
pub(crate) fn difference(
    prompt: &Prompt,
    spans: &[SampledSpan],
    seam: usize,
    full: &Prompt,
) -> Option<usize> {
    if spans.is_empty() {
        return Some(prompt.common_prefix(full)).filter(|common| *common < seam);
    }
    let (planned, full) = (prompt.to_vec(), full.to_vec());
    let (mut ours, mut theirs) = (0, 0);
    let end = SampledSpan {
        start: seam,
        end: seam,
        rendered: 0,
    };
    for span in spans.iter().chain([&end]) {
        let own = &planned[ours..span.start.max(ours)];
        let other = full.get(theirs..).unwrap_or_default();
        let common = own.iter().zip(other).take_while(|(a, b)| a == b).count();
        if common < own.len() {
            return Some(theirs + common);
        }
        theirs += own.len() + span.rendered;
        ours = span.end;
    }
    None
}

/// A message of the same shape as `answer` that ends otherwise.
///
/// # Errors
/// None that a message can bring about.
pub(crate) fn otherwise(answer: &Message, dialect: Dialect) -> Result<Message> {
    let shape = answer.bare_shape();
    let content = if shape.content { "\"Other.\"" } else { "\"\"" };
    let reasoning = if shape.reasoning {
        r#","reasoning":"Else.""#
    } else {
        ""
    };
    let calls: Vec<String> = answer
        .call_names()
        .iter()
        .map(|(id, _)| {
            let id = json::dumps(&json::Json::String((*id).into()), &json::Style::default());
            format!(
                r#"{{"id":{id},"type":"function","function":{{"name":"otherwise","arguments":"{{\"other\":\"else\"}}"}}}}"#
            )
        })
        .collect();
    let calls = match calls.is_empty() {
        true => String::new(),
        false => format!(r#","tool_calls":[{}]"#, calls.join(",")),
    };
    let text = format!(r#"{{"role":"assistant","content":{content}{reasoning}{calls}}}"#);
    Message::parse(1, &json::parse_str(&text)?, dialect)
}

/// Where in `suffix` the token stands that closes the answer: the first one that
/// can end an answer, in what `suffix` and `other` end alike, the suffix of
/// another answer.
pub(crate) fn close(model: &Model, suffix: &str, other: &str) -> Option<usize> {
    let pairs = suffix.bytes().rev().zip(other.bytes().rev());
    let common = pairs.take_while(|(a, b)| a == b).count();
    let mut from = suffix.len() - common;
    while !suffix.is_char_boundary(from) {
        from += 1;
    }
    model.first_close(&suffix[from..]).map(|at| from + at)
}
