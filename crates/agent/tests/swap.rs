//! A swap under a stream of real connections: who answers, and that nobody is refused.

mod node;

use baton_agent::runs::steer::Steering;
use baton_agent::runs::straggle::{Straggled, Stragglers};
use baton_agent::runs::{Listener, RunEventKind, RunSpec, SocketError, drain, listen};
use baton_model::id::PortName;
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use node::{Node, eventually};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Takes its socket as sd_listen_fds(3) says, answers every connection with its name (once no file `hold` is there), and
/// ends well on SIGTERM.
const SERVER: &str = r"
import os, signal, socket, sys, time
assert os.environ['LISTEN_FDS'] == '1' and os.environ['LISTEN_PID'] == str(os.getpid()), dict(os.environ)
assert os.environ['LISTEN_FDNAMES'] == 'http' and 'BATON_RUN' in os.environ
name = sys.argv[1].encode()
listener = socket.socket(fileno=3)
stop = []
signal.signal(signal.SIGTERM, lambda *a: stop.append(1))
listener.settimeout(0.02)
open(sys.argv[1] + '-up', 'w').close()
while not stop:
    try: connection, _ = listener.accept()
    except TimeoutError: continue
    connection.settimeout(60)
    asked = connection.recv(100)
    while os.path.exists('hold'): time.sleep(0.01)
    connection.sendall(name)
    connection.close()
";

fn server(node: &Node, run: u64, name: &str, listener: &Listener) -> RunSpec {
    let mut spec = node.shell(run, "");
    spec.program = "/usr/bin/env".into();
    spec.args = ["python3", "-c", SERVER, name].map(Into::into).into();
    spec.listeners = vec![listener.clone()];
    spec
}

/// One request; the answer, or why there was none.
fn ask(stream: TcpStream) -> std::io::Result<String> {
    answer(asked(stream)?)
}

fn asked(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.write_all(b"who are you?")?;
    Ok(stream)
}

fn answer(mut stream: TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(node::WITHIN))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks from a source that was bound beforehand, as checks do.
fn ask_admitted(steering: &mut Steering) -> String {
    use rustix::net::{AddressFamily, SocketType};
    let to = steering.old().address().unwrap();
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(to.ip(), 0)).unwrap();
    let source = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    steering.admit(source).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let answer = ask(TcpStream::from(socket)).unwrap();
    steering.dismiss(source).unwrap();
    answer
}

/// Clients that ask all the time.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn begin(to: SocketAddr) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let threads = (0..4)
            .map(|_| {
                let (stop, answers) = (stop.clone(), answers.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = TcpStream::connect(to)
                            .and_then(ask)
                            .unwrap_or_else(|error| format!("failed: {error}"));
                        answers.lock().unwrap().push(answer);
                    }
                })
            })
            .collect();
        Self { stop, answers, threads }
    }
    fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }
    /// Waits for so many further answers.
    async fn more(&self, count: usize) {
        let target = self.count() + count;
        eventually("the load is answered", || async { self.count() >= target }).await;
    }
    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        Arc::try_unwrap(self.answers).unwrap().into_inner().unwrap()
    }
}

async fn up(node: &Node, name: &str) {
    eventually("the server is up", || async { node.path(&format!("{name}-up")).exists() }).await;
}

