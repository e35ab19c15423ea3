//! Agent conversations with text that is new in each iteration: no cache may
//! have seen it. From the same files as `bench/agent-text.mjs`.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// Bytes of such a conversation for one of Qwen3's tokens.
const BYTES_PER_TOKEN: f64 = 3.45;
const ROUND: usize = 4_000;

pub(crate) struct AgentText {
    text: Vec<char>,
    fresh: usize,
}

impl AgentText {
    /// Code and prose of the pinned packages that `npm install` brings.
    pub(crate) fn load() -> Self {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node_modules");
        let mut text = String::new();
        for folder in ["@types/node", "undici/lib"] {
            append(&modules.join(folder), &mut text);
        }
        Self {
            text: text.chars().collect(),
            fresh: 0,
        }
    }

    /// Text from an ever different place, with names in it that never came before.
    fn fresh(&mut self, characters: usize) -> String {
        let mut at = (self.fresh * 104_729) % (self.text.len() - 2 * characters - 160);
        let mut text = String::with_capacity(2 * characters);
        let mut length = 0;
        while length < characters {
            self.fresh += 1;
            text.extend(&self.text[at..at + 160]);
            let name = self.fresh * 2_654_435_761 % 99_991;
            text.push_str(&format!(" item{:x}_{name} ", self.fresh));
            at += 160;
            length += 174;
        }
        text
    }

    /// The body of a chat request with tool rounds of about `tokens` tokens.
    pub(crate) fn body(&mut self, tokens: usize) -> Value {
        let mut messages = vec![json!({
            "role": "system",
            "content": "You read a repository and explain it. Say what you learned after each file.",
        })];
        let characters = (tokens as f64 * BYTES_PER_TOKEN) as usize;
        for round in 0..characters.div_ceil(ROUND) {
            let length = ROUND.min(characters - round * ROUND);
            let id = format!("call{round:05}");
            let arguments =
                json!({"path": format!("src/file_{round}.rs"), "limit": round}).to_string();
            messages.extend([
                json!({"role": "user", "content": format!("Go on with file {round}, please.")}),
                json!({"role": "assistant", "content": "", "tool_calls": [{
                    "id": id, "type": "function",
                    "function": {"name": "tool_1", "arguments": arguments},
                }]}),
                json!({"role": "tool", "tool_call_id": id, "content": self.fresh(length * 9 / 10)}),
                json!({"role": "assistant", "content": format!("That was file {round}.")}),
            ]);
        }
        let tools: Vec<Value> = (0..12)
            .map(|index| {
                json!({"type": "function", "function": {
                    "name": format!("tool_{index}"),
                    "description": format!("Does the thing number {index} to a file, and says what came of it."),
                    "parameters": {"type": "object", "properties": {
                        "path": {"type": "string", "description": "Path from the root of the repository."},
                        "limit": {"type": "integer", "description": "Most lines to give back."},
                    }, "required": ["path"]},
                }})
            })
            .collect();
        json!({"model": "m", "messages": messages, "tools": tools, "stream": true})
    }

    /// The same conversation with about 500 tokens more.
    pub(crate) fn next_turn(&mut self, body: &Value) -> Value {
        let mut next = body.clone();
        if let Some(messages) = next["messages"].as_array_mut() {
            messages.push(json!({"role": "assistant", "content": self.fresh(200)}));
            messages.push(json!({"role": "user", "content": self.fresh(1_300)}));
        }
        next
    }
}

fn append(folder: &Path, text: &mut String) {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}; run `npm run setup`", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.to_string_lossy();
        if path.is_dir() {
            append(&path, text);
        } else if name.ends_with(".d.ts") || name.ends_with(".js") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
