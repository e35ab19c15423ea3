//! A prepared conversation as marked text.

use std::collections::HashMap;

use super::{
    marked::{self, Token},
    typescript,
};
use crate::{
    error::Result,
    template::{
        Now, Prepared,
        data::{Data, Map},
    },
};

const IDENTITY: &str =
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06";
const CHANNELS: &str =
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.";
const TOOLS_CHANNEL: &str =
    "\nCalls to these tools must go to the commentary channel: 'functions'.";

pub(super) fn conversation(prepared: &Prepared, now: Now) -> Result<String> {
    let (instructions, messages) = match prepared.messages() {
        [first, rest @ ..] if is_instruction(first) => (text(first, "content"), rest),
        all => (None, all),
    };
    let mut out = Writer(String::new());
    out.system(prepared, now);
    let tools = prepared.tools();
    if tools.is_some() || instructions.is_some_and(|text| !text.is_empty()) {
        out.developer(instructions, tools)?;
    }

    let names = Names::of(messages.iter().map(|message| &**message));
    // Reasoning that led to a final answer is not shown again, up to the last one's.
    let answered = messages.iter().rposition(|message| is_final(message));
    for (index, message) in messages.iter().enumerate() {
        match text(message, "role") {
            Some("assistant") => {
                let fresh = answered.is_none_or(|answered| index > answered);
                out.assistant(message, fresh);
            }
            Some("tool") => out.result(message, &names),
            Some("user") => out.message("user", |out| out.contents(message)),
            // Instructions later on are a developer message of their own.
            _ => {
                if let Some(instructions) = text(message, "content") {
                    out.developer(Some(instructions), None)?;
                }
            }
        }
    }
    if prepared.add_generation_prompt() {
        out.special(Token::Start);
        out.text("assistant");
    }
    Ok(out.0)
}

/// The marked text in the making.
struct Writer(String);

impl Writer {
    fn special(&mut self, token: Token) {
        marked::push_special(&mut self.0, token);
    }

    fn text(&mut self, text: &str) {
        marked::push_text(&mut self.0, text);
    }

    fn message(&mut self, author: &str, content: impl FnOnce(&mut Self)) {
        self.special(Token::Start);
        self.text(author);
        self.special(Token::Message);
        content(self);
        self.special(Token::End);
    }

    fn system(&mut self, prepared: &Prepared, now: Now) {
        let effort = prepared.arguments().get("reasoning_effort");
        let effort = effort.and_then(Data::as_str).unwrap_or("medium");
        let date = now.strftime("%Y-%m-%d");
        let tools = if prepared.tools().is_some() {
            TOOLS_CHANNEL
        } else {
            ""
        };
        self.message("system", |out| {
            out.text(&format!(
                "{IDENTITY}\nCurrent date: {date}\n\nReasoning: {effort}\n\n{CHANNELS}{tools}"
            ));
        });
    }

    fn developer(&mut self, instructions: Option<&str>, tools: Option<&Data>) -> Result<()> {
        let mut declared = String::new();
        if let Some(tools) = tools {
            if instructions.is_some() {
                declared.push_str("\n\n");
            }
            typescript::push_tools(&mut declared, tools)?;
        }
        self.message("developer", |out| {
            if let Some(instructions) = instructions {
                out.text("# Instructions\n\n");
                out.text(instructions);
            }
            out.text(&declared);
        });
        Ok(())
    }

    /// A message's texts, each encoded apart.
    fn contents(&mut self, message: &Map) {
        match message.get("content") {
            Some(Data::Str(text)) => self.text(text),
            Some(Data::List(texts)) => {
                for (index, text) in texts.items().iter().enumerate() {
                    if index > 0 {
                        marked::push_cut(&mut self.0);
                    }
                    self.text(text.as_str().unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    fn assistant(&mut self, message: &Map, fresh: bool) {
        let calls = calls(message);
        let has_content = text(message, "content").is_some()
            || matches!(message.get("content"), Some(Data::List(_)));
        // What is said beside calls comes before the reasoning.
        if has_content && !calls.is_empty() {
            self.spoken("commentary", |out| out.contents(message));
        }
        if let Some(reasoning) = text(message, "reasoning").filter(|_| fresh) {
            self.spoken("analysis", |out| out.text(reasoning));
        }
        if has_content && calls.is_empty() {
            self.spoken("final", |out| out.contents(message));
        }
        for call in calls.iter().filter_map(Data::as_map) {
            self.special(Token::Start);
            self.text("assistant to=functions.");
            self.text(text(call, "name").unwrap_or_default());
            self.special(Token::Channel);
            self.text("commentary json");
            self.special(Token::Message);
            self.text(text(call, "arguments").unwrap_or_default());
            self.special(Token::Call);
        }
    }

    /// A message of the assistant in a channel.
    fn spoken(&mut self, channel: &str, content: impl FnOnce(&mut Self)) {
        self.special(Token::Start);
        self.text("assistant");
        self.special(Token::Channel);
        self.text(channel);
        self.special(Token::Message);
        content(self);
        self.special(Token::End);
    }

    fn result(&mut self, message: &Map, names: &Names<'_>) {
        self.special(Token::Start);
        self.text("functions.");
        self.text(names.of_call(text(message, "tool_call_id").unwrap_or_default()));
        self.special(Token::Channel);
        self.text("commentary to=assistant");
        self.special(Token::Message);
        self.contents(message);
        self.special(Token::End);
    }
}

/// The functions' names by the ids of their calls, over the whole history: of
/// two calls with one id the later names the results of both.
struct Names<'a>(HashMap<&'a str, Option<&'a str>>);

impl<'a> Names<'a> {
    fn of(messages: impl Iterator<Item = &'a Map>) -> Self {
        let calls = messages.flat_map(calls).filter_map(Data::as_map);
        Self(
            calls
                .filter_map(|call| Some((text(call, "id")?, text(call, "name"))))
                .collect(),
        )
    }

    fn of_call(&self, id: &str) -> &'a str {
        // A call without a function has the name that Python prints for none.
        self.0.get(id).map_or("", |name| name.unwrap_or("None"))
    }
}

fn is_instruction(message: &Map) -> bool {
    matches!(text(message, "role"), Some("system" | "developer"))
}

fn is_final(message: &Map) -> bool {
    let content = message.get("content").unwrap_or(&Data::Null);
    text(message, "role") == Some("assistant")
        && calls(message).is_empty()
        && *content != Data::Null
}

fn calls(message: &Map) -> &[Data] {
    message
        .get("tool_calls")
        .and_then(Data::as_list)
        .unwrap_or_default()
}

fn text<'a>(message: &'a Map, key: &str) -> Option<&'a str> {
    message.get(key)?.as_str()
}
