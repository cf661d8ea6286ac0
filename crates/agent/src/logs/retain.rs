//! Which logs are kept: they outlive their runs and their instances, but not without bound.

use baton_model::id::InstanceId;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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

/// How often the size of all logs is looked at.
const BOUND_EVERY: Duration = Duration::from_secs(10);
/// And while they take less than half of what they may.
const BOUND_EVERY_WITH_ROOM: Duration = Duration::from_secs(30);

/// Keeps the logs of the whole node within `bytes_max`, and never ends.
pub(crate) async fn keep_bounded(logs: PathBuf, bytes_max: u64) {
    loop {
        let logs = logs.clone();
        let looked = tokio::task::spawn_blocking(move || prune_bytes(&logs, bytes_max)).await;
        let pause = match looked {
            Ok(Pruned { files: 0, bytes_left }) if bytes_left < bytes_max / 2 => BOUND_EVERY_WITH_ROOM,
            Ok(Pruned { files: 0, .. }) => BOUND_EVERY,
            Ok(Pruned { files, .. }) => {
                tracing::warn!(files, bytes_max, "the node's logs are full; the oldest rotated files went");
                BOUND_EVERY
            }
            Err(error) => {
                tracing::error!(%error, "bounding the logs failed");
                BOUND_EVERY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What a look at all logs did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pruned {
    /// Files that went.
    files: usize,
    /// What all logs take now.
    bytes_left: u64,
}

/// Removes rotated files, those first that were written to last, until all logs together are within `bytes_max`. Files
/// that are written to stay: each has a bound of its own.
fn prune_bytes(logs: &Path, bytes_max: u64) -> Pruned {
    let mut total = 0;
    let mut rotated: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for file in folders(logs).iter().flat_map(|instance| folders(instance)).flat_map(|run| entries(&run)) {
        // A file that is rotated away meanwhile is counted next time, under its new name.
        let Ok(metadata) = fs::metadata(&file) else { continue };
        total += metadata.len();
        let is_rotated = file.file_name().is_some_and(|name| name != "current");
        if let (true, Ok(written)) = (is_rotated, metadata.modified()) {
            rotated.push((written, file, metadata.len()));
        }
    }
    rotated.sort_unstable();
    let mut removed = 0;
    for (_, file, bytes) in rotated {
        if total <= bytes_max {
            break;
        }
        if fs::remove_file(&file).is_ok() {
            total -= bytes;
            removed += 1;
        }
    }
    Pruned { files: removed, bytes_left: total }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    // What the listing says of an entry costs nothing more; a node has hundreds of these.
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    fs::read_dir(folder).into_iter().flatten().flatten().filter(is_folder).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_oldest_rotated_files_of_the_node_go_first() {
        let logs = tempfile::tempdir().unwrap();
        let made = |path: &str, bytes: usize, age_s: u64| {
            let path = logs.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, vec![b'x'; bytes]).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age_s);
            fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
        };
        made("web.1/1/current", 100, 900);
        made("web.1/1/current.1", 100, 50);
        made("web.1/1/current.2", 100, 60);
        made("api.1/3/current", 100, 1);
        made("api.1/3/current.1", 100, 70);
        let left = |path: &str| logs.path().join(path).exists();
        let pruned = |bytes_max| {
            let Pruned { files, bytes_left } = prune_bytes(logs.path(), bytes_max);
            (files, bytes_left)
        };
        assert_eq!(pruned(500), (0, 500));
        assert_eq!(pruned(350), (2, 300));
        assert!(!left("api.1/3/current.1") && !left("web.1/1/current.2") && left("web.1/1/current.1"));
        assert_eq!(pruned(10), (1, 200), "what is written to stays");
        assert!(left("web.1/1/current") && left("api.1/3/current"));
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
