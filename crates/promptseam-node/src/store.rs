//! The native side of the stores: a SQLite file on a thread of its own, and
//! encryption for stores that are written in JavaScript.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use napi::{
    Env,
    bindgen_prelude::{Buffer, BufferSlice, Object, ToNapiValue},
};
use napi_derive::napi;
use promptseam::store::{Move, SqliteOptions, SqliteStore, Stand, Stored, Synchronous, Vault};

use crate::{
    model::promise,
    outcome::{Failure, Outcome, guarded},
    pool::Pool,
    seam::{NativeArtifact, from_hex, hex},
};

/// Calls that may wait for the file.
const QUEUE: usize = 4096;

/// A file of records, with the one thread that reads and writes it.
#[napi]
pub struct NativeSqlite {
    pool: Arc<Pool>,
    file: Arc<Mutex<Option<SqliteStore>>>,
}

/// See `SqliteStoreOptions`.
#[napi(object)]
pub struct NativeSqliteOptions {
    pub full: bool,
    /// None for no bound.
    pub max_bytes: Option<f64>,
    pub read_only: bool,
}

/// See `Entry`.
#[napi(object)]
pub(crate) struct NativeStored {
    pub id: String,
    pub expires: f64,
    pub records: Buffer,
}

/// See `Checkpoint`.
#[napi(object)]
pub(crate) struct NativeStand {
    pub version: f64,
    pub tip: Option<NativeStored>,
}

/// See `ConversationInfo`.
#[napi(object)]
pub(crate) struct NativeListed {
    pub conversation: String,
    pub project: String,
    pub version: f64,
    pub messages: Option<u32>,
    pub tokens: Option<u32>,
    pub tool_round: bool,
    pub updated: f64,
}

/// See `SqliteStats`.
#[napi(object)]
pub(crate) struct NativeCounts {
    pub conversations: f64,
    pub artifacts: f64,
    pub bytes: f64,
    pub file_bytes: f64,
    pub hits: f64,
    pub misses: f64,
    pub evictions: f64,
}

/// See `SqliteStore.verify`.
#[napi(object)]
pub(crate) struct NativeVerified {
    pub artifacts: f64,
    pub damaged: f64,
    pub orphans: f64,
    pub file: Vec<String>,
}

/// Milliseconds that JavaScript writes as a number, which has an infinity.
fn millis(number: f64) -> i64 {
    number as i64
}

fn from_millis(millis: i64) -> f64 {
    match millis {
        i64::MAX => f64::INFINITY,
        millis => millis as f64,
    }
}

fn stored(stored: Stored) -> NativeStored {
    NativeStored {
        id: hex(&stored.id),
        expires: from_millis(stored.expires),
        records: stored.records.into(),
    }
}

fn stand(stand: Stand) -> NativeStand {
    NativeStand {
        version: stand.version as f64,
        tip: stand.tip.map(stored),
    }
}

