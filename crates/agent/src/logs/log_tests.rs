//! Reading logs as the shims write and rotate them.

use super::*;
use std::fs;
use std::path::PathBuf;

struct Writer {
    folder: PathBuf,
    written: u64,
}

impl Writer {
    fn new(folder: &Path, run: u64) -> Self {
        let folder = folder.join(run.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("current"), "").unwrap();
        Self { folder, written: 0 }
    }

    fn line(&mut self, text: &str) {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().append(true).open(self.folder.join("current")).unwrap();
        writeln!(file, "1970-01-01T00:00:{:02}.000Z stdout F {text}", self.written % 60).unwrap();
        self.written += 1;
    }

    fn rotate(&self, keep: u32) {
        let name =
            |n: u32| self.folder.join(if n == 0 { "current".to_owned() } else { format!("current.{n}") });
        let _ = fs::remove_file(name(keep - 1));
        for n in (0..keep - 1).rev() {
            if name(n).exists() {
                fs::rename(name(n), name(n + 1)).unwrap();
            }
        }
        fs::write(name(0), "").unwrap();
    }
}

fn texts(follower: &mut Follower) -> Vec<String> {
    std::iter::from_fn(|| follower.next().unwrap())
        .map(|told| String::from_utf8(told.line.text).unwrap())
        .collect()
}

#[test]
fn the_last_lines_come_from_as_many_files_and_runs_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Writer::new(folder.path(), 9);
    (1..=3).for_each(|n| first.line(&format!("a{n}")));
    let mut second = Writer::new(folder.path(), 10);
    second.line("b1");
    second.rotate(3);
    second.line("b2");
    second.line("b3");
    for (wanted, expect) in [
        (0, vec![]),
        (1, vec!["b3"]),
        (2, vec!["b2", "b3"]),
        (3, vec!["b1", "b2", "b3"]),
        (5, vec!["a2", "a3", "b1", "b2", "b3"]),
        (99, vec!["a1", "a2", "a3", "b1", "b2", "b3"]),
    ] {
        assert_eq!(texts(&mut Follower::tail(folder.path(), wanted).unwrap()), expect, "{wanted}");
    }
}

#[test]
fn the_last_lines_are_found_across_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 1);
    let long = "x".repeat(10_000);
    (0..20).for_each(|n| writer.line(&format!("{n}{long}")));
    let lines = texts(&mut Follower::tail(folder.path(), 15).unwrap());
    let numbers: Vec<_> = lines.iter().map(|line| line.trim_end_matches('x').to_owned()).collect();
    assert_eq!(numbers, (5..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn following_survives_rotations_and_new_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 1);
    writer.line("old");
    let mut follower = Follower::tail(folder.path(), 0).unwrap();
    assert_eq!(texts(&mut follower), Vec::<String>::new());
    writer.line("1");
    assert_eq!(texts(&mut follower), ["1"]);
    writer.line("2");
    writer.rotate(4);
    writer.line("3");
    writer.rotate(4);
    writer.line("4");
    let mut next = Writer::new(folder.path(), 2);
    next.line("5");
    follower.look().unwrap();
    assert_eq!(texts(&mut follower), ["2", "3", "4", "5"]);
    fs::remove_dir_all(folder.path().join("1")).unwrap();
    next.line("6");
    follower.look().unwrap();
    assert_eq!(texts(&mut follower), ["6"]);
}

#[test]
fn lines_that_were_rotated_away_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 1);
    let mut follower = Follower::tail(folder.path(), 0).unwrap();
    for n in 1..=4 {
        writer.line(&n.to_string());
        writer.rotate(2);
    }
    follower.look().unwrap();
    let lines = texts(&mut follower);
    assert_eq!(lines[0], "1", "the open file is still readable");
    assert!(lines[1].contains("rotated away"), "{lines:?}");
    assert_eq!(lines[2..], ["4"]);
}

