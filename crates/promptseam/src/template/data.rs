//! The data a template sees: owned, shared, cheap to clone.
//!
//! Messages and tools are kept in this form after their preparation. Key order
//! is kept; of a number's spelling, what a template can see of it: an integer
//! of any size exactly, a float's value.

use std::{
    borrow::Borrow,
    sync::{Arc, Mutex, PoisonError},
};

use crate::json::{self, Encoder, Json, Number, Style};

/// Styles that a value's JSON is remembered in.
const STYLES: usize = 4;

/// A value as a template sees it. Cloning is O(1).
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `None`
    Null,
    /// `True` or `False`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer beyond 64 bits, as spelled.
    BigInt(Arc<str>),
    /// A float.
    Float(f64),
    /// A string.
    Str(Arc<str>),
    /// A list.
    List(Arc<List>),
    /// A dictionary.
    Map(Arc<Map>),
}

impl Data {
    /// An owned copy of `json`. O(n).
    pub fn from_json(json: &Json<'_>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(Number::Integer(text)) => match text.parse() {
                Ok(value) => Self::Int(value),
                Err(_) => Self::BigInt((*text).into()),
            },
            Json::Number(number) => Self::Float(number.to_f64()),
            Json::String(text) => Self::Str(text.as_ref().into()),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect()),
            Json::Object(object) => Self::Map(Arc::new(Map::from_json(object))),
        }
    }

    /// A list of `items`.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(List(items)))
    }

    /// A dictionary of `entries`, the last of equal keys winning.
    pub fn map(entries: Vec<(Key, Self)>) -> Self {
        Self::Map(Arc::new(Map::new(entries)))
    }

    /// A string.
    pub fn str(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The dictionary, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(&list.0),
            _ => None,
        }
    }

    /// The value as JSON text in `style`. O(n).
    pub fn to_json(&self, style: &Style) -> String {
        let mut out = String::new();
        self.encode(&mut Encoder::new(&mut out, style));
        out
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        match self {
            Self::Null => encoder.raw("null"),
            Self::Bool(value) => encoder.bool(*value),
            Self::Int(value) => encoder.integer((*value).into()),
            Self::BigInt(text) => encoder.big_integer(text),
            Self::Float(value) => encoder.float(*value),
            Self::Str(text) => encoder.string(text),
            Self::List(list) => list.encode(encoder),
            Self::Map(map) => map.encode(encoder),
        }
    }
}

/// A dictionary's key: a name of the protocol, or one from a request.
#[derive(Clone, Debug)]
pub struct Key(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }
}

impl From<&'static str> for Key {
    fn from(text: &'static str) -> Self {
        Self(Repr::Static(text))
    }
}

impl From<Arc<str>> for Key {
    fn from(text: Arc<str>) -> Self {
        Self(Repr::Shared(text))
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// A list of [`Data`].
#[derive(Debug, PartialEq)]
pub struct List(Vec<Data>);

impl List {
    /// The items.
    pub fn items(&self) -> &[Data] {
        &self.0
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.begin('[');
        for item in &self.0 {
            encoder.item();
            item.encode(encoder);
        }
        encoder.end(']');
    }
}

/// A dictionary of [`Data`] that keeps the order of its keys.
///
/// Lookup is O(n) for few keys, O(log n) for many.
#[derive(Clone, Debug, Default)]
pub struct Map {
    entries: Vec<(Key, Data)>,
    sorted: Option<Box<[u32]>>,
    /// Its JSON, where it is printed again and again.
    printed: Option<Arc<Printed>>,
}

/// The JSON of a value in the styles that were asked for; templates ask for one.
#[derive(Debug, Default)]
struct Printed(Mutex<Vec<(Style, Arc<str>)>>);

impl Map {
    /// A dictionary of `entries`, the last of equal keys winning at the first
    /// one's place.
    pub fn new(mut entries: Vec<(Key, Data)>) -> Self {
        json::dedup_last_wins(&mut entries);
        Self::of_distinct(entries)
    }

    fn of_distinct(entries: Vec<(Key, Data)>) -> Self {
        let sorted = json::sorted_index(&entries);
        Self {
            entries,
            sorted,
            printed: None,
        }
    }

    /// The same, remembering its JSON: for what every prompt of an environment
    /// prints, such as its tools.
    #[must_use]
    pub(crate) fn remembering(self) -> Self {
        Self {
            printed: Some(Arc::default()),
            ..self
        }
    }

    /// Its JSON in `style`, if it is remembered. O(n) the first time.
    pub(crate) fn remembered_json(&self, style: &Style) -> Option<Arc<str>> {
        let printed = self.printed.as_ref()?;
        // Nothing is left half done behind the lock.
        let mut known = printed.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = known.iter().find(|(asked, _)| asked == style) {
            return Some(Arc::clone(text));
        }
        let mut text = String::new();
        self.encode(&mut Encoder::new(&mut text, style));
        let text: Arc<str> = text.into();
        if known.len() < STYLES {
            known.push((style.clone(), Arc::clone(&text)));
        }
        Some(text)
    }

    pub(crate) fn from_json(object: &json::Object<'_>) -> Self {
        Self::of_distinct(
            object
                .iter()
                .map(|(key, value)| (Key::from(Arc::from(key)), Data::from_json(value)))
                .collect(),
        )
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Data> {
        json::find_sorted(&self.entries, self.sorted.as_deref(), key)
            .map(|position| &self.entries[position].1)
    }

    /// The pairs in order.
    pub fn entries(&self) -> &[(Key, Data)] {
        &self.entries
    }

    /// This dictionary with `key` set to `value`, in place or at the end. O(n).
    #[must_use]
    pub fn with(&self, key: &'static str, value: Data) -> Self {
        let mut entries = self.entries.clone();
        entries.push((key.into(), value));
        Self::new(entries)
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.begin('{');
        let mut entries: Vec<_> = Vec::new();
        if encoder.sorts_keys() {
            entries.extend(&self.entries);
            entries.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
            for (key, value) in entries {
                encoder.key(key.as_str());
                value.encode(encoder);
            }
        } else {
            for (key, value) in &self.entries {
                encoder.key(key.as_str());
                value.encode(encoder);
            }
        }
        encoder.end('}');
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self
                .entries
                .iter()
                .all(|(key, value)| other.get(key.as_str()) == Some(value))
    }
}
