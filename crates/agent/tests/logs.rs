//! The workload's output as the shim keeps it.

mod node;

use baton_agent::runs::RunEventKind;
use baton_model::observed::Exit;
use baton_model::spec::{LogPolicy, RestartMode};
use node::{Node, eventually, policy};
use std::path::Path;

/// The files of a log directory, oldest first.
fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort_by_key(|path| {
        let number = path.extension().map_or(0, |number| number.to_str().unwrap().parse().unwrap());
        std::cmp::Reverse(number)
    });
    names.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// What is whole of a text that is still being written.
fn whole(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

/// Stream, tag and text of each line; the time is checked for its form.
fn lines(text: &str) -> Vec<(String, String, String)> {
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            assert!(words[0].len() == 30 && words[0].ends_with('Z') && words[0].starts_with("20"), "{line}");
            (words[1].to_owned(), words[2].to_owned(), words[3].to_owned())
        })
        .collect()
}

#[tokio::test]
async fn lines_streams_and_what_has_no_newline() {
    let mut node = Node::new();
    let mut spec =
        node.shell(1, "echo one; echo two >&2; printf half; sleep 0.1; printf '%20000s|\\nend' x; exit 4");
    spec.restart = policy(RestartMode::Never);
    let run = node.runs.start(spec).await.unwrap();
    node.started().await;
    assert!(matches!(node.event().await, RunEventKind::Exited { exit: Exit::Code(4), restart_in: None, .. }));
    // Everything is in the file before the end is told.
    let said = files(&node.path("log-1")).concat();
    let lines = lines(&said);
    let of = |stream: &str| lines.iter().filter(|line| line.0 == stream).collect::<Vec<_>>();
    assert_eq!(of("stderr"), [&("stderr".into(), "F".into(), "two".into())]);
    let stdout = of("stdout");
    assert_eq!(stdout[0].2, "one");
    assert_eq!((stdout[1].1.as_str(), stdout[1].2.len()), ("P", 16 << 10));
    assert!(stdout[1].2.starts_with("half  "));
    assert_eq!((stdout[2].1.as_str(), stdout[2].2.len()), ("F", 20_001 + 4 - (16 << 10)));
    assert_eq!((stdout[3].1.as_str(), stdout[3].2.as_str()), ("F", "end"));
    assert_eq!(lines.len(), 5);
    node.finish(run).await;
}

#[tokio::test]
async fn a_flood_is_bounded_rotated_and_does_not_hold_up_the_workload() {
    let mut node = Node::new();
    let mut spec = node.shell(
        1,
        "yes 'a line of some forty bytes, as is usual ' | head -n 2500000; touch done; exec sleep 1000",
    );
    spec.logs = LogPolicy { max_bytes: 1 << 20, keep: 4, journald: false };
    let run = node.runs.start(spec).await.unwrap();
    node.started().await;
    eventually("the flood ends", || async { node.path("done").exists() }).await;
    // Another process of the run, and its stop, are served as ever.
    node.finish(run).await;
    let files = files(&node.path("log-1"));
    assert_eq!(files.len(), 4);
    for file in &files {
        assert!(file.len() <= 1 << 20, "{}", file.len());
        assert!(file.ends_with('\n') && file.starts_with("20"), "a file begins or ends within a line");
    }
    assert!(files[..3].iter().all(|file| file.len() > 900_000));
    assert!(lines(&files[3]).iter().all(|line| line.2 == "a line of some forty bytes, as is usual "));
}

#[tokio::test]
async fn incarnations_do_not_share_a_line() {
    let mut node = Node::new();
    let script = "if [ -e again ]; then printf second; else touch again; printf first; fi; exit 1";
    let mut spec = node.shell(1, script);
    spec.restart.base = baton_model::time::Millis::secs(60);
    spec.restart.max = baton_model::time::Millis::secs(60);
    let run = node.runs.start(spec).await.unwrap();
    for _ in 0..2 {
        node.started().await;
        assert!(matches!(node.event().await, RunEventKind::Exited { .. }));
    }
    let said = files(&node.path("log-1")).concat();
    let texts: Vec<_> = lines(&said).into_iter().map(|line| line.2).collect();
    assert_eq!(texts, ["first", "second"]);
    node.finish(run).await;
}

