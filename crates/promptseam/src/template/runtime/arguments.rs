//! Arguments of filters and methods, by position or by name as in Python.

use minijinja::{Error, Value};

use super::fault;

/// The arguments of one call, in the order of the names they were asked for.
pub(super) struct Arguments<const N: usize>([Option<Value>; N]);

impl<const N: usize> Arguments<N> {
    /// Sorts `args` to `names`.
    pub(super) fn new(args: &[Value], names: [&str; N]) -> Result<Self, Error> {
        let (named, positional) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (Some(last), rest),
            _ => (None, args),
        };
        if positional.len() > N {
            return Err(fault("too many arguments"));
        }
        let mut found = [const { None }; N];
        for (slot, value) in found.iter_mut().zip(positional) {
            *slot = Some(value.clone());
        }
        if let Some(named) = named {
            for key in named.try_iter()? {
                let at = names.iter().position(|name| Some(*name) == key.as_str());
                match at.map(|at| &mut found[at]) {
                    Some(slot @ None) => *slot = Some(named.get_item(&key)?),
                    _ => return Err(fault("unexpected argument")),
                }
            }
        }
        Ok(Self(found))
    }

    /// The argument at `at`, unless left out.
    pub(super) fn get(&self, at: usize) -> Option<&Value> {
        self.0.get(at)?.as_ref()
    }

    /// As [`Self::get`], `None` counting as left out.
    pub(super) fn some(&self, at: usize) -> Option<&Value> {
        self.get(at).filter(|value| !value.is_none())
    }

    /// A string that must be there.
    pub(super) fn text(&self, at: usize) -> Result<&str, Error> {
        self.get(at)
            .and_then(Value::as_str)
            .ok_or_else(|| fault("expected a string"))
    }

    /// A string that may be left out or `None`.
    pub(super) fn optional_text(&self, at: usize) -> Result<Option<&str>, Error> {
        self.some(at)
            .map(|value| value.as_str().ok_or_else(|| fault("expected a string")))
            .transpose()
    }

    /// An integer that may be left out or `None`.
    pub(super) fn optional_integer(&self, at: usize) -> Result<Option<i64>, Error> {
        self.some(at).map(integer).transpose()
    }

    /// Python's truth of an argument.
    pub(super) fn flag(&self, at: usize, default: bool) -> bool {
        self.get(at).map_or(default, Value::is_true)
    }
}

/// An integer or a boolean, as Python counts it.
pub(super) fn integer(value: &Value) -> Result<i64, Error> {
    match value.as_i64() {
        Some(number) if super::print::float(value).is_none() => Ok(number),
        _ => bool::try_from(value.clone())
            .ok()
            .filter(|_| value.kind() == minijinja::value::ValueKind::Bool)
            .map(i64::from)
            .ok_or_else(|| fault("expected an integer")),
    }
}
