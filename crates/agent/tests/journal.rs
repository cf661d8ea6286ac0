//! Lines of a real workload in a journal that the test plays.

mod node;

use baton_agent::runs::{JournalOutput, RunEventKind, RunHandle, RunSpec};
use baton_model::observed::LogDrops;
use baton_model::spec::RestartMode;
use node::{Node, WITHIN, eventually, policy};
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One entry: the value of each field.
type Fields = BTreeMap<String, String>;

fn listen(node: &Node) -> (JournalOutput, UnixDatagram) {
    let socket = node.path("journal");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_read_timeout(Some(WITHIN)).unwrap();
    let fields = vec![("BATON_SERVICE", "web".to_owned()), ("BATON_INSTANCE", "web.1".to_owned())];
    (JournalOutput { socket, fields }, journal)
}

fn take(journal: &UnixDatagram) -> Fields {
    let mut buffer = [0; 64 << 10];
    let len = journal.recv(&mut buffer).expect("an entry in time");
    let text = String::from_utf8(buffer[..len].to_vec()).unwrap();
    text.lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Starts a run; then its agent is gone, with its connection to the shim.
fn start_and_leave(node: &mut Node, spec: RunSpec) {
    let runs = node.runs.clone();
    std::thread::spawn(move || {
        let agent = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        agent.block_on(runs.start(spec)).unwrap();
    })
    .join()
    .unwrap();
    node.restart();
}

async fn drops(run: &RunHandle) -> LogDrops {
    run.refresh().await.unwrap().log_drops
}

#[tokio::test]
async fn each_line_says_whose_it_is_through_restarts_and_without_an_agent() {
    let mut node = Node::new();
    let (output, journal) = listen(&node);
    let script = "if [ -e again ]; then echo two; exec sleep 1000; fi
                  touch again; echo one; echo oops >&2; printf last; exit 3";
    let mut spec = node.shell(1, script);
    spec.journal = Some(output);
    start_and_leave(&mut node, spec);

    let mut said: Vec<Fields> = (0..4).map(|_| take(&journal)).collect();
    said.sort_by_key(|entry| entry["MESSAGE"].clone());
    let of = |text: &str| said.iter().find(|entry| entry["MESSAGE"] == text).unwrap();
    let (one, oops, last, two) = (of("one"), of("oops"), of("last"), of("two"));
    for entry in &said {
        assert_eq!((entry["BATON_SERVICE"].as_str(), entry["BATON_INSTANCE"].as_str()), ("web", "web.1"));
    }
    assert_eq!((one["BATON_STREAM"].as_str(), one["PRIORITY"].as_str()), ("stdout", "6"));
    assert_eq!((oops["BATON_STREAM"].as_str(), oops["PRIORITY"].as_str()), ("stderr", "5"));
    // What the first one left in its pipe is its own, though the second one runs by then.
    assert_eq!((&one["SYSLOG_PID"], &oops["SYSLOG_PID"]), (&last["SYSLOG_PID"], &last["SYSLOG_PID"]));
    let adopted = node.adopted(1).await;
    assert_eq!(two["SYSLOG_PID"], adopted.handle.state().pid.unwrap().to_string());
    assert_ne!(two["SYSLOG_PID"], one["SYSLOG_PID"]);
    assert!(drops(&adopted.handle).await.is_none());
    // Baton's own files have all of it too.
    eventually("the log has all lines", || async {
        let kept = std::fs::read_to_string(node.path("log-1/current")).unwrap();
        kept.lines().count() == 4
    })
    .await;
    node.finish(adopted.handle).await;
}

#[tokio::test]
async fn a_journal_that_takes_nothing_does_not_hold_up_the_workload_and_is_told_of() {
    const LINES: u64 = 400_000;
    let mut node = Node::new();
    let (output, journal) = listen(&node);
    let mut spec = node.shell(1, &format!("yes | head -n {LINES}; touch done; exec sleep 1000"));
    spec.journal = Some(output);
    spec.restart = policy(RestartMode::Never);
    let run = node.runs.start(spec).await.unwrap();
    node.started().await;
    eventually("the workload goes on", || async { node.path("done").exists() }).await;
    let began = RunEventKind::LogDropped { file_began: false, journal_began: true };
    assert_eq!(node.event().await, began);
    assert!(drops(&run).await.journal_lines > LINES / 2, "it takes nothing, and what waits is bounded");
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    // Ends with the process of the test.
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len) = journal.recv(&mut buffer) {
            // Others tell of what is missing.
            count.fetch_add(u64::from(buffer[..len].ends_with(b"MESSAGE=y\n")), Ordering::SeqCst);
        }
    });
    let missing = || LINES - taken.load(Ordering::SeqCst);
    // What waits comes at the pace that an instance may keep up, which is 1,000 a second: twenty seconds of it.
    eventually("every line is in the journal or counted", || async {
        let drops = drops(&run).await;
        drops == LogDrops { journal_lines: missing(), ..LogDrops::default() }
    })
    .await;

    // Another agent learns of it, and is not told that it begins once more.
    drop(run);
    node.restart();
    let adopted = node.adopted(1).await;
    assert_eq!(adopted.handle.state().log_drops.journal_lines, missing());
    node.finish(adopted.handle).await;
}

#[tokio::test]
async fn a_burst_reaches_a_slow_journal_whole_and_in_its_order() {
    const LINES: u64 = 12_000;
    let mut node = Node::new();
    let (output, journal) = listen(&node);
    let mut spec = node.shell(1, &format!("seq {LINES}; touch done; exec sleep 1000"));
    spec.journal = Some(output);
    let run = node.runs.start(spec).await.unwrap();
    eventually("the workload goes on though nothing is taken", || async { node.path("done").exists() }).await;
    let taken = tokio::task::spawn_blocking(move || {
        (1..=LINES).find(|number| take(&journal)["MESSAGE"] != number.to_string())
    });
    assert_eq!(taken.await.unwrap(), None, "the first that is missing");
    assert!(drops(&run).await.is_none());
    node.finish(run).await;
}

#[tokio::test]
async fn what_began_while_no_agent_was_there_is_told_to_the_next() {
    let mut node = Node::new();
    let (output, journal) = listen(&node);
    let mut spec = node
        .shell(1, "until [ -e go ]; do sleep 0.05; done; yes | head -n 100000; touch done; exec sleep 1000");
    spec.journal = Some(output);
    start_and_leave(&mut node, spec);
    std::fs::write(node.path("go"), "").unwrap();
    eventually("the workload goes on", || async { node.path("done").exists() }).await;
    drop(journal);
    let adopted = node.adopted(1).await;
    loop {
        if let RunEventKind::LogDropped { journal_began: true, .. } = node.event().await {
            break;
        }
    }
    node.finish(adopted.handle).await;
}