#[tokio::test]
async fn a_full_disk_drops_and_counts_and_the_workload_goes_on() {
    let mut node = Node::new();
    let mut spec =
        node.shell(1, "head -c 300000 /dev/zero | tr '\\0' 'x'; echo; touch done; exec sleep 1000");
    // No file can be made in it, as on a full disk; the first one is a device that is always full.
    std::fs::create_dir(&spec.log_dir).unwrap();
    if rustix::process::geteuid().is_root() {
        let device = rustix::fs::makedev(1, 7);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let path = spec.log_dir.join("current");
        let kind = rustix::fs::FileType::CharacterDevice;
        if rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).is_err() {
            eprintln!("not tested: no device can be made here");
            return;
        }
    } else {
        eprintln!("not tested: only root can make a full device");
        return;
    }
    spec.logs = LogPolicy { max_bytes: 100 << 20, keep: 2, journald: false };
    let run = node.runs.start(spec).await.unwrap();
    node.started().await;
    eventually("the workload goes on", || async { node.path("done").exists() }).await;
    eventually("drops are counted", || async { run.refresh().await.unwrap().log_drops.bytes >= 300_000 })
        .await;
    node.finish(run).await;
}

#[tokio::test]
async fn lines_that_cannot_be_written_are_counted_told_at_once_and_said_in_the_log() {
    const LINES: usize = 60_000;
    let mut node = Node::new();
    let script = format!(
        "until [ -e go ]; do sleep 0.05; done
        yes 'a line of some forty bytes, as is usual ' | head -n {LINES}; touch done
        until [ -e on ]; do sleep 0.05; done; echo again; exec sleep 1000"
    );
    let mut spec = node.shell(1, &script);
    spec.logs = LogPolicy { max_bytes: 1 << 20, keep: 2, journald: false };
    let run = node.runs.start(spec).await.unwrap();
    node.started().await;
    // The full file cannot be put away.
    let in_the_way = node.path("log-1/current.1");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    std::fs::write(node.path("go"), "").unwrap();
    assert_eq!(node.event().await, RunEventKind::LogDropped { file_began: true, journal_began: false });
    eventually("the workload goes on", || async { node.path("done").exists() }).await;

    // A new agent learns the count from the shim: nothing of it is lost with the old one.
    drop(run);
    node.restart();
    let run = node.adopted(1).await.handle;
    // Small writes still fit into the full file: it may say already that lines are missing.
    let kept = || {
        let all = lines(whole(&std::fs::read_to_string(node.path("log-1/current")).unwrap()));
        all.iter().filter(|line| !line.2.starts_with("[baton] ")).count()
    };
    eventually("each line is kept or counted", || async {
        run.refresh().await.unwrap().log_drops.lines as usize == LINES - kept()
    })
    .await;
    let drops = run.state().log_drops;
    assert!(std::fs::metadata(node.path("log-1/current")).unwrap().len() <= 1 << 20);
    assert_eq!(drops.bytes % drops.lines, 0, "lines of one length");

    std::fs::remove_dir_all(&in_the_way).unwrap();
    std::fs::write(node.path("on"), "").unwrap();
    let all = || {
        let files = [&in_the_way, &node.path("log-1/current")].map(std::fs::read_to_string);
        lines(whole(&files.into_iter().filter_map(Result::ok).collect::<String>()))
    };
    eventually("it is written again", || async { all().last().is_some_and(|line| line.2 == "again") }).await;
    // The log says in its places what is missing, all in all what was counted.
    let told = |line: &(String, String, String)| {
        let rest = line.2.strip_prefix("[baton] ").filter(|_| line.0 == "stderr")?;
        let (lines, rest) = rest.split_once(" lines (")?;
        let bytes = rest.strip_suffix(" bytes) of log were dropped here")?;
        Some((lines.parse::<u64>().ok()?, bytes.parse::<u64>().ok()?))
    };
    let told: Vec<(u64, u64)> = all().iter().filter_map(told).collect();
    assert!(!told.is_empty());
    let sum = told.iter().fold((0, 0), |sum, told| (sum.0 + told.0, sum.1 + told.1));
    assert_eq!(sum, (drops.lines, drops.bytes));
    node.finish(run).await;
}