#[test]
fn a_reading_goes_on_where_an_earlier_one_stood() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let (mut old, mut writer) = (Writer::new(folder.path(), 1), Writer::new(folder.path(), 2));
    old.line("old");
    writer.line("1");
    writer.line("2");
    let mut follower = Follower::tail(folder.path(), 2).unwrap();
    assert_eq!(follower.next().unwrap().unwrap().line.text, b"1");
    assert_eq!(follower.next().unwrap().unwrap().line.text, b"2");
    let places: BTreeMap<u64, Place> = follower.places().collect();
    // Meanwhile: the older run writes on too, the file is rotated, and a new run comes.
    writer.line("3");
    writer.rotate(4);
    writer.line("4");
    old.line("late");
    Writer::new(folder.path(), 3).line("new");
    let mut resumed = Follower::resume(folder.path(), &places).unwrap();
    let all = texts(&mut resumed);
    // Nothing of the older run was asked for: its place was its end, and only what came later is told.
    assert_eq!(all, ["late", "3", "4", "new"]);
    let places: BTreeMap<u64, Place> = resumed.places().collect();
    assert_eq!(texts(&mut Follower::resume(folder.path(), &places).unwrap()), Vec::<String>::new());

    // A part of a divided line was read, and a line of the other stream behind it.
    let mut file = fs::OpenOptions::new().append(true).open(writer.folder.join("current")).unwrap();
    writeln!(file, "1970-01-01T00:00:00Z stdout P he").unwrap();
    writeln!(file, "1970-01-01T00:00:00Z stderr F between").unwrap();
    assert_eq!(texts(&mut resumed), ["between"]);
    let places: BTreeMap<u64, Place> = resumed.places().collect();
    writeln!(file, "1970-01-01T00:00:00Z stdout F llo").unwrap();
    assert_eq!(texts(&mut Follower::resume(folder.path(), &places).unwrap()), ["hello"]);
}

#[test]
fn a_reading_whose_file_is_gone_says_so_and_goes_on_with_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 1);
    writer.line("1");
    let mut follower = Follower::tail(folder.path(), 9).unwrap();
    assert_eq!(texts(&mut follower), ["1"]);
    let places: BTreeMap<u64, Place> = follower.places().collect();
    for n in 2..=4 {
        writer.rotate(2);
        writer.line(&n.to_string());
    }
    let lines = texts(&mut Follower::resume(folder.path(), &places).unwrap());
    assert!(lines[0].contains("rotated away"), "{lines:?}");
    assert_eq!(lines[1..], ["3", "4"]);
}

#[test]
fn a_line_without_its_end_waits_for_it() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::new(folder.path(), 1);
    let mut follower = Follower::tail(folder.path(), 9).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(writer.folder.join("current")).unwrap();
    write!(file, "1970-01-01T00:00:00Z stdout F ha").unwrap();
    assert_eq!(texts(&mut follower), Vec::<String>::new());
    writeln!(file, "lf").unwrap();
    assert_eq!(texts(&mut follower), ["half"]);
}

/// The texts that answer a request, and the marks.
async fn answered(state: &Arc<StateDir>, request: v1::LogRequest) -> (Vec<String>, Vec<v1::LogMark>) {
    let (out, mut answers) = mpsc::channel(8);
    serve(Arc::clone(state), request, out).await;
    let (mut texts, mut marks) = (Vec::new(), Vec::new());
    while let Some(v1::AgentMessage { message: Some(Message::LogLines(batch)) }) = answers.recv().await {
        assert_eq!(batch.error, "");
        texts.extend(batch.lines.into_iter().map(|line| String::from_utf8(line.text.to_vec()).unwrap()));
        marks.extend(batch.marks);
    }
    (texts, marks)
}