#[napi]
impl NativeSqlite {
    /// Opens a file on a thread of its own.
    #[napi(ts_return_type = "Promise<Failure | NativeSqlite>")]
    pub fn open<'env>(
        env: &'env Env,
        path: String,
        options: NativeSqliteOptions,
        key: Option<BufferSlice>,
    ) -> napi::Result<Object<'env>> {
        let pool = Arc::new(Pool::new("store", 1, QUEUE)?);
        let key = key.map(|key| key.to_vec());
        promise(env, &Arc::clone(&pool), move || {
            let options = SqliteOptions {
                synchronous: if options.full {
                    Synchronous::Full
                } else {
                    Synchronous::Normal
                },
                max_bytes: options.max_bytes.map(|bytes| bytes as u64),
                vault: key.map(|key| Vault::new(&key)).transpose()?,
                read_only: options.read_only,
            };
            let file = SqliteStore::open(&PathBuf::from(path), options)?;
            Ok(Self {
                pool,
                file: Arc::new(Mutex::new(Some(file))),
            })
        })
    }

    fn run<'env, T: ToNapiValue + Send + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&mut SqliteStore) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Object<'env>> {
        let file = Arc::clone(&self.file);
        promise(env, &self.pool, move || {
            // What a panic left behind is a transaction that was rolled back.
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            work(file.as_mut().ok_or_else(|| Failure::closed("store"))?)
        })
    }

    #[napi(ts_return_type = "Promise<Failure | NativeStand | null>")]
    pub fn load<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        conversation: String,
        known: Option<String>,
        now: f64,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            let known = known.map(|id| from_hex(&id));
            let found = file.load(&tenant, &conversation, known.as_ref(), millis(now))?;
            Ok(found.map(stand))
        })
    }

    /// `digests` are 64 hexadecimal digits each.
    #[napi(ts_return_type = "Promise<Failure | NativeStored | null>")]
    pub fn find<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        digests: String,
        known: Option<String>,
        now: f64,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            let digits = digests.as_bytes().chunks(64).map(std::str::from_utf8);
            let digests: Vec<[u8; 32]> = digits.map(|d| from_hex(d.unwrap_or_default())).collect();
            let known = known.map(|id| from_hex(&id));
            let found = file.find(&tenant, &digests, known.as_ref(), millis(now))?;
            Ok(found.map(stored))
        })
    }

    /// See `Commit`.
    #[napi(ts_return_type = "Promise<Failure | boolean>")]
    #[allow(clippy::too_many_arguments, reason = "an object takes twice as long")]
    pub fn commit<'env>(
        &self,
        env: &'env Env,
        artifact: &NativeArtifact,
        conversation: Option<String>,
        project: String,
        expires: f64,
        version: f64,
        tool_round: bool,
        turn: String,
        now: f64,
    ) -> napi::Result<Object<'env>> {
        let artifact = artifact.shared();
        let to = Move {
            conversation,
            project,
            expires: millis(expires),
            version: version as u64,
            tool_round,
            turn,
        };
        self.run(env, move |file| {
            Ok(file.commit(&artifact, &to, millis(now))?)
        })
    }

    #[napi(ts_return_type = "Promise<Failure | boolean>")]
    pub fn abandon<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        conversation: String,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| Ok(file.abandon(&tenant, &conversation)?))
    }

    #[napi(ts_return_type = "Promise<Failure | Array<NativeListed>>")]
    pub fn list<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        project: Option<String>,
        after: Option<String>,
        limit: u32,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            let all = file.list(&tenant, project.as_deref(), after.as_deref(), limit)?;
            let listed = all.into_iter().map(|one| NativeListed {
                conversation: one.conversation,
                project: one.project,
                version: one.version as f64,
                messages: one.messages,
                tokens: one.tokens,
                tool_round: one.tool_round,
                updated: from_millis(one.updated),
            });
            Ok(listed.collect::<Vec<_>>())
        })
    }

    #[napi(ts_return_type = "Promise<Failure | boolean>")]
    pub fn move_to<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        conversation: String,
        project: String,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            Ok(file.move_to(&tenant, &conversation, &project)?)
        })
    }

    #[napi(ts_return_type = "Promise<Failure | boolean>")]
    pub fn delete<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        conversation: String,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| Ok(file.delete(&tenant, &conversation)?))
    }

    #[napi(ts_return_type = "Promise<Failure | number>")]
    pub fn delete_tenant<'env>(
        &self,
        env: &'env Env,
        tenant: String,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| Ok(file.delete_tenant(&tenant)? as f64))
    }

    #[napi(ts_return_type = "Promise<Failure | number>")]
    pub fn expire<'env>(&self, env: &'env Env, now: f64) -> napi::Result<Object<'env>> {
        self.run(env, move |file| Ok(file.expire(millis(now))? as f64))
    }

    #[napi(ts_return_type = "Promise<Failure | string>")]
    pub fn salt<'env>(
        &self,
        env: &'env Env,
        tenant: String,
        domain: String,
        fresh: String,
    ) -> napi::Result<Object<'env>> {
        self.run(env, move |file| Ok(file.salt(&tenant, &domain, &fresh)?))
    }

    #[napi(ts_return_type = "Promise<Failure | NativeCounts>")]
    pub fn counts<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            let counts = file.counts()?;
            Ok(NativeCounts {
                conversations: counts.conversations as f64,
                artifacts: counts.artifacts as f64,
                bytes: counts.bytes as f64,
                file_bytes: counts.file_bytes as f64,
                hits: counts.hits as f64,
                misses: counts.misses as f64,
                evictions: counts.evictions as f64,
            })
        })
    }

    #[napi(ts_return_type = "Promise<Failure | Array<string>>")]
    pub fn tenants<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.run(env, move |file| Ok(file.tenants()?))
    }

    #[napi(ts_return_type = "Promise<Failure | NativeVerified>")]
    pub fn verify<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            let found = file.verify()?;
            Ok(NativeVerified {
                artifacts: found.artifacts as f64,
                damaged: found.damaged as f64,
                orphans: found.orphans as f64,
                file: found.file,
            })
        })
    }

    #[napi(ts_return_type = "Promise<Failure | null>")]
    pub fn back_up<'env>(&self, env: &'env Env, path: String) -> napi::Result<Object<'env>> {
        self.run(env, move |file| {
            file.back_up(&PathBuf::from(path))?;
            Ok(None::<u32>)
        })
    }

    /// Finishes what is under way, then lets go of the file and the thread.
    #[napi(ts_return_type = "Promise<Failure | null>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let file = Arc::clone(&self.file);
        let closing = promise(env, &self.pool, move || {
            file.lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok(None::<u32>)
        });
        self.pool.close();
        closing
    }
}

/// Encryption with a caller's key; see `Vault`.
#[napi]
pub struct NativeVault {
    vault: Vault,
}

#[napi]
impl NativeVault {
    /// A vault of a key of 32 bytes.
    #[napi]
    pub fn of(key: BufferSlice) -> Outcome<NativeVault> {
        guarded(|| {
            Ok(Self {
                vault: Vault::new(&key)?,
            })
        })
    }

    #[napi]
    pub fn seal(&self, tenant: String, bytes: BufferSlice) -> Outcome<Buffer> {
        guarded(|| Ok(Buffer::from(self.vault.seal(&tenant, &bytes)?)))
    }

    /// Opens what was sealed, one after another.
    #[napi]
    pub fn open(&self, tenant: String, sealed: BufferSlice) -> Outcome<Buffer> {
        guarded(|| Ok(Buffer::from(self.vault.open(&tenant, &sealed)?)))
    }

    /// A digest of 64 hexadecimal digits, as one that tells nothing without the
    /// key.
    #[napi]
    pub fn blind(&self, tenant: String, digest: String) -> String {
        hex(&self.vault.blind(&tenant, &from_hex(&digest)))
    }
}
