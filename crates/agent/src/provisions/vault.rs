//! The values of secrets that this node was sent: in memory, and in a folder that is memory, so that an agent that
//! starts again still has them and a host that starts again has not.

use super::memory;
use baton_model::configuration::SecretKey;
use baton_model::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every value that some release of this node may need.
#[derive(Debug)]
pub(super) struct Vault {
    folder: PathBuf,
    values: BTreeMap<SecretKey, Secret>,
}

impl Vault {
    /// Takes up what an earlier agent of this boot had.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join("vault");
        let mut values = BTreeMap::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { folder, values }),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // Anything else is a write that an earlier agent died in.
            if let Some(key) = entry.file_name().to_str().and_then(key_of) {
                values.insert(key, Secret::new(fs::read(entry.path())?));
            }
        }
        Ok(Self { folder, values })
    }

    pub(super) fn get(&self, key: &SecretKey) -> Option<&Secret> {
        self.values.get(key)
    }

    /// Takes values in; those that are known already are the same for ever.
    ///
    /// # Errors
    /// Those of the file system; what could not be written is used all the same while this agent lives.
    pub(super) fn add(&mut self, values: BTreeMap<SecretKey, Secret>) -> io::Result<()> {
        let new = values.into_iter().filter(|(key, _)| !self.values.contains_key(key));
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Ok(());
        }
        self.values.extend(new);
        self.write()
    }

    /// Forgets every value but these.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn retain(&mut self, needed: &BTreeSet<SecretKey>) -> io::Result<()> {
        let before = self.values.len();
        self.values.retain(|key, _| needed.contains(key));
        if self.values.len() == before {
            return Ok(());
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let root = self.folder.parent().ok_or_else(|| io::Error::other("a folder without a parent"))?;
        if self.values.is_empty() {
            let gone = fs::remove_dir_all(&self.folder);
            // Not while runs have something in it.
            let _ = fs::remove_dir(root);
            return gone
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
        }
        memory::make(root)?;
        let names: BTreeMap<String, &Secret> =
            self.values.iter().map(|(key, value)| (name_of(key), value)).collect();
        let files = names.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        super::files::replace_all(&self.folder, &files, 0o400, None)
    }
}

/// A secret's name holds no `@`.
fn name_of(key: &SecretKey) -> String {
    format!("{}@{}", key.name, key.revision)
}

fn key_of(name: &str) -> Option<SecretKey> {
    let (name, revision) = name.rsplit_once('@')?;
    Some(SecretKey { name: name.parse().ok()?, revision: revision.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, revision: u64) -> SecretKey {
        SecretKey { name: name.parse().unwrap(), revision }
    }

    #[test]
    fn values_outlive_the_agent_until_nobody_needs_them() {
        let root = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(root.path()).unwrap();
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        vault.add([(key("db.pass", 1), secret("one")), (key("db.pass", 2), secret("two"))].into()).unwrap();
        let again = Vault::open(root.path()).unwrap();
        assert_eq!(again.get(&key("db.pass", 1)).unwrap().expose(), b"one");
        vault.retain(&[key("db.pass", 2)].into()).unwrap();
        let again = Vault::open(root.path()).unwrap();
        assert!(again.get(&key("db.pass", 1)).is_none());
        assert_eq!(again.get(&key("db.pass", 2)).unwrap().expose(), b"two");
    }
}
