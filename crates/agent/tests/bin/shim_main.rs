//! The least program that can be a shim; and, for the tests that kill one, the least agent.

use baton_agent::runs::{Containment, RunSpec, Runs, Seal};
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::spec::{LogPolicy, RestartMode, RestartPolicy};
use baton_model::time::Millis;
use std::path::PathBuf;

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "agent") {
        agent(PathBuf::from(&args[1]));
    }
    if args.first().is_some_and(|arg| arg == "notify") {
        return notify(&args[1..]);
    }
    baton_agent::shim::main(&args)
}

/// Sends the lines as one message of sd_notify(3), then a barrier, and waits until that was reached.
fn notify(lines: &[std::ffi::OsString]) {
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
    };
    use std::os::fd::AsFd;
    let name = std::env::var("NOTIFY_SOCKET").expect("a socket is named");
    let address = SocketAddrUnix::new_abstract_name(name.trim_start_matches('@').as_bytes()).expect("a name");
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).expect("a socket");
    rustix::net::connect(&socket, &address).expect("the shim listens");
    let text: Vec<&str> = lines.iter().map(|line| line.to_str().expect("text")).collect();
    rustix::net::send(&socket, text.join("\n").as_bytes(), SendFlags::empty()).expect("it is taken");
    let (reached, barrier) = rustix::pipe::pipe().expect("a pipe");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [barrier.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let message = [rustix::io::IoSlice::new(b"BARRIER=1")];
    rustix::net::sendmsg(&socket, &message, &mut control, SendFlags::empty()).expect("it is taken");
    drop(barrier);
    let mut byte = [0];
    assert_eq!(rustix::io::read(&reached, &mut byte).expect("it is closed"), 0);
}

/// Starts one run in the folder, and waits to be killed.
#[tokio::main(flavor = "current_thread")]
async fn agent(folder: PathBuf) -> ! {
    let exe = std::env::current_exe().expect("its own path");
    let (runs, mut events) = Runs::new(folder.join("runs"), exe, Containment::detect()).expect("a folder");
    let listener =
        baton_agent::runs::listen("http".parse().expect("a name"), address()).expect("a free port");
    let spec = RunSpec {
        instance: "web.1".parse().expect("an instance"),
        run: RunNumber(1),
        release: ReleaseNumber(1),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "echo $$ > pid.new; mv pid.new pid; exec sleep 1000".into()],
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        cwd: folder.clone(),
        log_dir: folder.join("log-1"),
        logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
        journal: None,
        restart: RestartPolicy {
            mode: RestartMode::Always,
            base: Millis(50),
            max: Millis(200),
            reset_after: Millis::secs(60),
            crash_loop_after: 3,
        },
        listeners: vec![listener],
        ports: std::collections::BTreeMap::new(),
        lifecycle: Default::default(),
        seal: Seal::default(),
        confinement: Default::default(),
    };
    let _run = runs.start(spec).await.expect("a run");
    while events.recv().await.is_some() {}
    unreachable!("the runs are held above")
}

/// Any port of loopback.
fn address() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 0).into()
}
