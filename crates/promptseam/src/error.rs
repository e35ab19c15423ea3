//! The one error of the crate: an opaque [`Error`] over an [`ErrorKind`] that
//! carries a stable code.

use std::{error, fmt};

/// What went wrong, as a program tells errors apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of range or of the wrong shape.
    InvalidArgument,
    /// A request body is not JSON, or nested too deeply.
    InvalidJson,
    /// A request is JSON but not a chat request.
    InvalidRequest,
    /// Text holds a lone surrogate, which no tokenizer can encode.
    InvalidUnicode,
    /// An id lies outside the model's vocabulary.
    InvalidTokenId,
    /// A message holds content that is not text.
    UnsupportedContent,
    /// An input is over its limit.
    TooLarge,
    /// A prompt is longer than the model's context.
    ContextOverflow,
    /// No model folder, or no cached snapshot, is there.
    ModelNotFound,
    /// A file of the model is missing, unreadable or broken.
    ModelFile,
    /// Neither engine loads a tokenizer of this kind.
    TokenizerUnsupported,
    /// The model has no chat template.
    TemplateMissing,
    /// The chat template does not parse.
    TemplateSyntax,
    /// The chat template called `raise_exception`.
    TemplateRaised,
    /// The chat template failed while rendering.
    TemplateFailed,
    /// The work was cancelled by its caller.
    Aborted,
    /// The object was closed before.
    Closed,
    /// A record of a conversation is damaged, of another version, or not its
    /// tenant's.
    RecordRefused,
    /// A store of conversations cannot be read or written.
    Store,
    /// A bug in this crate or one of its engines.
    Internal,
}

impl ErrorKind {
    /// The stable code, the same in every language binding.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidArgument => "PS_INVALID_ARGUMENT",
            Self::InvalidJson => "PS_INVALID_JSON",
            Self::InvalidRequest => "PS_INVALID_REQUEST",
            Self::InvalidUnicode => "PS_INVALID_UNICODE",
            Self::InvalidTokenId => "PS_INVALID_TOKEN_ID",
            Self::UnsupportedContent => "PS_UNSUPPORTED_CONTENT",
            Self::TooLarge => "PS_TOO_LARGE",
            Self::ContextOverflow => "PS_CONTEXT_OVERFLOW",
            Self::ModelNotFound => "PS_MODEL_NOT_FOUND",
            Self::ModelFile => "PS_MODEL_FILE",
            Self::TokenizerUnsupported => "PS_TOKENIZER_UNSUPPORTED",
            Self::TemplateMissing => "PS_TEMPLATE_MISSING",
            Self::TemplateSyntax => "PS_TEMPLATE_SYNTAX",
            Self::TemplateRaised => "PS_TEMPLATE_RAISED",
            Self::TemplateFailed => "PS_TEMPLATE_FAILED",
            Self::Aborted => "PS_ABORTED",
            Self::Closed => "PS_CLOSED",
            Self::RecordRefused => "PS_RECORD_REFUSED",
            Self::Store => "PS_STORE",
            Self::Internal => "PS_INTERNAL",
        }
    }
}

/// An error with a stable [`ErrorKind`] and a message that says what to do.
///
/// Messages never quote prompt text: they may end up in logs.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code of [`Self::kind`].
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// The message for people, without the causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
