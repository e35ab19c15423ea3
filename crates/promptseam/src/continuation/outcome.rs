//! The path a turn took, and why it was not the first.

/// The rung of the ladder that gave a turn's prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// Stored ids, and the encoded marginal suffix.
    CertifiedSuffix,
    /// The whole text rendered, and encoded from the last boundary that still holds.
    AlignedRender,
    /// Everything rendered and encoded.
    FullRender,
    /// The server renders.
    Messages,
}

impl Rung {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CertifiedSuffix => "certified_suffix",
            Self::AlignedRender => "aligned_render",
            Self::FullRender => "full_render",
            Self::Messages => "messages",
        }
    }
}

/// Why a turn did not take the first rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing stored begins the history.
    NoCheckpoint,
    /// The conversation is known, but its history is not what was sent before.
    PrefixMismatch,
    /// A field of the environment is another.
    FingerprintMismatch(Field),
    /// What was found belongs to another tenant.
    TenantMismatch,
    /// What was found may not be used any longer.
    ArtifactExpired,
    /// What a certificate names is not there.
    ArtifactMiss,
    /// No append boundary stands near enough to the sent prompt's end.
    UnsafeBoundary,
    /// The template printed something before the seam otherwise than it did: from
    /// this id on.
    TemplateRewroteHistory(usize),
    /// The template was not shown to be append-only here, or failed.
    UncertifiedTemplate,
    /// Content holds something that the template looks for.
    ContentTestsTemplate,
    /// The full render was another prompt.
    ShadowMismatch,
    /// Content that cannot be rendered here.
    UnsupportedContent,
    /// The store could not be asked.
    StoreUnavailable,
    /// Several answers were asked for: none of them is the conversation's.
    MultipleChoices,
    /// The server does not take ids.
    IdsIgnored,
    /// Switched off.
    Disabled,
}

impl Reason {
    /// All reasons, those with something more to say with nothing of it.
    pub const ALL: [Self; 16] = [
        Self::NoCheckpoint,
        Self::PrefixMismatch,
        Self::FingerprintMismatch(Field::Model),
        Self::TenantMismatch,
        Self::ArtifactExpired,
        Self::ArtifactMiss,
        Self::UnsafeBoundary,
        Self::TemplateRewroteHistory(0),
        Self::UncertifiedTemplate,
        Self::ContentTestsTemplate,
        Self::ShadowMismatch,
        Self::UnsupportedContent,
        Self::StoreUnavailable,
        Self::MultipleChoices,
        Self::IdsIgnored,
        Self::Disabled,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCheckpoint => "no_checkpoint",
            Self::PrefixMismatch => "prefix_mismatch",
            Self::FingerprintMismatch(_) => "fingerprint_mismatch",
            Self::TenantMismatch => "tenant_mismatch",
            Self::ArtifactExpired => "artifact_expired",
            Self::ArtifactMiss => "artifact_miss",
            Self::UnsafeBoundary => "unsafe_boundary",
            Self::TemplateRewroteHistory(_) => "template_rewrote_history",
            Self::UncertifiedTemplate => "uncertified_template",
            Self::ContentTestsTemplate => "content_tests_template",
            Self::ShadowMismatch => "shadow_mismatch",
            Self::UnsupportedContent => "unsupported_content",
            Self::StoreUnavailable => "store_unavailable",
            Self::MultipleChoices => "multiple_choices",
            Self::IdsIgnored => "ids_ignored",
            Self::Disabled => "disabled",
        }
    }
}

/// A field of the environment fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The model's name and revision.
    Model,
    /// The tokenizer's definition.
    Tokenizer,
    /// The chat template.
    Template,
    /// Template arguments, documents, and whether a generation prompt is added.
    Arguments,
    /// The tools, in their order.
    Tools,
    /// Reasoning effort and whether the model thinks.
    Reasoning,
    /// The adapter.
    Lora,
    /// This library's rendering.
    Renderer,
    /// The identity of the cache salt.
    Salt,
    /// The date that the template may print.
    Date,
}

impl Field {
    /// All fields, in the order in which they are compared.
    pub const ALL: [Self; 10] = [
        Self::Model,
        Self::Tokenizer,
        Self::Template,
        Self::Arguments,
        Self::Tools,
        Self::Reasoning,
        Self::Lora,
        Self::Renderer,
        Self::Salt,
        Self::Date,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Tokenizer => "tokenizer",
            Self::Template => "template",
            Self::Arguments => "arguments",
            Self::Tools => "tools",
            Self::Reasoning => "reasoning",
            Self::Lora => "lora",
            Self::Renderer => "renderer",
            Self::Salt => "salt",
            Self::Date => "date",
        }
    }
}

/// How a turn's prompt came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rung taken.
    pub rung: Rung,
    /// Why not the first; none where it was the first.
    pub reason: Option<Reason>,
}
