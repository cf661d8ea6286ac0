//! Workloads that behave as badly as they can, beside one that behaves: contained, explained, and nobody else's trouble.
//!
//! What needs controllers of control groups (a memory hog, a fork bomb under its limit) is in the guest of
//! `cargo xtask guest`; a workload that is deaf to SIGTERM, and one that daemonises, are in `e2e_processes`.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
const ROLLED_BACK: i32 = 3;
const FAILED: i32 = 4;

fn one_node() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

/// A service of one instance that runs this Python, without ports and checks.
fn python(name: &str, program: &str) -> ServiceFile {
    let exec = format!("[\"/usr/bin/python3\", \"-c\", '''\n{program}''']");
    ServiceFile::web(name, 1)
        .with_program("/bin/true", &exec)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("placement", "replicas = 1\n")
        .with_section("stop", "timeout = \"2s\"\ndrain = \"0s\"\n")
}

/// The children of a process, with their states as proc_pid_stat(5) has them.
fn children(parent: u64) -> Vec<(u64, char)> {
    let stat = |pid: u64| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        Some((words.next()?.chars().next()?, words.next()?.parse::<u64>().ok()?))
    };
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).filter(|(_, above)| *above == parent).map(|(state, _)| (pid, state)))
        .collect()
}

fn pid_of(cluster: &Cluster, service: &str) -> u64 {
    cluster.pids(service).first().map(|(_, pid)| *pid).expect("it runs")
}

fn remove(cluster: &Cluster, service: &str, pid: u64) {
    let _ = cluster.baton(&["service", "rm", service, "--yes"]).expect(0);
    wait::until("its end", ROOM, || if wait::is_alive(pid) { Err("alive".into()) } else { Ok(()) });
}

