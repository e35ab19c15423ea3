//! A compiled chat template.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use minijinja::{Environment, ErrorKind as Kind, Value};

use super::{
    ChatRequest, ContentFormat, Now, Prepared, SpecialTokens, analysis,
    data::{Data, Map},
    literals::Literals,
    rewrite,
    runtime::{self, Context, Raised},
    syntax,
};
use crate::error::{Error, ErrorKind, Result};

/// The most bytes one rendering may produce, intermediate texts included.
pub const MAX_OUTPUT: usize = 64 << 20;

/// The most instructions one rendering may run. A history of 10,000 messages
/// takes about a million.
pub const MAX_FUEL: u64 = 20_000_000;

const NAME: &str = "chat_template";
/// What transformers appends to a final message to find its end again.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// A chat template, compiled once and shared between threads.
///
/// It renders as Jinja2 does under transformers 5 (`apply_chat_template`):
/// immutable sandbox, `trim_blocks`, `lstrip_blocks`, loop controls,
/// `generation` blocks, Hugging Face's `tojson`, `raise_exception` and
/// `strftime_now`. Other templates and files can't be reached from it.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: Box<str>,
    digest: blake3::Hash,
    tokens: Arc<[(&'static str, Value)]>,
    format: ContentFormat,
    developer: bool,
    literals: Literals,
    /// The length of the last rendering, to start the next one with.
    length: AtomicUsize,
}

impl ChatTemplate {
    /// Compiles `source`. O(n).
    ///
    /// # Errors
    /// `TemplateSyntax` with the line.
    pub fn new(source: &str, tokens: &SpecialTokens) -> Result<Self> {
        let syntax = |error: minijinja::Error| {
            let line = error
                .line()
                .map(|line| format!(" at line {line}"))
                .unwrap_or_default();
            Error::new(
                ErrorKind::TemplateSyntax,
                format!("the chat template does not parse{line}: {}", error.kind()),
            )
            .with_source(error)
        };
        let plain = rewrite::generation_blocks(source).map_err(syntax)?;
        let tree = syntax::tree(&plain).map_err(syntax)?;
        let rewritten = rewrite::operators(&plain, &tree).map_err(syntax)?;
        let mut environment = runtime::environment().map_err(syntax)?;
        environment.set_fuel(Some(MAX_FUEL));
        environment
            .add_template_owned(NAME, rewritten)
            .map_err(syntax)?;
        Ok(Self {
            environment,
            source: source.into(),
            digest: blake3::hash(source.as_bytes()),
            tokens: tokens
                .iter()
                .map(|(name, text)| (name, Value::from(text)))
                .collect(),
            format: analysis::content_format(&tree),
            developer: analysis::knows_developer_role(source),
            literals: Literals::of(&tree),
            length: AtomicUsize::new(0),
        })
    }

    /// The BLAKE3 digest of the source.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// The source, as given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The form of content that vLLM detects this template to want.
    pub fn content_format(&self) -> ContentFormat {
        self.format
    }

    /// What the template looks for in content.
    pub(crate) fn literals(&self) -> &Literals {
        &self.literals
    }

    /// Gives the messages of `request` the form vLLM hands to this template.
    /// O(messages).
    ///
    /// # Errors
    /// `InvalidArgument` for a request that was read for Harmony.
    pub fn prepare(&self, request: &ChatRequest) -> Result<Prepared> {
        Prepared::for_template(request, self.format, self.developer)
    }

    /// The prompt's text. O(text) for ordinary templates.
    ///
    /// # Errors
    /// `TemplateRaised` with the template's own message, `TemplateFailed` with
    /// the line, `TooLarge` over [`MAX_OUTPUT`] or [`MAX_FUEL`], and
    /// `InvalidRequest` if a final message to continue can't be.
    pub fn render(&self, prepared: &Prepared, now: Now) -> Result<String> {
        if prepared.messages().is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "messages must not be empty",
            ));
        }
        if !prepared.continue_final_message() {
            return self.run(prepared, prepared.messages(), now);
        }
        let (messages, text) = self.tag_final_message(prepared)?;
        let rendered = self.run(prepared, &messages, now)?;
        cut_at_tag(rendered, &text)
    }

    fn run(&self, prepared: &Prepared, messages: &[Arc<Map>], now: Now) -> Result<String> {
        let context = Context::new(
            messages,
            prepared.shared_arguments(),
            self.tokens.clone(),
            now,
        );
        let mut out = Bounded(Vec::with_capacity(
            self.length.load(Ordering::Relaxed) + 1024,
        ));
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|e| failure(&e))?;
        template
            .render_captured_to(Value::from_object(context), &mut out)
            .map_err(|error| failure(&error))?;
        self.length.store(out.0.len(), Ordering::Relaxed);
        String::from_utf8(out.0)
            .map_err(|_| Error::new(ErrorKind::Internal, "a template gave invalid UTF-8"))
    }

    /// The messages with the tag behind the final one's text, and that text.
    fn tag_final_message(&self, prepared: &Prepared) -> Result<(Vec<Arc<Map>>, String)> {
        let refuse = |what: &str| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("continue_final_message: {what}"),
            )
        };
        let mut messages = prepared.messages().to_vec();
        let last = messages
            .last_mut()
            .ok_or_else(|| refuse("there is no message"))?;
        if !self.source.contains("content") {
            return Err(refuse("the template does not print content"));
        }
        let (content, text) = match last.get("content") {
            Some(Data::Str(text)) => (
                Data::str(&format!("{text}{CONTINUE_TAG}")),
                text.to_string(),
            ),
            Some(Data::List(parts)) => {
                let mut parts = parts.items().to_vec();
                let has_text =
                    |part: &Data| part.as_map().is_some_and(|map| map.get("text").is_some());
                let at = parts.iter().rposition(has_text);
                let part = at.and_then(|at| parts[at].as_map().map(|map| (at, map)));
                let (at, map) = part.ok_or_else(|| refuse("the final message has no text"))?;
                let text = map
                    .get("text")
                    .and_then(Data::as_str)
                    .unwrap_or_default()
                    .to_owned();
                let tagged = map.with("text", Data::str(&format!("{text}{CONTINUE_TAG}")));
                parts[at] = Data::Map(Arc::new(tagged));
                (Data::list(parts), text)
            }
            _ => return Err(refuse("the final message has no content")),
        };
        *last = Arc::new(last.with("content", content));
        Ok((messages, text))
    }
}

