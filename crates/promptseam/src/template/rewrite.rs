//! Edits to a template's source that make MiniJinja run it as Jinja2 would.
//!
//! MiniJinja's operators can't be replaced, so some are turned into filters of
//! our own: `%` (formats strings), `~` (Python's spelling of floats, lists and
//! dictionaries), slices (lists with constant-time access), and `*` and `+`
//! (results of bounded size). `+` stays where its result is only printed and so
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
    walk(tree, &mut |node| match node {
        Node::Stmt(Stmt::EmitExpr(emit)) => only_printed(&emit.expr, &mut printed),
        Node::Expr(expr) => match expr {
            Expr::BinOp(node) => {
                if let Some(filter) = filter_for(node, printed.contains(&std::ptr::from_ref(expr))) {
                    edits.operator(node.op, range(&node.span()), filter, &tokens);
                }
            }
            Expr::Slice(node) => edits.slice(node, start(expr), range(&node.span()).end, &tokens),
            _ => {}
        },
        Node::Stmt(Stmt::ForLoop(each)) => edits.iterated(&each.iter),
        Node::Stmt(_) => {}
    });
    Ok(edits.apply(source))
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
        Expr::Filter(node) => node.expr.as_ref().map_or(own, start),
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

    /// `for x in a` becomes `for x in ((a)|iter)`. Only where the expression's
    /// place is sure; it could be `None` nowhere else.
    fn iterated(&mut self, iter: &Expr<'_>) {
        let nullable = matches!(
            iter,
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_)
        );
        if nullable {
            self.insert(start(iter), "((");
            let end = iter.span().end_offset as usize;
            self.insert(end, &format!(")|{})", operators::ITERATED));
        }
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
        let own = outside_brackets(tokens, &node).filter(|(token, _)| is_operator(token)).last();
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
        for (token, span) in tokens.iter().filter(|(_, span)| within(&(start..end), span)) {
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
        self.replace(open.clone(), format!(")|{}({}", operators::SLICE, none(&node.start)));
        let inside = open.end..end.saturating_sub(1);
        let colons = outside_brackets(tokens, &inside).filter(|(token, _)| matches!(token, Token::Colon));
        for ((_, span), bound) in colons.zip([&node.stop, &node.step]) {
            self.replace(range(span), format!(",{}", none(bound)));
        }
        self.replace(end.saturating_sub(1)..end, "))");
    }

    fn apply(mut self, source: &str) -> String {
        // At one place, what closes comes before what opens.
        self.0.sort_by_key(|(range, text)| (range.start, !range.is_empty(), text.starts_with('(')));
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
    tokens.iter().filter(move |(_, span)| within(&node, span)).filter(move |(token, _)| {
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
