//! The tree that [`parse`](super::parse) gives, borrowing from its input.

use std::borrow::Cow;

/// A JSON value. Strings without escapes borrow from the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, kept as it was spelled.
    Number(Number<'a>),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object, keys in the order of their first appearance.
    Object(Object<'a>),
}

/// A number as Python's `json` understands it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number<'a> {
    /// An integer's spelling, at most
    /// [`MAX_INTEGER_DIGITS`](super::MAX_INTEGER_DIGITS) digits long.
    Integer(&'a str),
    /// A float's spelling.
    Float(&'a str),
    /// `NaN`
    NaN,
    /// `Infinity`
    Infinity,
    /// `-Infinity`
    NegativeInfinity,
}

impl Number<'_> {
    /// The integer, if it is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The nearest float; out of range is infinite, as in Python.
    pub fn to_f64(&self) -> f64 {
        match self {
            // Both are JSON spellings, which Rust's grammar for floats covers.
            Self::Integer(text) | Self::Float(text) => text.parse().unwrap_or(f64::NAN),
            Self::NaN => f64::NAN,
            Self::Infinity => f64::INFINITY,
            Self::NegativeInfinity => f64::NEG_INFINITY,
        }
    }
}

impl<'a> Json<'a> {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if it is an array.
    pub fn as_array(&self) -> Option<&[Json<'a>]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Python's truth of the value: empty and zero are false.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => number.to_f64() != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::Array(items) => !items.is_empty(),
            Self::Object(object) => !object.is_empty(),
        }
    }
}

/// Over this many keys an object keeps a sorted index.
const INDEX_FROM: usize = 17;

/// An object: pairs in the order of each key's first appearance, the last
/// value winning.
///
/// [`get`](Self::get) is O(n) up to 16 keys and O(log n) beyond.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a> {
    entries: Vec<(Cow<'a, str>, Json<'a>)>,
    sorted: Option<Box<[u32]>>,
}

impl<'a> Object<'a> {
    /// An object of `entries`; O(n log n) for many keys.
    pub fn new(mut entries: Vec<(Cow<'a, str>, Json<'a>)>) -> Self {
        dedup_last_wins(&mut entries);
        let sorted = sorted_index(&entries);
        Self { entries, sorted }
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        find_sorted(&self.entries, self.sorted.as_deref(), key)
            .map(|position| &self.entries[position].1)
    }

    /// Whether `key` is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json<'a>)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The positions of `entries` in the order of their keys, for many keys.
pub(crate) fn sorted_index<K: AsRef<str>, V>(entries: &[(K, V)]) -> Option<Box<[u32]>> {
    (entries.len() >= INDEX_FROM).then(|| positions_by_key(entries).into_boxed_slice())
}

/// Where `key` is among `entries`, by their sorted index if they have one.
pub(crate) fn find_sorted<K: AsRef<str>, V>(
    entries: &[(K, V)],
    sorted: Option<&[u32]>,
    key: &str,
) -> Option<usize> {
    match sorted {
        None => entries.iter().position(|(k, _)| k.as_ref() == key),
        Some(sorted) => sorted
            .binary_search_by(|&at| entries[at as usize].0.as_ref().cmp(key))
            .ok()
            .map(|found| sorted[found] as usize),
    }
}

fn positions_by_key<K: AsRef<str>, V>(entries: &[(K, V)]) -> Vec<u32> {
    let mut positions: Vec<u32> = (0..entries.len() as u32).collect();
    // Stable, so equal keys stay in order of appearance.
    positions.sort_by(|&a, &b| {
        let (a, b) = (&entries[a as usize].0, &entries[b as usize].0);
        a.as_ref().cmp(b.as_ref())
    });
    positions
}

/// Puts each key's last value at its first place and drops the rest, as
/// Python's `dict` does.
pub(crate) fn dedup_last_wins<K: AsRef<str>, V>(entries: &mut Vec<(K, V)>) {
    if entries.len() < INDEX_FROM {
        let mut at = 1;
        while at < entries.len() {
            let (before, rest) = entries.split_at(at);
            let key = rest[0].0.as_ref();
            match before.iter().position(|(k, _)| k.as_ref() == key) {
                Some(first) => {
                    let (_, value) = entries.remove(at);
                    entries[first].1 = value;
                }
                None => at += 1,
            }
        }
        return;
    }
    let positions = positions_by_key(entries);
    let same = |a: u32, b: u32| entries[a as usize].0.as_ref() == entries[b as usize].0.as_ref();
    if !positions.windows(2).any(|pair| same(pair[0], pair[1])) {
        return;
    }
    // For each place: the place whose value it gets, or none to drop it.
    let mut source: Vec<Option<u32>> = vec![None; entries.len()];
    for run in positions.chunk_by(|&a, &b| same(a, b)) {
        if let [first, .., last] | [first @ last] = run {
            source[*first as usize] = Some(*last);
        }
    }
    let (keys, values): (Vec<K>, Vec<V>) = entries.drain(..).unzip();
    let mut values: Vec<Option<V>> = values.into_iter().map(Some).collect();
    for (key, from) in keys.into_iter().zip(source) {
        if let Some(value) = from.and_then(|from| values[from as usize].take()) {
            entries.push((key, value));
        }
    }
}
