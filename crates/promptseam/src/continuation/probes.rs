//! Synthetic conversations of a class, to certify it on and to stand in for real
//! histories.

use std::{
    fmt::Write as _,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use super::{
    class::{Class, Run},
    traits::{Head, place_of},
};
use crate::{
    error::Result,
    json::{Json, Style, dumps, parse_str},
    template::{Dialect, Found, Literals, Message, Place, Role, Shape},
};

/// Content that templates treat in ways of their own: white space at the ends,
/// what looks like markup or JSON, other scripts.
const TEXTS: [&str; 16] = [
    "Read it.",
    "  two before, two after  ",
    "\n\nlines around\n\n",
    "\t",
    "x",
    "{\"a\": [1, 2.5, null], \"b\": \"\\\"\"}",
    "<b>bold & 'quoted'</b>",
    "```rust\nfn main() {}\n```",
    "\u{4eca}\u{5929}\u{5929}\u{6c14}\u{5f88}\u{597d}",
    "e\u{301}\u{1f468}\u{200d}\u{1f469}",
    "<|im_end|>",
    "</s>",
    "1. one\n2. two\n",
    "don't [INST] {% if x %} {{ y }}",
    "\r\nwindows\r\n",
    "[]",
];

/// The text of a stand-in's last message: nobody can know it beforehand, so
/// nothing that a client sends is taken for it.
pub(crate) static MARKER: LazyLock<String> =
    LazyLock::new(|| format!("seam{:016x}", RandomState::new().hash_one(0_u8)));

/// A conversation of a class: what was sent, and what follows it.
pub(crate) struct Probe {
    pub(crate) before: Vec<Message>,
    pub(crate) after: Vec<Message>,
}

/// The `seed`th probe of `class`, with those of `literals` in it that the class
/// has.
///
/// # Errors
/// None that a conversation of a class can bring about.
pub(crate) fn probe(
    class: &Class,
    seed: u64,
    literals: &Literals,
    dialect: Dialect,
) -> Result<Probe> {
    let mut writer = Writer {
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        literals,
        dialect,
        found: class.literals,
        in_history: true,
        messages: Vec::new(),
        open_calls: Vec::new(),
        calls: 0,
    };
    writer.history(class)?;
    let before = std::mem::take(&mut writer.messages);
    writer.open_calls.clear();
    writer.in_history = false;
    for run in &class.after {
        writer.found = [run.shape.literals; 4];
        writer.run(run)?;
    }
    let after = writer.messages;
    Ok(Probe { before, after })
}

/// The shortest history of `class`; its last message's content is [`MARKER`].
///
/// # Errors
/// As [`probe`].
pub(crate) fn stand_in(class: &Class, dialect: Dialect) -> Result<Vec<Message>> {
    let mut json = Vec::new();
    match class.head {
        Head::None => {}
        Head::System => json.push(message("system", "Be brief.")),
        Head::Developer => json.push(message("developer", "Be brief.")),
    }
    if class.tools && class.last != Role::Tool {
        json.push(message("user", "Look."));
        json.push(call("", false));
        json.push(result("Seen."));
        json.push(message("assistant", "Done."));
    }
    if broke_off(class) {
        json.push(message("user", "Look."));
        if class.tools {
            json.push(call("", true));
            json.push(result("Seen."));
        } else {
            json.push(r#"{"role":"assistant","content":"","reasoning":"So."}"#.to_owned());
        }
    }
    if class.last == Role::Tool {
        json.push(message("user", "Look."));
        json.push(call("Look.", class.reasoned));
        json.push(result(&MARKER));
    } else {
        json.push(message("user", &MARKER));
    }
    let messages = json.iter().enumerate();
    messages
        .map(|(at, text)| Message::parse(at, &parse_str(text)?, dialect))
        .collect()
}

/// Whether reasoning was never followed by an answer before the user spoke again.
fn broke_off(class: &Class) -> bool {
    class.unanswered && !(class.last == Role::Tool && class.reasoned)
}

fn message(role: &str, content: &str) -> String {
    format!(r#"{{"role":"{role}","content":"{content}"}}"#)
}

fn call(content: &str, reasoned: bool) -> String {
    let reasoning = if reasoned {
        r#","reasoning":"So.""#
    } else {
        ""
    };
    format!(
        r#"{{"role":"assistant","content":"{content}"{reasoning},"tool_calls":[{{"id":"standinid","type":"function","function":{{"name":"look","arguments":"{{}}"}}}}]}}"#
    )
}

fn result(content: &str) -> String {
    format!(r#"{{"role":"tool","tool_call_id":"standinid","content":"{content}"}}"#)
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

struct Writer<'a> {
    random: Random,
    literals: &'a Literals,
    dialect: Dialect,
    /// What may stand in the history's messages, by role.
    found: [Found; 4],
    messages: Vec<Message>,
    in_history: bool,
    /// Calls that have no result yet.
    open_calls: Vec<String>,
    calls: usize,
}

impl Writer<'_> {
    fn history(&mut self, class: &Class) -> Result<()> {
        match class.head {
            Head::None => {}
            Head::System => self.plain("system")?,
            Head::Developer => self.plain("developer")?,
        }
        // A class in which a tool answered before needs it to be true of each.
        let earlier = self.random.below(3);
        let must_call = class.tools && class.last != Role::Tool;
        for turn in 0..earlier.max(usize::from(must_call)) {
            self.plain("user")?;
            if class.tools && (turn == 0 || self.random.one_in(2)) {
                self.round(None)?;
            }
            let reasoning = self.random.one_in(2);
            self.assistant(true, reasoning, 0)?;
        }
        if broke_off(class) {
            self.plain("user")?;
            if class.tools {
                self.round(Some(true))?;
            } else {
                self.assistant(false, true, 0)?;
            }
        }
        self.plain("user")?;
        if class.last == Role::Tool {
            let rounds = 1 + self.random.below(2);
            let reasoned = self.random.below(rounds);
            if !class.reasoned {
                self.found[place_of(Role::Assistant)] = Found::default();
            }
            for round in 0..rounds {
                self.round(Some(class.reasoned && round == reasoned))?;
            }
        }
        Ok(())
    }

    /// An assistant's call with its results.
    fn round(&mut self, reasoning: Option<bool>) -> Result<()> {
        let reasoning = reasoning.unwrap_or_else(|| self.random.one_in(2));
        let content = self.random.one_in(2);
        let calls = 1 + usize::from(self.random.one_in(4));
        self.assistant(content, reasoning, calls)?;
        for _ in 0..calls {
            self.tool(true)?;
        }
        Ok(())
    }

    fn run(&mut self, run: &Run) -> Result<()> {
        let times = if run.many {
            2 + self.random.below(2)
        } else {
            1
        };
        for _ in 0..times {
            let Shape {
                role,
                content,
                reasoning,
                calls,
                ..
            } = run.shape;
            match role {
                Role::Assistant => {
                    let more = usize::from(calls == 2 && self.random.one_in(3));
                    self.assistant(content, reasoning, usize::from(calls) + more)?;
                }
                Role::Tool => self.tool(content)?,
                _ if content => self.plain("user")?,
                _ => self.push(&message("user", ""))?,
            }
        }
        Ok(())
    }

    fn plain(&mut self, role: &str) -> Result<()> {
        let from = match role {
            "user" => Role::User,
            _ => Role::System,
        };
        let text = self.text(from);
        self.push(&format!(r#"{{"role":"{role}","content":{text}}}"#))
    }

    fn tool(&mut self, content: bool) -> Result<()> {
        let id = match self.open_calls.len() {
            0 => "callid000".to_owned(),
            _ => self.open_calls.remove(0),
        };
        let text = if content {
            self.text(Role::Tool)
        } else {
            "\"\"".to_owned()
        };
        self.push(&format!(
            r#"{{"role":"tool","tool_call_id":"{id}","content":{text}}}"#
        ))
    }

    fn assistant(&mut self, content: bool, reasoning: bool, calls: usize) -> Result<()> {
        let text = if content {
            self.text(Role::Assistant)
        } else {
            "\"\"".to_owned()
        };
        let mut json = format!(r#"{{"role":"assistant","content":{text}"#);
        if reasoning {
            let text = self.text(Role::Assistant);
            let _ = write!(json, r#","reasoning":{text}"#);
        }
        let mut list = Vec::new();
        for _ in 0..calls {
            self.calls += 1;
            let id = format!("callid{:03}", self.calls);
            let argument = quoted(&self.words());
            let arguments = quoted(&format!(r#"{{"path": {argument}, "n": [1, 2.5]}}"#));
            list.push(format!(
                r#"{{"id":"{id}","type":"function","function":{{"name":"look","arguments":{arguments}}}}}"#
            ));
            self.open_calls.push(id);
        }
        if calls > 0 {
            let _ = write!(json, r#","tool_calls":[{}]"#, list.join(","));
        }
        json.push('}');
        self.push(&json)
    }

    /// A text of a role's message that is not empty, as JSON; with what the class
    /// has in such messages, in the history in some of them.
    fn text(&mut self, role: Role) -> String {
        let found = self.found[place_of(role)];
        let mut text = self.words();
        if self.in_history && self.random.one_in(3) {
            return quoted(&text);
        }
        let literals = self.literals;
        let all: Vec<_> = literals.of_found(found).collect();
        let mut one_of = |places: [Place; 2]| {
            let there = all.iter().filter(|(_, place)| places.contains(place));
            let there: Vec<_> = there.collect();
            (!there.is_empty()).then(|| *there[self.random.below(there.len())])
        };
        let start = one_of([Place::Start, Place::SpacedStart]);
        let end = one_of([Place::End, Place::SpacedEnd]);
        for (literal, _) in all.iter().filter(|(_, place)| *place == Place::Inside) {
            text = format!("{text}{literal}{}", self.words());
        }
        let mut before = String::new();
        match start {
            Some((literal, Place::SpacedStart)) => before = format!("\n {literal}"),
            Some((literal, _)) => before = literal.to_owned(),
            None => {}
        }
        match end {
            Some((literal, Place::SpacedEnd)) => text = format!("{text}{literal} \n"),
            Some((literal, _)) => text.push_str(literal),
            None => {}
        }
        quoted(&(before + &text))
    }

    /// One to three pieces of text without what the template looks for.
    fn words(&mut self) -> String {
        loop {
            let mut text = String::new();
            for _ in 0..1 + self.random.below(3) {
                text.push_str(TEXTS[self.random.below(TEXTS.len())]);
            }
            if self.literals.found_in(&text).is_nothing() {
                return text;
            }
        }
    }

    fn push(&mut self, json: &str) -> Result<()> {
        // What follows the history is never first.
        let at = self.messages.len() + usize::from(!self.in_history);
        let message = Message::parse(at, &parse_str(json)?, self.dialect)?;
        self.messages.push(message);
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    dumps(&Json::String(text.into()), &Style::default())
}
