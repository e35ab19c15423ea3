//! What Harmony prints, by behaviour; whole prompts are compared in `tests/golden.rs`.

use super::{Harmony, marked};
use crate::{
    ErrorKind,
    error::Result,
    template::{ChatRequest, Dialect, Now, Prepared, Renderer},
};

fn renderer() -> Renderer {
    Renderer::Harmony(Harmony::new(|_| Some(1)).unwrap())
}

fn now() -> Now {
    Now::from_unix_millis(1_795_262_400_000, 0)
}

fn prepare(body: &str) -> Result<Prepared> {
    let renderer = renderer();
    renderer.prepare(&renderer.parse(body.as_bytes())?)
}

fn render(body: &str) -> Result<String> {
    renderer().render(&prepare(body)?, now())
}

/// What follows the system message, special tokens by their literals.
fn plain(body: &str) -> String {
    let text = marked::plain(&render(body).unwrap());
    let (_, rest) = text.split_once("<|end|>").unwrap();
    let open = "<|start|>assistant";
    rest.strip_suffix(open).unwrap().to_owned()
}

fn messages(messages: &str) -> String {
    plain(&format!(r#"{{"messages": [{messages}]}}"#))
}

fn refused(body: &str) -> String {
    let error = render(body).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
    error.message().to_owned()
}

const USER: &str = r#"{"role": "user", "content": "Hi"}"#;
const HI: &str = "<|start|>user<|message|>Hi<|end|>";

#[test]
fn the_system_message_has_date_effort_and_channels() {
    let body = format!(r#"{{"messages": [{USER}], "reasoning_effort": "high"}}"#);
    assert_eq!(
        marked::plain(&render(&body).unwrap()),
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n\
         Knowledge cutoff: 2024-06\nCurrent date: 2026-11-21\n\nReasoning: high\n\n\
         # Valid channels: analysis, commentary, final. Channel must be included for every \
         message.<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant"
    );
    let body = r#"{"messages": [], "tools": [{"function": {"name": "f"}}]}"#;
    let text = marked::plain(&render(body).unwrap());
    assert!(text.contains(
        "Reasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be \
         included for every message.\nCalls to these tools must go to the commentary channel: \
         'functions'.<|end|>"
    ));
}

#[test]
fn instructions_make_a_developer_message_first_and_later() {
    let of = |text: &str| format!("<|start|>developer<|message|># Instructions\n\n{text}<|end|>");
    let system = r#"{"role": "system", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}"#;
    assert_eq!(messages(&format!("{system}, {USER}")), of("AB") + HI);
    assert_eq!(
        messages(&format!("{USER}, {system}")),
        HI.to_owned() + &of("AB")
    );
    let empty = r#"{"role": "developer", "content": ""}"#;
    assert_eq!(messages(empty), "");
    assert_eq!(
        messages(&format!("{USER}, {empty}")),
        HI.to_owned() + &of("")
    );
}

#[test]
fn tools_are_declared_as_oss_harmony_does() {
    let body = format!(
        r#"{{"messages": [{{"role": "system", "content": "Be brief."}}], "tools": [
        {{"function": {{"name": "open", "description": "Opens.\r\nTwo lines.", "parameters": {SCHEMA}}}}},
        {{"function": {{"name": "now"}}}}, {{"function": {{"name": "any", "parameters": {{}}}}}}]}}"#
    );
    assert_eq!(plain(&body), DECLARED);
}

#[test]
fn a_turn_with_calls_is_content_then_reasoning_then_calls() {
    let turn = r#"{"role": "assistant", "content": [{"type": "text", "text": "C"}, {"type": "text", "text": "D"}],
        "reasoning": "R", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{ }"}},
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": ""}}]}"#;
    assert_eq!(
        messages(turn),
        "<|start|>assistant<|channel|>commentary<|message|>CD<|end|>\
         <|start|>assistant<|channel|>analysis<|message|>R<|end|>\
         <|start|>assistant to=functions.f<|channel|>commentary json<|message|>{ }<|call|>\
         <|start|>assistant to=functions.g<|channel|>commentary json<|message|><|call|>"
    );
}

#[test]
fn reasoning_up_to_the_last_answer_is_dropped() {
    let call = |reasoning: &str| {
        format!(
            r#"{{"role": "assistant", "reasoning": "{reasoning}", "tool_calls":
            [{{"id": "1", "type": "function", "function": {{"name": "f", "arguments": ""}}}}]}}"#
        )
    };
    let answer = r#"{"role": "assistant", "reasoning_content": "two", "content": "A"}"#;
    let text = messages(&format!("{}, {answer}, {}", call("one"), call("three")));
    assert!(!text.contains("one") && !text.contains("two") && text.contains("three"));
    // An answer without text is none.
    let silent = answer.replace(r#""A""#, r#""""#);
    let text = messages(&format!("{}, {silent}, {}", call("one"), call("three")));
    assert!(text.contains("one") && text.contains("two") && text.contains("three"));
}

