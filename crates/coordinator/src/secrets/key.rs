//! The key that secrets are encrypted with, and the one file it is kept in.
//!
//! It is not in the store: whoever has a copy of the store alone has no secret.

use super::SecretsError;
use baton_model::configuration::SecretKey;
use baton_model::secret::Secret;
use baton_proto::identity::write_private;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// The file in the coordinator's folder: 32 random bytes.
pub(super) const KEY_FILE: &str = "secrets.key";
const KEY_BYTES: usize = 32;

/// An encrypted value: AES-256-GCM, with the secret's name and revision as associated data, so that a value moved to
/// another place in the store is no value. Nonces are random: one key is good for 2^32 of them (NIST SP 800-38D, 8.3).
pub(super) struct Key(LessSafeKey);

/// A value as it is stored.
pub(super) struct Sealed {
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) text: Vec<u8>,
}

impl Key {
    /// Reads the key, or makes one where nothing is encrypted yet.
    pub(super) fn open(dir: &Path, needed: bool) -> Result<Self, SecretsError> {
        let path = dir.join(KEY_FILE);
        let failed = |action, source| SecretsError::File { action, path: path.clone(), source };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound && needed => {
                return Err(SecretsError::KeyMissing { path });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new(vec![0; KEY_BYTES]);
                getrandom::fill(&mut bytes)
                    .map_err(|error| failed("make", io::Error::other(error.to_string())))?;
                write_private(&path, &bytes).map_err(|error| failed("write", error))?;
                bytes
            }
            Err(error) => return Err(failed("read", error)),
        };
        let mode = std::fs::metadata(&path).map_err(|error| failed("read", error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let text = format!("others may read it (mode {:03o}); run `chmod 600` on it", mode & 0o777);
            return Err(failed("use", io::Error::other(text)));
        }
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| {
            failed("use", io::Error::other("it does not hold 32 bytes; restore it from a backup"))
        })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    pub(super) fn seal(&self, key: &SecretKey, secret: &Secret) -> Result<Sealed, SecretsError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| SecretsError::Cipher(key.clone()))?;
        let mut text = secret.expose().to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), associated(key), &mut text)
            .map_err(|_| SecretsError::Cipher(key.clone()))?;
        Ok(Sealed { nonce, text })
    }

    pub(super) fn open_value(&self, key: &SecretKey, sealed: Sealed) -> Result<Secret, SecretsError> {
        let mut text = Zeroizing::new(sealed.text);
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let value = self
            .0
            .open_in_place(nonce, associated(key), &mut text)
            .map_err(|_| SecretsError::Cipher(key.clone()))?;
        Ok(Secret::new(value.to_vec()))
    }
}

/// No name holds a NUL.
fn associated(key: &SecretKey) -> Aad<Vec<u8>> {
    Aad::from(format!("baton secret\0{}\0{}", key.name, key.revision).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, revision: u64) -> SecretKey {
        SecretKey { name: name.parse().unwrap(), revision }
    }

    #[test]
    fn a_value_comes_back_under_its_own_name_and_revision_only() {
        let folder = tempfile::tempdir().unwrap();
        let cipher = Key::open(folder.path(), false).unwrap();
        let sealed = cipher.seal(&key("db", 1), &Secret::new(b"hunter2".to_vec())).unwrap();
        assert!(!sealed.text.windows(7).any(|window| window == b"hunter2"));
        let copy = || Sealed { nonce: sealed.nonce, text: sealed.text.clone() };
        let again = Key::open(folder.path(), true).unwrap();
        assert_eq!(again.open_value(&key("db", 1), copy()).unwrap().expose(), b"hunter2");
        assert!(again.open_value(&key("db", 2), copy()).is_err());
        assert!(again.open_value(&key("eb", 1), copy()).is_err());
        let mut damaged = copy();
        damaged.text[0] ^= 1;
        assert!(again.open_value(&key("db", 1), damaged).is_err());
    }

    #[test]
    fn a_lost_or_open_key_is_told_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let error = Key::open(folder.path(), true).err().unwrap().to_string();
        assert!(error.contains("secrets.key") && error.contains("backup"), "{error}");
        let _made = Key::open(folder.path(), false).unwrap();
        let path = folder.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = crate::api::status::with_sources(&Key::open(folder.path(), true).err().unwrap());
        assert!(error.contains("chmod 600"), "{error}");
    }
}
