//! What an operator may do wrong or meet broken: each ends in time, with what to do, and changes nothing.
//!
//! Tokens and names are in `e2e_identity`, service files in the parser's own tests, a message of 100 MB in the
//! coordinator's. The cases here share clusters, since starting one is most of what a case would cost.

use baton_tests::harness::{Cluster, ClusterOptions, Ran, ServiceFile, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A command that meets silence gives up after 5 s; the machine may be busy.
const BOUND: Duration = Duration::from_secs(30);
/// An upload takes a moment on any machine with this many bytes, so it can be cut in its middle.
const LARGE_BYTES: usize = 150 * 1024 * 1024;

/// Fails unless the command ended in time with `code`, and told all of `words`.
#[track_caller]
fn told(ran: Ran, code: i32, words: &[&str]) {
    assert!(ran.took < BOUND, "it took {:?}", ran.took);
    let ran = ran.expect(code);
    for word in words {
        assert!(ran.stderr.contains(word), "no `{word}` in:\n{}", ran.stderr);
    }
}

/// A process that is stopped until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: u64) -> Self {
        let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        kill(pid, Signal::SIGSTOP).expect("it runs");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_coordinator_that_is_not_there_not_ours_or_hung() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    wrong_addresses(&cluster);
    a_hung_coordinator(&cluster);
    an_upload_survives_the_coordinators_death(&cluster);
}

/// `baton service ls` where the context names another address.
fn at(cluster: &Cluster, address: &str) -> Ran {
    let file = cluster.config_dir().join("contexts/dev/coordinator");
    let before = std::fs::read_to_string(&file).expect("the context's address");
    std::fs::write(&file, address).expect("the context can be written");
    let ran = cluster.baton(&["service", "ls"]);
    std::fs::write(&file, before).expect("the context can be written");
    ran
}

fn wrong_addresses(cluster: &Cluster) {
    told(at(cluster, "http://127.0.0.1:7443"), 2, &["is not an address", "HOST:PORT"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    // The kernel takes the connection, and nobody ever answers on it.
    told(at(cluster, &address), 1, &[&address, "did not answer within 5 s", "do: "]);
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("the silent one's");
        let _ = connection.set_read_timeout(Some(BOUND));
        drop(connection.read(&mut [0; 16]));
        let (mut connection, _) = listener.accept().expect("a connection");
        let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        drop(connection.read(&mut [0; 4096]));
    });
    told(at(cluster, &address), 1, &["is not a Baton coordinator", "does not speak TLS"]);
    server.join().expect("the plaintext server");
    told(at(cluster, &address), 1, &["cannot reach", "refused", "baton coordinator run"]);
}