async fn swap_under_load(any: &str) {
    let mut node = Node::new();
    let listener = listen(PortName::new("http").unwrap(), any.parse::<SocketAddr>().unwrap()).unwrap();
    let address = listener.address().unwrap();
    let old = node.runs.start(server(&node, 1, "old", &listener)).await.unwrap();
    up(&node, "old").await;
    let load = Load::begin(address);
    load.more(50).await;

    let (mut steering, candidate) = Steering::begin(&listener, &listener.place).unwrap();
    assert!(matches!(Steering::begin(&listener, &listener.place), Err(SocketError::Crowded(2, _))));
    let new = node.runs.start(server(&node, 2, "new", &candidate)).await.unwrap();
    up(&node, "new").await;
    load.more(200).await;
    let before = load.count();
    for _ in 0..20 {
        let steered = tokio::task::block_in_place(|| ask_admitted(&mut steering));
        assert_eq!(steered, "new", "a check asked the old process");
    }
    // An agent that restarts finds the same again.
    drop(steering);
    let mut steering = Steering::recover(&listener, &candidate, false).unwrap();
    load.more(200).await;
    assert!(load.answers.lock().unwrap()[..before].iter().all(|answer| answer == "old"));
    let untouched = load.answers.lock().unwrap().iter().all(|answer| answer == "old");
    assert!(untouched, "a candidate got a live request, or one failed");

    steering.flip().unwrap();
    let flipped_at = load.count();
    let stragglers = Stragglers::begin(&listener).unwrap();
    assert_eq!(drain::drain(&old, std::slice::from_ref(&listener), Millis::secs(60)).await, 0);
    old.stop(StopSignal::Sigterm, Millis::secs(60)).await.unwrap();
    while !matches!(node.event().await, RunEventKind::Stopped { killed: false }) {}
    old.quit().await.unwrap();
    node::forget(&node.runs, &old).await;
    load.more(200).await;
    let straggled = stragglers.end(Millis(50), Millis::secs(60)).await;
    assert_eq!(straggled.failed, 0);
    steering.end().unwrap();
    load.more(200).await;

    let answers = load.end();
    let failed: Vec<_> = answers.iter().filter(|answer| *answer != "old" && *answer != "new").collect();
    assert!(failed.is_empty(), "{failed:?}");
    // What was on its way at the flip may still be the old one's: four clients, and their next request.
    let late = answers[flipped_at..].iter().filter(|answer| *answer == "old").count();
    assert!(late <= 8, "{late} requests reached the old run after the flip");
    // The group is one socket again, and the next swap can begin.
    let (steering, _third) = Steering::begin(&candidate, &candidate.place).unwrap();
    steering.end().unwrap();
    assert_eq!(ask(TcpStream::connect(address).unwrap()).unwrap(), "new");
    node.finish(new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_or_misled_in_a_swap() {
    swap_under_load("127.0.0.1:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_with_ipv6() {
    swap_under_load("[::1]:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_is_given_up_leaves_the_old_one_alone() {
    let mut node = Node::new();
    let listener = node::listener();
    let old = node.runs.start(server(&node, 1, "old", &listener)).await.unwrap();
    up(&node, "old").await;
    let load = Load::begin(listener.address().unwrap());
    for _ in 0..5 {
        let (steering, _candidate) = Steering::begin(&listener, &listener.place).unwrap();
        load.more(20).await;
        steering.end().unwrap();
        load.more(20).await;
    }
    assert!(load.end().iter().all(|answer| answer == "old"));
    node.finish(old).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_in_the_old_queue_is_answered_by_the_new_run() {
    let mut node = Node::new();
    let listener = node::listener();
    // Ten clients wait in the queue of a run that never accepts, and then it is gone.
    let mut spec = node.shell(1, "exec sleep 1000");
    spec.listeners = vec![listener.clone()];
    let old = node.runs.start(spec).await.unwrap();
    node.started().await;
    let clients: Vec<_> =
        (0..10).map(|_| asked(TcpStream::connect(listener.address().unwrap()).unwrap()).unwrap()).collect();
    let (mut steering, candidate) = Steering::begin(&listener, &listener.place).unwrap();
    let new = node.runs.start(server(&node, 2, "new", &candidate)).await.unwrap();
    up(&node, "new").await;
    steering.flip().unwrap();
    assert_eq!(drain::drain(&old, std::slice::from_ref(&listener), Millis(50)).await, 10);
    node.finish(old).await;
    let stragglers = Stragglers::begin(&listener).unwrap();
    // Its mode is shared with a workload that may rely on it: blocking, as it was made.
    let mode = rustix::fs::fcntl_getfl(listener.socket.as_fd()).unwrap();
    assert!(!mode.contains(rustix::fs::OFlags::NONBLOCK));
    let answers =
        tokio::task::spawn_blocking(|| clients.into_iter().map(|c| answer(c).unwrap()).collect::<Vec<_>>());
    assert_eq!(answers.await.unwrap(), ["new"; 10]);
    assert_eq!(stragglers.end(Millis::ZERO, Millis::secs(60)).await, Straggled { relayed: 10, failed: 0 });
    steering.end().unwrap();
    node.finish(new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_open_connections_and_counts_those_it_cuts() {
    let mut node = Node::new();
    let listener = node::listener();
    std::fs::write(node.path("hold"), "").unwrap();
    let run = node.runs.start(server(&node, 1, "old", &listener)).await.unwrap();
    up(&node, "old").await;
    let answered = Arc::new(AtomicUsize::new(0));
    let (count, to) = (answered.clone(), listener.address().unwrap());
    let client = std::thread::spawn(move || {
        assert_eq!(ask(TcpStream::connect(to).unwrap()).unwrap(), "old");
        count.store(1, Ordering::SeqCst);
    });
    eventually("it is asked", || async {
        drain::open_connections(&run, std::slice::from_ref(&listener)).unwrap() == 1
    })
    .await;
    assert_eq!(drain::drain(&run, std::slice::from_ref(&listener), Millis(20)).await, 1);
    assert_eq!(answered.load(Ordering::SeqCst), 0);
    std::fs::remove_file(node.path("hold")).unwrap();
    assert_eq!(drain::drain(&run, std::slice::from_ref(&listener), Millis::secs(60)).await, 0);
    client.join().unwrap();
    node.finish(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_lives_through_a_crash() {
    let mut node = Node::new();
    let listener = node::listener();
    let run = node.runs.start(server(&node, 1, "old", &listener)).await.unwrap();
    let pid = node.started().await;
    up(&node, "old").await;
    std::fs::remove_file(node.path("old-up")).unwrap();
    node::kill(pid);
    // Refused by nobody, answered by the next incarnation.
    let answer = tokio::task::spawn_blocking(move || {
        ask(TcpStream::connect(listener.address().unwrap()).unwrap()).unwrap()
    });
    assert_eq!(answer.await.unwrap(), "old");
    node.finish(run).await;
}
