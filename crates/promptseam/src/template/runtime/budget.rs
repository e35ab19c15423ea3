//! A bound on what one rendering produces, intermediate texts included.

use std::{error, fmt};

use minijinja::{Error, ErrorKind, State};

use crate::template::MAX_OUTPUT;

/// The bound was reached.
#[derive(Debug)]
pub(in crate::template) struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more output than allowed")
    }
}

impl error::Error for TooLarge {}

/// What was produced so far.
struct Spent(usize);

/// Counts `amount` bytes, or items of a list as sixteen bytes each.
pub(super) fn charge(state: &mut State, amount: usize) -> Result<(), Error> {
    let spent = state.get_or_insert_extension(Spent(0));
    spent.0 = spent.0.saturating_add(amount);
    // Text is often joined and then printed, so it may count a few times.
    if spent.0 > MAX_OUTPUT.saturating_mul(4) || amount > MAX_OUTPUT {
        return Err(too_large());
    }
    Ok(())
}

#[cold]
pub(super) fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, "too much output").with_source(TooLarge)
}
