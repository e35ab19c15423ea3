//! What vLLM reads off a template's source: whether it loops over a message's
//! content, and whether it knows the developer role.
//!
//! The rules are vLLM 0.32's: names that stand for the messages are followed
//! through plain assignments, loops over them give names for a message, and a
//! loop over such a name's content (or over a macro parameter that gets it, or
//! over a variable called `content` outside of macros) means that the template
//! wants content as a list of parts.

use std::collections::HashMap;

use minijinja::machinery::ast::{CallArg, Expr, ForLoop, Macro, Stmt};

use super::{
    message::ContentFormat,
    syntax::{Node, walk},
};

/// Whether the source mentions the developer role.
pub(super) fn knows_developer_role(source: &str) -> bool {
    source.contains("\"developer\"") || source.contains("'developer'")
}

/// The content format that vLLM detects.
pub(super) fn content_format(tree: &Stmt<'_>) -> ContentFormat {
    match loops_over_content(tree) {
        Ok(true) => ContentFormat::Parts,
        // vLLM's detection gives up on targets that are not plain names.
        Ok(false) | Err(NotAName) => ContentFormat::String,
    }
}

struct NotAName;

#[derive(Default)]
struct Nodes<'t, 'a> {
    assigns: Vec<(&'t Expr<'a>, &'t Expr<'a>)>,
    loops: Vec<&'t ForLoop<'a>>,
    macros: Vec<&'t Macro<'a>>,
    calls: Vec<(&'t str, &'t [CallArg<'a>])>,
}

fn loops_over_content(tree: &Stmt<'_>) -> Result<bool, NotAName> {
    let mut nodes = Nodes::default();
    walk(tree, &mut |node| nodes.add(node));
    let mut messages = Vec::new();
    let lists = message_lists(&nodes)?;
    for each in &nodes.loops {
        if lists.iter().any(|name| reads(&each.iter, name, None)) {
            messages.push(name_of(&each.target)?);
        }
    }
    let is_content = |expr: &Expr<'_>| {
        messages
            .iter()
            .any(|name| reads(expr, name, Some("content")))
    };
    let in_macros = content_parameters(&nodes, &is_content);
    for each in &nodes.loops {
        let by_name = |iter: &Expr<'_>| match (iter, in_macros.get(&address(each))) {
            (Expr::Var(var), Some(parameters)) => parameters.contains(&var.id),
            (Expr::Var(var), None) => var.id == "content",
            _ => false,
        };
        if is_content(&each.iter) || by_name(&each.iter) {
            return name_of(&each.target).map(|_| true);
        }
    }
    Ok(false)
}

impl<'t, 'a> Nodes<'t, 'a> {
    fn add(&mut self, node: Node<'t, 'a>) {
        match node {
            Node::Stmt(Stmt::Set(set)) => self.assigns.push((&set.target, &set.expr)),
            Node::Stmt(Stmt::ForLoop(each)) => self.loops.push(each),
            Node::Stmt(Stmt::Macro(node)) => self.macros.push(node),
            Node::Expr(Expr::Call(call)) => {
                if let Expr::Var(var) = &call.expr {
                    self.calls.push((var.id, &call.args));
                }
            }
            Node::Stmt(Stmt::CallBlock(block)) => {
                if let Expr::Var(var) = &block.call.expr {
                    self.calls.push((var.id, &block.call.args));
                }
            }
            _ => {}
        }
    }
}

/// The names that stand for `messages`.
fn message_lists<'t>(nodes: &Nodes<'t, '_>) -> Result<Vec<&'t str>, NotAName> {
    let mut names = vec!["messages"];
    let mut at = 0;
    while let Some(&name) = names.get(at) {
        for (target, value) in &nodes.assigns {
            if reads(value, name, None) {
                let target = name_of(target)?;
                if !names.contains(&target) {
                    names.push(target);
                }
            }
        }
        at += 1;
    }
    Ok(names)
}

