//! Limits and sandboxes of real workloads, as the workloads themselves see them.
//!
//! What only root can give is tested as root; the same tests of an unprivileged agent ask that it refuses.

mod node;

use baton_agent::runs::{Confinement, Containment, Needs, RunEventKind, RunSpec};
use baton_model::confinement::{Limits, Sandbox};
use baton_model::observed::Exit;
use baton_model::spec::RestartMode;
use node::{Node, eventually, kill, policy};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

/// A user that is on every Debian and is nobody here.
const USER: &str = "www-data";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A node whose folder other users may enter, and which no private `/tmp` covers.
fn node() -> Node {
    let folder = if is_root() { tempfile::tempdir_in("/run") } else { tempfile::tempdir() }.unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
    std::fs::create_dir(folder.path().join("home")).unwrap();
    Node::in_folder(folder, Containment::detect())
}

fn needs(node: &Node) -> Needs {
    Needs { tree: node.path(""), home: node.path("home"), program: "/bin/sh".into() }
}

/// A run of a script that is confined so, with its home as `$HOME`.
fn confined(node: &Node, run: u64, limits: Limits, sandbox: Sandbox, script: &str) -> RunSpec {
    let confinement = Confinement::resolve(&limits, &sandbox, &needs(node), node.runs.host()).unwrap();
    let mut spec = node.shell(run, script);
    spec.env.push(("HOME".into(), node.path("home").into()));
    spec.cwd = confinement.working_directory().cloned().unwrap_or(spec.cwd);
    RunSpec { confinement, ..spec }
}

/// What the script wrote into `$HOME/report`, as `name=value` lines.
async fn report(node: &Node) -> BTreeMap<String, String> {
    let path = node.path("home/report");
    eventually("the workload reports", || async { path.exists() }).await;
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}: {text}"));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn paths(paths: &[&str]) -> std::collections::BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

const LOOK_AROUND: &str = r#"
    can() { if ( : > "$1" ) 2>/dev/null; then echo yes; else echo no; fi; }
    status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
    {
        echo "user=$(id -u) $(id -g)"
        echo "capabilities=$(status CapEff) $(status CapBnd) $(status CapAmb)"
        echo "new-privileges=$(status NoNewPrivs)"
        echo "umask=$(umask)"
        echo "nice=$(nice)"
        echo "files=$(ulimit -Hn)"
        echo "core=$(ulimit -Hc)"
        echo "folder=$(pwd)"
        echo "writes-etc=$([ -w /etc ] && echo yes || echo no)"
        echo "writes-tmp=$(can /tmp/mine)"
        echo "writes-var-tmp=$(can /var/tmp/mine)"
        echo "sees-tmp=$(ls -A /tmp | tr '\n' ' ')"
        echo "sees-root=$(ls -A /root 2>&1 | wc -l)"
        echo "reads-shadow=$(wc -c < /etc/shadow 2>/dev/null)"
        echo "stdout=$(can /dev/stdout)"
    } > $HOME/new
    mv $HOME/new $HOME/report
    exec sleep 1000
"#;

#[tokio::test]
async fn a_whole_sandbox_is_what_the_workload_sees() {
    if !is_root() {
        return refused_without_root();
    }
    let mut node = node();
    let marker = tempfile::Builder::new().prefix("baton-outside").tempfile_in("/tmp").unwrap();
    let limits = Limits { open_files: Some(512), core_bytes: Some(0), ..Limits::default() };
    let sandbox = Sandbox {
        user: Some(USER.to_owned()),
        capabilities: Some(["CAP_NET_BIND_SERVICE".parse().unwrap()].into()),
        no_new_privileges: true,
        private_tmp: true,
        read_only: paths(&["/"]),
        hidden: paths(&["/root", "/etc/shadow"]),
        umask: Some(0o027),
        working_directory: Some("/usr".to_owned()),
        nice: Some(5),
        ..Sandbox::default()
    };
    let handle = node.runs.start(confined(&node, 1, limits, sandbox, LOOK_AROUND)).await.unwrap();
    let pid = node.started().await;
    let seen = report(&node).await;
    let bit = "0000000000000400";
    for (name, expect) in [
        ("user", "33 33"),
        ("capabilities", &format!("{bit} {bit} {bit}")),
        ("new-privileges", "1"),
        ("umask", "0027"),
        ("nice", "5"),
        ("files", "512"),
        ("core", "0"),
        ("folder", "/usr"),
        ("writes-etc", "no"),
        ("writes-tmp", "yes"),
        ("writes-var-tmp", "yes"),
        ("sees-tmp", "mine "),
        ("sees-root", "0"),
        ("reads-shadow", "0"),
        ("stdout", "yes"),
    ] {
        assert_eq!(seen.get(name).map(String::as_str), Some(expect), "{name}: {seen:#?}");
    }
    assert!(marker.path().exists() && !std::path::Path::new("/tmp/mine").exists());
    // A restart keeps the private /tmp, and the end of the run removes it.
    let private = node.runs.directory(handle.instance(), handle.run()).join("tmp/mine");
    assert!(private.exists());
    std::fs::remove_file(node.path("home/report")).unwrap();
    kill(pid);
    assert!(matches!(node.event().await, RunEventKind::Exited { exit: Exit::Signal(9), .. }));
    node.started().await;
    assert_eq!(report(&node).await["sees-tmp"], "mine ");
    node.finish(handle).await;
    assert!(!private.exists());
    assert!(std::fs::read_dir("/root").is_ok(), "the node's own mounts are as they were");
}

