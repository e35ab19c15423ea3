//! Records that outlive their process: how they are kept, encrypted, and put
//! into a SQLite file.

mod frame;
mod schema;
mod sqlite;
mod vault;

pub use frame::{pack, restore};
pub use sqlite::{
    Counts, Listed, Move, SqliteOptions, SqliteStore, Stand, Stored, Synchronous, Verified,
};
pub use vault::Vault;
