//! Records that outlive their process.

mod frame;

pub use frame::{pack, restore};