fn a_hung_coordinator(cluster: &Cluster) {
    let mut followed = cluster
        .command(&["events", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("baton runs");
    // What has happened so far is told first: from then on it follows.
    let mut told_so_far = BufReader::new(followed.stdout.take().expect("piped"));
    told_so_far.read_line(&mut String::new()).expect("an event");
    let stopped = Stopped::new(cluster.role_pid("coordinator"));
    for command in [&["service", "ls"][..], &["node", "cordon", "node-1"], &["logs", "web", "--follow"]] {
        told(cluster.baton(command), 1, &["cannot reach", "within 5 s", "do: "]);
    }
    let said =
        BufReader::new(followed.stderr.take().expect("piped")).lines().next().expect("a line").expect("text");
    assert!(said.contains("the connection to the coordinator was lost"), "{said}");
    assert!(
        followed.try_wait().expect("it can be asked").is_none(),
        "it goes on when the coordinator is back"
    );
    drop(stopped);
    wait::until("an answer after the pause", BOUND, || {
        let node = &cluster.asked(&["node", "show", "node-1"])?["node"];
        if node["cordoned"] == false { Ok(()) } else { Err(node.to_string()) }
    });
    followed.kill().expect("it goes on");
    followed.wait().expect("it ended");
}

fn an_upload_survives_the_coordinators_death(cluster: &Cluster) {
    let folder = cluster.folder().join("large");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("ballast"), noise(LARGE_BYTES)).expect("room for the ballast");
    script(&folder.join("run"), "#!/bin/sh\nexec sleep 86400\n");
    let file = ServiceFile::web("large", 8190)
        .with_program(&folder, r#"["run"]"#)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("placement", "replicas = 1\n");
    let path = cluster.write("large.toml", &file.text());
    let deploy = cluster
        .command(&["deploy", &path, "--version", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("baton runs");
    let partial = coordinator_artifacts(cluster).join("partial");
    let stopped = wait::until("a part of the upload", BOUND, || {
        let held = std::fs::read_dir(&partial).into_iter().flatten().flatten();
        let most = held.filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).max();
        let enough = most > Some(8 * 1024 * 1024);
        if enough { Ok(Stopped::new(deploy.id().into())) } else { Err(format!("{most:?}")) }
    });
    cluster.kill(cluster.role_pid("coordinator"));
    drop(stopped);
    let deploy = deploy.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&deploy.stderr);
    assert_eq!(deploy.status.code(), Some(0), "{said}");
    assert!(said.contains("the upload was interrupted"), "it was cut in its middle: {said}");
    assert!(said.contains("150.0 MiB sent"), "{said}");
}

#[test]
fn an_artifact_that_cannot_run_or_has_changed() {
    let cluster = Cluster::start();
    let good = ServiceFile::web("web", 8191);
    let _ = cluster.deploy(&good, "1").expect(0);
    let before = cluster.pids("web");
    what_cannot_run_is_rolled_back(&cluster, &good);
    assert_eq!(cluster.pids("web"), before, "the release before was not touched");
    one_program_runs_under_each_of_its_names(&cluster);
    damage_on_a_node_is_mended_by_the_next_start(&cluster, &good);
    damage_in_the_store_is_told_and_mended(&cluster);
    nowhere_to_go(&cluster);
}

fn what_cannot_run_is_rolled_back(cluster: &Cluster, good: &ServiceFile) {
    let mut foreign = std::fs::read("/bin/true").expect("a program");
    // e_machine of the ELF header: 183 is AArch64, 62 is x86-64.
    foreign[18] = if foreign[18] == 183 { 62 } else { 183 };
    let cases = [
        ("foreign", program(cluster, "foreign", &foreign), "is built for"),
        ("unlinked", unlinked_program(cluster), "libgone.so: cannot open shared object file"),
        ("orphan", program(cluster, "orphan", b"#!/no/such/interpreter\n"), "which is not here"),
    ];
    for (name, artifact, why) in cases {
        let file = good.clone().with_program(&artifact, &format!("[\"{name}\"]"));
        let ran = cluster.deploy(&file, name).expect(3);
        assert!(ran.stdout.contains(why), "no `{why}` in:\n{}", ran.stdout);
    }
}

/// The same bytes as two services, and as two releases of one: each node has them under both names.
fn one_program_runs_under_each_of_its_names(cluster: &Cluster) {
    let bytes = b"#!/bin/sh\nexec sleep 86400\n";
    for (service, version, name) in
        [("clerk", "1", "clerk"), ("porter", "1", "porter"), ("clerk", "2", "porter")]
    {
        let file = ServiceFile::web(service, 8194)
            .with_program(program(cluster, name, bytes), &format!("[\"{name}\"]"))
            .with_ports("")
            .with_section("checks.readiness", "");
        let _ = cluster.deploy(&file, version).expect(0);
    }
    for service in ["clerk", "porter"] {
        assert_eq!(cluster.pids(service).len(), 3);
        let _ = cluster.baton(&["service", "rm", service, "--yes"]).expect(0);
    }
}

/// The tree on a node is changed where it lies; the next start of the same content fetches it anew.
fn damage_on_a_node_is_mended_by_the_next_start(cluster: &Cluster, good: &ServiceFile) {
    let digest = digest_of(cluster, "web", "1");
    let node = PathBuf::from(cluster.ready["nodes"][0]["dir"].as_str().expect("its folder"));
    let program = node.join("artifacts").join(&digest).join("tree/server.py");
    let whole = std::fs::read(&program).expect("the unpacked program");
    flip(&program);
    let _ = cluster.deploy(&good.clone().with_env("AGAIN", "1"), "2").expect(0);
    assert_eq!(std::fs::read(&program).expect("the program"), whole, "the node fetched it anew");
}

/// A blob that changed on the coordinator's disk is never handed out; deploying again replaces it.
fn damage_in_the_store_is_told_and_mended(cluster: &Cluster) {
    let folder = cluster.folder().join("fresh");
    std::fs::create_dir_all(&folder).expect("a folder");
    script(&folder.join("run"), "#!/bin/sh\nexec sleep 86400\n");
    let file = ServiceFile::web("fresh", 8192)
        .with_program(&folder, r#"["run"]"#)
        .with_ports("")
        .with_section("checks.readiness", "");
    let one = file.clone().with_section("placement", "replicas = 1\n");
    let _ = cluster.deploy(&one, "1").expect(0);
    flip(&coordinator_artifacts(cluster).join(digest_of(cluster, "fresh", "1")));
    // The two further instances go to nodes that do not have it yet.
    let path = cluster.write("fresh-2.toml", &file.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "2"]).expect(0);
    wait::until("what is wrong and what to do", BOUND, || {
        let told = cluster.baton(&["events", "--service", "fresh"]).expect(0).stdout;
        let all = told.contains("changed on the coordinator's disk") && told.contains("deploy it again");
        if all { Ok(()) } else { Err(told) }
    });
    let _ = cluster.deploy(&file, "3").expect(0);
    assert_eq!(cluster.pids("fresh").len(), 3);
}

/// No node has the label that is asked for: it says so, and waits.
fn nowhere_to_go(cluster: &Cluster) {
    let mars = "replicas = 2\nrequire = { planet = \"mars\" }\n";
    let file = ServiceFile::web("lost", 8193).with_section("placement", mars);
    let path = cluster.write("lost.toml", &file.text());
    let args = ["deploy", &path, "--version", "1", "--watch", "--timeout", "2s"];
    told(cluster.baton(&args), 6, &["the rollout goes on"]);
    wait::until("the reason", BOUND, || {
        let why = cluster.baton(&["explain", "lost"]).expect(0).stdout;
        if why.contains("without the label ") { Ok(()) } else { Err(why) }
    });
    let _ = cluster.baton(&["service", "rm", "lost", "--yes"]).expect(0);
}

fn coordinator_artifacts(cluster: &Cluster) -> PathBuf {
    Path::new(cluster.ready["dir"].as_str().expect("its folder")).join("coordinator/artifacts")
}

/// The digest of the artifact of a release.
#[track_caller]
fn digest_of(cluster: &Cluster, service: &str, version: &str) -> String {
    let status = cluster.json(&["service", "show", service]);
    let releases = status["releases"].as_array().expect("releases");
    let found = releases.iter().find(|release| release["version"] == version);
    let digest = found.and_then(|release| release["artifact"]["digest"].as_str());
    digest.unwrap_or_else(|| panic!("no release {version}: {status}")).to_owned()
}

/// Changes one bit in the middle of a file, whatever its mode.
fn flip(path: &Path) {
    let mode = std::fs::metadata(path).expect("the file is there").permissions();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let mut bytes = std::fs::read(path).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("it can be written");
    std::fs::set_permissions(path, mode).expect("it is ours");
}

fn program(cluster: &Cluster, name: &str, bytes: &[u8]) -> PathBuf {
    let path = cluster.folder().join(name);
    std::fs::write(&path, bytes).expect("the test's folder can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the test's folder can be written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// A program whose shared library is gone since it was linked.
fn unlinked_program(cluster: &Cluster) -> PathBuf {
    let (library, program) = (cluster.folder().join("libgone.so"), cluster.folder().join("unlinked"));
    compile("int gone(void) { return 0; }", &["-shared", "-o"], &[library.as_os_str()]);
    let parts = [program.as_os_str(), library.as_os_str()];
    compile("int gone(void); int main(void) { return gone(); }", &["-o"], &parts);
    std::fs::remove_file(&library).expect("it was just made");
    program
}

fn compile(source: &str, options: &[&str], files: &[&std::ffi::OsStr]) {
    let mut compiler = Command::new("cc")
        .args(options)
        .args(&files[..1])
        .args(["-x", "c", "-", "-x", "none"])
        .args(&files[1..])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler, which Rust's linker needs too");
    compiler.stdin.take().expect("piped").write_all(source.as_bytes()).expect("it reads");
    assert!(compiler.wait().expect("it ends").success(), "cc failed");
}

/// Bytes that do not compress, the same in every run (xorshift64).
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
