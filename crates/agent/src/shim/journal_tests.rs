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
    journal.begin_batch();
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

#[test]
fn a_journal_that_takes_nothing_holds_nobody_up_and_what_it_missed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    journal.begin_batch();
    for _ in 0..5_000 {
        journal.line(&entry(b"x"));
    }
    assert_eq!(journal.allowance.wait_ms, 0, "it was waited for, as long as that may be");
    let dropped = journal.dropped();
    let taken = waiting(&system).len() as u64;
    assert!(dropped > 0 && taken > 0 && dropped + taken == 5_000, "{dropped} dropped, {taken} taken");
    // There is room again.
    journal.begin_batch();
    journal.line(&entry(b"well"));
    let told = waiting(&system);
    assert_eq!(told.len(), 2);
    assert!(told[0].contains("PRIORITY=4\n"), "{}", told[0]);
    assert!(told[0].ends_with(&format!("MESSAGE=[baton] {dropped} lines did not reach the journal here\n")));
    assert!(told[1].ends_with("MESSAGE=well\n"));
    assert_eq!(journal.dropped(), dropped);
}

#[test]
fn a_journal_that_was_away_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    journal.begin_batch();
    journal.line(&entry(b"one"));
    assert_eq!(waiting(&system).len(), 1);
    drop(system);
    std::fs::remove_file(&path).unwrap();
    journal.begin_batch();
    journal.line(&entry(b"lost"));
    assert_eq!(journal.dropped(), 1);
    let (_, system) = at(&folder);
    journal.reach_again_ms = 0; // As if the time had passed.
    journal.begin_batch();
    journal.line(&entry(b"two"));
    let told = waiting(&system);
    assert_eq!(told.len(), 2);
    assert!(told[1].ends_with("MESSAGE=two\n"));
}

#[test]
fn what_is_too_large_for_a_datagram_goes_as_a_sealed_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, system) = at(&folder);
    let mut journal = open(&path);
    // The least that Linux gives.
    sockopt::set_socket_send_buffer_size(&journal.socket, 1).unwrap();
    let text = [b'x'; 16 << 10];
    journal.begin_batch();
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
    let mut allowance = Allowance { lines: 0, wait_ms: 0, at_ms: 1_000 };
    assert!(!allowance.take_line());
    allowance.grow(1_019);
    assert!(!allowance.take_line());
    allowance.grow(1_040);
    assert_eq!((allowance.lines, allowance.wait_ms), (40, 2));
    assert!(allowance.take_line());
    allowance.grow(u64::MAX);
    assert_eq!((allowance.lines, allowance.wait_ms), (BURST_LINES, WAIT_MS_MAX));
}
