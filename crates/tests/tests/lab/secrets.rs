//! Power is lost, and with it every secret, since they are in memory alone: the agent gets them again by itself. While
//! there is no coordinator to get them from, it says what it waits for, and starts all that needs none.

use crate::fleet::{COORDINATOR, Fleet, ROOM, measured};
use crate::hosts::script;
use baton_tests::harness::{ServiceFile, fixture, wait};
use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

/// Told from everything else on a host.
const VALUE: &str = "correct-horse-battery-staple-5d1f";
const WITH_SECRET: u16 = 8081;
const WITHOUT: u16 = 8082;

/// The fixture that answers with its files: `GET /PATH` reads below its two folders.
fn configured(name: &str, port: u16) -> ServiceFile {
    ServiceFile::web(name, port)
        .with_program(fixture("configured"), r#"["./server.py"]"#)
        .with_section("files.\"app.conf\"", "content = \"{{ service }} on {{ node.name }}\"\n")
        .with_section("placement", "replicas = 1\nlost_after = \"60s\"\n")
}

fn set_secret(fleet: &Fleet) {
    let mut command = fleet.baton_command(&["secret", "set", "db-password"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("baton runs");
    child.stdin.take().expect("piped").write_all(VALUE.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
}

/// What a service answers, asked from beside the hosts.
fn asked(fleet: &Fleet, port: u16, path: &str) -> Result<String, String> {
    let url = format!("http://{}:{port}/{path}", fleet.hosts.address("n1"));
    let said = script(&["client", "curl", "-sf", "-m", "2", &url]);
    if said.code == 0 { Ok(said.stdout) } else { Err(format!("curl ended with {}", said.code)) }
}

#[track_caller]
fn answers(fleet: &Fleet, port: u16, path: &str, expected: &str) {
    wait::until(&format!("`{expected}` at {path}"), ROOM, || match asked(fleet, port, path) {
        Ok(text) if text == expected => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The value is where the service reads it, and on no disk.
fn in_memory_alone(fleet: &Fleet) {
    answers(fleet, WITH_SECRET, "secrets/db_password", VALUE);
    answers(fleet, WITH_SECRET, "config/app.conf", "guarded on n1");
    answers(fleet, WITH_SECRET, "filesystem", "tmpfs");
    for (host, folders) in [("n1", "/var /etc /root /tmp"), (COORDINATOR, "/var /etc /root /tmp")] {
        let found = fleet.hosts.run(host, &format!("grep -rlFs {VALUE} {folders}"));
        assert_eq!(found.stdout, "", "a secret is on the disk of {host}");
    }
}

#[test]
fn secrets_are_got_again_after_a_power_loss_and_waited_for_without_a_coordinator() {
    let fleet = Fleet::start_with(1, true);
    set_secret(&fleet);
    let guarded = configured("guarded", WITH_SECRET)
        .with_section("secrets.db_password", "secret = \"db-password\"\non_change = \"restart\"\n");
    fleet.deploy(&guarded, "1.0").ok();
    fleet.deploy(&configured("open", WITHOUT), "1.0").ok();
    in_memory_alone(&fleet);

    fleet.hosts.verb("powerloss", &["n1"]);
    let begun = Instant::now();
    fleet.hosts.verb("start", &["n1"]);
    in_memory_alone(&fleet);
    let with = begun.elapsed();

    fleet.hosts.verb("powerloss", &["n1", COORDINATOR]);
    fleet.hosts.verb("start", &["n1"]);
    answers(&fleet, WITHOUT, "config/app.conf", "open on n1");
    let told = wait::until("a word on what is waited for", ROOM, || {
        let journal = fleet.hosts.ask("n1", "journalctl -q --no-pager -b -o cat -u baton-agent");
        let line = journal.lines().find(|line| line.contains("guarded.") && line.contains("it waits for"));
        line.map(str::to_owned).ok_or(journal)
    });
    assert!(told.contains("db-password") && told.contains("coordinator"), "{told}");
    assert!(asked(&fleet, WITH_SECRET, "config/app.conf").is_err(), "it runs without its secret");

    let begun = Instant::now();
    fleet.hosts.verb("start", &[COORDINATOR]);
    in_memory_alone(&fleet);
    measured(
        "a service with a secret, after a power loss",
        format!(
            "served {:.1} s after power on; without its coordinator it said `{told}`, and served {:.1} s after the coordinator's power on",
            with.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        ),
    );
}
