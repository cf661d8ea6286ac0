//! TCP routes on a real cluster: what a gateway cannot listen for does not count as served.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(90);
/// Nobody else of the cluster listens for it on the gateway's address.
const PORT: u16 = 5432;

/// What the service behind the gateway answers over a connection of its own.
fn ask(ip: &str) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((ip, PORT)).map_err(said)?;
    stream.set_read_timeout(Some(ROOM)).map_err(said)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").map_err(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(said)?;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(answer) } else { Err(answer) }
}

#[test]
fn a_port_that_is_taken_is_told_and_waited_for_and_its_service_counts_once_it_is_free() {
    let extra = vec!["--gateways".to_owned(), "1".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, extra, ..ClusterOptions::default() });
    let http = cluster.ready["gateways"][0]["http"].as_str().expect("an address");
    let ip = http.rsplit_once(':').expect("a port").0;
    let taken = TcpListener::bind((ip, PORT)).expect("the port is free");
    let file = ServiceFile::web("db", 1)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("route", &format!("protocol = \"tcp\"\nlisten = {PORT}\n"))
        .with_section(
            "rollout",
            "batch = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"10m\"\nprogress_deadline = \"20m\"\n",
        );
    let path = cluster.write("db.toml", &file.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "1.0"]).expect(0);

    let why = format!("gateway gateway-1 cannot listen on {ip}:{PORT}: Address already in use");
    wait::until("the reason for which it waits", ROOM, || {
        let told = cluster.baton(&["explain", "db"]).stdout.replace('\n', " ");
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        if told.contains(&why) { Ok(()) } else { Err(told) }
    });
    let service = cluster.json(&["service", "show", "db"]);
    assert_eq!(service["report"]["ready"], 0, "nobody can reach it: {service}");
    let listed = cluster.baton(&["gateway", "ls"]).expect(0);
    assert!(listed.stdout.contains("cannot serve db"), "{}", listed.stdout);
    assert!(listed.stderr.contains(&format!("cannot listen on {ip}:{PORT}")), "{}", listed.stderr);
    told(&cluster, "route-unserved");
    let routes = cluster.baton(&["route", "ls"]).expect(0);
    assert!(routes.stdout.contains("0 of 1"), "{}", routes.stdout);
    let left_out = format!("gateway-1 does not serve db: it cannot listen on {ip}:{PORT}");
    assert!(routes.stderr.contains(&left_out), "{}", routes.stderr);
    let shown = cluster.baton(&["route", "show", "db"]).expect(0).stdout;
    assert!(shown.contains(&format!("not served: it cannot listen on {ip}:{PORT}")), "{shown}");

    drop(taken);
    wait::until("an answer over the port", ROOM, || ask(ip));
    wait::until("the end of the rollout", ROOM, || {
        let service = cluster.json(&["service", "show", "db"]);
        let outcome = service["report"]["rollout"]["outcome"].to_string();
        if outcome.contains("succeeded") { Ok(()) } else { Err(outcome) }
    });
    told(&cluster, "route-served");
    wait::until("a gateway that serves all", ROOM, || {
        let listed = cluster.baton(&["gateway", "ls"]).expect(0).stdout;
        if listed.contains("cannot serve") { Err(listed) } else { Ok(()) }
    });
    let routes = cluster.baton(&["route", "ls"]).expect(0);
    assert!(routes.stdout.contains("1 of 1") && routes.stderr.is_empty(), "{routes:?}");
}

/// Waits until the journal has an event of this kind.
fn told(cluster: &Cluster, kind: &str) {
    wait::until(kind, ROOM, || {
        let events = cluster.baton(&["events"]).expect(0).stdout;
        if events.contains(kind) { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_gateway_takes_as_many_connections_as_it_has_open_files_for() {
    let extra = vec!["--gateways".to_owned(), "1".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, extra, ..ClusterOptions::default() });
    let dir = cluster.folder().join("edge").display().to_string();
    let coordinator = cluster.ready["coordinator"]["address"].as_str().expect("an address");
    let token = cluster.json(&["gateway", "token"])["token"].as_str().expect("a token").to_owned();
    let join =
        ["gateway", "join", "--coordinator", coordinator, "--name", "edge", "--dir", &dir, "--token", &token];
    let _ = cluster.baton(&join).expect(0);
    let program = cluster.command(&[]).get_program().to_owned();
    let start = |files: &str| {
        let script = format!("ulimit -n {files}; exec \"$0\" gateway run --dir \"$1\" --http 127.0.0.1:0");
        std::process::Command::new("sh")
            .args(["-c", &script])
            .arg(&program)
            .arg(&dir)
            .stderr(std::process::Stdio::from(std::fs::File::create(format!("{dir}/log")).expect("a log")))
            .spawn()
            .expect("it starts")
    };
    let said = || std::fs::read_to_string(format!("{dir}/log")).unwrap_or_default();

    let mut few = start("300");
    assert!(!few.wait().expect("it ends").success());
    assert!(said().contains("300 open files") && said().contains("LimitNOFILE="), "{}", said());
    let mut some = start("1000");
    wait::until("a gateway that says how many it takes", ROOM, || {
        let said = said();
        if said.contains("connections=372") && said.contains("serving") { Ok(()) } else { Err(said) }
    });
    some.kill().expect("it runs");
    some.wait().expect("it ends");
    // Soft limits are raised by the gateway itself.
    let mut enough = start("1000 2>/dev/null; ulimit -S -n 300");
    wait::until("a gateway that has raised its limit", ROOM, || {
        let said = said();
        if said.contains("serving") { Ok(()) } else { Err(said) }
    });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", enough.id())).expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(files.split_whitespace().nth(3), Some("1000"), "{files}");
    enough.kill().expect("it runs");
    enough.wait().expect("it ends");
}
