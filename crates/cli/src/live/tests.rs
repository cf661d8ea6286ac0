//! What people see, as text.

use super::frame::{Scene, frame, passage};
use super::plain::{Teller, summary};
use baton_model::event::{Event, Severity};
use baton_model::id::{EventSeq, InstanceId, ReleaseNumber, RolloutId, RunNumber};
use baton_model::observed::{InstanceObserved, InstanceState, LogDrops, SwapObserved, SwapPhase};
use baton_model::report::{
    Health, RolloutReport, ServiceReport, StageReport, StageState, Step, Subject, Waiting,
};
use baton_model::rollout::RolloutOutcome;
use baton_model::status::{PlacedInstance, ServiceStatus};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

/// 2023-11-14 22:13:20 UTC.
const START: UnixMs = UnixMs(1_700_000_000_000);

fn after(ms: u64) -> UnixMs {
    UnixMs(START.0 + ms)
}

fn id(slot: u64) -> InstanceId {
    format!("web.{slot}").parse().unwrap()
}

fn observed(release: u64, state: InstanceState) -> InstanceObserved {
    InstanceObserved {
        release: ReleaseNumber(release),
        state,
        ready_since: (state == InstanceState::Ready).then_some(START),
        run: RunNumber(1),
        pid: Some(4000),
        ports: BTreeMap::new(),
        restarts: 0,
        crash_loop: false,
        last_exit: None,
        reason: String::new(),
        swap: None,
        status: String::new(),
        reload: None,
        log_drops: LogDrops::default(),
    }
}

fn placed(slot: u64, observed: InstanceObserved) -> PlacedInstance {
    PlacedInstance {
        id: id(slot),
        node: format!("node-{slot}").parse().unwrap(),
        wanted_release: ReleaseNumber(2),
        wanted_version: "2.0".parse().unwrap(),
        node_silent: false,
        observed: Some(observed),
        metrics: None,
    }
}

fn stage(number: u32, state: StageState, step: Step, times: (Option<u64>, Option<u64>)) -> StageReport {
    StageReport {
        number,
        title: format!("batch {number} of 3"),
        state,
        instances: [(id(number.into()), step)].into(),
        started_at: times.0.map(after),
        ended_at: times.1.map(after),
        step: 0,
        weight: None,
        verdicts: Vec::new(),
        comparison: None,
    }
}

/// A rollout from 1.0 to 2.0 over three instances, 6.5 s after its start: one done, one being swapped.
fn halfway() -> ServiceStatus {
    let mut swapping = observed(1, InstanceState::Ready);
    swapping.swap = Some(SwapObserved {
        to: ReleaseNumber(2),
        attempt: 0,
        phase: SwapPhase::Confirming,
        reason: "GET /healthz: status 503".into(),
    });
    let release = |number, version: &str| {
        serde_json::from_value(serde_json::json!({
            "number": number, "version": version, "created_at": START, "created_by": "alice",
            "artifact": { "digest": "0".repeat(64), "size_bytes": 1, "format": { "kind": "tar-zstd" }, "unpacked_bytes": 1 },
            "spec": baton_model::file::parse("name = \"web\"\nartifact = \"web\"\nexec = [\"web\"]\n").unwrap().spec,
        }))
        .unwrap()
    };
    ServiceStatus {
        name: "web".parse().unwrap(),
        report: ServiceReport {
            health: Health::Changing,
            stable: Some(ReleaseNumber(1)),
            wanted: 3,
            ready: 3,
            floor: 2,
            rollout: Some(RolloutReport {
                id: RolloutId(2),
                from: Some(ReleaseNumber(1)),
                to: ReleaseNumber(2),
                from_version: Some("1.0".parse().unwrap()),
                to_version: "2.0".parse().unwrap(),
                outcome: RolloutOutcome::Running,
                reason: String::new(),
                started_at: START,
                ended_at: None,
                stages: vec![
                    stage(1, StageState::Done, Step::Done, (Some(0), Some(4_200))),
                    stage(2, StageState::Running, Step::Changing, (Some(4_200), None)),
                    stage(3, StageState::Pending, Step::Pending, (None, None)),
                ],
            }),
            waiting: vec![Waiting {
                subject: Subject::Instance(id(2)),
                gate: "health".into(),
                reason: "its readiness check has not passed yet".into(),
                until: Some(after(9_000)),
            }],
        },
        instances: vec![
            placed(1, observed(2, InstanceState::Ready)),
            placed(2, swapping),
            placed(3, observed(1, InstanceState::Ready)),
        ],
        releases: vec![release(1, "1.0"), release(2, "2.0")],
        now: after(6_500),
        traffic: Vec::new(),
        webhooks: Vec::new(),
        removed: false,
    }
}

fn event() -> Event {
    Event {
        seq: EventSeq(1),
        at: after(4_200),
        severity: Severity::Info,
        kind: "stage-done".into(),
        message: "web: stage 1 is done".into(),
        service: None,
        node: None,
        instance: None,
        fields: BTreeMap::new(),
    }
}

