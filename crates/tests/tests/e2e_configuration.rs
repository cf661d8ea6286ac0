//! Files and secrets of a service, with real processes: what they see, what a change does to them, and that no value of
//! a secret is anywhere but in memory.

use baton_tests::harness::{Cluster, ClusterOptions, Ran, ServiceFile, fixture, wait};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
const ROLLED_BACK: i32 = 3;
/// The value must be told from everything else on the machine.
const VALUE: &str = "correct-horse-battery-staple-7c4e";
const NEXT_VALUE: &str = "second-horse-battery-staple-91ab";
/// Those of the test that runs beside the one that looks for the others everywhere.
const THEIR_VALUE: &str = "third-horse-battery-staple-e07d";
const THEIR_NEXT_VALUE: &str = "fourth-horse-battery-staple-2f68";

fn cluster(nodes: u32) -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes, ..ClusterOptions::default() })
}

/// The fixture that answers with its files: `GET /PATH` reads below its two folders, `GET /hups` counts SIGHUPs.
fn configured(template: &str, on_change: &str) -> ServiceFile {
    ServiceFile::web("conf", 8080)
        .with_program(fixture("configured"), r#"["./server.py"]"#)
        .with_section(
            "files.\"app.conf\"",
            &format!("content = '''{template}'''\non_change = \"{on_change}\"\n"),
        )
        .with_section("placement", "replicas = 2\nmin_available = 1\n")
}

fn ask(address: &str, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect((address, 8080)).map_err(|error| error.to_string())?;
    let told = |error: std::io::Error| error.to_string();
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(told)?;
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").map_err(told)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(told)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(text) }
}

/// Waits until a workload answers so.
fn answers(address: &str, path: &str, expect: &str) {
    wait::until(&format!("`{expect}` at {address}/{path}"), ROOM, || match ask(address, path) {
        Ok(body) if body == expect => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn set_secret(cluster: &Cluster, name: &str, value: &str) -> Ran {
    let mut child = cluster
        .command(&["secret", "set", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("baton runs");
    child.stdin.take().expect("piped").write_all(value.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: Duration::ZERO,
    }
}

fn pids(cluster: &Cluster) -> Vec<(String, u64)> {
    cluster.pids("conf")
}

/// The address of a node by its name.
fn address_of(cluster: &Cluster, name: &Value) -> String {
    let nodes = cluster.ready["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["name"] == *name).expect("the node");
    node["address"].as_str().expect("an address").to_owned()
}

#[test]
fn templates_are_rendered_on_each_node_and_follow_its_peers() {
    let cluster = cluster(3);
    let template = "{{ service }} {{ instance }} {{ version }} {{ node.name }} {{ node.address }} {{ ports.http }}\n\
                    {% for peer in peers %}{{ peer.instance }} {{ peer.node }} {{ peer.address }}:{{ peer.ports.http }}\n{% endfor %}";
    let _ = cluster.deploy(&configured(template, "SIGHUP"), "1.0").expect(0);
    let instances = cluster.instances("conf");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let peers: String = instances
        .iter()
        .map(|it| {
            format!("{} {} {}:8080\n", text(&it["id"]), text(&it["node"]), address_of(&cluster, &it["node"]))
        })
        .collect();
    for instance in &instances {
        let (id, node, address) =
            (text(&instance["id"]), text(&instance["node"]), address_of(&cluster, &instance["node"]));
        answers(&address, "config/app.conf", &format!("conf {id} 1.0 {node} {address} 8080\n{peers}"));
        assert_eq!(ask(&address, "mode/config/app.conf").unwrap(), "444");
    }
    // A peer goes to another node: the one that stays has its file written anew, and is told, and not restarted.
    let (stays, goes) = (&instances[0], &instances[1]);
    let address = address_of(&cluster, &stays["node"]);
    let pid = stays["observed"]["pid"].clone();
    let hups =
        || ask(&address, "hups").and_then(|text| text.parse::<u32>().map_err(|error| error.to_string()));
    let before = hups().expect("a number");
    let _ = cluster.baton(&["node", "drain", &text(&goes["node"])]).expect(0);
    wait::until("another peer", ROOM, || {
        let written = ask(&address, "config/app.conf")?;
        let moved = !written.contains(&format!(" {} ", text(&goes["node"]))) && written.lines().count() == 3;
        let seen = ask(&address, "seen")? == written;
        if moved && seen && hups()? > before { Ok(()) } else { Err(written) }
    });
    let now = cluster.instances("conf");
    assert_eq!(now.iter().find(|it| it["id"] == stays["id"]).expect("it is there")["observed"]["pid"], pid);
}

#[test]
fn a_change_of_files_alone_is_told_by_its_signal_and_undone_by_it() {
    let cluster = cluster(2);
    let _ = cluster.deploy(&configured("one\n", "SIGHUP"), "1.0").expect(0);
    let before = pids(&cluster);
    let path = cluster.write("next.toml", &configured("two\n", "SIGHUP").text());
    let plan = cluster.baton(&["plan", &path, "--version", "2.0"]).expect(0).stdout;
    assert!(
        plan.contains("app.conf (signal SIGHUP)") && plan.contains("-one") && plan.contains("+two"),
        "{plan}"
    );
    assert!(plan.contains("no process is restarted") && plan.contains("batch 1 of 2"), "{plan}");
    let _ = cluster.deploy(&configured("two\n", "SIGHUP"), "2.0").expect(0);
    for node in 0..2 {
        answers(&cluster.address(node), "seen", "two\n");
        assert_eq!(ask(&cluster.address(node), "hups").unwrap(), "1");
    }
    assert_eq!(pids(&cluster), before, "no process was restarted");
    let _ = cluster.baton(&["rollout", "undo", "conf", "--watch"]).expect(0);
    answers(&cluster.address(0), "seen", "one\n");
    answers(&cluster.address(1), "seen", "one\n");
    assert_eq!(pids(&cluster), before);
    // One that asks for a restart is a swap.
    let _ = cluster.deploy(&configured("three\n", "restart"), "3.0").expect(0);
    answers(&cluster.address(0), "seen", "three\n");
    assert!(pids(&cluster).iter().all(|it| !before.contains(it)), "every process is another");
}

#[test]
fn a_file_that_makes_it_unhealthy_is_rolled_back_and_told_again() {
    let cluster = cluster(2);
    let _ = cluster.deploy(&configured("good\n", "SIGHUP"), "1.0").expect(0);
    let ran = cluster.deploy(&configured("unhealthy\n", "SIGHUP"), "2.0");
    assert_eq!(ran.code, ROLLED_BACK, "{}", ran.stderr);
    for node in 0..2 {
        answers(&cluster.address(node), "config/app.conf", "good\n");
        answers(&cluster.address(node), "healthz", "ok");
    }
}

#[test]
fn a_template_that_a_node_cannot_render_is_refused_before_anything_is_touched() {
    let cluster = cluster(1);
    let single = |file: ServiceFile| file.with_section("placement", "replicas = 1\n");
    let _ = cluster.deploy(&single(configured("one\n", "restart")), "1.0").expect(0);
    let before = pids(&cluster);
    // Offline, a name that nobody knows; on the node, a label that it has not.
    let path = cluster.write("bad.toml", &single(configured("a\n{{ node.adress }}\n", "restart")).text());
    let said = cluster.baton(&["validate", &path]).expect(2).stderr;
    assert!(said.contains("node.adress") && said.contains("line 2"), "{said}");
    let ran = cluster.deploy(&single(configured("a\n{{ node.labels.rack }}\n", "restart")), "2.0");
    assert_eq!(ran.code, ROLLED_BACK, "{}", ran.stderr);
    wait::until("the reason in the journal", ROOM, || {
        let events = cluster.baton(&["events", "--last", "50"]).expect(0).stdout;
        let told = events.contains("file `app.conf` cannot be made here") && events.contains("line 2");
        if told { Ok(()) } else { Err(events) }
    });
    assert_eq!(pids(&cluster), before);
    answers(&cluster.address(0), "seen", "one\n");
}

fn with_secret(file: ServiceFile, on_change: &str) -> ServiceFile {
    file.with_section(
        "secrets.db_password",
        &format!("secret = \"db-password\"\non_change = \"{on_change}\"\n"),
    )
}

#[test]
fn secrets_reach_their_service_and_nothing_else() {
    let cluster = cluster(2);
    let file = with_secret(configured("one\n", "SIGHUP"), "SIGHUP");
    let ran = cluster.deploy(&file, "0.9");
    assert!(ran.code != 0 && ran.stderr.contains("baton secret set db-password"), "{}", ran.stderr);
    let _ = set_secret(&cluster, "db-password", VALUE).expect(0);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    for node in 0..2 {
        assert_eq!(ask(&cluster.address(node), "secrets/db_password").unwrap(), VALUE);
        assert_eq!(ask(&cluster.address(node), "mode/secrets/db_password").unwrap(), "400");
        assert_eq!(ask(&cluster.address(node), "filesystem").unwrap(), "tmpfs");
    }
    nowhere(&cluster, VALUE);
    let before = pids(&cluster);

    // A new value reaches nobody until it is deployed; then by the signal, and an undo brings the old one back.
    let said = set_secret(&cluster, "db-password", NEXT_VALUE).expect(0).stderr;
    assert!(said.contains("revision 2") && said.contains("conf 1.0"), "{said}");
    assert_eq!(ask(&cluster.address(0), "secrets/db_password").unwrap(), VALUE);
    let path = cluster.write("again.toml", &file.text());
    let plan = cluster.baton(&["plan", &path, "--version", "2.0"]).expect(0).stdout;
    assert!(plan.contains("secret db_password: revision 1 -> 2 (signal SIGHUP)"), "{plan}");
    assert!(!plan.contains(VALUE) && !plan.contains(NEXT_VALUE), "{plan}");
    let same = cluster.baton(&["deploy", &path, "--version", "1.0"]);
    assert!(same.code != 0 && same.stderr.contains("older values of its secrets"), "{}", same.stderr);
    let _ = cluster.deploy(&file, "2.0").expect(0);
    for node in 0..2 {
        answers(&cluster.address(node), "secrets/db_password", NEXT_VALUE);
    }
    assert_eq!(pids(&cluster), before);
    let list = cluster.json(&["secret", "ls"]);
    assert_eq!(list[0]["revisions"].as_array().map(Vec::len), Some(2), "{list}");
    let refused = cluster.baton(&["secret", "rm", "db-password", "--yes"]);
    assert!(refused.code != 0 && refused.stderr.contains("in use by conf"), "{}", refused.stderr);
    let _ = cluster.baton(&["rollout", "undo", "conf", "--watch"]).expect(0);
    answers(&cluster.address(0), "secrets/db_password", VALUE);
    nowhere(&cluster, VALUE);
    nowhere(&cluster, NEXT_VALUE);

    // The agent's death takes nothing away, and a crash of the workload finds its secret again.
    let node = cluster.ready["nodes"][0]["name"].as_str().unwrap().to_owned();
    cluster.kill(cluster.role_pid(&node));
    let pid = pids(&cluster)[0].1;
    cluster.kill(pid);
    wait::until("another process", ROOM, || {
        let now = pids(&cluster);
        if now.len() == 2 && now.iter().all(|(_, other)| *other != pid) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    answers(&cluster.address(0), "secrets/db_password", VALUE);
    answers(&cluster.address(1), "secrets/db_password", VALUE);

    // With the service its files and its secret's use are gone, from memory too.
    assert!(in_memory(NEXT_VALUE) || in_memory(VALUE), "this test looks where secrets are");
    let _ = cluster.baton(&["service", "rm", "conf", "--yes"]).expect(0);
    wait::until("no service", ROOM, || {
        let ran = cluster.baton(&["secret", "rm", "db-password", "--yes"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    assert_eq!(cluster.json(&["secret", "ls"]), Value::Array(Vec::new()));
    wait::until("no value in memory", ROOM, || {
        if in_memory(VALUE) || in_memory(NEXT_VALUE) { Err("one is there".to_owned()) } else { Ok(()) }
    });
}

/// Lets every user walk to the node's folders: the test's own is its owner's alone, unlike an agent's.
fn let_others_in(cluster: &Cluster) {
    use std::os::unix::fs::PermissionsExt as _;
    let node = PathBuf::from(cluster.ready["nodes"][0]["dir"].as_str().expect("its folder"));
    for folder in node.ancestors().take_while(|folder| folder.starts_with(cluster.folder())) {
        let mode = std::fs::metadata(folder).expect("a folder").permissions().mode() | 0o011;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    }
}

/// Of an agent that is root, as the package has it: what a service is given belongs to the user it runs as, also when it
/// is written anew, and to nobody else.
#[test]
fn files_and_secrets_belong_to_the_user_of_the_sandbox() {
    const NOBODY: &str = "65534";
    let me = nix::unistd::Uid::effective();
    assert!(me.is_root(), "this test gives files to another user: run it as root (it runs as {me})");
    let cluster = cluster(1);
    let_others_in(&cluster);
    let _ = set_secret(&cluster, "db-password", THEIR_VALUE).expect(0);
    let service = |content: &str| {
        with_secret(configured(content, "SIGHUP"), "SIGHUP")
            .with_section("placement", "replicas = 1\n")
            .with_section("sandbox", "user = \"nobody\"\n")
    };
    let _ = cluster.deploy(&service("one\n"), "1.0").expect(0);
    let address = cluster.address(0);
    let is = |path: &str, expect: &str| assert_eq!(ask(&address, path).as_deref(), Ok(expect), "{path}");
    let theirs = || {
        is("user", NOBODY);
        for file in ["secrets/db_password", "config/app.conf"] {
            is(&format!("owner/{file}"), NOBODY);
        }
        is("mode/secrets/db_password", "400");
    };
    theirs();
    is("secrets/db_password", THEIR_VALUE);
    let before = pids(&cluster);
    let _ = set_secret(&cluster, "db-password", THEIR_NEXT_VALUE).expect(0);
    let _ = cluster.deploy(&service("two\n"), "2.0").expect(0);
    answers(&address, "seen", "two\n");
    answers(&address, "secrets/db_password", THEIR_NEXT_VALUE);
    theirs();
    assert_eq!(pids(&cluster), before, "the same process reads them");

    // Somebody else of this machine finds the same files shut.
    let environment = std::fs::read(format!("/proc/{}/environ", before[0].1)).expect("it runs");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let secrets =
        environment.split('\0').find_map(|it| it.strip_prefix("BATON_SECRETS_DIR=")).expect("it is set");
    let read = |user: &str| {
        let mut cat = std::process::Command::new("setpriv");
        cat.args(["--reuid", user, "--regid", user, "--clear-groups", "cat"])
            .arg(format!("{secrets}/db_password"));
        cat.output().expect("setpriv of util-linux")
    };
    assert_eq!(
        String::from_utf8_lossy(&read(NOBODY).stdout),
        THEIR_NEXT_VALUE,
        "this test reads as its user would"
    );
    let stranger = read("33");
    assert!(!stranger.status.success() && stranger.stdout.is_empty(), "{stranger:?}");
}

/// Whether a value is in any of the folders in memory that agents of this user may take.
fn in_memory(value: &str) -> bool {
    let user = nix::unistd::Uid::effective();
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join("baton"));
    let mut folders = vec![PathBuf::from("/run/baton"), PathBuf::from(format!("/dev/shm/baton-{user}"))];
    folders.extend(session);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).is_ok_and(|bytes| bytes == value.as_bytes()) {
                return true;
            }
        }
    }
    false
}

/// Looks for a value in every file of the cluster, in the journal, in the logs and in what `/proc` shows of processes.
fn nowhere(cluster: &Cluster, value: &str) {
    let holds = |bytes: &[u8]| bytes.windows(value.len()).any(|window| window == value.as_bytes());
    let mut folders = vec![cluster.folder().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files += 1;
                assert!(
                    !std::fs::read(&path).is_ok_and(|bytes| holds(&bytes)),
                    "{} holds it",
                    path.display()
                );
            }
        }
    }
    assert!(files > 10, "only {files} files were looked at");
    let mut processes = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        for name in ["cmdline", "environ"] {
            let path: PathBuf = entry.path().join(name);
            if let Ok(bytes) = std::fs::read(&path) {
                processes += 1;
                assert!(!holds(&bytes), "{} shows it", path.display());
            }
        }
    }
    assert!(processes > 4, "only {processes} processes were looked at");
    for args in [
        &["events", "--last", "0", "--json"][..],
        &["service", "show", "conf", "--json"],
        &["logs", "conf", "--tail", "100"],
        &["secret", "ls", "--json"],
    ] {
        let ran = cluster.baton(args);
        assert!(!ran.stdout.contains(value) && !ran.stderr.contains(value), "{args:?} shows it");
    }
    assert!(Path::new("/proc/self/environ").exists());
}
