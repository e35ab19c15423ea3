//! Edits to a template's source that make MiniJinja run it as Jinja2 would.
//!
//! MiniJinja's operators can't be replaced, so some are turned into filters of
//! our own: `%` (formats strings), `~` (Python's spelling of floats, lists and
//! dictionaries), slices (lists with constant-time access), and `*` and `+`
//! (results of bounded size). Loops get a filter that refuses `None`, as Python
//! does, and counts the text they print. `+` stays where its result is only printed and so
//! can't grow from itself; that is the case that costs time. `generation`
//! blocks become `with` blocks, which scope the same. No edit adds a line, so
//! errors keep their line numbers.

use minijinja::{
    Error,
    machinery::{
        Span, Token,
        ast::{BinOp, BinOpKind, Expr, Slice, Stmt},
    },
};

use super::{
    runtime::operators,
    syntax::{self, Node, children, walk},
};

/// `source` with `generation` blocks as `with` blocks.
pub(super) fn generation_blocks(source: &str) -> Result<String, Error> {
    let mut edits = Edits::default();
    for window in syntax::tokens(source)?.windows(2) {
        if let [(Token::BlockStart, _), (Token::Ident(name), span)] = window {
            let with = match *name {
                "generation" => "with",
                "endgeneration" => "endwith",
                _ => continue,
            };
            edits.replace(range(span), with);
        }
    }
    Ok(edits.apply(source))
}

/// `source`, whose tree is `tree`, with operators as filters.
pub(super) fn operators(source: &str, tree: &Stmt<'_>) -> Result<String, Error> {
    let tokens = syntax::tokens(source)?;
    let mut printed: Vec<*const Expr<'_>> = Vec::new();
    let mut edits = Edits::default();
    let mut loops = iterables(&tokens).into_iter();
    walk(tree, &mut |node| match node {
        Node::Stmt(Stmt::EmitExpr(emit)) => only_printed(&emit.expr, &mut printed),
        Node::Expr(expr) => match expr {
            Expr::BinOp(node) => {
                if let Some(filter) = filter_for(node, printed.contains(&std::ptr::from_ref(expr)))
                {
                    edits.operator(node.op, range(&node.span()), filter, &tokens);
                }
            }
            Expr::Slice(node) => edits.slice(node, start(expr), range(&node.span()).end, &tokens),
            _ => {}
        },
        Node::Stmt(Stmt::ForLoop(each)) => {
            // The tags come in the order of the walk.
            if let Some(iter) = loops.next() {
                edits.iterated(iter, plain_text(&each.body));
            }
        }
        Node::Stmt(_) => {}
    });
    Ok(edits.apply(source))
}

/// Where the iterables of the `for` tags are, in order.
fn iterables(tokens: &[(Token<'_>, Span)]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if !matches!(pair, [(Token::BlockStart, _), (Token::Ident("for"), _)]) {
            continue;
        }
        let mut depth = 0usize;
        let mut start = None;
        let mut end = 0;
        for (token, span) in &tokens[at + 2..] {
            match token {
                Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => depth += 1,
                Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                    depth = depth.saturating_sub(1);
                }
                Token::Ident("in") if depth == 0 && start.is_none() => {
                    start = Some(range(span).end);
                    end = range(span).end;
                    continue;
                }
                Token::Ident("if" | "recursive") if depth == 0 && start.is_some() => break,
                Token::BlockEnd => break,
                _ => {}
            }
            end = range(span).end;
        }
        found.push(start.unwrap_or(end)..end);
    }
    found
}

/// How many bytes of plain text `body` prints, less what its loops print.
fn plain_text(body: &[Stmt<'_>]) -> usize {
    let text = |stmt: &Stmt<'_>| match stmt {
        Stmt::EmitRaw(raw) => raw.raw.len(),
        Stmt::IfCond(node) => plain_text(&node.true_body).max(plain_text(&node.false_body)),
        Stmt::WithBlock(node) => plain_text(&node.body),
        Stmt::SetBlock(node) => plain_text(&node.body),
        Stmt::AutoEscape(node) => plain_text(&node.body),
        Stmt::FilterBlock(node) => plain_text(&node.body),
        Stmt::Block(node) => plain_text(&node.body),
        Stmt::CallBlock(node) => plain_text(&node.macro_decl.body),
        _ => 0,
    };
    body.iter().map(text).sum()
}

/// Collects the parts of `expr` whose value is printed and not used otherwise.
fn only_printed<'a>(expr: &Expr<'a>, found: &mut Vec<*const Expr<'a>>) {
    found.push(std::ptr::from_ref(expr));
    match expr {
        Expr::BinOp(node) if matches!(node.op, BinOpKind::Add) => {
            for side in children(expr) {
                only_printed(side, found);
            }
        }
        Expr::IfExpr(node) => {
            only_printed(&node.true_expr, found);
            if let Some(expr) = &node.false_expr {
                only_printed(expr, found);
            }
        }
        _ => {}
    }
}

