//! Tools as the TypeScript types that Harmony shows to the model.
//!
//! Which parts of a JSON schema are shown, and how, follows oss-harmony 0.0.11;
//! what it does not know is `any`. All text is printed as it is: names are not
//! quoted, and a description's further lines are no comments.

use super::number;
use crate::{
    error::{Error, ErrorKind, Result},
    template::{
        MAX_OUTPUT,
        data::{Data, Map},
    },
};

/// Appends the section that declares `tools`, as vLLM rebuilt them. O(what is
/// printed).
///
/// # Errors
/// `TooLarge` over [`MAX_OUTPUT`]: indentation grows with the nesting.
pub(super) fn push_tools(out: &mut String, tools: &Data) -> Result<()> {
    out.push_str("# Tools\n\n## functions\n\nnamespace functions {\n\n");
    for tool in tools.as_list().unwrap_or_default() {
        let function = get(tool, "function").unwrap_or(&Data::Null);
        for line in text(function, "description").unwrap_or_default().lines() {
            push(out, &["// ", line, "\n"]);
        }
        let name = text(function, "name").unwrap_or_default();
        push(out, &["type ", name, " = ("]);
        if let Some(parameters @ Data::Map(_)) = get(function, "parameters") {
            out.push_str("_: ");
            push_type(out, parameters, &mut String::new())?;
        }
        out.push_str(") => any;\n\n");
    }
    out.push_str("} // namespace functions");
    Ok(())
}

/// Appends the type that `schema` describes, its further lines indented.
fn push_type(out: &mut String, schema: &Data, indent: &mut String) -> Result<()> {
    if out.len() > MAX_OUTPUT {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the tools' types have more than {MAX_OUTPUT} bytes"),
        ));
    }
    if let Some(variants) = list(schema, "oneOf") {
        for variant in variants {
            push(out, &["\n", indent, " | "]);
            push_variant(out, variant, indent)?;
            let default = default_of(variant, BesideEnum::Json);
            push_trailing(out, text(variant, "description"), default);
        }
        return Ok(());
    }
    match get(schema, "type") {
        Some(Data::List(types)) => {
            let names: Vec<&str> = types
                .items()
                .iter()
                .filter_map(Data::as_str)
                .map(|name| if name == "integer" { "number" } else { name })
                .collect();
            out.push_str(&match names.as_slice() {
                [] => "any".to_owned(),
                names => names.join(" | "),
            });
        }
        Some(Data::Str(name)) => match &**name {
            "object" => push_object(out, schema, indent)?,
            "string" => push_string(out, schema),
            "number" | "integer" => out.push_str("number"),
            "boolean" => out.push_str("boolean"),
            "array" => match get(schema, "items") {
                Some(items) => {
                    push_type(out, items, indent)?;
                    out.push_str("[]");
                }
                None => out.push_str("Array<any>"),
            },
            _ => out.push_str("any"),
        },
        _ => out.push_str("any"),
    }
    Ok(())
}

fn push_string(out: &mut String, schema: &Data) {
    let values = list(schema, "enum").unwrap_or_default();
    let mut values = values.iter().filter_map(Data::as_str).peekable();
    if values.peek().is_none() {
        out.push_str("string");
    }
    for (index, value) in values.enumerate() {
        push(
            out,
            &[if index > 0 { " | " } else { "" }, "\"", value, "\""],
        );
    }
}

fn push_object(out: &mut String, schema: &Data, indent: &mut String) -> Result<()> {
    if let Some(description) = text(schema, "description") {
        push(out, &[indent, "// ", description, "\n"]);
    }
    out.push_str("{\n");
    if let Some(Data::Map(properties)) = get(schema, "properties") {
        let required = list(schema, "required").unwrap_or_default();
        for (name, property) in properties.entries() {
            let name = name.as_str();
            let optional = !required.iter().any(|known| known.as_str() == Some(name));
            push_property(out, name, optional, property, indent)?;
        }
    }
    push(out, &[indent, "}"]);
    Ok(())
}

fn push_property(
    out: &mut String,
    name: &str,
    optional: bool,
    property: &Data,
    indent: &mut String,
) -> Result<()> {
    let mark = if optional { "?" } else { "" };
    if let Some(title) = text(property, "title") {
        push(out, &[indent, "// ", title, "\n", indent, "//\n"]);
    }
    let has_one_of = get(property, "oneOf").is_some();
    if let (false, Some(description)) = (has_one_of, text(property, "description")) {
        push(out, &[indent, "// ", description, "\n"]);
    }
    push_examples(out, property, indent);
    if let Some(variants) = list(property, "oneOf") {
        return push_alternatives(out, &[name, mark], property, variants, indent);
    }
    push(out, &[indent, name, mark, ": "]);
    indented(indent, 4, |indent| push_nullable(out, property, indent))?;
    out.push(',');
    if let (false, Some(default)) = (has_one_of, default_of(property, BesideEnum::Bare)) {
        push(out, &[" // default: ", &default]);
    }
    out.push('\n');
    Ok(())
}

