//! Encryption at rest, with a key of the caller's.

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, Generate, KeyInit, Payload, consts::U12},
};

use super::frame::{Frame, Kind, framed, frames, refused};
use crate::{
    continuation::HistoryDigest,
    error::{Error, ErrorKind, Result},
};

const NONCE: usize = 12;

/// Seals what a store keeps: AES-256-GCM, with a key for each tenant that is
/// derived from the caller's, and a nonce at random.
pub struct Vault {
    key: [u8; 32],
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// A vault of a key of 32 bytes.
    ///
    /// # Errors
    /// `InvalidArgument`
    pub fn new(key: &[u8]) -> Result<Self> {
        let key = key.try_into().map_err(|_| {
            let what = "A store's key has 32 bytes, from a cryptographic random source.";
            Error::new(ErrorKind::InvalidArgument, what)
        })?;
        Ok(Self { key })
    }

    fn derived(&self, purpose: &str, tenant: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&self.key).update(tenant.as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn cipher(&self, tenant: &str) -> Aes256Gcm {
        Aes256Gcm::new(&self.derived("promptseam store seal v1", tenant).into())
    }

    /// Seals bytes of a tenant's. O(bytes).
    ///
    /// # Errors
    /// `TooLarge`; `Internal` where the system has no random bytes.
    pub fn seal(&self, tenant: &str, bytes: &[u8]) -> Result<Vec<u8>> {
        let failed = || Error::new(ErrorKind::Internal, "a record could not be encrypted");
        let nonce = Nonce::<U12>::try_generate().map_err(|_| failed())?;
        let payload = Payload {
            msg: bytes,
            aad: tenant.as_bytes(),
        };
        let sealed = self.cipher(tenant).encrypt(&nonce, payload);
        let content = [nonce.as_slice(), &sealed.map_err(|_| failed())?].concat();
        framed(Kind::Sealed, bytes.len(), &content)
    }

    /// Opens what was sealed, one after another. O(bytes).
    ///
    /// # Errors
    /// `RecordRefused` for what was not sealed with this key for this tenant.
    pub fn open(&self, tenant: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let cipher = self.cipher(tenant);
        let mut bytes = Vec::with_capacity(sealed.len());
        for frame in frames(sealed) {
            bytes.extend(opened(&cipher, tenant, &frame?)?);
        }
        Ok(bytes)
    }

    /// A digest to look a history up by, from which nobody without the key can
    /// tell which history it is.
    pub fn blind(&self, tenant: &str, digest: &HistoryDigest) -> HistoryDigest {
        let key = self.derived("promptseam store lookup v1", tenant);
        *blake3::keyed_hash(&key, digest).as_bytes()
    }
}

fn opened(cipher: &Aes256Gcm, tenant: &str, frame: &Frame<'_>) -> Result<Vec<u8>> {
    if frame.kind != Kind::Sealed {
        return Err(refused("it is not encrypted, but the store has a key"));
    }
    let (nonce, sealed) =
        (frame.content.split_first_chunk::<NONCE>()).ok_or_else(|| refused("it is cut off"))?;
    let payload = Payload {
        msg: sealed,
        aad: tenant.as_bytes(),
    };
    let bytes = cipher.decrypt(&Nonce::<U12>::from(*nonce), payload);
    bytes.map_err(|_| refused("it was encrypted with another key, or tampered with"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_tenant_open_what_was_sealed() {
        let vault = Vault::new(&[7; 32]).unwrap();
        let sealed = vault.seal("a", b"text").unwrap();
        let again = vault.seal("a", b"more").unwrap();
        assert_ne!(sealed, vault.seal("a", b"text").unwrap());
        let both = [&sealed[..], &again].concat();
        assert_eq!(vault.open("a", &both).unwrap(), b"textmore");
        let other = Vault::new(&[8; 32]).unwrap();
        let refused = |result: Result<Vec<u8>>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::RecordRefused);
        };
        refused(other.open("a", &sealed));
        refused(vault.open("b", &sealed));
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            // The length is told to whoever reserves room for it, not relied on.
            if !(8..12).contains(&at) {
                refused(vault.open("a", &bad));
            }
            refused(vault.open("a", &sealed[..at.max(1)]));
        }
        assert_ne!(vault.blind("a", &[0; 32]), vault.blind("b", &[0; 32]));
        assert_ne!(vault.blind("a", &[0; 32]), other.blind("a", &[0; 32]));
        assert!(Vault::new(&[7; 31]).is_err());
    }
}
