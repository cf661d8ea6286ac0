use super::*;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::os::unix::net::UnixDatagram;

const FIELDS: &[u8] = b"BATON_SERVICE=web\n";

fn at(folder: &tempfile::TempDir) -> (std::path::PathBuf, UnixDatagram) {
    let path = folder.path().join("socket");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_nonblocking(true).unwrap();
    (path, journal)
}

fn open(path: &std::path::Path) -> Journal {
    use std::os::unix::ffi::OsStrExt as _;
    Journal::open(path.as_os_str().as_bytes(), FIELDS).unwrap()
}

fn entry(text: &[u8]) -> Entry<'_> {
    Entry { priority: Priority::Notice, stream: b"stderr", pid: 42, partial: false, text: [b"", text] }
}

/// All datagrams that wait, as text.
fn waiting(journal: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 64 << 10];
    std::iter::from_fn(|| {
        journal.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned())
    })
    .collect()
}

#[test]
fn a_line_is_a_datagram_of_fields() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    journal.line(&entry(b"oops"));
    journal.line(&Entry {
        priority: Priority::Info,
        stream: b"stdout",
        pid: 0,
        partial: true,
        text: [b"[reload] ", b"a=b \x01\xff"],
    });
    let head = "BATON_SERVICE=web\nPRIORITY=5\nSYSLOG_FACILITY=3\nBATON_STREAM=stderr\nSYSLOG_PID=42\n";
    let second = "BATON_SERVICE=web\nPRIORITY=6\nSYSLOG_FACILITY=3\nBATON_STREAM=stdout\nBATON_PARTIAL=1\n";
    assert_eq!(
        waiting(&system),
        [format!("{head}MESSAGE=oops\n"), format!("{second}MESSAGE=[reload] a=b \x01\u{fffd}\n")]
    );
    assert_eq!(journal.dropped(), 0);
}

/// Takes from the journal and sends on, as the shim does, until nothing waits; what was taken.
fn forwarded(system: &UnixDatagram, journal: &mut Journal) -> Vec<String> {
    let mut taken = waiting(system);
    // Each round takes what one datagram queue holds, of at least one.
    for _ in 0..=crate::shim::backlog::LINES_MAX {
        if journal.waits_for() == Wait::Nothing {
            break;
        }
        // As if the time had passed.
        journal.allowance.lines += 100;
        journal.forward();
        taken.extend(waiting(system));
    }
    taken
}

fn texts(taken: &[String]) -> Vec<&str> {
    let text = |entry: &'_ String| entry.rfind("MESSAGE=").map(|at| at + "MESSAGE=".len());
    taken.iter().map(|entry| entry[text(entry).unwrap()..].trim_end()).collect()
}

#[test]
fn a_burst_that_a_slow_journal_cannot_take_at_once_follows_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    let lines: Vec<String> = (0..15_000).map(|number| number.to_string()).collect();
    lines.iter().for_each(|line| journal.line(&entry(line.as_bytes())));
    assert!(matches!(journal.waits_for(), Wait::Room(_)), "{:?}", journal.waits_for());
    assert_eq!(texts(&forwarded(&system, &mut journal)), lines);
    assert_eq!((journal.dropped(), journal.waits_for()), (0, Wait::Nothing));
}

#[test]
fn what_exceeds_the_backlog_is_counted_and_told_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    for _ in 0..30_000 {
        journal.line(&entry(b"x"));
    }
    let dropped = journal.dropped();
    let mut taken = waiting(&system);
    journal.forward();
    journal.line(&entry(b"well"));
    taken.extend(forwarded(&system, &mut journal));
    let said = texts(&taken);
    let told = format!("[baton] {dropped} lines did not reach the journal here");
    assert_eq!(said[said.len() - 2..], [told.as_str(), "well"]);
    assert!(taken[taken.len() - 2].contains("PRIORITY=4\n"), "{}", taken[taken.len() - 2]);
    assert_eq!(said.len() as u64 - 2 + dropped, 30_000);
    assert_eq!(journal.dropped(), dropped);
}

#[test]
fn a_journal_that_was_away_gets_what_it_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    journal.line(&entry(b"one"));
    assert_eq!(waiting(&system).len(), 1);
    drop(system);
    std::fs::remove_file(&path).unwrap();
    journal.line(&entry(b"two"));
    assert_eq!(journal.waits_for(), Wait::At(journal.way.reach_again_ms));
    let (_, system) = at(&folder);
    journal.way.reach_again_ms = 0; // As if the time had passed.
    journal.line(&entry(b"three"));
    assert_eq!(texts(&forwarded(&system, &mut journal)), ["two", "three"]);
    assert_eq!(journal.dropped(), 0);
}

#[test]
fn a_shim_that_ends_sends_what_waits_and_counts_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    // More than an instance may send at once: that bound is not for its last words.
    journal.allowance.lines = 0;
    journal.line(&entry(b"last"));
    assert!(matches!(journal.waits_for(), Wait::At(_)));
    journal.finish();
    assert_eq!(texts(&waiting(&system)), ["last"]);

    drop(system);
    std::fs::remove_file(&path).unwrap();
    journal.line(&entry(b"lost"));
    journal.finish();
    assert_eq!(journal.dropped(), 1);
}

#[test]
fn what_is_too_large_for_a_datagram_goes_as_a_sealed_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    // The least that Linux gives.
    sockopt::set_socket_send_buffer_size(&journal.way.socket, 1).unwrap();
    let text = [b'x'; 16 << 10];
    journal.line(&entry(&text));
    assert_eq!(journal.dropped(), 0);

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(&system, &mut [], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert_eq!(got.bytes, 0, "all of it is in the file");
    let Some(RecvAncillaryMessage::ScmRights(mut files)) = control.drain().next() else {
        panic!("a descriptor came along")
    };
    let file = files.next().unwrap();
    assert!(rustix::fs::fcntl_get_seals(&file).unwrap().contains(SealFlags::WRITE | SealFlags::SEAL));
    let mut said = vec![0; rustix::fs::fstat(&file).unwrap().st_size as usize];
    rustix::io::pread(&file, &mut said, 0).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("BATON_SERVICE=web\nPRIORITY=5\n") && said.ends_with("x\n"));
    assert!(said.contains(&format!("MESSAGE={}\n", "x".repeat(16 << 10))));
}

#[test]
fn what_may_be_sent_grows_with_time() {
    let mut allowance = Allowance { lines: 0, at_ms: 1_000 };
    assert!(!allowance.take_line());
    allowance.grow(1_040);
    allowance.grow(1_030);
    assert_eq!((allowance.lines, allowance.at_ms), (40, 1_040));
    assert!(allowance.take_line());
    allowance.grow(u64::MAX);
    assert_eq!(allowance.lines, BURST_LINES);
}
