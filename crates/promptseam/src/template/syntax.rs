//! A template's syntax: parsing it as Hugging Face configures Jinja, and
//! walking the tree.

use minijinja::{
    Error,
    machinery::{
        Span, Token,
        ast::{CallArg, Expr, Stmt},
        parse, tokenize,
    },
    syntax::SyntaxConfig,
};

/// `trim_blocks` and `lstrip_blocks` on, as in transformers.
pub(super) fn config() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
}

pub(super) fn tokens(source: &str) -> Result<Vec<(Token<'_>, Span)>, Error> {
    tokenize(source, false, config()?).collect()
}

pub(super) fn tree(source: &str) -> Result<Stmt<'_>, Error> {
    parse(source, "chat_template", config()?)
}

/// A node of the tree.
#[derive(Clone, Copy)]
pub(super) enum Node<'t, 'a> {
    Stmt(&'t Stmt<'a>),
    Expr(&'t Expr<'a>),
}

/// Calls `visit` for `stmt` and all below, parents first.
pub(super) fn walk<'t, 'a>(stmt: &'t Stmt<'a>, visit: &mut dyn FnMut(Node<'t, 'a>)) {
    visit(Node::Stmt(stmt));
    let mut exprs: Vec<&'t Expr<'a>> = Vec::new();
    let mut bodies: Vec<&'t [Stmt<'a>]> = Vec::new();
    match stmt {
        Stmt::Template(node) => bodies.push(&node.children),
        Stmt::EmitExpr(node) => exprs.push(&node.expr),
        Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
        Stmt::ForLoop(node) => {
            exprs.extend([&node.target, &node.iter]);
            exprs.extend(&node.filter_expr);
            bodies.extend([&*node.body, &*node.else_body]);
        }
        Stmt::IfCond(node) => {
            exprs.push(&node.expr);
            bodies.extend([&*node.true_body, &*node.false_body]);
        }
        Stmt::WithBlock(node) => {
            exprs.extend(
                node.assignments
                    .iter()
                    .flat_map(|(target, value)| [target, value]),
            );
            bodies.push(&node.body);
        }
        Stmt::Set(node) => exprs.extend([&node.target, &node.expr]),
        Stmt::SetBlock(node) => {
            exprs.push(&node.target);
            exprs.extend(&node.filter);
            bodies.push(&node.body);
        }
        Stmt::AutoEscape(node) => {
            exprs.push(&node.enabled);
            bodies.push(&node.body);
        }
        Stmt::FilterBlock(node) => {
            exprs.push(&node.filter);
            bodies.push(&node.body);
        }
        Stmt::Block(node) => bodies.push(&node.body),
        Stmt::Import(node) => exprs.extend([&node.expr, &node.name]),
        Stmt::FromImport(node) => exprs.push(&node.expr),
        Stmt::Extends(node) => exprs.push(&node.name),
        Stmt::Include(node) => exprs.push(&node.name),
        Stmt::Macro(node) => {
            exprs.extend(&node.args);
            exprs.extend(&node.defaults);
            bodies.push(&node.body);
        }
        Stmt::CallBlock(node) => {
            exprs.push(&node.call.expr);
            exprs.extend(node.call.args.iter().map(argument));
            exprs.extend(&node.macro_decl.args);
            exprs.extend(&node.macro_decl.defaults);
            bodies.push(&node.macro_decl.body);
        }
        Stmt::Do(node) => {
            exprs.push(&node.call.expr);
            exprs.extend(node.call.args.iter().map(argument));
        }
    }
    for expr in exprs {
        walk_expr(expr, visit);
    }
    for body in bodies {
        for stmt in body {
            walk(stmt, visit);
        }
    }
}

pub(super) fn walk_expr<'t, 'a>(expr: &'t Expr<'a>, visit: &mut dyn FnMut(Node<'t, 'a>)) {
    visit(Node::Expr(expr));
    for child in children(expr) {
        walk_expr(child, visit);
    }
}

/// The expressions directly below `expr`.
pub(super) fn children<'t, 'a>(expr: &'t Expr<'a>) -> Vec<&'t Expr<'a>> {
    match expr {
        Expr::Var(_) | Expr::Const(_) => Vec::new(),
        Expr::Slice(node) => {
            let bounds = [&node.start, &node.stop, &node.step];
            std::iter::once(&node.expr)
                .chain(bounds.into_iter().flatten())
                .collect()
        }
        Expr::UnaryOp(node) => vec![&node.expr],
        Expr::BinOp(node) => vec![&node.left, &node.right],
        Expr::Compare(node) => std::iter::once(&node.expr)
            .chain(node.ops.iter().map(|op| &op.expr))
            .collect(),
        Expr::IfExpr(node) => [&node.test_expr, &node.true_expr]
            .into_iter()
            .chain(&node.false_expr)
            .collect(),
        Expr::Filter(node) => node
            .expr
            .iter()
            .chain(node.args.iter().map(argument))
            .collect(),
        Expr::Test(node) => std::iter::once(&node.expr)
            .chain(node.args.iter().map(argument))
            .collect(),
        Expr::GetAttr(node) => vec![&node.expr],
        Expr::GetItem(node) => vec![&node.expr, &node.subscript_expr],
        Expr::Call(node) => std::iter::once(&node.expr)
            .chain(node.args.iter().map(argument))
            .collect(),
        Expr::List(node) => node.items.iter().collect(),
        Expr::Tuple(node) => node.items.iter().collect(),
        Expr::Map(node) => node.keys.iter().chain(&node.values).collect(),
    }
}

fn argument<'t, 'a>(argument: &'t CallArg<'a>) -> &'t Expr<'a> {
    match argument {
        CallArg::Pos(expr)
        | CallArg::Kwarg(_, expr)
        | CallArg::PosSplat(expr)
        | CallArg::KwargSplat(expr) => expr,
    }
}
