//! The tables of a file of records, and how older ones become the newest.

use rusqlite::Connection;

use super::sqlite::trouble;
use crate::error::{Error, ErrorKind, Result};

/// Each makes the version of its place, from 1 on, out of the one before.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE tenants (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE salts (
    tenant INTEGER NOT NULL REFERENCES tenants,
    domain TEXT NOT NULL,
    salt BLOB NOT NULL,
    PRIMARY KEY (tenant, domain)
) STRICT, WITHOUT ROWID;

-- Artifacts that went on from one another: they leave together.
CREATE TABLE families (
    id INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants,
    size INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL
) STRICT;
CREATE INDEX families_used ON families (used);
CREATE INDEX families_expires ON families (expires);
CREATE INDEX families_tenant ON families (tenant);

CREATE TABLE artifacts (
    number INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    id BLOB NOT NULL,
    parent BLOB,
    family INTEGER NOT NULL REFERENCES families,
    digest BLOB NOT NULL,
    turn TEXT NOT NULL,
    branched INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    tokens INTEGER,
    record BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX artifacts_id ON artifacts (tenant, id);
CREATE INDEX artifacts_digest ON artifacts (tenant, digest);
CREATE INDEX artifacts_family ON artifacts (family);

CREATE TABLE conversations (
    number INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants,
    id TEXT NOT NULL,
    project TEXT NOT NULL,
    version INTEGER NOT NULL,
    head BLOB,
    round BLOB,
    updated INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX conversations_id ON conversations (tenant, id);
CREATE INDEX conversations_updated ON conversations (updated);

-- The families that a conversation went through.
CREATE TABLE passages (
    family INTEGER NOT NULL REFERENCES families,
    conversation INTEGER NOT NULL REFERENCES conversations,
    PRIMARY KEY (family, conversation)
) STRICT, WITHOUT ROWID;
CREATE INDEX passages_conversation ON passages (conversation);
"];

/// The version that this library writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Bytes of a page. Records are some kilobytes: larger pages would leave more of
/// their last one empty, smaller ones make chains of them.
const PAGE: usize = 2048;

/// The version of a file; 0 for a new one.
pub(super) fn version(connection: &Connection) -> Result<usize> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
    version.map_err(trouble("read"))
}

/// Makes the tables of a new file, and brings an older one up to date, all or
/// nothing. Several processes may do so at once.
///
/// # Errors
/// `Store`, also for a file that a newer version of this library wrote.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    if version(connection)? == 0 {
        // Both only take effect before the first table is made.
        let made = connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL;"
        ));
        made.map_err(trouble("created"))?;
    }
    let failed = trouble("migrated");
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(&failed)?;
    let now = version(&transaction)?;
    if now > VERSION {
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "The store's file is of version {now}; this promptseam knows those up to \
                 {VERSION}. Use the newer promptseam, or another file."
            ),
        ));
    }
    for (number, migration) in (1..).zip(MIGRATIONS).skip(now) {
        transaction.execute_batch(migration).map_err(&failed)?;
        let set = transaction.pragma_update(None, "user_version", number);
        set.map_err(&failed)?;
    }
    transaction.commit().map_err(failed)
}
