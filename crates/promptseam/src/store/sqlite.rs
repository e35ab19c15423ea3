//! Records in a SQLite file.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};

use super::{frame::pack, schema, vault::Vault};
use crate::{
    continuation::{Artifact, ArtifactId, HistoryDigest},
    error::{Error, ErrorKind, Result},
};

/// How long another process's write is waited for.
const BUSY: Duration = Duration::from_secs(2);
/// What a family is used for is written down at most so often, in milliseconds.
const TOUCH_MS: i64 = 60_000;
/// What was there is looked through at most so often, in milliseconds.
const SWEEP_MS: i64 = 60_000;
/// A conversation without artifacts is remembered for so long, in milliseconds.
const FORGOTTEN_MS: i64 = 30 * 24 * 3_600_000;
/// Bytes of the tables' rows and indexes for each artifact, by `dbstat`.
const ROW_BYTES: usize = 400;
/// The most digests that are looked up at once.
const MOST_DIGESTS: usize = 1000;
/// The longest names of tenants, conversations, projects and domains, in bytes.
const LONGEST_NAME: usize = 4096;

/// When a commit is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// When the operating system writes it: a killed process loses nothing, a
    /// power cut the last commits, and never the file.
    #[default]
    Normal,
    /// Before it is said to be done.
    Full,
}

/// How to open a file.
#[derive(Debug, Default)]
pub struct SqliteOptions {
    /// When a commit is on the disk.
    pub synchronous: Synchronous,
    /// Bytes of artifacts that are kept; none for no bound.
    pub max_bytes: Option<u64>,
    /// Encrypts what is kept.
    pub vault: Option<Vault>,
    /// Only what is there: nothing is written, not even a new file.
    pub read_only: bool,
}

/// A store in a file. All its calls block; several processes may have the file
/// open.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    vault: Option<Vault>,
    max_bytes: Option<u64>,
    /// Milliseconds of Unix time.
    swept: i64,
    hits: u64,
    misses: u64,
    evictions: u64,
}

/// What is kept of a conversation state.
#[derive(Debug)]
pub struct Stored {
    /// The artifact's id.
    pub id: ArtifactId,
    /// Milliseconds of Unix time; `i64::MAX` for no end.
    pub expires: i64,
    /// Its record and those that it grew from, the oldest first.
    pub records: Vec<u8>,
}

/// Where a conversation stands.
#[derive(Debug)]
pub struct Stand {
    /// Counts its moves.
    pub version: u64,
    /// Its open tool round, else its head.
    pub tip: Option<Stored>,
}

/// A turn to be recorded.
#[derive(Clone, Debug)]
pub struct Move {
    /// The conversation; none for a turn that belongs to none.
    pub conversation: Option<String>,
    /// Where a conversation that this turn begins belongs.
    pub project: String,
    /// Milliseconds of Unix time; `i64::MAX` for no end.
    pub expires: i64,
    /// The conversation's version when the turn was planned.
    pub version: u64,
    /// Whether the answer is a tool call.
    pub tool_round: bool,
    /// Names the turn.
    pub turn: String,
}

/// A conversation in a list.
#[derive(Debug)]
pub struct Listed {
    /// Its id.
    pub conversation: String,
    /// Where it belongs.
    pub project: String,
    /// Counts its moves.
    pub version: u64,
    /// Messages of its tip's history.
    pub messages: Option<u32>,
    /// Ids of its tip's prompt.
    pub tokens: Option<u32>,
    /// Whether a tool round is open.
    pub tool_round: bool,
    /// Milliseconds of Unix time.
    pub updated: i64,
}

/// Counts since the file was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// What is known, their artifacts or not.
    pub conversations: u64,
    /// Records.
    pub artifacts: u64,
    /// Bytes of them, with what their rows take.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Lookups that found something.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Artifacts removed by [`SqliteStore::expire`].
    pub evictions: u64,
}

/// What [`SqliteStore::verify`] found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Records looked at.
    pub artifacts: u64,
    /// Records that cannot be read, or whose id is not their digest.
    pub damaged: u64,
    /// Artifacts whose parent is missing.
    pub orphans: u64,
    /// What SQLite found wrong with the file itself, at most a hundred lines.
    pub file: Vec<String>,
}