fn push_examples(out: &mut String, property: &Data, indent: &str) {
    let examples = list(property, "examples").unwrap_or_default();
    if !examples.is_empty() {
        push(out, &[indent, "// Examples:\n"]);
    }
    for example in examples.iter().filter_map(Data::as_str) {
        push(out, &[indent, "// - \"", example, "\"\n"]);
    }
}

/// A property with `oneOf`: a line for each variant. A description that the
/// property shares with its first variant is shown once.
fn push_alternatives(
    out: &mut String,
    name: &[&str; 2],
    property: &Data,
    variants: &[Data],
    indent: &mut String,
) -> Result<()> {
    let description = text(property, "description");
    let of_first = variants
        .first()
        .and_then(|first| text(first, "description"));
    let above = description.filter(|text| of_first != Some(text));
    if let Some(description) = above {
        push(out, &[indent, "// ", description, "\n"]);
    }
    if let Some(default) = default_of(property, BesideEnum::Bare) {
        push(out, &[indent, "// default: ", &default, "\n"]);
    }
    push(out, &[indent, name[0], name[1], ":\n"]);
    for (index, variant) in variants.iter().enumerate() {
        push(out, &[indent, " | "]);
        push_variant(out, variant, indent)?;
        let hidden = index == 0 && above.is_some();
        let shown =
            text(variant, "description").filter(|text| !hidden && description != Some(text));
        push_trailing(out, shown, default_of(variant, BesideEnum::Bare));
        out.push('\n');
    }
    push(out, &[indent, ",\n"]);
    Ok(())
}

fn push_variant(out: &mut String, variant: &Data, indent: &mut String) -> Result<()> {
    indented(indent, 3, |indent| push_nullable(out, variant, indent))
}

/// The type, and `null` if it may be that and does not say so itself.
fn push_nullable(out: &mut String, schema: &Data, indent: &mut String) -> Result<()> {
    let start = out.len();
    push_type(out, schema, indent)?;
    let nullable = get(schema, "nullable") == Some(&Data::Bool(true));
    if nullable && !out[start..].contains("null") {
        out.push_str(" | null");
    }
    Ok(())
}

fn push_trailing(out: &mut String, description: Option<&str>, default: Option<String>) {
    let default = default.map(|default| format!("default: {default}"));
    let comments: Vec<&str> = description.into_iter().chain(default.as_deref()).collect();
    if !comments.is_empty() {
        push(out, &[" // ", &comments.join(" ")]);
    }
}

/// How a default that is a string is spelled where the schema has an enum;
/// where it has none, it stands between quotes, nothing escaped.
#[derive(Clone, Copy, PartialEq)]
enum BesideEnum {
    Bare,
    Json,
}

fn default_of(schema: &Data, beside_enum: BesideEnum) -> Option<String> {
    let default = get(schema, "default")?;
    let has_enum = list(schema, "enum").is_some_and(|values| !values.is_empty());
    Some(match (default, beside_enum) {
        (Data::Str(text), _) if !has_enum => format!("\"{text}\""),
        (Data::Str(text), BesideEnum::Bare) => text.to_string(),
        _ => {
            let mut json = String::new();
            number::push_json(&mut json, default);
            json
        }
    })
}

fn indented<T>(indent: &mut String, by: usize, work: impl FnOnce(&mut String) -> T) -> T {
    let outer = indent.len();
    indent.extend(std::iter::repeat_n(' ', by));
    let result = work(indent);
    indent.truncate(outer);
    result
}

fn push(out: &mut String, texts: &[&str]) {
    out.extend(texts.iter().copied());
}

fn get<'a>(schema: &'a Data, key: &str) -> Option<&'a Data> {
    schema.as_map().and_then(|map: &Map| map.get(key))
}

fn text<'a>(schema: &'a Data, key: &str) -> Option<&'a str> {
    get(schema, key)?.as_str()
}

fn list<'a>(schema: &'a Data, key: &str) -> Option<&'a [Data]> {
    get(schema, key)?.as_list()
}
