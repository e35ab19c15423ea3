//! What binds one continuation, checked again right before it is sent.

use super::{
    artifact::{Artifact, ArtifactId},
    environment::Fingerprint,
    outcome::Reason,
};
use crate::prompt::Prompt;

/// Claims of a planned prompt: what it goes on from, what it appends, and for
/// whom and how long that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The artifact whose prompt is gone on from.
    pub prefix_id: ArtifactId,
    /// How many ids its prompt has.
    pub prefix_tokens: usize,
    /// The append boundary: ids of that prompt that were kept.
    pub boundary: usize,
    /// BLAKE3 over the appended ids, little-endian.
    pub append_hash: [u8; 32],
    /// How many ids were appended.
    pub append_tokens: usize,
    /// BLAKE3 over the prefix id, the boundary and the append hash.
    pub combined_id: [u8; 32],
    /// How many ids the planned prompt has.
    pub combined_tokens: usize,
    /// The environment fingerprint, field by field.
    pub environment: Fingerprint,
    /// The tenant.
    pub tenant: String,
    /// Milliseconds of Unix time from which on it no longer holds.
    pub expires: i64,
}

impl Certificate {
    /// The certificate of `prompt`, which keeps `boundary` ids of `prefix`'s.
    pub(crate) fn new(
        prefix: &Artifact,
        prefix_tokens: usize,
        boundary: usize,
        prompt: &Prompt,
        environment: Fingerprint,
        expires: i64,
    ) -> Self {
        let append_hash = hash_from(prompt, boundary);
        Self {
            prefix_id: *prefix.id(),
            prefix_tokens,
            boundary,
            append_hash,
            append_tokens: prompt.len() - boundary,
            combined_id: combined(prefix.id(), boundary, &append_hash),
            combined_tokens: prompt.len(),
            environment,
            tenant: prefix.tenant.clone().into(),
            expires,
        }
    }

    /// Checks every claim against what is about to be sent. O(appended ids).
    ///
    /// # Errors
    /// The reason for which the prompt must not be sent.
    pub fn check(&self, claim: &Claim<'_>) -> Result<(), Reason> {
        let Claim {
            prefix,
            prompt,
            environment,
            tenant,
            now_ms,
        } = *claim;
        if self.tenant != tenant || *prefix.tenant != *tenant {
            return Err(Reason::TenantMismatch);
        }
        if now_ms >= self.expires {
            return Err(Reason::ArtifactExpired);
        }
        let fields = self.environment.iter().zip(environment);
        for ((field, ours), (_, theirs)) in fields {
            if ours != theirs {
                return Err(Reason::FingerprintMismatch(*field));
            }
        }
        let Some(sent) = prefix.prompt().filter(|_| self.prefix_id == *prefix.id()) else {
            return Err(Reason::ArtifactMiss);
        };
        let kept = self.boundary <= sent.len() && sent.common_prefix(prompt) >= self.boundary;
        if !kept || (self.boundary != sent.len() && sent.boundary(self.boundary) != self.boundary) {
            return Err(Reason::UnsafeBoundary);
        }
        let counts = self.prefix_tokens == sent.len()
            && self.combined_tokens == prompt.len()
            && self.boundary.checked_add(self.append_tokens) == Some(prompt.len());
        if !counts
            || self.append_hash != hash_from(prompt, self.boundary)
            || self.combined_id != combined(prefix.id(), self.boundary, &self.append_hash)
        {
            return Err(Reason::PrefixMismatch);
        }
        Ok(())
    }
}

/// What is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The artifact gone on from.
    pub prefix: &'a Artifact,
    /// The planned prompt.
    pub prompt: &'a Prompt,
    /// The environment of the turn.
    pub environment: &'a Fingerprint,
    /// Who sends it.
    pub tenant: &'a str,
    /// Milliseconds of Unix time.
    pub now_ms: i64,
}

/// BLAKE3 over the ids of `prompt` from `start` on.
pub(crate) fn hash_from(prompt: &Prompt, start: usize) -> [u8; 32] {
    prompt.hash(start, prompt.len())
}

fn combined(prefix: &ArtifactId, boundary: usize, append_hash: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("promptseam combined prompt v1");
    hasher.update(prefix);
    hasher.update(&(boundary as u64).to_le_bytes());
    hasher.update(append_hash);
    *hasher.finalize().as_bytes()
}