/// An error of SQLite's, with what could not be done.
pub(super) fn trouble(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |error| {
        let message = format!("The store's file cannot be {what}: {error}.");
        Error::new(ErrorKind::Store, message).with_source(error)
    }
}

fn checked(name: &str) -> Result<&str> {
    if name.len() <= LONGEST_NAME {
        return Ok(name);
    }
    let what = format!("Names in a store have at most {LONGEST_NAME} bytes.");
    Err(Error::new(ErrorKind::InvalidArgument, what))
}

impl SqliteStore {
    /// Opens or makes a file, for its owner's eyes only, and brings its tables up
    /// to date.
    ///
    /// # Errors
    /// `Store`
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self> {
        let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_WRITE;
        if options.read_only {
            flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_ONLY;
        } else {
            create(path)?;
        }
        let failed = trouble("opened");
        let mut connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
        connection.busy_timeout(BUSY).map_err(&failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        if !options.read_only {
            let mode: String = connection
                .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
                .map_err(&failed)?;
            if mode != "wal" {
                let what = "The store's file system has no shared memory for a write-ahead log.";
                return Err(Error::new(ErrorKind::Store, what));
            }
            schema::migrate(&mut connection)?;
        } else if schema::version(&connection)? != schema::VERSION {
            let what = "The store's file is none, or of another version of promptseam.";
            return Err(Error::new(ErrorKind::Store, what));
        }
        let synchronous = match options.synchronous {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        };
        for (name, value) in [
            ("synchronous", synchronous),
            ("foreign_keys", "ON"),
            // What is deleted is overwritten.
            ("secure_delete", "ON"),
            ("temp_store", "MEMORY"),
            ("cell_size_check", "ON"),
            ("trusted_schema", "OFF"),
        ] {
            connection
                .pragma_update(None, name, value)
                .map_err(&failed)?;
        }
        Ok(Self {
            connection,
            vault: options.vault,
            max_bytes: options.max_bytes,
            swept: i64::MIN,
            hits: 0,
            misses: 0,
            evictions: 0,
        })
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, Option<&Vault>) -> Result<T>,
    ) -> Result<T> {
        let failed = trouble("written");
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&failed)?;
        let value = work(&transaction, self.vault.as_ref())?;
        transaction.commit().map_err(failed)?;
        Ok(value)
    }

    fn read<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, Option<&Vault>) -> Result<T>,
    ) -> Result<T> {
        let transaction = self.connection.transaction().map_err(trouble("read"))?;
        work(&transaction, self.vault.as_ref())
    }

    /// Where a conversation stands. `known` is an artifact that the caller has.
    ///
    /// # Errors
    /// `Store`; `RecordRefused`
    pub fn load(
        &mut self,
        tenant: &str,
        conversation: &str,
        known: Option<&ArtifactId>,
        now: i64,
    ) -> Result<Option<Stand>> {
        let (stand, family) = self.read(|file, vault| {
            let Some(number) = tenant_number(file, tenant)? else {
                return Ok((None, None));
            };
            let stand = file
                .prepare_cached(
                    "SELECT version, coalesce(round, head) FROM conversations
                     WHERE tenant = ?1 AND id = ?2",
                )
                .and_then(|mut find| {
                    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
                    find.query_row(params![number, conversation], row)
                        .optional()
                })
                .map_err(trouble("read"))?;
            let Some((version, tip)): Option<(u64, Option<ArtifactId>)> = stand else {
                return Ok((None, None));
            };
            let tip = match tip {
                Some(id) => chain(file, vault, (number, tenant), &id, known)?,
                None => None,
            };
            let (tip, family) = tip.unzip();
            Ok((Some(Stand { version, tip }), family))
        })?;
        self.count(family, now);
        Ok(stand)
    }

    /// The newest artifact of the first of `digests` that has one.
    ///
    /// # Errors
    /// `Store`; `RecordRefused`; `InvalidArgument` for more than a thousand
    /// digests.
    pub fn find(
        &mut self,
        tenant: &str,
        digests: &[HistoryDigest],
        known: Option<&ArtifactId>,
        now: i64,
    ) -> Result<Option<Stored>> {
        if digests.len() > MOST_DIGESTS {
            let what = format!("At most {MOST_DIGESTS} digests are looked up at once.");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let found = self.read(|file, vault| {
            let Some(number) = tenant_number(file, tenant)? else {
                return Ok(None);
            };
            let mut newest = file
                .prepare_cached(
                    "SELECT id FROM artifacts WHERE tenant = ?1 AND digest = ?2
                     ORDER BY number DESC LIMIT 1",
                )
                .map_err(trouble("read"))?;
            for digest in digests {
                let digest = blinded(vault, tenant, digest);
                let id = newest.query_row(params![number, digest], |row| row.get(0));
                let id: Option<ArtifactId> = id.optional().map_err(trouble("read"))?;
                if let Some(id) = id {
                    return chain(file, vault, (number, tenant), &id, known);
                }
            }
            Ok(None)
        })?;
        let (stored, family) = found.unzip();
        self.count(family, now);
        Ok(stored)
    }

    fn count(&mut self, family: Option<i64>, now: i64) {
        let Some(family) = family else {
            self.misses += 1;
            return;
        };
        self.hits += 1;
        // Nothing is lost if another process is just writing.
        let _ = self.touch(family, now);
    }

    /// Writes down that a family is used, unless that was done just before.
    fn touch(&self, family: i64, now: i64) -> rusqlite::Result<()> {
        let used: i64 = self
            .connection
            .prepare_cached("SELECT used FROM families WHERE id = ?1")?
            .query_row([family], |row| row.get(0))?;
        if used >= now.saturating_sub(TOUCH_MS) {
            return Ok(());
        }
        self.connection.busy_timeout(Duration::ZERO)?;
        let touched = self
            .connection
            .prepare_cached("UPDATE families SET used = max(used, ?2) WHERE id = ?1")
            .and_then(|mut touch| touch.execute(params![family, now]));
        self.connection.busy_timeout(BUSY)?;
        touched.map(drop)
    }

    /// Records a turn; tells whether it moved its conversation. All of it or
    /// nothing.
    ///
    /// # Errors
    /// `Store`, also where what it went on from is no longer there.
    pub fn commit(&mut self, artifact: &Artifact, to: &Move, now: i64) -> Result<bool> {
        for name in [artifact.tenant(), &to.project, &to.turn]
            .into_iter()
            .chain(to.conversation.as_deref())
        {
            checked(name)?;
        }
        let record = pack(artifact)?;
        let moved = self.write(|file, vault| {
            let tenant = tenant_of(file, artifact.tenant())?;
            let record = match vault {
                Some(vault) => vault.seal(artifact.tenant(), &record)?,
                None => record,
            };
            let (family, before) = insert(file, vault, tenant, artifact, to, &record, now)?;
            if let Some(moved) = before {
                return Ok(moved);
            }
            let moved = move_conversation(file, tenant, family, artifact.id(), to, now)?;
            if !moved {
                file.prepare_cached(
                    "UPDATE artifacts SET branched = 1 WHERE tenant = ?1 AND id = ?2",
                )
                .and_then(|mut mark| mark.execute(params![tenant, artifact.id()]))
                .map_err(trouble("written"))?;
            }
            Ok(moved)
        })?;
        if now.saturating_sub(self.swept).abs() >= SWEEP_MS {
            // The turn is recorded, whatever becomes of this.
            let _ = self.expire(now);
        }
        Ok(moved)
    }

    /// Closes the open tool round of a conversation; tells whether there was one.
    ///
    /// # Errors
    /// `Store`
    pub fn abandon(&mut self, tenant: &str, conversation: &str) -> Result<bool> {
        self.change(
            tenant,
            conversation,
            "UPDATE conversations SET round = NULL, version = version + 1
             WHERE tenant = ?1 AND id = ?2 AND round IS NOT NULL",
        )
    }

    /// Moves a conversation to another project of its tenant; tells whether it
    /// was known.
    ///
    /// # Errors
    /// `Store`
    pub fn move_to(&mut self, tenant: &str, conversation: &str, project: &str) -> Result<bool> {
        checked(project)?;
        self.write(|file, _| {
            let Some(tenant) = tenant_number(file, tenant)? else {
                return Ok(false);
            };
            let changed = file.execute(
                "UPDATE conversations SET project = ?3 WHERE tenant = ?1 AND id = ?2",
                params![tenant, conversation, project],
            );
            Ok(changed.map_err(trouble("written"))? > 0)
        })
    }

    fn change(&mut self, tenant: &str, conversation: &str, sql: &str) -> Result<bool> {
        self.write(|file, _| {
            let Some(tenant) = tenant_number(file, tenant)? else {
                return Ok(false);
            };
            let changed = file.execute(sql, params![tenant, conversation]);
            Ok(changed.map_err(trouble("written"))? > 0)
        })
    }

    /// Conversations behind `after`, in the order of their ids.
    ///
    /// # Errors
    /// `Store`
    pub fn list(
        &mut self,
        tenant: &str,
        project: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Listed>> {
        self.read(|file, _| {
            let Some(tenant) = tenant_number(file, tenant)? else {
                return Ok(Vec::new());
            };
            let row = |row: &Row<'_>| {
                Ok(Listed {
                    conversation: row.get(0)?,
                    project: row.get(1)?,
                    version: row.get(2)?,
                    messages: row.get(3)?,
                    tokens: row.get(4)?,
                    tool_round: row.get(5)?,
                    updated: row.get(6)?,
                })
            };
            file.prepare_cached(
                "SELECT c.id, c.project, c.version, a.messages, a.tokens, c.round IS NOT NULL,
                        c.updated
                 FROM conversations c
                 LEFT JOIN artifacts a
                     ON a.tenant = c.tenant AND a.id = coalesce(c.round, c.head)
                 WHERE c.tenant = ?1 AND c.id >= coalesce(?2, '') AND c.id IS NOT ?2
                     AND (?3 IS NULL OR c.project = ?3)
                 ORDER BY c.id LIMIT ?4",
            )
            .and_then(|mut list| {
                let list_all = list.query_map(params![tenant, after, project, limit], row)?;
                list_all.collect()
            })
            .map_err(trouble("read"))
        })
    }

    /// Forgets a conversation, and what only it needs; tells whether it was known.
    /// What is gone is gone from the file's write-ahead log too.
    ///
    /// # Errors
    /// `Store`
    pub fn delete(&mut self, tenant: &str, conversation: &str) -> Result<bool> {
        let known = self.write(|file, _| {
            let Some(tenant) = tenant_number(file, tenant)? else {
                return Ok(false);
            };
            let number: Option<i64> = file
                .query_row(
                    "SELECT number FROM conversations WHERE tenant = ?1 AND id = ?2",
                    params![tenant, conversation],
                    |row| row.get(0),
                )
                .optional()
                .map_err(trouble("read"))?;
            let Some(number) = number else {
                return Ok(false);
            };
            remove(
                file,
                "SELECT family FROM passages AS own WHERE conversation = ?1 AND NOT EXISTS (
                     SELECT 1 FROM passages AS other
                     WHERE other.family = own.family AND other.conversation <> ?1
                 )",
                number,
            )?;
            for sql in [
                "DELETE FROM passages WHERE conversation = ?1",
                "DELETE FROM conversations WHERE number = ?1",
            ] {
                file.execute(sql, [number]).map_err(trouble("written"))?;
            }
            Ok(true)
        })?;
        if known {
            self.wipe()?;
        }
        Ok(known)
    }

    /// Forgets a tenant; tells how many artifacts it had.
    ///
    /// # Errors
    /// `Store`
    pub fn delete_tenant(&mut self, tenant: &str) -> Result<u64> {
        let removed = self.write(|file, _| {
            let Some(tenant) = tenant_number(file, tenant)? else {
                return Ok(0);
            };
            let removed = remove(file, "SELECT id FROM families WHERE tenant = ?1", tenant)?;
            for sql in [
                "DELETE FROM conversations WHERE tenant = ?1",
                "DELETE FROM salts WHERE tenant = ?1",
                "DELETE FROM tenants WHERE id = ?1",
            ] {
                file.execute(sql, [tenant]).map_err(trouble("written"))?;
            }
            Ok(removed)
        })?;
        self.wipe()?;
        Ok(removed)
    }

    /// Takes what was removed out of the file, and out of its log.
    fn wipe(&self) -> Result<()> {
        // A log that somebody still reads is emptied by a later checkpoint.
        self.connection
            .execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
            .map_err(trouble("written"))
    }

    /// Removes the families that have expired, then the least recently used ones
    /// over the bound; tells how many artifacts those were.
    ///
    /// # Errors
    /// `Store`
    pub fn expire(&mut self, now: i64) -> Result<u64> {
        self.swept = now;
        let max_bytes = self.max_bytes;
        let removed = self.write(|file, _| {
            let over = remove(file, "SELECT id FROM families WHERE expires <= ?1", now)?;
            // What is left of it only tells that it was known once.
            file.execute(
                "DELETE FROM conversations WHERE updated < ?1 AND NOT EXISTS (
                     SELECT 1 FROM passages WHERE conversation = number
                 )",
                [now.saturating_sub(FORGOTTEN_MS)],
            )
            .map_err(trouble("written"))?;
            let Some(max_bytes) = max_bytes else {
                return Ok(over);
            };
            let bytes: u64 = file
                .query_row("SELECT coalesce(sum(size), 0) FROM families", [], |row| {
                    row.get(0)
                })
                .map_err(trouble("read"))?;
            let Some(excess) = bytes.checked_sub(max_bytes).filter(|excess| *excess > 0) else {
                return Ok(over);
            };
            let oldest = "SELECT id FROM (
                    SELECT id, coalesce(sum(size) OVER (
                        ORDER BY used, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ), 0) AS before FROM families
                ) WHERE before < ?1";
            let excess = i64::try_from(excess).unwrap_or(i64::MAX);
            Ok(over + remove(file, oldest, excess)?)
        })?;
        self.evictions += removed;
        if removed > 0 {
            self.connection
                .execute_batch("PRAGMA incremental_vacuum")
                .map_err(trouble("written"))?;
        }
        Ok(removed)
    }

    /// The secret of a tenant for the engines of a domain; `new` where there is
    /// none yet.
    ///
    /// # Errors
    /// `Store`; `RecordRefused` where it was encrypted with another key.
    pub fn salt(&mut self, tenant: &str, domain: &str, new: &str) -> Result<String> {
        checked(tenant)?;
        checked(domain)?;
        self.write(|file, vault| {
            let number = tenant_of(file, tenant)?;
            let sealed = match vault {
                Some(vault) => vault.seal(tenant, new.as_bytes())?,
                None => new.as_bytes().to_vec(),
            };
            file.execute(
                "INSERT INTO salts (tenant, domain, salt) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![number, domain, sealed],
            )
            .map_err(trouble("written"))?;
            let salt: Vec<u8> = file
                .query_row(
                    "SELECT salt FROM salts WHERE tenant = ?1 AND domain = ?2",
                    params![number, domain],
                    |row| row.get(0),
                )
                .map_err(trouble("read"))?;
            let salt = match vault {
                Some(vault) => vault.open(tenant, &salt)?,
                None => salt,
            };
            String::from_utf8(salt).map_err(|error| {
                Error::new(ErrorKind::RecordRefused, "A salt is damaged.").with_source(error)
            })
        })
    }

    /// Counts. O(families).
    ///
    /// # Errors
    /// `Store`
    pub fn counts(&mut self) -> Result<Counts> {
        let (hits, misses, evictions) = (self.hits, self.misses, self.evictions);
        self.read(|file, _| {
            file.query_row(
                "SELECT (SELECT count(*) FROM conversations), (SELECT count(*) FROM artifacts),
                        (SELECT coalesce(sum(size), 0) FROM families),
                        (SELECT page_count * page_size
                         FROM pragma_page_count(), pragma_page_size())",
                [],
                |row| {
                    Ok(Counts {
                        conversations: row.get(0)?,
                        artifacts: row.get(1)?,
                        bytes: row.get(2)?,
                        file_bytes: row.get(3)?,
                        hits,
                        misses,
                        evictions,
                    })
                },
            )
            .map_err(trouble("read"))
        })
    }

    /// The names of all tenants, in order.
    ///
    /// # Errors
    /// `Store`
    pub fn tenants(&mut self) -> Result<Vec<String>> {
        self.read(|file, _| {
            file.prepare_cached("SELECT name FROM tenants ORDER BY name")
                .and_then(|mut list| list.query_map([], |row| row.get(0))?.collect())
                .map_err(trouble("read"))
        })
    }

    /// Looks at every page and every record. O(the file).
    ///
    /// # Errors
    /// `Store`
    pub fn verify(&mut self) -> Result<Verified> {
        self.read(|file, vault| {
            let mut verified = Verified::default();
            let read = trouble("read");
            file.prepare("SELECT integrity_check FROM pragma_integrity_check")
                .and_then(|mut check| {
                    let lines = check.query_map([], |row| row.get::<_, String>(0))?;
                    lines.collect::<rusqlite::Result<Vec<_>>>()
                })
                .map(|lines| {
                    verified.file = lines.into_iter().filter(|line| line != "ok").collect()
                })
                .map_err(&read)?;
            verified.orphans = file
                .query_row(
                    "SELECT count(*) FROM artifacts AS own
                     WHERE parent IS NOT NULL AND NOT EXISTS (
                         SELECT 1 FROM artifacts AS other
                         WHERE other.tenant = own.tenant AND other.id = own.parent
                     )",
                    [],
                    |row| row.get(0),
                )
                .map_err(&read)?;
            let mut all = file
                .prepare(
                    "SELECT name, artifacts.id, record FROM artifacts
                     JOIN tenants ON tenants.id = tenant",
                )
                .map_err(&read)?;
            let mut rows = all.query([]).map_err(&read)?;
            while let Some(row) = rows.next().map_err(&read)? {
                verified.artifacts += 1;
                let sound = (|| {
                    let tenant: String = row.get(0).ok()?;
                    let id: ArtifactId = row.get(1).ok()?;
                    let record: Vec<u8> = row.get(2).ok()?;
                    let record = match vault {
                        Some(vault) => vault.open(&tenant, &record).ok()?,
                        None => record,
                    };
                    super::frame::is_of(&record, &id).then_some(())
                })();
                verified.damaged += u64::from(sound.is_none());
            }
            Ok(verified)
        })
    }

    /// Copies the file as it is now, while it goes on being used, to a new file at
    /// `path`.
    ///
    /// # Errors
    /// `Store`, also where there is a file already.
    pub fn back_up(&mut self, path: &Path) -> Result<()> {
        if path.exists() {
            let what = "There is a file already where the backup is to be.";
            return Err(Error::new(ErrorKind::Store, what));
        }
        create(path)?;
        let mut copy = Connection::open(path).map_err(trouble("backed up"))?;
        rusqlite::backup::Backup::new(&self.connection, &mut copy)
            .and_then(|backup| backup.run_to_completion(1024, Duration::ZERO, None))
            .map_err(trouble("backed up"))
    }
}

