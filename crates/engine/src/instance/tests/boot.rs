//! What a boot of the host is told as.

use super::{Effect, Instance, SOCKET, UP, check, event};
use baton_model::observed::{Exit, InstanceState};
use baton_model::time::BootMs;

#[test]
fn what_ended_with_its_host_says_so_and_is_started_at_once() {
    // However often a shim was lost before, and also where the old run had made way for the candidate.
    check(
        SOCKET,
        &format!(
            "{UP}
             lost 1    -> forget 1, start 2=1 | starting 1
             started 2 -> check 2 | starting 1
             booted    -> forget 2, start 3=1 | starting 1
             resumed   -> start 3=1 | starting 1"
        ),
    );
    let told = |instance: &Instance| {
        let (seen, _) = instance.observe(BootMs(2000)).expect("it is there");
        (seen.last_exit, seen.state)
    };
    let mut instance = super::instance();
    let mut step = |line: &str| drop(instance.step(event(SOCKET, line), BootMs(1000)));
    for line in ["plan 1", "staged 1", "started 1", "ready 1"] {
        step(line);
    }
    let effects = instance.step(event(SOCKET, "booted"), BootMs(1000));
    let note = effects.iter().find_map(|effect| match effect {
        Effect::Note { kind: "instance-lost", message, .. } => Some(message.as_str()),
        _ => None,
    });
    assert!(note.is_some_and(|text| text.contains("ended with its host, which was booted anew")), "{note:?}");
    assert_eq!(told(&instance), (Some(Exit::HostDown), InstanceState::Starting));
    // Also once it serves again, and after the next agent.
    for line in ["started 2", "ready 2", "resumed 2=1"] {
        let _ = instance.step(event(SOCKET, line), BootMs(1000));
    }
    assert_eq!(told(&instance), (Some(Exit::HostDown), InstanceState::Ready));
}