fn refused_without_root() {
    let node = node();
    for sandbox in [
        Sandbox { user: Some(USER.to_owned()), ..Sandbox::default() },
        Sandbox { private_tmp: true, ..Sandbox::default() },
        Sandbox { capabilities: Some(Default::default()), ..Sandbox::default() },
    ] {
        let refusal = Confinement::resolve(&Limits::default(), &sandbox, &needs(&node), node.runs.host());
        let told = refusal.unwrap_err().to_string();
        assert!(told.contains("run the agent as root"), "{told}");
    }
}

/// The same for a workload whose `/tmp` is the machine's: it leaves nothing there.
fn at_home() -> String {
    LOOK_AROUND.replace("/var/tmp/mine", "$HOME/mine").replace("/tmp/mine", "$HOME/mine")
}

#[tokio::test]
async fn root_without_capabilities_is_not_almighty() {
    if !is_root() {
        return refused_without_root();
    }
    let mut node = node();
    let sandbox = Sandbox { capabilities: Some(Default::default()), ..Sandbox::default() };
    let handle = node.runs.start(confined(&node, 1, Limits::default(), sandbox, &at_home())).await.unwrap();
    node.started().await;
    let seen = report(&node).await;
    assert_eq!(seen["user"], "0 0");
    assert_eq!(seen["capabilities"], "0000000000000000 0000000000000000 0000000000000000");
    node.finish(handle).await;
}

#[tokio::test]
async fn what_needs_no_rights_works_for_any_agent() {
    let mut node = node();
    let limits = Limits { open_files: Some(256), core_bytes: Some(0), ..Limits::default() };
    let sandbox =
        Sandbox { umask: Some(0o077), nice: Some(7), no_new_privileges: true, ..Sandbox::default() };
    let handle = node.runs.start(confined(&node, 1, limits, sandbox, &at_home())).await.unwrap();
    node.started().await;
    let seen = report(&node).await;
    for (name, expect) in
        [("umask", "0077"), ("nice", "7"), ("files", "256"), ("core", "0"), ("new-privileges", "1")]
    {
        assert_eq!(seen[name], expect, "{name}: {seen:#?}");
    }
    node.finish(handle).await;
}

#[tokio::test]
async fn a_sandbox_that_broke_since_says_which_part() {
    if !is_root() {
        return refused_without_root();
    }
    let mut node = node();
    let secret = node.path("secret");
    std::fs::create_dir(&secret).unwrap();
    let sandbox = Sandbox { hidden: paths(&[secret.to_str().unwrap()]), ..Sandbox::default() };
    let mut spec = confined(&node, 1, Limits::default(), sandbox, "exec sleep 1000");
    spec.restart = policy(RestartMode::Never);
    std::fs::remove_dir(&secret).unwrap();
    // What was a folder is now nothing: the mount fails, and the workload is not run without it.
    let handle = node.runs.start(spec).await.unwrap();
    match node.event().await {
        RunEventKind::Exited { exit: Exit::Exec(libc::ENOENT), last_stderr, .. } => {
            assert!(
                last_stderr.starts_with("baton: sandbox.private_tmp, read_only or hidden"),
                "{last_stderr}"
            );
        }
        other => panic!("{other:?}"),
    }
    node.finish(handle).await;
}

#[tokio::test]
async fn limits_that_need_controllers_hold_or_are_refused() {
    let mut node = node();
    let limits = Limits { pids_max: Some(20), ..Limits::default() };
    let resolved = Confinement::resolve(&limits, &Sandbox::default(), &needs(&node), node.runs.host());
    if node.runs.containment().controllers().is_empty() {
        let told = resolved.unwrap_err().to_string();
        assert!(told.contains("`limits.pids_max` needs the pids controller"), "{told}");
        return;
    }
    // A shell that cannot fork ends, and says why.
    let script = "while sleep 1000 & do :; done";
    let handle = node.runs.start(confined(&node, 1, limits, Sandbox::default(), script)).await.unwrap();
    node.started().await;
    match node.event().await {
        RunEventKind::Exited { last_stderr, .. } => assert!(last_stderr.contains("fork"), "{last_stderr}"),
        other => panic!("{other:?}"),
    }
    node.finish(handle).await;
}