/// Makes a file that only its owner may read, unless there is one.
fn create(path: &Path) -> Result<()> {
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            let what = format!("The store's file cannot be created: {error}.");
            Err(Error::new(ErrorKind::Store, what).with_source(error))
        }
    }
}

fn blinded(vault: Option<&Vault>, tenant: &str, digest: &HistoryDigest) -> HistoryDigest {
    vault.map_or(*digest, |vault| vault.blind(tenant, digest))
}

fn tenant_number(file: &Transaction<'_>, tenant: &str) -> Result<Option<i64>> {
    file.prepare_cached("SELECT id FROM tenants WHERE name = ?1")
        .and_then(|mut find| find.query_row([tenant], |row| row.get(0)).optional())
        .map_err(trouble("read"))
}

fn tenant_of(file: &Transaction<'_>, tenant: &str) -> Result<i64> {
    if let Some(number) = tenant_number(file, tenant)? {
        return Ok(number);
    }
    file.execute("INSERT INTO tenants (name) VALUES (?1)", [tenant])
        .map_err(trouble("written"))?;
    Ok(file.last_insert_rowid())
}

/// An artifact's record behind those that it grew from, and its family; none
/// where it is not there.
fn chain(
    file: &Transaction<'_>,
    vault: Option<&Vault>,
    (number, tenant): (i64, &str),
    id: &ArtifactId,
    known: Option<&ArtifactId>,
) -> Result<Option<(Stored, i64)>> {
    let read = trouble("read");
    let mut step = file
        .prepare_cached(
            "SELECT parent, expires, family, record FROM artifacts WHERE tenant = ?1 AND id = ?2",
        )
        .map_err(&read)?;
    let mut tip = None;
    let mut records: Vec<Vec<u8>> = Vec::new();
    let mut next = Some(*id);
    while let Some(id) = next.filter(|id| Some(id) != known) {
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let found = step.query_row(params![number, id], row).optional();
        let found: Option<(Option<ArtifactId>, i64, i64, Vec<u8>)> = found.map_err(&read)?;
        let Some((parent, expires, family, record)) = found else {
            break;
        };
        tip.get_or_insert((expires, family));
        records.push(record);
        next = parent;
    }
    if tip.is_none() && known == Some(id) {
        let row = |row: &Row<'_>| Ok((row.get(1)?, row.get(2)?));
        tip = step
            .query_row(params![number, id], row)
            .optional()
            .map_err(&read)?;
    }
    let Some((expires, family)) = tip else {
        return Ok(None);
    };
    records.reverse();
    let mut records = records.concat();
    if let Some(vault) = vault {
        records = vault.open(tenant, &records)?;
    }
    let stored = Stored {
        id: *id,
        expires,
        records,
    };
    Ok(Some((stored, family)))
}

