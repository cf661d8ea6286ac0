use super::*;
use baton_engine::progress::RolloutProgress;
use baton_model::artifact::ArtifactFormat;
use baton_model::id::{Digest, RolloutId};
use baton_model::rollout::{RolloutControl, RolloutKind, RolloutRequest};
use baton_model::time::UnixMs;
use serde_json::json;

fn wanted(number: u64) -> Wanted {
    let source = "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\"]\n";
    Wanted {
        version: Version::new(format!("{number}.0")).unwrap(),
        artifact: Artifact {
            digest: Digest([number as u8; 32]),
            size_bytes: 1,
            format: ArtifactFormat::Tar,
            unpacked_bytes: 1,
        },
        spec: baton_model::file::parse(source).unwrap().spec,
    }
}

/// A service with these releases, of which `to` was asked for last, by rollout 9.
fn service(releases: &[u64], to: u64) -> Service {
    let release = |number: &u64| {
        let wanted = wanted(*number);
        let release = Release {
            number: ReleaseNumber(*number),
            version: wanted.version,
            artifact: wanted.artifact,
            spec: wanted.spec,
            created_at: UnixMs(0),
            created_by: "ann".to_owned(),
        };
        (ReleaseNumber(*number), release)
    };
    Service {
        name: "web".parse().unwrap(),
        releases: releases.iter().map(release).collect(),
        request: Some(RolloutRequest {
            id: RolloutId(9),
            to: ReleaseNumber(to),
            kind: RolloutKind::Deploy,
            requested_at: UnixMs(0),
            requested_by: "ann".to_owned(),
        }),
        control: RolloutControl::default(),
        removed: false,
        reload: 0,
    }
}

fn progress(stable: u64, from: Option<u64>, to: u64, outcome: RolloutOutcome) -> ServiceProgress {
    let rollout = json!({
        "id": 9, "from": from, "to": to, "outcome": outcome, "reason": "", "started_at": 0, "ended_at": null,
        "progressed_at": 0, "retried": 0, "stages": [],
    });
    let rollout: RolloutProgress = serde_json::from_value(rollout).unwrap();
    ServiceProgress {
        stable: Some(ReleaseNumber(stable)),
        rollout: Some(rollout),
        ..ServiceProgress::default()
    }
}

#[test]
fn old_releases_go_and_those_in_use_stay() {
    let mut kept = service(&[1, 2, 3, 4, 5, 6, 7, 8], 8);
    let mut snapshot = Snapshot::default();
    let value = progress(2, Some(2), 8, RolloutOutcome::Running);
    snapshot
        .progress
        .insert(kept.name.clone(), baton_engine::cycle::Versioned { revision: Default::default(), value });
    trim(&mut kept, &snapshot);
    let numbers: Vec<u64> = kept.releases.keys().map(|number| number.0).collect();
    assert_eq!(numbers, [2, 5, 6, 7, 8], "the present one, three before it, and the one to go back to");
    assert_eq!(next_number(&kept), ReleaseNumber(9));
}

#[test]
fn an_undo_goes_to_the_release_before() {
    use RolloutOutcome::{Failed, RolledBack, Running, Succeeded};
    // (releases, asked for, progress, where an undo goes)
    let cases = [
        (vec![1, 2, 3], 3, Some(progress(3, Some(2), 3, Succeeded)), Some(2)),
        (vec![1, 2, 3], 3, Some(progress(1, Some(1), 3, Running)), Some(1)),
        (vec![1, 2, 3], 1, Some(progress(1, Some(3), 1, Succeeded)), Some(3)),
        (vec![1, 2, 3], 3, Some(progress(2, Some(2), 3, RolledBack)), Some(1)),
        (vec![2, 3], 3, Some(progress(2, Some(2), 3, RolledBack)), None),
        (vec![1], 1, Some(progress(1, None, 1, Failed)), None),
        (vec![1], 1, None, None),
    ];
    for (releases, to, progress, expected) in cases {
        let found = undo_target(&service(&releases, to), None, progress.as_ref()).ok();
        assert_eq!(found, expected.map(ReleaseNumber), "{releases:?} at {to}: {progress:?}");
    }
    let named = undo_target(&service(&[1, 2, 3], 3), Some(&Version::new("1.0").unwrap()), None);
    assert_eq!(named.ok(), Some(ReleaseNumber(1)));
    assert!(undo_target(&service(&[2, 3], 3), Some(&Version::new("1.0").unwrap()), None).is_err());
}

#[test]
fn what_was_given_up_is_neither_undone_to_nor_pushes_out_what_served() {
    let mut value = progress(2, Some(2), 8, RolloutOutcome::RolledBack);
    let ended = |from: u64, to: u64, outcome: RolloutOutcome| {
        let report = json!({
            "id": to, "from": from, "to": to, "from_version": null, "to_version": "1", "outcome": outcome,
            "reason": "", "started_at": 0, "ended_at": 1, "stages": [],
        });
        serde_json::from_value::<RolloutReport>(report).unwrap()
    };
    value.history = vec![ended(1, 2, RolloutOutcome::Succeeded), ended(2, 8, RolloutOutcome::RolledBack)];
    let mut kept = service(&[1, 2, 3, 4, 5, 6, 7, 8], 8);
    assert_eq!(undo_target(&kept, None, Some(&value)).ok(), Some(ReleaseNumber(1)));
    let mut snapshot = Snapshot::default();
    snapshot
        .progress
        .insert(kept.name.clone(), baton_engine::cycle::Versioned { revision: Default::default(), value });
    trim(&mut kept, &snapshot);
    let numbers: Vec<u64> = kept.releases.keys().map(|number| number.0).collect();
    assert_eq!(numbers, [1, 2, 5, 6, 7, 8]);
}

#[test]
fn an_undo_of_what_was_only_just_asked_for_goes_to_what_runs() {
    let mut before = progress(2, Some(1), 2, RolloutOutcome::Succeeded);
    before.rollout.as_mut().unwrap().id = RolloutId(8);
    let found = undo_target(&service(&[1, 2, 3], 3), None, Some(&before)).ok();
    assert_eq!(found, Some(ReleaseNumber(2)));
}

#[test]
fn what_was_rolled_back_may_be_asked_for_again() {
    for (outcome, expected) in [
        (RolloutOutcome::Running, true),
        (RolloutOutcome::Paused, true),
        (RolloutOutcome::Succeeded, true),
        (RolloutOutcome::RollingBack, false),
        (RolloutOutcome::RolledBack, false),
        (RolloutOutcome::Failed, false),
    ] {
        let progress = progress(1, Some(1), 2, outcome);
        assert_eq!(
            is_wanted(&service(&[1, 2], 2), ReleaseNumber(2), Some(&progress)),
            expected,
            "{outcome:?}"
        );
    }
    assert!(!is_wanted(&service(&[1, 2], 2), ReleaseNumber(1), None));
}

#[test]
fn a_version_is_one_thing_for_ever() {
    let service = service(&[1, 2], 2);
    assert_eq!(existing(&service, &wanted(2)).unwrap(), Some(ReleaseNumber(2)));
    assert_eq!(existing(&service, &wanted(3)).unwrap(), None);
    let other = Wanted { artifact: wanted(3).artifact, ..wanted(2) };
    assert!(matches!(existing(&service, &other), Err(Refusal::AlreadyExists(_))));
}
