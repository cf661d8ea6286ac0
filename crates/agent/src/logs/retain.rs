//! Which logs are kept: they outlive their runs and their instances, but not without bound.

use baton_model::id::InstanceId;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders of logs kept per instance: of the current run and those before it.
const RUNS_KEPT: usize = 3;
/// Removed instances whose logs are kept: those that started something last. Slot numbers are never used again, so
/// each move of an instance leaves a folder.
const REMOVED_KEPT: usize = 20;

/// Keeps the logs of the newest runs of an instance, in its folder.
pub(crate) fn prune_runs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut runs: Vec<u64> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    runs.sort_unstable();
    for run in runs.iter().rev().skip(RUNS_KEPT) {
        let _ = fs::remove_dir_all(folder.join(run.to_string()));
    }
}

/// Keeps the logs of the newest of the instances that are not on this node any more.
pub(crate) fn prune_removed(logs: &Path, present: &BTreeSet<InstanceId>) {
    let Ok(entries) = fs::read_dir(logs) else { return };
    let mut removed: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            id.is_some_and(|id| !present.contains(&id))
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    removed.sort_unstable();
    for (_, folder) in removed.iter().rev().skip(REMOVED_KEPT) {
        let _ = fs::remove_dir_all(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_logs_of_present_instances_and_of_the_newest_removed_ones_stay() {
        let logs = tempfile::tempdir().unwrap();
        let made = |name: &str, age_s: u64| {
            let folder = logs.path().join(name);
            fs::create_dir_all(folder.join("1")).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age_s);
            fs::File::open(folder).unwrap().set_modified(at).unwrap();
        };
        (1..=25).for_each(|slot| made(&format!("web.{slot}"), 1_000 - slot));
        made("not an instance", 5_000);
        let present = BTreeSet::from(["web.1".parse().unwrap()]);
        prune_removed(logs.path(), &present);
        let left = |name: &str| logs.path().join(name).exists();
        assert!(left("web.1") && left("not an instance"));
        let kept: Vec<u64> = (2..=25).filter(|slot| left(&format!("web.{slot}"))).collect();
        assert_eq!(kept, (6..=25).collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_runs_stay() {
        let folder = tempfile::tempdir().unwrap();
        (8..=12).for_each(|run| fs::create_dir(folder.path().join(run.to_string())).unwrap());
        prune_runs(folder.path());
        let left: Vec<u64> = (8..=12).filter(|run| folder.path().join(run.to_string()).exists()).collect();
        assert_eq!(left, [10, 11, 12]);
    }
}
