use super::*;
use baton_engine::cycle::{Snapshot, Versioned};
use baton_model::event::Severity;
use baton_model::id::{InstanceId, Revision};
use baton_model::observed::{InstanceObserved, InstanceState};
use baton_proto::v1::coordinator_message::Message;

fn sessions(silence: Millis) -> Arc<Sessions> {
    Sessions::new(Clock::start(UnixMs(0)), Timing { heartbeat: Millis(10), silence })
}

fn node() -> NodeName {
    "n1".parse().unwrap()
}

fn open(sessions: &Sessions) -> Opened {
    let mut opened = sessions.open(&node(), NodeFacts::default(), Generation(0));
    let first = opened.outbound.try_recv().unwrap().message;
    assert!(matches!(first, Some(Message::Welcome(_))), "a session begins with a welcome: {first:?}");
    opened
}

fn ready(pid: Option<u32>) -> InstanceObserved {
    serde_json::from_value(serde_json::json!({
        "release": 1, "state": "ready", "ready_since": null, "run": 1, "pid": pid, "ports": {}, "restarts": 0,
        "crash_loop": false, "last_exit": null, "reason": "", "swap": null,
    }))
    .unwrap()
}

fn beat(sequence: u64) -> Message {
    Message::Heartbeat(v1::Heartbeat { sequence })
}

#[test]
fn an_agent_that_does_not_read_is_dropped_and_not_waited_for() {
    let sessions = sessions(Millis::secs(60));
    let opened = open(&sessions);
    for sequence in 0..QUEUE_MAX as u64 {
        sessions.send(&node(), beat(sequence)).unwrap();
    }
    assert!(!opened.cut.is_cancelled());
    assert_eq!(sessions.send(&node(), beat(0)), Err(NotConnected));
    assert!(opened.cut.is_cancelled() && opened.ended.is_cancelled());
    assert!(!sessions.is_connected(&node()));
}

#[test]
fn what_a_replaced_session_says_does_not_count() {
    let sessions = sessions(Millis::secs(60));
    let (old, new) = (open(&sessions), open(&sessions));
    assert!(old.ended.is_cancelled() && !new.ended.is_cancelled());
    let says = |session, generation| {
        sessions.hear(&node(), session, |observed| {
            observed.generation = Generation(generation);
            Changed::Yes
        })
    };
    assert_eq!(says(old.session, 5), Heard::Replaced);
    assert_eq!(says(new.session, 6), Heard::Yes);
    sessions.reported(&node());
    assert_eq!(sessions.observed().nodes[&node()].generation, Generation(6));
    // The end of the older stream comes late and must not end the newer session.
    sessions.close(&node(), old.session);
    assert!(sessions.is_connected(&node()));
    sessions.close(&node(), new.session);
    assert!(!sessions.is_connected(&node()));
}

#[test]
fn what_ran_before_a_boot_is_not_taken_for_running_until_the_node_has_said_so() {
    let sessions = sessions(Millis::secs(60));
    let of_boot = |boot: &str| {
        let facts = NodeFacts { boot_id: boot.to_owned(), ..NodeFacts::default() };
        sessions.open(&node(), facts, Generation(1)).session
    };
    let web = |slot: u64| -> InstanceId { format!("web.{slot}").parse().unwrap() };
    let says = |session, slot, state| {
        sessions.hear(&node(), session, |observed| {
            observed.instances.insert(web(slot), InstanceObserved { state, ..ready(Some(7)) });
            Changed::Yes
        })
    };
    let first = of_boot("one");
    says(first, 1, InstanceState::Ready);
    says(first, 2, InstanceState::Failed);
    sessions.reported(&node());
    let seen = |slot| sessions.observed().nodes[&node()].instances[&web(slot)].clone();

    // A connection that broke, or an agent that was restarted: the shims go on.
    let _ = of_boot("one");
    assert_eq!((seen(1).state, seen(1).pid), (InstanceState::Ready, Some(7)));

    let booted = of_boot("two");
    assert_eq!((seen(1).state, seen(1).pid, seen(1).ready_since), (InstanceState::Starting, None, None));
    assert!(seen(1).reason.contains("booted anew"), "{}", seen(1).reason);
    assert_eq!(seen(2).state, InstanceState::Failed, "it did not run before either");
    says(booted, 1, InstanceState::Ready);
    assert_eq!(seen(1).state, InstanceState::Ready);
}

#[test]
fn three_replacements_in_a_short_time_are_flapping() {
    let sessions = sessions(Millis::secs(60));
    let flapping: Vec<bool> = (0..8).map(|_| open(&sessions).flapping).collect();
    assert_eq!(flapping, [false, false, false, true, false, false, true, false]);
}