/// The artifact's family, and where the same turn recorded it before, whether it
/// moved its conversation.
fn insert(
    file: &Transaction<'_>,
    vault: Option<&Vault>,
    tenant: i64,
    artifact: &Artifact,
    to: &Move,
    record: &[u8],
    now: i64,
) -> Result<(i64, Option<bool>)> {
    let written = trouble("written");
    let known: Option<(i64, String, bool)> = file
        .prepare_cached(
            "SELECT family, turn, branched FROM artifacts WHERE tenant = ?1 AND id = ?2",
        )
        .and_then(|mut find| {
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            find.query_row(params![tenant, artifact.id()], row)
                .optional()
        })
        .map_err(trouble("read"))?;
    if let Some((family, turn, branched)) = known {
        if turn == to.turn {
            return Ok((family, Some(!branched)));
        }
        // The record too: it may be what was damaged.
        file.execute(
            "UPDATE artifacts SET turn = ?3, branched = 0, expires = ?4, record = ?5
             WHERE tenant = ?1 AND id = ?2",
            params![tenant, artifact.id(), to.turn, to.expires, record],
        )
        .map_err(&written)?;
        grow(file, family, 0, to.expires, now)?;
        return Ok((family, None));
    }
    let size = (record.len() + ROW_BYTES) as i64;
    let family = match artifact.parent() {
        None => {
            file.prepare_cached(
                "INSERT INTO families (tenant, size, expires, used) VALUES (?1, ?2, ?3, ?4)",
            )
            .and_then(|mut insert| insert.execute(params![tenant, size, to.expires, now]))
            .map_err(&written)?;
            file.last_insert_rowid()
        }
        Some(parent) => {
            let family = file
                .prepare_cached("SELECT family FROM artifacts WHERE tenant = ?1 AND id = ?2")
                .and_then(|mut find| {
                    find.query_row(params![tenant, parent], |row| row.get(0))
                        .optional()
                })
                .map_err(trouble("read"))?;
            let family = family.ok_or_else(|| {
                let what = "What the turn went on from is no longer in the store.";
                Error::new(ErrorKind::Store, what)
            })?;
            grow(file, family, size, to.expires, now)?;
            family
        }
    };
    let digest = blinded(vault, artifact.tenant(), artifact.digest());
    file.prepare_cached(
        "INSERT INTO artifacts (tenant, id, parent, family, digest, turn, branched, expires,
                                messages, tokens, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            tenant,
            artifact.id(),
            artifact.parent(),
            family,
            digest,
            to.turn,
            to.expires,
            artifact.message_count() as i64,
            artifact.prompt().map(|prompt| prompt.len() as i64),
            record,
        ])
    })
    .map_err(&written)?;
    Ok((family, None))
}

