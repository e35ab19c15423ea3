//! The environment fingerprint: a digest by name of all that can change a
//! prompt's ids besides its messages.

use std::{borrow::Cow, sync::Arc};

use super::{certification::Table, outcome::Field};
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

type FieldDigest = [u8; 16];

/// A digest of each field of an environment, in the order of [`Field::ALL`].
pub type Fingerprint = [(Field, [u8; 16]); Field::ALL.len()];

/// The members of [`FIELDS`] as a request spells them.
pub(crate) type Fields<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// An environment, parsed and digested.
#[derive(Debug)]
pub struct Environment {
    /// [`Self::spelling()`] of its members.
    pub(crate) spelling: [u8; 32],
    pub(crate) identity: Identity,
    /// As the request spelled them, for requests that only append.
    fields: Box<[(Box<str>, Box<str>)]>,
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
        fields: &Fields<'_>,
        identity: &Identity,
        table: impl FnOnce([u8; 32], &ChatRequest) -> Arc<Table>,
    ) -> Result<Self> {
        let mut members = Vec::with_capacity(fields.len());
        for (name, raw) in fields {
            members.push((name.clone(), json::parse_str(raw)?));
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
            identity: identity.clone(),
            fields: fields
                .iter()
                .map(|(name, raw)| ((&**name).into(), (*raw).into()))
                .collect(),
            head,
            digests,
            table,
        })
    }

    /// The digest of a request's members as they are spelled: equal ones need not
    /// be read again.
    pub(crate) fn spelling(fields: &Fields<'_>, identity: &Identity) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(&identity.model);
        add(&identity.lora);
        add(&identity.served);
        add(&identity.salt);
        for (name, raw) in fields {
            add(name);
            add(raw);
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether a request of these members has this environment, as they are
    /// spelled.
    pub(crate) fn is_spelled(&self, fields: &Fields<'_>, identity: &Identity) -> bool {
        let pairs = self.fields.iter().zip(fields);
        self.identity == *identity
            && self.fields.len() == fields.len()
            && pairs
                .into_iter()
                .all(|(ours, theirs)| *ours.0 == *theirs.0 && *ours.1 == *theirs.1)
    }

    /// The members as they were spelled, those of `newer` in place of the same.
    pub(crate) fn fields_with<'a>(&'a self, newer: &Fields<'a>) -> Fields<'a> {
        let mut fields: Fields<'a> = self
            .fields
            .iter()
            .map(|(name, raw)| (Cow::Borrowed(&**name), &**raw))
            .collect();
        for (name, raw) in newer {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some(field) => field.1 = raw,
                None => fields.push((name.clone(), raw)),
            }
        }
        fields
    }

    /// The members as a JSON object. O(their length).
    pub(crate) fn members_json(&self) -> String {
        let mut json = String::from("{");
        for (at, (name, raw)) in self.fields.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            // The names are FIELDS: nothing in them needs an escape.
            json.push('"');
            json.push_str(name);
            json.push_str("\":");
            json.push_str(raw);
        }
        json.push('}');
        json
    }

    /// The first field in which `other` differs, its date aside.
    pub(crate) fn difference(&self, other: &Self) -> Option<Field> {
        let pairs = self.digests.iter().zip(&other.digests);
        pairs
            .zip(Field::ALL)
            .find(|((ours, theirs), _)| ours != theirs)
            .map(|(_, field)| field)
    }

    /// The digest of each field at `now`.
    pub(crate) fn fingerprint(&self, now: Now) -> Fingerprint {
        let date = digest_of(&[now.strftime("%Y-%m-%d").as_bytes()]);
        let mut digests = self.digests.iter().chain(std::iter::once(&date));
        Field::ALL.map(|field| (field, digests.next().copied().unwrap_or_default()))
    }

    /// Heap bytes, what is shared with other environments included.
    pub(crate) fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        // Parsed, a member takes some three times its text.
        size_of::<Self>() + 4 * fields.map(|(_, raw)| raw.len()).sum::<usize>()
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