/// Cuts `rendered` where the final message ends, as transformers does.
fn cut_at_tag(mut rendered: String, text: &str) -> Result<String> {
    let tag = CONTINUE_TAG.trim_end();
    let at = rendered
        .rfind(tag)
        .filter(|_| rendered.contains(runtime::strip(text)));
    let Some(at) = at else {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "continue_final_message: the template does not print the final message as it is",
        ));
    };
    let whole = rendered[at..].starts_with(CONTINUE_TAG);
    rendered.truncate(at);
    if !whole {
        rendered.truncate(runtime::strip_end(&rendered).len());
    }
    Ok(rendered)
}

/// An error of the engine without what it may quote of the prompt.
fn failure(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Error::new(ErrorKind::TemplateRaised, message.clone());
        }
        if current.is::<runtime::TooLarge>() {
            return too_large();
        }
        if let Some(error) = current.downcast_ref::<minijinja::Error>()
            && error.kind() == Kind::OutOfFuel
        {
            return Error::new(ErrorKind::TooLarge, "the chat template runs too long");
        }
        cause = current.source();
    }
    let line = error
        .line()
        .map(|line| format!(" at line {line}"))
        .unwrap_or_default();
    Error::new(
        ErrorKind::TemplateFailed,
        format!("the chat template failed{line}: {}", error.kind()),
    )
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the chat template produces more than {MAX_OUTPUT} bytes"),
    )
}

/// A writer that stops at [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(runtime::TooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
