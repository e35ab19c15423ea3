//! The environment fingerprint: a digest by name of all that can change a
//! prompt's ids besides its messages.

use std::{borrow::Cow, sync::Arc};

use super::{certification::Table, members::Members, outcome::Field};
use crate::{
    error::{Error, ErrorKind, Result},
    json::{self, Object, Style},
    model::Model,
    template::{ChatRequest, Data, Dialect, Map, Now},
};

/// The members of a request that can change its prompt, but for the messages.
pub(crate) const FIELDS: [&str; 11] = [
    "tools",
    "tool_choice",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "reasoning_effort",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "truncate_prompt_tokens",
    "kv_transfer_params",
];

/// Template arguments that say how the model reasons.
const REASONING: [&str; 4] = [
    "enable_thinking",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
];

/// Counts changes of what this library prints for a request. Records of another
/// version are not continued.
const RENDERER_VERSION: u32 = 1;

/// Who answers, and whose cache is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The model and its revision.
    pub model: String,
    /// The adapter, if any.
    pub lora: String,
    /// The name that the request asks for (`model`).
    pub served: String,
    /// A digest of the request's cache salt; never the salt itself.
    pub salt: String,
}

impl Identity {
    /// The identity of a request with these `members`.
    pub(crate) fn of(&self, members: &Members) -> Self {
        Self {
            served: members.get("model").unwrap_or_default().to_owned(),
            salt: members
                .get("cache_salt")
                .map(salt_identity)
                .unwrap_or_default(),
            ..self.clone()
        }
    }
}