fn grow(file: &Transaction<'_>, family: i64, size: i64, expires: i64, now: i64) -> Result<()> {
    file.prepare_cached(
        "UPDATE families SET size = size + ?2, expires = max(expires, ?3), used = max(used, ?4)
         WHERE id = ?1",
    )
    .and_then(|mut update| update.execute(params![family, size, expires, now]))
    .map_err(trouble("written"))?;
    Ok(())
}

/// Moves a conversation that still has the version it had; tells whether it did.
fn move_conversation(
    file: &Transaction<'_>,
    tenant: i64,
    family: i64,
    id: &ArtifactId,
    to: &Move,
    now: i64,
) -> Result<bool> {
    let Some(conversation) = &to.conversation else {
        return Ok(true);
    };
    let written = trouble("written");
    let known: Option<(i64, u64)> = file
        .prepare_cached("SELECT number, version FROM conversations WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut find| {
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            find.query_row(params![tenant, conversation], row)
                .optional()
        })
        .map_err(trouble("read"))?;
    let (number, moved) = match known {
        Some((number, version)) if version == to.version => {
            file.prepare_cached(
                "UPDATE conversations SET version = version + 1, round = iif(?2, ?3, NULL),
                     head = iif(?2, head, ?3), updated = max(updated, ?4)
                 WHERE number = ?1",
            )
            .and_then(|mut update| update.execute(params![number, to.tool_round, id, now]))
            .map_err(&written)?;
            (Some(number), true)
        }
        Some((number, _)) => (Some(number), false),
        None if to.version == 0 => {
            file.prepare_cached(
                "INSERT INTO conversations (tenant, id, project, version, head, round, updated)
                 VALUES (?1, ?2, ?3, 1, iif(?4, NULL, ?5), iif(?4, ?5, NULL), ?6)",
            )
            .and_then(|mut insert| {
                let (project, round) = (&to.project, to.tool_round);
                insert.execute(params![tenant, conversation, project, round, id, now])
            })
            .map_err(&written)?;
            (Some(file.last_insert_rowid()), true)
        }
        // Somebody has deleted it since.
        None => (None, false),
    };
    if let Some(number) = number {
        file.prepare_cached(
            "INSERT INTO passages (family, conversation) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )
        .and_then(|mut insert| insert.execute(params![family, number]))
        .map_err(written)?;
    }
    Ok(moved)
}

/// Removes the families that `which`, a query with one parameter, gives; tells how
/// many artifacts they had.
fn remove(file: &Transaction<'_>, which: &str, parameter: i64) -> Result<u64> {
    let written = trouble("written");
    let families: Vec<i64> = file
        .prepare_cached(which)
        .and_then(|mut find| find.query_map([parameter], |row| row.get(0))?.collect())
        .map_err(trouble("read"))?;
    let mut removed = 0;
    for family in families {
        for (counts, sql) in [
            (false, "DELETE FROM passages WHERE family = ?1"),
            (true, "DELETE FROM artifacts WHERE family = ?1"),
            (false, "DELETE FROM families WHERE id = ?1"),
        ] {
            let rows = file
                .prepare_cached(sql)
                .and_then(|mut delete| delete.execute([family]))
                .map_err(&written)?;
            removed += if counts { rows as u64 } else { 0 };
        }
    }
    Ok(removed)
}