/// The neighbour of all that follows.
fn neighbour(cluster: &Cluster) -> u64 {
    let file = ServiceFile::web("neighbour", 8080).with_section("placement", "replicas = 1\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    pid_of(cluster, "neighbour")
}

/// It was never restarted, is ready, and the agent is the one of the beginning.
fn is_unharmed(cluster: &Cluster, neighbour: u64, agent: u64) {
    // One check may be late on a machine that is busy.
    let observed = wait::until("the neighbour to be ready", ROOM, || {
        let observed = cluster.instances("neighbour")[0]["observed"].clone();
        if observed["state"] == "ready" { Ok(observed) } else { Err(observed.to_string()) }
    });
    assert_eq!((observed["pid"].as_u64(), observed["restarts"].as_u64()), (Some(neighbour), Some(0)));
    assert_eq!(cluster.role_pid("node-1"), agent, "the agent was not restarted");
    wait::until("the node to be connected", ROOM, || {
        let node = cluster.json(&["node", "show", "node-1"]);
        if node["connected"] == true { Ok(()) } else { Err(node.to_string()) }
    });
}

#[test]
fn bad_neighbours_do_no_harm() {
    let cluster = one_node();
    let agent = cluster.role_pid("node-1");
    let good = neighbour(&cluster);
    zombies(&cluster);
    closed_output(&cluster);
    no_newline(&cluster);
    ten_thousand_files(&cluster);
    a_child_that_keeps_the_port(&cluster);
    is_unharmed(&cluster, good, agent);
}

/// Children nobody waits for are the workload's own as long as it lives, and gone with it.
fn zombies(cluster: &Cluster) {
    let program =
        "import os, time\nfor n in range(300):\n    os.fork() or os._exit(0)\nwhile True: time.sleep(60)\n";
    let _ = cluster.deploy(&python("zombies", program), "1.0").expect(0);
    let pid = pid_of(cluster, "zombies");
    let dead = || children(pid).into_iter().filter(|(_, state)| *state == 'Z').collect::<Vec<_>>();
    wait::until("300 zombies", ROOM, || match dead().len() {
        300.. => Ok(()),
        few => Err(few.to_string()),
    });
    let all = dead();
    remove(cluster, "zombies", pid);
    wait::until("no zombie", ROOM, || {
        let left =
            all.iter().filter(|(pid, _)| std::path::Path::new(&format!("/proc/{pid}")).exists()).count();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    });
}

/// The end of the output is not the end of the workload.
fn closed_output(cluster: &Cluster) {
    let program = "import os, time\nprint('the last line', flush=True)\nos.close(1); os.close(2)\nwhile True: time.sleep(60)\n";
    let _ = cluster.deploy(&python("mute", program), "1.0").expect(0);
    let pid = pid_of(cluster, "mute");
    // Both were closed: standard input alone is left of the three.
    let closed = || [1, 2].iter().all(|fd| !std::path::Path::new(&format!("/proc/{pid}/fd/{fd}")).exists());
    wait::until("the closed outputs", ROOM, || if closed() { Ok(()) } else { Err("open".into()) });
    wait::until("its last line", ROOM, || {
        let said = cluster.baton(&["logs", "mute", "--tail", "5"]).expect(0).stdout;
        if said.contains("the last line") { Ok(()) } else { Err(said) }
    });
    assert_eq!(cluster.instances("mute")[0]["observed"]["restarts"].as_u64(), Some(0));
    remove(cluster, "mute", pid);
}

/// 30 MB without a line's end: divided, bounded, and read back.
fn no_newline(cluster: &Cluster) {
    let program = "import os, time\nfor n in range(30): os.write(1, b'x' * 1000000)\nopen(os.environ['HOME'] + '/done', 'w')\nwhile True: time.sleep(60)\n";
    let file = python("endless", program).with_section("logs", "max_size = \"1MiB\"\nkeep = 2\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let pid = pid_of(cluster, "endless");
    let home = environment(pid, "HOME");
    wait::until("all is written", ROOM, || {
        if std::path::Path::new(&home).join("done").exists() { Ok(()) } else { Err("writing".into()) }
    });
    let said = cluster.baton(&["logs", "endless", "--tail", "1"]).expect(0).stdout;
    assert!(said.len() < 2 << 20, "{} bytes of one line", said.len());
    remove(cluster, "endless", pid);
}

/// They are the workload's own descriptors, and its limit is its own.
fn ten_thousand_files(cluster: &Cluster) {
    let program =
        "import time\nfiles = [open('/dev/null') for n in range(10000)]\nwhile True: time.sleep(60)\n";
    let file = python("hoarder", program).with_section("limits", "open_files = 10100\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let pid = pid_of(cluster, "hoarder");
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    wait::until("10,000 open files", ROOM, || match open() {
        10_000.. => Ok(()),
        few => Err(few.to_string()),
    });
    remove(cluster, "hoarder", pid);
    // With a lower limit it fails by itself, and says why.
    let _ = cluster.deploy(&python("greedy", program).with_section("limits", "open_files = 100\n"), "1.0");
    wait::until("its reason", ROOM, || {
        let said = cluster.baton(&["logs", "greedy", "--tail", "5"]).expect(0).stdout;
        if said.contains("Too many open files") { Ok(()) } else { Err(said) }
    });
    let _ = cluster.baton(&["service", "rm", "greedy", "--yes"]).expect(0);
}

/// The first life dies and leaves a child with the listening socket; the second finds the port free.
fn a_child_that_keeps_the_port(cluster: &Cluster) {
    let program = "import os, socket, sys, time\n\
                   server = socket.socket()\n\
                   server.bind((os.environ['SERVER_ADDRESS'], 8097))\n\
                   server.listen()\n\
                   first = os.environ['HOME'] + '/first'\n\
                   if not os.path.exists(first):\n\
                   \x20   open(first, 'w')\n\
                   \x20   if os.fork() == 0:\n\
                   \x20       os.setsid()\n\
                   \x20       while True: time.sleep(60)\n\
                   \x20   sys.exit(1)\n\
                   while True: time.sleep(60)\n";
    let file = python("keeper", program)
        .with_env("SERVER_ADDRESS", "${NODE_ADDRESS}")
        .with_ports("[ports.http]\nkind = \"fixed\"\nport = 8097\n")
        .with_section("placement", "replicas = 1\nmin_available = 0\n")
        .with_section(
            "checks.readiness",
            "kind = \"tcp\"\nport = \"http\"\ninterval = \"500ms\"\ntimeout = \"490ms\"\n",
        );
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let observed = wait::until("its second life", ROOM, || {
        let observed = cluster.instances("keeper")[0]["observed"].clone();
        let again = observed["restarts"] != 0 && observed["state"] == "ready";
        if again { Ok(observed) } else { Err(observed.to_string()) }
    });
    assert_eq!(
        observed["restarts"].as_u64(),
        Some(1),
        "one crash, and the next life had the port: {observed}"
    );
    remove(cluster, "keeper", pid_of(cluster, "keeper"));
}

fn environment(pid: u64, name: &str) -> String {
    let text = std::fs::read(format!("/proc/{pid}/environ")).expect("a workload of ours");
    let text = String::from_utf8_lossy(&text);
    let value = text.split('\0').find_map(|variable| variable.strip_prefix(&format!("{name}=")));
    value.expect("it is set").to_owned()
}

#[test]
fn what_a_node_cannot_honour_is_refused_before_the_swap() {
    let cluster = one_node();
    let good = neighbour(&cluster);
    let ability = cluster.json(&["node", "show", "node-1"])["facts"]["ability"].clone();
    let shown = cluster.baton(&["node", "show", "node-1"]).expect(0).stdout;
    assert!(shown.contains("\nlimits ") && shown.contains("\nsandbox "), "{shown}");

    let web = || ServiceFile::web("neighbour", 8080).with_section("placement", "replicas = 1\n");
    for (version, section, body, reason) in [
        ("2.0", "sandbox", "user = \"no-such-user\"\n", "user `no-such-user` does not exist on this node"),
        ("3.0", "sandbox", "hidden = [\"/no/such/folder\"]\n", "/no/such/folder"),
        ("4.0", "sandbox", "working_directory = \"nowhere\"\n", "not a folder inside the artifact"),
        ("5.0", "limits", "open_files = 1073741760\n", "LimitNOFILE="),
    ] {
        let ran = cluster.deploy(&web().with_section(section, body), version);
        assert_eq!(ran.code, ROLLED_BACK, "{version}: {} {}", ran.stdout, ran.stderr);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        // An agent that may not mount says that first.
        assert!(said.contains(reason) || said.contains("needs mounts of its own"), "{version}: {said}");
        let observed = &cluster.instances("neighbour")[0]["observed"];
        assert_eq!(observed["pid"].as_u64(), Some(good), "{version}: the running version is untouched");
    }

    // A first release has nothing to go back to: it fails at once.
    let ran = cluster.deploy(
        &python("hungry", "import time\ntime.sleep(1000)\n")
            .with_section("limits", "memory_max = \"64MiB\"\n"),
        "1.0",
    );
    let has_memory = ability["controllers"].as_array().is_some_and(|all| all.iter().any(|it| it == "memory"));
    if has_memory {
        assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    } else {
        assert_eq!(ran.code, FAILED, "{} {}", ran.stdout, ran.stderr);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("`limits.memory_max` needs the memory controller"), "{said}");
    }
}

#[test]
fn a_checks_command_runs_in_the_workloads_sandbox() {
    let cluster = one_node();
    let sleeper = || python("masked", "import time\ntime.sleep(1000)\n");
    let asks = |mask: &str| {
        format!(
            "kind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"[ $(umask) = {mask} ]\"]\ninterval = \"2s\"\ntimeout = \"2s\"\n"
        )
    };
    let file = sleeper().with_section("sandbox", "umask = \"027\"\n");
    let _ = cluster.deploy(&file.clone().with_section("checks.readiness", &asks("0027")), "1.0").expect(0);
    let good = pid_of(&cluster, "masked");
    let ran = cluster.deploy(&file.with_section("checks.readiness", &asks("0022")), "2.0");
    assert_eq!(ran.code, ROLLED_BACK, "a check of another mask fails: {}", ran.stdout);
    assert_eq!(pid_of(&cluster, "masked"), good);

    // Another user: root's agent switches to it, any other refuses before the swap.
    let ran = cluster.deploy(&sleeper().with_section("sandbox", "user = \"nobody\"\n"), "3.0");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    if ran.code == 0 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", pid_of(&cluster, "masked"))).expect("it runs");
        assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
        assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    } else {
        assert_eq!(ran.code, ROLLED_BACK, "{said}");
        // Of an agent that is not root; or the test's folder is its owner's alone.
        let refused = ["without the right to switch", "user nobody may not enter"];
        assert!(refused.iter().any(|reason| said.contains(reason)), "{said}");
        assert_eq!(pid_of(&cluster, "masked"), good);
    }
}