/// What tells salts apart without telling them.
fn salt_identity(salt: &str) -> String {
    blake3::derive_key("promptseam salt identity v1", salt.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) type FieldDigest = [u8; 16];

/// A digest of each field of an environment, in the order of [`Field::ALL`].
pub type Fingerprint = [(Field, [u8; 16]); Field::ALL.len()];

/// An environment, parsed and digested.
#[derive(Debug)]
pub struct Environment {
    /// [`Self::spelling()`] of its members.
    pub(crate) spelling: [u8; 32],
    /// The model that read it: others read the same members otherwise.
    model: u64,
    pub(crate) identity: Identity,
    /// The members of [`FIELDS`] as the request spelled them.
    pub(crate) fields: Members,
    /// The request without its messages.
    pub(crate) head: ChatRequest,
    /// In the order of [`Field::ALL`], less the date.
    digests: [FieldDigest; Field::ALL.len() - 1],
    pub(crate) table: Arc<Table>,
}

impl Environment {
    /// Reads the members of a request. O(their length).
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub(crate) fn read(
        model: &Model,
        fields: &Members,
        identity: &Identity,
        table: impl FnOnce([u8; 32], &ChatRequest) -> Arc<Table>,
    ) -> Result<Self> {
        let mut members = Vec::with_capacity(fields.iter().len());
        for (name, raw) in fields.iter() {
            members.push((Cow::Borrowed(name), json::parse_str(raw)?));
        }
        let head = ChatRequest::head(&Object::new(members), model.dialect())?;
        let [arguments, tools, reasoning] = argument_digests(&head);
        let template = model
            .renderer_digest(&head)
            .map_or([0; 16], |digest| digest_of(&[&digest]));
        let digests = [
            digest_of(&[identity.model.as_bytes(), identity.served.as_bytes()]),
            digest_of(&[model.tokenizer().digest()]),
            template,
            arguments,
            tools,
            reasoning,
            digest_of(&[identity.lora.as_bytes()]),
            digest_of(&[&RENDERER_VERSION.to_le_bytes()]),
            digest_of(&[identity.salt.as_bytes()]),
        ];
        let mut key = blake3::Hasher::new();
        for part in [&template, &arguments, &tools, &reasoning] {
            key.update(part);
        }
        let table = table(*key.finalize().as_bytes(), &head);
        Ok(Self {
            spelling: Self::spelling(fields, identity),
            model: model.instance(),
            identity: identity.clone(),
            fields: fields.clone(),
            head,
            digests,
            table,
        })
    }

    /// The digest of a request's members as they are spelled: equal ones need not
    /// be read again.
    pub(crate) fn spelling(fields: &Members, identity: &Identity) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(&identity.model);
        add(&identity.lora);
        add(&identity.served);
        add(&identity.salt);
        for (name, raw) in fields.iter() {
            add(name);
            add(raw);
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether a request of these members to `model` has this environment, as they
    /// are spelled.
    pub(crate) fn is_spelled(&self, model: &Model, fields: &Members, identity: &Identity) -> bool {
        self.model == model.instance() && self.identity == *identity && self.fields == *fields
    }

    /// The first field in which `other` differs, its date aside.
    pub(crate) fn difference(&self, other: &Self) -> Option<Field> {
        let pairs = self.digests.iter().zip(&other.digests);
        pairs
            .zip(Field::ALL)
            .find(|((ours, theirs), _)| ours != theirs)
            .map(|(_, field)| field)
    }

    /// This environment as another model had it, whose digests these are: no
    /// request to this one is of it.
    pub(crate) fn of_another_model(&self, digests: &[FieldDigest; Field::ALL.len()]) -> Self {
        let mut theirs = self.digests;
        for (digest, of_theirs) in theirs.iter_mut().zip(digests) {
            *digest = *of_theirs;
        }
        Self {
            spelling: self.spelling,
            model: 0,
            identity: self.identity.clone(),
            fields: self.fields.clone(),
            head: self.head.clone(),
            digests: theirs,
            table: Arc::clone(&self.table),
        }
    }

    /// The digest of each field at `now`.
    pub(crate) fn fingerprint(&self, now: Now) -> Fingerprint {
        let date = digest_of(&[now.strftime("%Y-%m-%d").as_bytes()]);
        let mut digests = self.digests.iter().chain(std::iter::once(&date));
        Field::ALL.map(|field| (field, digests.next().copied().unwrap_or_default()))
    }

    /// Heap bytes, what is shared with other environments included.
    pub(crate) fn bytes(&self) -> usize {
        // Parsed, a member takes some three times its text.
        size_of::<Self>() + 4 * self.fields.bytes()
    }
}

/// Fails for requests whose prompt is not what their template gives.
///
/// # Errors
/// `UnsupportedContent`.
pub(crate) fn check_renderable(head: &ChatRequest) -> Result<()> {
    // vLLM looks at neither for Harmony.
    let tokenizes = head.dialect() == Dialect::Template;
    let refused = [
        (
            tokenizes && head.truncates_prompt(),
            "truncate_prompt_tokens",
        ),
        (tokenizes && head.add_special_tokens(), "add_special_tokens"),
        (
            head.brings_token_ids(),
            "kv_transfer_params.prompt_token_ids",
        ),
    ];
    match refused.iter().find(|(set, _)| *set) {
        None => Ok(()),
        Some((_, name)) => Err(Error::new(
            ErrorKind::UnsupportedContent,
            format!("Requests with {name} are left to the server."),
        )),
    }
}

fn argument_digests(head: &ChatRequest) -> [FieldDigest; 3] {
    let style = Style::default();
    let text = |data: Option<&Data>| data.map_or_else(String::new, |data| data.to_json(&style));
    let (reasoning, others): (Vec<_>, Vec<_>) = head
        .named_arguments()
        .entries()
        .iter()
        .cloned()
        .partition(|(name, _)| REASONING.contains(&name.as_str()));
    let json = |entries| Data::Map(Arc::new(Map::new(entries))).to_json(&style);
    let flags = [head.add_generation_prompt(), head.continue_final_message()].map(u8::from);
    [
        digest_of(&[
            json(others).as_bytes(),
            text(head.documents()).as_bytes(),
            &flags,
        ]),
        digest_of(&[text(head.tools()).as_bytes()]),
        digest_of(&[json(reasoning).as_bytes()]),
    ]
}

fn digest_of(parts: &[&[u8]]) -> FieldDigest {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}