#[test]
fn a_result_is_named_by_the_last_call_with_its_id() {
    let call = |id: &str, name: &str| {
        format!(
            r#"{{"role": "assistant", "tool_calls": [{{"id": "{id}", "type": "function",
            "function": {{"name": "{name}", "arguments": ""}}}}]}}"#
        )
    };
    let result =
        |id: &str| format!(r#"{{"role": "tool", "tool_call_id": "{id}", "content": "r"}}"#);
    let printed = |name: &str| {
        format!("<|start|>functions.{name}<|channel|>commentary to=assistant<|message|>r<|end|>")
    };
    let (first, again) = (call("1", "old"), call("1", "new"));
    let text = messages(&format!(
        "{first}, {}, {again}, {}",
        result("1"),
        result("x")
    ));
    assert_eq!(text.matches(&printed("new")).count(), 1);
    assert_eq!(text.matches(&printed("")).count(), 1);
    assert!(!text.contains("functions.old<|channel|>commentary to="));

    let custom = r#"{"role": "assistant", "tool_calls":
        [{"id": "c", "type": "custom", "custom": {"name": "n", "input": "i"}}]}"#;
    let text = messages(&format!("{custom}, {}", result("c")));
    assert!(text.starts_with(
        "<|start|>assistant to=functions.<|channel|>commentary json<|message|><|call|>"
    ));
    assert!(text.ends_with(&printed("None")));
}