/// For each loop inside a macro, the macro's parameters that some call gives a
/// message's content.
fn content_parameters<'t>(
    nodes: &Nodes<'t, '_>,
    is_content: &dyn Fn(&Expr<'_>) -> bool,
) -> HashMap<usize, Vec<&'t str>> {
    let mut found: HashMap<usize, Vec<&str>> = HashMap::new();
    for node in &nodes.macros {
        let names: Vec<&str> = node
            .args
            .iter()
            .filter_map(|arg| name_of(arg).ok())
            .collect();
        let mut parameters = Vec::new();
        for (_, args) in nodes.calls.iter().filter(|(name, _)| *name == node.name) {
            let mut position = 0;
            for arg in *args {
                match arg {
                    CallArg::Pos(value) => {
                        parameters.extend(names.get(position).filter(|_| is_content(value)));
                        position += 1;
                    }
                    CallArg::Kwarg(name, value) if names.contains(name) && is_content(value) => {
                        parameters.push(*name);
                    }
                    _ => {}
                }
            }
        }
        let mut note = |inner: Node<'t, '_>| {
            if let Node::Stmt(Stmt::ForLoop(each)) = inner {
                found.entry(address(each)).or_default().extend(&parameters);
            }
        };
        for stmt in &node.body {
            walk(stmt, &mut note);
        }
    }
    found
}

/// A loop's identity within one tree.
fn address(each: &ForLoop<'_>) -> usize {
    std::ptr::from_ref(each).addr()
}

fn name_of<'t>(target: &'t Expr<'_>) -> Result<&'t str, NotAName> {
    match target {
        Expr::Var(var) => Ok(var.id),
        _ => Err(NotAName),
    }
}

/// Whether `expr` is the variable, or its `key`, behind any filters, tests and
/// slices.
fn reads(expr: &Expr<'_>, variable: &str, key: Option<&str>) -> bool {
    let is_variable = |expr: &Expr<'_>| matches!(expr, Expr::Var(var) if var.id == variable);
    match (expr, key) {
        (Expr::Filter(node), _) => node
            .expr
            .as_ref()
            .is_some_and(|expr| reads(expr, variable, key)),
        (Expr::Test(node), _) => reads(&node.expr, variable, key),
        (Expr::Slice(node), _) => reads(&node.expr, variable, key),
        (_, None) => is_variable(expr),
        (Expr::GetAttr(node), Some(key)) => node.name == key && is_variable(&node.expr),
        (Expr::GetItem(node), Some(key)) => {
            let subscript = match &node.subscript_expr {
                Expr::Const(constant) => constant.value.as_str().is_some_and(|text| text == key),
                _ => false,
            };
            subscript && is_variable(&node.expr)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::syntax;

    fn format(source: &str) -> ContentFormat {
        content_format(&syntax::tree(source).unwrap())
    }

    #[test]
    fn loops_over_content_ask_for_parts() {
        for source in [
            "{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}",
            "{% for m in messages %}{% for c in m['content'] %}{% endfor %}{% endfor %}",
            "{% for m in messages[1:] %}{% for c in m['content']|list %}{% endfor %}{% endfor %}",
            "{% set l = messages[1:] %}{% set k = l|list %}{% for m in k %}{% for c in m.content %}{% endfor %}{% endfor %}",
            "{% for content in content %}{% endfor %}",
            "{% macro f(x) %}{% for i in x %}{% endfor %}{% endmacro %}{% for m in messages %}{{ f(m.content) }}{% endfor %}",
            "{% macro f(a, x) %}{% for i in x %}{% endfor %}{% endmacro %}{% for m in messages %}{{ f(1, x=m.content) }}{% endfor %}",
        ] {
            assert_eq!(format(source), ContentFormat::Parts, "{source}");
        }
        for source in [
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "{% for m in messages %}{% for c in m.tool_calls %}{% endfor %}{% endfor %}",
            "{% macro f(content) %}{% for i in content %}{% endfor %}{% endmacro %}{{ f(1) }}",
            "{% set ns = namespace() %}{% set ns.m = messages %}{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}",
            "{% for a, b in messages %}{% endfor %}{% for c in content %}{% endfor %}",
        ] {
            assert_eq!(format(source), ContentFormat::String, "{source}");
        }
    }
}