fn filter_for(node: &BinOp<'_>, printed: bool) -> Option<&'static str> {
    let number = |expr: &Expr<'_>| matches!(expr, Expr::Const(c) if c.value.is_number());
    let index = |expr: &Expr<'_>| {
        matches!(expr, Expr::GetAttr(attr)
            if matches!(attr.name, "index" | "index0" | "length")
                && matches!(&attr.expr, Expr::Var(var) if var.id == "loop"))
    };
    match node.op {
        BinOpKind::Add if printed || number(&node.left) || number(&node.right) => None,
        BinOpKind::Add => Some(operators::ADD),
        BinOpKind::Mul if number(&node.left) && number(&node.right) => None,
        BinOpKind::Mul => Some(operators::MULTIPLY),
        BinOpKind::Rem if number(&node.left) || index(&node.left) => None,
        BinOpKind::Rem => Some(operators::REMAINDER),
        BinOpKind::Concat => Some(operators::CONCAT),
        _ => None,
    }
}

/// Where `expr` starts. The span of a lookup on a lookup starts late.
fn start(expr: &Expr<'_>) -> usize {
    let own = expr.span().start_offset as usize;
    match expr {
        Expr::GetAttr(node) => own.min(start(&node.expr)),
        Expr::GetItem(node) => own.min(start(&node.expr)),
        Expr::Slice(node) => own.min(start(&node.expr)),
        Expr::Call(node) => own.min(start(&node.expr)),
        _ => own,
    }
}

fn range(span: &Span) -> std::ops::Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

#[derive(Default)]
struct Edits(Vec<(std::ops::Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, range: std::ops::Range<usize>, text: impl Into<String>) {
        self.0.push((range, text.into()));
    }

    fn insert(&mut self, at: usize, text: &str) {
        self.replace(at..at, text);
    }

    /// `for x in a` becomes `for x in ((a)|iter(n))`, `n` being how much text
    /// one round of the loop prints as it stands.
    fn iterated(&mut self, header: std::ops::Range<usize>, text: usize) {
        self.insert(header.start, "((");
        self.insert(header.end, &format!(")|{}({text}))", operators::ITERATED));
    }

    /// `a op b` becomes `((a)|filter(b))`.
    fn operator(
        &mut self,
        kind: BinOpKind,
        node: std::ops::Range<usize>,
        filter: &str,
        tokens: &[(Token<'_>, Span)],
    ) {
        let is_operator = |token: &Token<'_>| {
            matches!(
                (kind, token),
                (BinOpKind::Add, Token::Plus)
                    | (BinOpKind::Mul, Token::Mul)
                    | (BinOpKind::Rem, Token::Mod)
                    | (BinOpKind::Concat, Token::Tilde)
            )
        };
        // Operators group to the left, so the last one outside of brackets is
        // the node's own.
        let own = outside_brackets(tokens, &node)
            .filter(|(token, _)| is_operator(token))
            .last();
        if let Some((_, span)) = own {
            self.insert(node.start, "((");
            self.replace(range(span), format!(")|{filter}("));
            self.insert(node.end, "))");
        }
    }

    /// `a[b:c:d]` becomes `((a)|slice(b,c,d))`.
    fn slice(&mut self, node: &Slice<'_>, start: usize, end: usize, tokens: &[(Token<'_>, Span)]) {
        // The bracket that closes at the end opens where the depth was last
        // zero.
        let mut open = None;
        let mut depth = 0usize;
        for (token, span) in tokens
            .iter()
            .filter(|(_, span)| within(&(start..end), span))
        {
            match token {
                Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                    if depth == 0 {
                        open = Some(range(span));
                    }
                    depth += 1;
                }
                Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
        }
        let Some(open) = open else {
            return;
        };
        let none = |bound: &Option<Expr<'_>>| if bound.is_some() { "" } else { "none" };
        self.insert(start, "((");
        self.replace(
            open.clone(),
            format!(")|{}({}", operators::SLICE, none(&node.start)),
        );
        let inside = open.end..end.saturating_sub(1);
        let colons =
            outside_brackets(tokens, &inside).filter(|(token, _)| matches!(token, Token::Colon));
        for ((_, span), bound) in colons.zip([&node.stop, &node.step]) {
            self.replace(range(span), format!(",{}", none(bound)));
        }
        self.replace(end.saturating_sub(1)..end, "))");
    }

    fn apply(mut self, source: &str) -> String {
        // At one place, what closes comes before what opens.
        self.0
            .sort_by_key(|(range, text)| (range.start, !range.is_empty(), text.starts_with('(')));
        let mut out = String::with_capacity(source.len() + self.0.len() * 16);
        let mut at = 0;
        for (range, text) in self.0 {
            if let Some(between) = source.get(at..range.start) {
                out.push_str(between);
            }
            out.push_str(&text);
            at = range.end;
        }
        out.push_str(source.get(at..).unwrap_or_default());
        out
    }
}

fn within(node: &std::ops::Range<usize>, span: &Span) -> bool {
    span.start_offset as usize >= node.start && span.end_offset as usize <= node.end
}

fn outside_brackets<'t, 'a>(
    tokens: &'t [(Token<'a>, Span)],
    node: &std::ops::Range<usize>,
) -> impl Iterator<Item = &'t (Token<'a>, Span)> {
    let node = node.clone();
    let mut depth = 0usize;
    tokens
        .iter()
        .filter(move |(_, span)| within(&node, span))
        .filter(move |(token, _)| {
            match token {
                Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => depth += 1,
                Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                    depth = depth.saturating_sub(1);
                }
                _ => return depth == 0,
            }
            false
        })
}
