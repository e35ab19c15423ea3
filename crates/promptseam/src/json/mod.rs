//! JSON as Python reads and writes it.
//!
//! vLLM reads request bodies and tool arguments with Python's `json` module,
//! and templates print with it (`tojson`). Python's dialect differs from the
//! standard in ways that reach the prompt: `NaN` and infinities are accepted,
//! integers have no size limit, of duplicate keys the last value wins at the
//! first one's place, and floats print in their own way (`1e-07`).
//!
//! [`parse`] borrows from its input; [`dumps`] and [`Encoder`] write.

mod dumps;
mod float;
mod parse;
mod scan;
mod skim;
#[cfg(test)]
mod tests;
mod value;

pub use dumps::{Encoder, Indent, Style, dumps};
pub(crate) use float::push_rust_float;
pub use float::{push_float_repr, push_json_float};
pub use parse::{MAX_DEPTH, MAX_INTEGER_DIGITS, parse, parse_str};
pub(crate) use parse::{is_over_limit, parse_at, text_of};
pub(crate) use skim::{Span, items, members};
pub use value::{Json, Number, Object};
pub(crate) use value::{dedup_last_wins, find_sorted, sorted_index};