#[tokio::test]
async fn the_last_lines_of_a_filter_are_the_last_ones_that_it_wants() {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(folder.path()).unwrap());
    let mut web = Writer::new(&state.log_dir(&"web.1".parse().unwrap()), 1);
    (0..50).for_each(|n| web.line(&format!("{} {n}", if n < 10 { "bad" } else { "good" })));
    let request = v1::LogRequest { service: "web".into(), tail_lines: 3, ..Default::default() };
    assert_eq!(answered(&state, request.clone()).await.0, ["good 47", "good 48", "good 49"]);
    let grep = v1::LogRequest { grep: Some("^bad".into()), ..request };
    let (texts, marks) = answered(&state, grep).await;
    assert_eq!(texts, ["bad 7", "bad 8", "bad 9"]);
    assert_eq!(marks, [], "only a request that follows is gone on with");
}

#[tokio::test]
async fn a_request_is_answered_for_its_service_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(folder.path()).unwrap());
    let mut web = Writer::new(&state.log_dir(&"web.1".parse().unwrap()), 1);
    (0..4).for_each(|n| web.line(&n.to_string()));
    Writer::new(&state.log_dir(&"web-2.1".parse().unwrap()), 1).line("other");
    let (out, mut answers) = mpsc::channel(8);
    let request =
        v1::LogRequest { request: 5, service: "web".into(), since_ms: Some(2_000), ..Default::default() };
    serve(Arc::clone(&state), request, out).await;
    let mut lines = Vec::new();
    while let Some(v1::AgentMessage { message: Some(Message::LogLines(batch)) }) = answers.recv().await {
        assert_eq!((batch.request, batch.error.as_str()), (5, ""));
        lines.extend(batch.lines.into_iter().map(|line| (line.instance, line.at_ms, line.text.to_vec())));
        if batch.end {
            break;
        }
    }
    let web = |at_ms, text: &str| ("web.1".to_owned(), at_ms, text.as_bytes().to_vec());
    assert_eq!(lines, [web(2_000, "2"), web(3_000, "3")]);
}

/// The texts that a request for the past is answered with.
async fn past(folder: &Path, request: &v1::LogRequest) -> Vec<String> {
    let (out, mut parts) = mpsc::channel(64);
    let mut answer = Answer::new(1, false, out);
    let pick = Pick::of(request).unwrap();
    let mut reader = Reader::last(folder, request, &pick, &mut answer).await.ok().unwrap();
    // What comes after the last lines were looked for is told too, however much is rotated away meanwhile.
    let mut writer = Writer { folder: folder.join("1"), written: 0 };
    writer.rotate(2);
    writer.rotate(2);
    writer.line("GET /late");
    reader.follower.look().unwrap();
    reader.read_all(&"web.1".parse().unwrap(), &pick, &mut answer).await.ok().unwrap();
    answer.end(String::new()).await.ok().unwrap();
    drop(answer);
    let mut texts = Vec::new();
    while let Some(v1::AgentMessage { message: Some(Message::LogLines(part)) }) = parts.recv().await {
        texts.extend(part.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()));
    }
    texts
}

#[tokio::test]
async fn the_last_wanted_lines_are_told_though_they_are_rotated_away_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 1);
    for n in 0..5_000 {
        writer.line(&format!("{} /{n}", if n % 100 == 0 { "GET" } else { "PUT" }));
    }
    let request = v1::LogRequest { tail_lines: 2, grep: Some("^GET".into()), ..Default::default() };
    let told = past(folder.path(), &request).await;
    assert_eq!(told.first_chunk(), Some(&["GET /4800".to_owned(), "GET /4900".to_owned()]));
    assert_eq!(told.last().map(String::as_str), Some("GET /late"));
}

#[tokio::test]
async fn many_wanted_lines_are_counted_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(folder.path(), 1);
    let long = "x".repeat(2_000);
    (0..1_500).for_each(|n| writer.line(&format!("{n} {long}")));
    let mut answer = Answer::new(1, false, mpsc::channel(64).0);
    let request = v1::LogRequest { tail_lines: 1_000, grep: Some("x".into()), ..Default::default() };
    let pick = Pick::of(&request).unwrap();
    let reader = Reader::last(folder.path(), &request, &pick, &mut answer).await.ok().unwrap();
    assert!(reader.kept.is_empty());
    assert_eq!(reader.passed_over, 500);
}
