//! What the agent writes into a run's directory before it starts the shim, to know the run again.

use super::place::Place;
use super::process::hex;
use baton_model::id::{InstanceId, PortName, ReleaseNumber, RunNumber};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const RECORD_FILE: &str = "run.json";

/// What a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The instance.
    pub instance: InstanceId,
    /// The run.
    pub run: RunNumber,
    /// The release it runs.
    pub release: ReleaseNumber,
    /// All its ports, by name.
    pub ports: BTreeMap<String, u16>,
}

/// The agent's record of a run (`run.json`, mode 0600: it holds the cookie).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) record: RunRecord,
    #[serde(with = "hex_bytes")]
    pub(super) cookie: [u8; 16],
    #[serde(with = "hex_bytes")]
    pub(super) mark: [u8; 16],
    pub(super) group: Option<PathBuf>,
    pub(super) listeners: Vec<(PortName, Place)>,
}

impl Stored {
    /// Writes it whole or not at all. It need not survive the machine: neither does the run.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("run.json.new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        drop(file);
        std::fs::rename(temporary, directory.join(RECORD_FILE))
    }

    /// Reads it back.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(directory.join(RECORD_FILE))?)?)
    }
}

mod hex_bytes {
    use super::hex;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(u128::to_be_bytes).map_err(D::Error::custom)
    }
}