#[test]
fn parts_of_users_and_answers_are_encoded_apart() {
    let parts = r#"[{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "b"}]"#;
    for role in ["user", "assistant"] {
        let body = format!(r#"{{"messages": [{{"role": "{role}", "content": {parts}}}]}}"#);
        let text = render(&body).unwrap();
        let texts: Vec<_> = marked::pieces(&text).map(|(piece, _)| piece).collect();
        let at = texts
            .iter()
            .position(|p| *p == marked::Piece::Text("a".into()));
        assert_eq!(
            texts[at.unwrap() + 1],
            marked::Piece::Text("b".into()),
            "{role}"
        );
    }
    let late = r#"{"role": "assistant", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "b"}]}"#;
    assert_eq!(messages(late), "", "an empty first part hides an answer");
    // Where OpenAI's type for a tool's message fits as well, vLLM does not read a list.
    let strings = r#"{"role": "tool", "tool_call_id": "x", "content": ["a", "b"]"#;
    assert!(messages(&format!("{strings}}}")).ends_with("<|message|><|end|>"));
    assert!(messages(&format!(r#"{strings}, "name": "f"}}"#)).ends_with("<|message|>ab<|end|>"));
}

#[test]
fn content_that_spells_special_tokens_is_text() {
    let text = render(r#"{"messages": [{"role": "user", "content": "<|end|>\udb80\udc00s"}]}"#);
    let content = "<|end|>\u{f0000}s";
    let text = text.unwrap();
    assert!(marked::pieces(&text).any(|(piece, _)| piece == marked::Piece::Text(content.into())));
}

#[test]
fn what_vllm_does_not_read_for_harmony_changes_nothing() {
    let ignored = r#""chat_template": "{{", "chat_template_kwargs": {"chat_template": "x",
        "reasoning_effort": "low", "messages": 1}, "add_generation_prompt": false,
        "continue_final_message": true, "documents": [{"a": "b"}], "add_special_tokens": true,
        "truncate_prompt_tokens": 3, "tool_choice": null, "include_reasoning": false"#;
    assert_eq!(
        render(&format!(r#"{{"messages": [{USER}], {ignored}}}"#)).unwrap(),
        render(&format!(r#"{{"messages": [{USER}]}}"#)).unwrap()
    );
}

#[test]
fn what_vllm_refuses_is_refused_with_its_path() {
    for effort in ["none", "minimal", "xhigh", "max", "odd"] {
        let body = format!(r#"{{"messages": [], "reasoning_effort": "{effort}"}}"#);
        assert!(refused(&body).starts_with("reasoning_effort"));
    }
    for (message, path) in [
        (r#"{"role": "critic", "content": ""}"#, "messages[0].role"),
        (
            r#"{"role": "user", "content": ["a"]}"#,
            "messages[0].content[0]",
        ),
        (
            r#"{"role": "user", "name": "n", "content": [{"type": "text", "text": "a"}, "b"]}"#,
            "messages[0].content[1]",
        ),
        (
            r#"{"role": "assistant", "content": "", "reasoning": 5}"#,
            "messages[0].reasoning",
        ),
        (
            r#"{"role": "user", "content": "", "tool_calls": null}"#,
            "messages[0].tool_calls",
        ),
        (
            r#"{"role": "assistant", "tool_calls": [{"id": "1", "type": "function",
            "function": {"name": "a<|end|>", "arguments": ""}}]}"#,
            "messages[0].tool_calls[0]",
        ),
    ] {
        let what = refused(&format!(r#"{{"messages": [{message}]}}"#));
        assert!(what.starts_with(path), "{what}");
    }
    let tool = |parameters: &str| {
        format!(
            r#"{{"messages": [], "tools": [{{"function": {{"name": "f", "parameters": {parameters}}}}}]}}"#
        )
    };
    let nested = |depth: usize| {
        format!(
            "{}{}",
            r#"{"a":"#.repeat(depth),
            "1".to_owned() + &"}".repeat(depth)
        )
    };
    assert!(render(&tool(&nested(118))).is_ok());
    for parameters in [r#"{"a": NaN}"#, r#"{"a": [1e400]}"#, &nested(119)] {
        assert!(refused(&tool(parameters)).starts_with("tools[0].function.parameters"));
    }
}

#[test]
fn declarations_do_not_grow_without_bounds() {
    let mut schema = format!("[{}]", vec![r#"{"type": "boolean"}"#; 450_000].join(","));
    for _ in 0..50 {
        schema = format!(r#"[{{"oneOf": {schema}}}]"#);
    }
    let body = format!(
        r#"{{"messages": [], "tools": [{{"function": {{"name": "f", "parameters": {{"oneOf": {schema}}}}}}}]}}"#
    );
    let kind = render(&body).map(drop).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::TooLarge));
}

#[test]
fn a_stand_in_history_is_a_part_of_the_whole() {
    let body =
        format!(r#"{{"messages": [{USER}, {{"role": "assistant", "content": "A"}}, {USER}]}}"#);
    let prepared = prepare(&body).unwrap();
    let slice = |count: usize| prepared.with_messages(prepared.messages()[..count].to_vec());
    let whole = renderer().render(&prepared, now()).unwrap();
    let start = renderer().render(&slice(1).with_generation_prompt(false), now());
    let open = renderer().render(&slice(1), now()).unwrap();
    let start = start.unwrap();
    assert!(whole.starts_with(&open) && open.starts_with(&start) && open != start);
}

#[test]
fn a_request_is_prepared_only_in_its_own_dialect() {
    let body = format!(r#"{{"messages": [{USER}]}}"#);
    assert_eq!(renderer().dialect(), Dialect::Harmony);
    let error = renderer().prepare(&ChatRequest::parse(body.as_bytes()).unwrap());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_vocabulary_without_a_special_token_is_refused() {
    let error = Harmony::new(|literal| (literal != "<|call|>").then_some(7)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelFile);
    assert!(error.message().contains("<|call|>"));
}

const SCHEMA: &str = r#"{
  "type": "object",
  "description": "All of it.",
  "required": [
    "path",
    "mode"
  ],
  "properties": {
    "path": {
      "type": "string",
      "title": "Path",
      "description": "Where.",
      "examples": [
        "/a",
        5,
        "/b"
      ]
    },
    "mode": {
      "type": "string",
      "enum": [
        "r",
        "w",
        1
      ],
      "default": "r"
    },
    "depth": {
      "type": [
        "integer",
        "null"
      ],
      "default": 1e+16
    },
    "limit": {
      "type": "integer",
      "nullable": true,
      "default": null
    },
    "tags": {
      "type": "array",
      "items": {
        "type": "string"
      }
    },
    "rest": {
      "type": "array"
    },
    "odd": {
      "anyOf": [
        {
          "type": "string"
        }
      ]
    },
    "when": {
      "description": "Or both.",
      "default": "now",
      "oneOf": [
        {
          "type": "string",
          "description": "A date.",
          "default": "x"
        },
        {
          "type": "object",
          "nullable": true,
          "description": "Or both.",
          "properties": {
            "y": {
              "type": "number"
            }
          }
        },
        {
          "type": "string",
          "enum": [
            "a"
          ],
          "default": "a"
        }
      ]
    },
    "list": {
      "type": "array",
      "items": {
        "oneOf": [
          {
            "type": "boolean"
          },
          {
            "type": "string",
            "enum": [
              "b"
            ],
            "default": "b",
            "description": "B"
          }
        ]
      }
    },
    "options": {
      "type": "object",
      "nullable": true,
      "description": "More.",
      "properties": {
        "deep": {
          "type": "object",
          "properties": {}
        }
      }
    }
  }
}"#;

/// What oss-harmony 0.0.11 made of it.
const DECLARED: &str = r#"<|start|>developer<|message|># Instructions

Be brief.

# Tools

## functions

namespace functions {

// Opens.
// Two lines.
type open = (_: // All of it.
{
// Path
//
// Where.
// Examples:
// - "/a"
// - "/b"
path: string,
mode: "r" | "w", // default: r
depth?: number | null, // default: 1e+16
limit?: number | null, // default: null
tags?: string[],
rest?: Array<any>,
odd?: any,
// Or both.
// default: "now"
when?:
 | string // default: "x"
 |    // Or both.
{
   y?: number,
   } | null
 | "a" // default: a
,
list?: 
     | boolean
     | "b" // B default: "b"[],
// More.
options?:     // More.
{
    deep?: {
        },
    } | null,
}) => any;

type now = () => any;

type any = (_: any) => any;

} // namespace functions<|end|>"#;
