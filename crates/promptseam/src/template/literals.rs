//! The texts that a template looks for in what it prints.
//!
//! A template that asks whether content holds `</think>`, or begins with
//! `<tool_response>`, prints a conversation differently where it does. What it
//! asks for is read off its syntax tree: constants that are looked up in
//! something, compared with a slice, or given to a method or filter that
//! searches a string.

use aho_corasick::{AhoCorasick, MatchKind};
use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Stmt};

use super::syntax::{Node, walk};

/// Methods and filters of a string that look for their argument in it.
const SEARCHES: [&str; 14] = [
    "count",
    "endswith",
    "find",
    "index",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rpartition",
    "rsplit",
    "split",
    "startswith",
];

/// What is shorter is punctuation, which stands in all content: every probe has it.
const SHORTEST: usize = 3;

/// Literals that are told apart, with a bit for each place; with more none is.
const TOLD_APART: usize = 12;

const PLACES: [Place; 5] = [
    Place::Start,
    Place::SpacedStart,
    Place::Inside,
    Place::SpacedEnd,
    Place::End,
];

/// Where in a text a literal stands. A template may strip a text before it looks,
/// or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Start,
    /// Behind white space.
    SpacedStart,
    Inside,
    /// Before white space.
    SpacedEnd,
    End,
}

/// Which literals were found, and where.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub(crate) struct Found(u64);

impl Found {
    /// Something of which nothing more is known.
    pub(crate) const SOMETHING: Self = Self(u64::MAX);

    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether it is known what was found.
    pub(crate) fn is_known(self) -> bool {
        self != Self::SOMETHING
    }

    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn add(&mut self, literal: usize, place: Place) {
        self.0 |= 1 << (PLACES.len() * literal + place as usize);
    }
}

/// What a template looks for, ready to be looked for too.
#[derive(Debug, Default)]
pub(crate) struct Literals {
    texts: Vec<String>,
    search: Option<AhoCorasick>,
}

impl Literals {
    pub(super) fn of(tree: &Stmt<'_>) -> Self {
        let mut texts = Vec::new();
        let mut loops = Vec::new();
        walk(tree, &mut |node| {
            if let Node::Stmt(Stmt::ForLoop(each)) = node
                && let Expr::Var(var) = &each.target
            {
                loops.push(var.id);
            }
        });
        walk(tree, &mut |node| {
            if let Node::Expr(expr) = node {
                collect(expr, &loops, &mut texts);
            }
        });
        texts.retain(|text| text.len() >= SHORTEST);
        texts.sort_unstable();
        texts.dedup();
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&texts)
            .ok()
            .filter(|_| !texts.is_empty());
        Self { texts, search }
    }

    /// What stands in `text`, and where. O(length).
    pub(crate) fn found_in(&self, text: &str) -> Found {
        let mut found = Found::default();
        let Some(search) = &self.search else {
            return found;
        };
        for hit in search.find_overlapping_iter(text) {
            let literal = hit.pattern().as_usize();
            if literal >= TOLD_APART {
                return Found::SOMETHING;
            }
            let (before, after) = (&text[..hit.start()], &text[hit.end()..]);
            let starts = is_blank(before);
            let ends = is_blank(after);
            match starts {
                true if before.is_empty() => found.add(literal, Place::Start),
                true => found.add(literal, Place::SpacedStart),
                false => {}
            }
            match ends {
                true if after.is_empty() => found.add(literal, Place::End),
                true => found.add(literal, Place::SpacedEnd),
                false => {}
            }
            if !starts && !ends {
                found.add(literal, Place::Inside);
            }
        }
        found
    }

    /// The literals of `found`, each with its place.
    pub(crate) fn of_found(&self, found: Found) -> impl Iterator<Item = (&str, Place)> {
        let all = self.texts.iter().take(TOLD_APART).enumerate();
        all.flat_map(move |(literal, text)| {
            let bit = move |place| found.0 >> (PLACES.len() * literal + place as usize) & 1;
            let there = PLACES.into_iter().filter(move |place| bit(*place) == 1);
            there.map(move |place| (&**text, place))
        })
    }
}

/// Whether Python would strip all of `text`.
fn is_blank(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

fn collect<'a>(expr: &Expr<'a>, loops: &[&'a str], texts: &mut Vec<String>) {
    let mut add = |expr: &Expr<'_>| {
        if let Expr::Const(constant) = expr {
            texts.extend(constant.value.as_str().map(str::to_owned));
        }
    };
    let is_slice = |expr: &Expr<'_>| matches!(expr, Expr::Slice(_));
    match expr {
        Expr::BinOp(node) => match node.op {
            // A loop's variable is a message, a tool or a call: that asks for a key.
            BinOpKind::In if !is_variable(&node.right, loops) => add(&node.left),
            BinOpKind::Eq | BinOpKind::Ne if is_slice(&node.left) || is_slice(&node.right) => {
                add(&node.left);
                add(&node.right);
            }
            _ => {}
        },
        Expr::Compare(node) => {
            let mut left = &node.expr;
            for op in &node.ops {
                let right = &op.expr;
                match op.op {
                    CompareOpKind::In | CompareOpKind::NotIn if !is_variable(right, loops) => {
                        add(left);
                    }
                    CompareOpKind::Eq | CompareOpKind::Ne if is_slice(left) || is_slice(right) => {
                        add(left);
                        add(right);
                    }
                    _ => {}
                }
                left = right;
            }
        }
        Expr::Call(node) => {
            if let Expr::GetAttr(method) = &node.expr
                && SEARCHES.contains(&method.name)
            {
                node.args.iter().for_each(|arg| arg_of(arg, &mut add));
            }
        }
        Expr::Filter(node) if SEARCHES.contains(&node.name) => {
            node.args.iter().for_each(|arg| arg_of(arg, &mut add));
        }
        _ => {}
    }
}

fn arg_of(arg: &CallArg<'_>, add: &mut impl FnMut(&Expr<'_>)) {
    match arg {
        CallArg::Pos(expr) | CallArg::Kwarg(_, expr) => add(expr),
        CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {}
    }
}

fn is_variable(expr: &Expr<'_>, names: &[&str]) -> bool {
    matches!(expr, Expr::Var(var) if names.contains(&var.id) || var.id == "tools")
}
