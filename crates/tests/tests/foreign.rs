//! Servers that nobody here wrote, from Debian's packages, as workloads. Needs `redis-server`, `nginx` and `python3`;
//! a missing one fails loudly.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::users::{Crowd, everyone};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
/// Exit code of a deploy that waits for an operator.
const PAUSED: i32 = 5;
const USERS: usize = 100;
const ROLLOUT: &str = "batch = 1\nmax_unavailable = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"15s\"\nprogress_deadline = \"60s\"\n";

const HTTP_CHECK: &str =
    "kind = \"http\"\nport = \"http\"\npath = \"/\"\ninterval = \"500ms\"\ntimeout = \"490ms\"\n";
/// nginx ends what it is at on SIGQUIT.
const NGINX_STOP: &str = "signal = \"SIGQUIT\"\ntimeout = \"5s\"\ndrain = \"2s\"\n";

fn one_node() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

fn need(program: &str) -> String {
    for folder in ["/usr/bin", "/usr/sbin", "/usr/local/bin"] {
        let path = format!("{folder}/{program}");
        if std::path::Path::new(&path).exists() {
            return path;
        }
    }
    panic!("{program} is not installed: apt-get install redis-server nginx-light python3");
}

#[test]
fn redis_on_a_fixed_port_is_swapped_and_healed() {
    let redis = need("redis-server");
    let cluster = one_node();
    let file = ServiceFile::web("redis", 1)
        .with_program(
            &redis,
            r#"["redis-server", "--bind", "${NODE_ADDRESS}", "--port", "${PORT_REDIS}", "--save", ""]"#,
        )
        .with_ports("[ports.redis]\nkind = \"fixed\"\nport = 6399\n")
        .with_section("placement", "replicas = 1\n")
        .with_section(
            "checks.readiness",
            "kind = \"tcp\"\nport = \"redis\"\ninterval = \"500ms\"\ntimeout = \"490ms\"\n",
        )
        .with_section("rollout", ROLLOUT);
    let _ = cluster.deploy(&file, "7.0").expect(0);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(format!("{}:6399", cluster.address(0)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    assert_eq!(ask().expect("redis answers"), "+PONG\r\n");
    let (_, pid) = cluster.pids("redis").swap_remove(0);
    cluster.kill(pid);
    wait::until("redis again", ROOM, || ask().map_err(|error| error.to_string()));
    let _ = cluster.deploy(&file.with_env("MORE", "1"), "7.1").expect(0);
    assert_eq!(ask().expect("redis answers"), "+PONG\r\n");
}

/// An nginx that says its version, and writes only below the folder that is its prefix.
fn nginx_config(listen: &str, version: &str) -> String {
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temp = temp.map(|kind| format!("{kind}_temp_path tmp-{kind};")).join(" ");
    format!(
        "daemon off; worker_processes 1; pid run.pid; error_log stderr;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; {temp}\n\
         server {{ listen {listen}; location / {{ return 200 \"version={version} nginx\\n\"; }} }} }}\n"
    )
}

#[test]
fn nginx_takes_the_socket_and_is_swapped_under_load() {
    let nginx = need("nginx");
    let cluster = one_node();
    let site = cluster.folder().join("site");
    std::fs::create_dir_all(&site).expect("a folder");
    let config = nginx_config("ADDRESS:8088", "VERSION");
    std::fs::write(site.join("nginx.conf"), config).expect("a file");
    // nginx takes inherited listening sockets from the variable NGINX, as its own binary upgrade uses it.
    let start = format!(
        "d=$(mktemp -d) && sed \"s/ADDRESS/$NODE_ADDRESS/; s/VERSION/$BATON_VERSION/\" nginx.conf > $d/nginx.conf && NGINX='3;' exec {nginx} -p $d -c $d/nginx.conf"
    );
    let exec = format!("[\"/bin/sh\", \"-c\", {start:?}]");
    let file = ServiceFile::web("nginx", 8088)
        .with_program(&site, &exec)
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("placement", "replicas = 1\n")
        .with_section("stop", NGINX_STOP)
        .with_section("checks.readiness", HTTP_CHECK)
        .with_section("rollout", ROLLOUT);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let target = format!("{}:8088", cluster.address(0)).parse().expect("an address");
    let load = Load::start(&Plan {
        targets: vec![target],
        connections: 8,
        rate: Some(400.0),
        requests_per_connection: 1,
    });
    load.await_version("1.0");
    let _ = cluster.deploy(&file, "2.0").expect(0);
    load.await_version("2.0");
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    assert!(counted.versions["1.0"] > 0 && counted.versions["2.0"] > 0, "{:?}", counted.versions);
}

#[test]
fn pythons_own_web_server_runs_on_a_dynamic_port() {
    let python = need("python3");
    let cluster = one_node();
    let site = cluster.folder().join("site");
    std::fs::create_dir_all(&site).expect("a folder");
    std::fs::write(site.join("index.html"), "version=python\n").expect("a file");
    let exec =
        format!(r#"["{python}", "-m", "http.server", "--bind", "${{NODE_ADDRESS}}", "${{PORT_HTTP}}"]"#);
    let file = ServiceFile::web("pages", 1)
        .with_program(&site, &exec)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_section("placement", "replicas = 1\n")
        .with_section("checks.readiness", HTTP_CHECK)
        .with_section("rollout", ROLLOUT);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let port = cluster.instances("pages")[0]["observed"]["ports"]["http"].as_u64().expect("a port");
    let target = format!("{}:{port}", cluster.address(0)).parse().expect("an address");
    let load = Load::start(&Plan {
        targets: vec![target],
        connections: 2,
        rate: Some(50.0),
        requests_per_connection: 1,
    });
    wait::until("fifty requests", ROOM, || {
        if load.sent() >= 50 { Ok(()) } else { Err(load.sent().to_string()) }
    });
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "{:#?}", counted.failures);
}

/// nginx as a service file of its users has it: its configuration from a template, its port given by the node.
fn nginx_behind_gateways(cluster: &Cluster, nginx: &str) -> ServiceFile {
    let config = nginx_config("{{ node.address }}:{{ ports.http }}", "{{ version }}");
    let site = cluster.folder().join("site");
    std::fs::create_dir_all(&site).expect("a folder");
    std::fs::write(site.join("README"), "nothing but a configuration\n").expect("a file");
    let start = format!("d=$(mktemp -d) && exec {nginx} -p $d -c ${{CONFIG_DIR}}/nginx.conf");
    ServiceFile::web("pages", 1)
        .with_program(&site, &format!("[\"/bin/sh\", \"-c\", {start:?}]"))
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_section("files.\"nginx.conf\"", &format!("content = '''\n{config}'''\n"))
        .with_section("placement", "replicas = 2\n")
        .with_section("route", "path = \"/\"\nsplit_by = \"header:x-user\"\n")
        // On a machine that is slow for a moment no instance must be left out: its users would be moved.
        .with_section("route.check", "interval = \"30s\"\ntimeout = \"30s\"\nfall = 10\n")
        .with_section("route.ejection", "failures = 0\n")
        .with_section("stop", NGINX_STOP)
        .with_section("checks.readiness", HTTP_CHECK)
}

#[test]
fn nginx_behind_two_gateways_goes_through_every_strategy_under_load() {
    let nginx = need("nginx");
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() });
    let file = nginx_behind_gateways(&cluster, &nginx);
    let by = |strategy: &str, section: &str, its_own: &str| {
        let rollout = format!("strategy = \"{strategy}\"\nmin_healthy = \"200ms\"\n");
        let file = file.clone().with_section("rollout", &rollout);
        file.with_section(section, its_own).with_section(
            "rollout.analysis.errors",
            "metric = \"error-share\"\nmax = \"0%\"\nmin_requests = 20\n",
        )
    };
    let all = |version: &str| {
        let _ = cluster.routed("pages");
        let versions = everyone(&cluster.gateways(), USERS);
        assert!(versions.iter().all(|it| it == version), "{version} and nothing else: {versions:?}");
    };
    let _ = cluster.deploy(&file, "1.0").expect(0);
    all("1.0");
    let crowd = Crowd::start(&cluster.gateways(), USERS, 200.0);
    crowd.go_round();
    let canary = by("canary", "rollout.canary", "steps = [\"50%\", \"100%\"]\nbake = \"1s\"\n");
    let _ = cluster.deploy(&canary, "2.0").expect(0);
    all("2.0");
    crowd.go_round();
    let switched = by("blue-green", "rollout.blue_green", "bake = \"500ms\"\nkeep_warm = \"1h\"\n");
    let _ = cluster.deploy(&switched, "3.0").expect(0);
    all("3.0");
    crowd.go_round();
    let _ = cluster.baton(&["rollout", "undo", "pages", "--watch"]).expect(0);
    all("2.0");
    crowd.go_round();
    let split = by("ab", "rollout.ab", "key = \"header:x-user\"\nshare = \"50%\"\nduration = \"1s\"\n");
    let _ = cluster.deploy(&split, "4.0").expect(PAUSED);
    let arms: BTreeSet<String> = everyone(&cluster.gateways(), USERS).into_iter().collect();
    assert_eq!(Vec::from_iter(arms), ["2.0", "4.0"]);
    let _ = cluster.baton(&["rollout", "promote", "pages", "--watch"]).expect(0);
    all("4.0");
    crowd.go_round();
    let copied = by("dark", "rollout.dark", "share = \"100%\"\nduration = \"1s\"\nthen = \"promote\"\n");
    let _ = cluster.deploy(&copied.with_section("rollout.analysis.errors", ""), "5.0").expect(0);
    all("5.0");
    crowd.go_round();
    let answered = crowd.stop();
    println!("nginx by every strategy: {:?}", answered.moves);
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
    assert_eq!(
        answered.passages(),
        [("1.0", "2.0"), ("2.0", "3.0"), ("2.0", "4.0"), ("3.0", "2.0"), ("4.0", "5.0")],
        "{:?}",
        answered.moves
    );
}