#[test]
fn time_that_the_coordinator_itself_stood_still_is_no_nodes_silence() {
    let sessions = sessions(Millis::secs(3));
    let began = sessions.clock.now();
    open(&sessions);
    sessions.reported(&node());
    // Twice: the first one may come late itself, where the machine is slow.
    assert_eq!((sessions.sweep(), sessions.sweep()), (vec![], vec![]));
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Nobody has read yet what the node said, and the one who decides may come before the one who looks for silence.
    let heard = sessions.observed().nodes[&node()].last_heard;
    assert!(heard.since(began) >= Millis::secs(2), "{began:?}, {heard:?}");
}

#[test]
fn a_closed_stream_alone_makes_nobody_silent() {
    let sessions = sessions(Millis::secs(4));
    let opened = open(&sessions);
    sessions.close(&node(), opened.session);
    assert_eq!(sessions.sweep(), []);
    // Looked at as often as the background does: a look that comes late would tell of this process standing still.
    let told = (0..300).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        Some(sessions.sweep()).filter(|it| !it.is_empty())
    });
    assert_eq!(told, Some(vec![node()]));
    assert_eq!(sessions.sweep(), [], "told once");
    assert!(open(&sessions).was_silent);
}

#[test]
fn a_plan_is_queued_once_for_a_session() {
    let sessions = sessions(Millis::secs(60));
    let mut opened = open(&sessions);
    let plan = |generation| v1::NodePlan { node: "n1".to_owned(), generation, ..v1::NodePlan::default() };
    for generation in [2, 2, 1, 3] {
        sessions.send_plan(&node(), Generation(generation), || plan(generation));
    }
    let mut sent = Vec::new();
    while let Ok(v1::CoordinatorMessage { message: Some(Message::Plan(plan)) }) = opened.outbound.try_recv() {
        sent.push(plan.generation);
    }
    assert_eq!(sent, [2, 3]);
}

#[test]
fn only_a_change_wakes() {
    let sessions = sessions(Millis::secs(60));
    let opened = open(&sessions);
    let mut changes = sessions.changes();
    changes.mark_unchanged();
    sessions.hear(&node(), opened.session, |_| Changed::No);
    assert!(!changes.has_changed().unwrap(), "liveness alone decides nothing");
    sessions.hear(&node(), opened.session, |_| Changed::Yes);
    assert!(changes.has_changed().unwrap());
}

#[test]
fn a_node_counts_as_heard_once_it_has_said_what_runs_on_it() {
    let sessions = sessions(Millis::secs(60));
    let opened = open(&sessions);
    sessions.hear(&node(), opened.session, |_| Changed::Yes);
    assert!(sessions.observed().nodes.is_empty(), "a hello does not say that nothing runs");
    let mut changes = sessions.changes();
    changes.mark_unchanged();
    sessions.reported(&node());
    assert!(changes.has_changed().unwrap(), "also where it runs nothing");
    assert!(sessions.observed().nodes.contains_key(&node()));
    // A later session goes on from what is known.
    let _later = open(&sessions);
    assert!(sessions.observed().nodes.contains_key(&node()));
}

#[test]
fn events_of_agents_are_cut_to_size() {
    let mut event = crate::events::event(UnixMs(0), Severity::Info, "test", "ä".repeat(10_000));
    event.fields = (0..100).map(|n| (format!("field{n}"), "x".repeat(10_000))).collect();
    boundary::cut_event(&mut event);
    assert_eq!(event.message.len(), 4096);
    assert_eq!(event.fields.len(), 32);
    assert!(event.fields.values().all(|value| value.len() == 512));
}

#[test]
fn a_node_keeps_only_its_own_instances() {
    let progress = serde_json::json!({
        "stable": null, "last_slot": 2, "rollout": null, "history": [],
        "slots": {
            "1": {"node": "n1", "release": 1, "attempt": 0, "assigned_at": 0, "retiring": false},
            "2": {"node": "n2", "release": 1, "attempt": 0, "assigned_at": 0, "retiring": false},
        },
    });
    let value = serde_json::from_value(progress).unwrap();
    let mut snapshot = Snapshot::default();
    snapshot.progress.insert("web".parse().unwrap(), Versioned { revision: Revision(1), value });
    let observed = ready(None);
    let id = |text: &str| text.parse::<InstanceId>().unwrap();
    let mut reported: BTreeMap<InstanceId, InstanceObserved> =
        ["web.1", "web.2", "web.9", "old.1"].map(|text| (id(text), observed.clone())).into();
    assert_eq!(boundary::take_foreign(&node(), &mut reported, &snapshot), [id("web.2")]);
    let kept: Vec<&InstanceId> = reported.keys().collect();
    assert_eq!(
        kept,
        [&id("old.1"), &id("web.1"), &id("web.9")],
        "what is placed nowhere may be its own leftover"
    );
}
