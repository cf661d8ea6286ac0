//! What a node can honour of limits and sandboxes, in words; "What a node can honour" of docs/operating.md has the rest.

use baton_model::confinement::{Ability, Controller};

/// The limits of `[limits]` that hold there.
pub(super) fn limits(ability: &Ability) -> String {
    let names = |has: bool| -> Vec<&str> {
        let asked = Controller::ALL.iter().filter(|it| ability.controllers.contains(it) == has);
        asked.map(|it| it.name()).collect()
    };
    let (there, missing) = (names(true), names(false));
    let mut words = Vec::new();
    if !there.is_empty() {
        words.push(there.join(", "));
    }
    words.push(format!("open files up to {}", ability.open_files_max));
    if !missing.is_empty() {
        words.push(format!("not {}", missing.join(", ")));
    }
    words.join("; ")
}

/// What of `[sandbox]` it can give.
pub(super) fn sandbox(ability: &Ability) -> String {
    let parts = [
        ("users", ability.users),
        ("capabilities", ability.capabilities),
        ("private and read-only mounts", ability.mounts),
    ];
    let names =
        |has: bool| parts.iter().filter(|(_, it)| *it == has).map(|(name, _)| *name).collect::<Vec<_>>();
    let (mut there, missing) = (names(true), names(false));
    let nice = format!("nice from {}", ability.nice_min);
    there.push(&nice);
    if missing.is_empty() {
        there.join(", ")
    } else {
        format!("{}; not {}", there.join(", "), missing.join(", "))
    }
}

/// Where the lines of workloads can go.
pub(super) fn logs(ability: &Ability) -> &'static str {
    if ability.journal { "own files, the system's journal" } else { "own files; not the system's journal" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_what_is_not_is_told() {
        let bare = Ability { open_files_max: 1024, ..Ability::default() };
        assert_eq!(limits(&bare), "open files up to 1024; not memory, cpu, pids, io");
        assert_eq!(sandbox(&bare), "nice from 0; not users, capabilities, private and read-only mounts");
        assert_eq!(logs(&bare), "own files; not the system's journal");
        let able = Ability {
            controllers: Controller::ALL.into(),
            users: true,
            capabilities: true,
            mounts: true,
            open_files_max: 1 << 20,
            nice_min: -20,
            journal: true,
        };
        assert_eq!(limits(&able), "memory, cpu, pids, io; open files up to 1048576");
        assert_eq!(sandbox(&able), "users, capabilities, private and read-only mounts, nice from -20");
    }
}
