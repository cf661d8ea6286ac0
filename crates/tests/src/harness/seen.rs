//! Which versions have answered a load so far, so that a test can await one before it ends the load.

use super::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a version has to answer.
const ROOM: Duration = Duration::from_secs(30);

/// The versions that the clients of one load have met.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<BTreeSet<String>>>);

impl Seen {
    /// Counts an answer among a client's own; only a version's first is told to the others.
    pub(super) fn count(&self, versions: &mut BTreeMap<String, u64>, version: String) {
        if !versions.contains_key(&version) {
            self.met(&version);
        }
        *versions.entry(version).or_default() += 1;
    }

    pub(super) fn met(&self, version: &str) {
        let mut seen = self.0.lock().expect("no client panics");
        if !seen.contains(version) {
            seen.insert(version.to_owned());
        }
    }

    /// Waits until a client has met `version`.
    pub(super) fn await_version(&self, version: &str) {
        wait::until(&format!("answer of {version} to the load"), ROOM, || {
            let seen = self.0.lock().expect("no client panics");
            if seen.contains(version) { Ok(()) } else { Err(format!("answers of {seen:?}")) }
        });
    }
}