fn drawn(status: &ServiceStatus, note: Option<&str>, width: usize, height: u16) -> String {
    let events = [event()];
    let lines = frame(&Scene { status, events: &events, note, now: status.now }, height);
    lines.iter().map(|line| line.render(width, false)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_rollout_halfway() {
    insta::assert_snapshot!(drawn(&halfway(), None, 80, 24));
}

#[test]
fn a_coordinator_that_is_gone_is_said() {
    let text = drawn(&halfway(), Some("the coordinator does not answer; trying again"), 80, 24);
    assert!(text.ends_with("! the coordinator does not answer; trying again"), "{text}");
}

#[test]
fn many_instances_fit_a_low_terminal_and_those_that_change_come_first() {
    let mut status = halfway();
    for slot in 4..=200 {
        status.instances.push(placed(slot, observed(1, InstanceState::Ready)));
    }
    let mut failed = observed(1, InstanceState::Failed);
    failed.reason = "exit code 3".into();
    status.instances.push(placed(201, failed));
    let text = drawn(&status, None, 80, 20);
    assert!(text.lines().count() < 20, "{text}");
    assert!(text.contains("web.201") && text.contains("web.2 ") && text.contains("and 190 more"), "{text}");
}

#[test]
fn plain_lines_are_told_once() {
    let mut teller = Teller::default();
    let mut status = halfway();
    insta::assert_snapshot!(teller.tell(&status).join("\n"));
    assert_eq!(teller.tell(&status), Vec::<String>::new(), "nothing changed");
    status.now = after(8_000);
    status.instances[1] = placed(2, observed(2, InstanceState::Ready));
    assert_eq!(teller.tell(&status), ["[    8.0s] web.2 on node-2: 2.0 ready"]);
}

#[test]
fn what_keeps_an_instance_is_told_whenever_it_comes_and_its_counts_once() {
    let (mut teller, mut status) = (Teller::default(), halfway());
    status.now = after(8_000);
    let _ = teller.tell(&status);
    let mut told = |reason: &str| {
        let mut fetching = observed(2, InstanceState::Fetching);
        fetching.reason = reason.into();
        status.instances[1] = placed(2, fetching);
        teller.tell(&status)
    };
    assert_eq!(told(""), ["[    8.0s] web.2 on node-2: 2.0 fetching"]);
    assert_eq!(
        told("not there; failure 1"),
        ["[    8.0s] web.2 on node-2: 2.0 fetching (not there; failure 1)"]
    );
    assert_eq!(told("not there; failure 2"), Vec::<String>::new());
}

#[test]
fn the_summary_has_the_measured_times() {
    let mut status = halfway();
    let rollout = status.report.rollout.as_mut().unwrap();
    rollout.outcome = RolloutOutcome::Succeeded;
    rollout.ended_at = Some(after(12_345));
    rollout.stages[1].ended_at = Some(after(8_000));
    assert_eq!(
        summary(&status, true),
        "web 1.0 → 2.0: done after 12.3s, 3 of 3 ready; stages took 4.2s, 3.8s"
    );
}

#[test]
fn why_a_rollout_failed_is_told_once() {
    const WHY: &str = "errors (error share at most 1%) is broken";
    let (mut teller, mut status) = (Teller::default(), halfway());
    let mut told = teller.tell(&status);
    let mut becomes = |outcome, reason: &str, waits: Option<&str>| {
        let rollout = status.report.rollout.as_mut().unwrap();
        rollout.outcome = outcome;
        rollout.reason = reason.to_owned();
        let waiting = waits.map(|reason| Waiting {
            subject: Subject::Rollout,
            gate: "failed".into(),
            reason: reason.into(),
            until: None,
        });
        status.report.waiting = waiting.into_iter().collect();
        told.extend(teller.tell(&status));
        (summary(&status, teller.has_told(status.report.rollout.as_ref().unwrap())), told.clone())
    };
    let times = |text: &str, lines: &[String]| lines.iter().filter(|line| line.contains(text)).count();
    let _ = becomes(RolloutOutcome::RollingBack, WHY, None);
    let (last, lines) = becomes(RolloutOutcome::RolledBack, WHY, None);
    assert_eq!((times(WHY, &lines), last.contains(WHY)), (1, false), "{lines:#?}\n{last}");
    assert!(times("web 1.0 → 2.0: rolled back", &lines) == 1, "{lines:#?}");
    // What is waited for tells it too, and what to do.
    let held = "web.2 cannot run";
    let (last, lines) =
        becomes(RolloutOutcome::Paused, held, Some("web.2 cannot run: `baton rollout retry`, or `abort`"));
    assert_eq!((times(held, &lines), last.contains(held)), (1, false), "{lines:#?}\n{last}");
    // It was waited for already, for another reason: that is not told again, so the rollout itself tells why.
    let _ = becomes(RolloutOutcome::Running, "", Some("not enough evidence"));
    let (last, lines) = becomes(RolloutOutcome::Paused, "errors are broken", Some("errors are broken"));
    let broken = "errors are broken";
    assert_eq!((times(broken, &lines), last.contains(broken)), (1, false), "{lines:#?}\n{last}");
}

#[test]
fn an_undo_of_what_was_tried_out_says_what_it_goes_back_to() {
    let mut rollout = halfway().report.rollout.unwrap();
    assert_eq!(passage(&rollout), "1.0 → 2.0");
    (rollout.to, rollout.to_version) = (ReleaseNumber(1), "1.0".parse().unwrap());
    assert_eq!(passage(&rollout), "back to 1.0");
}
