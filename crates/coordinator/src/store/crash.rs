//! What only a file has to stand: being opened again, killed in the middle, and found in a bad state.

use super::{Precondition, SqliteStore, Store, StoreError};
use baton_model::id::Revision;
use bytes::Bytes;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const WRITER_FILE: &str = "BATON_TEST_STORE_WRITER";

async fn put(store: &SqliteStore, key: &str, precondition: Precondition) -> Result<Revision, StoreError> {
    store.put(key, Bytes::copy_from_slice(key.as_bytes()), precondition).await
}

#[tokio::test]
async fn opening_again_finds_everything_and_counts_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let kept = put(&store, "kept", Precondition::ABSENT).await.unwrap();
    let gone = put(&store, "gone", Precondition::ABSENT).await.unwrap();
    store.delete("gone", Precondition::Any).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let records = store.list("").await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].key.as_str(), records[0].revision), ("kept", kept));
    let again = put(&store, "gone", Precondition::ABSENT).await.unwrap();
    assert!(again > gone, "the counter went on, although its newest record is gone");
}

/// Not a test of its own: the process that the next test kills. It writes and says what was acknowledged.
#[tokio::test]
#[ignore = "started by the next test, as the process that it kills"]
async fn writes_until_it_is_killed() {
    let path = std::env::var_os(WRITER_FILE).expect("the next test gives the file");
    let store = SqliteStore::open(path).unwrap();
    for n in 0_u64.. {
        // Several at a time, so that batches are cut by the kill too.
        let (a, b, c) = (format!("{n}/a"), format!("{n}/b"), format!("{n}/c"));
        let (a, b, c) = tokio::join!(
            put(&store, &a, Precondition::ABSENT),
            put(&store, &b, Precondition::ABSENT),
            put(&store, &c, Precondition::ABSENT)
        );
        // Unbuffered and in one write, unlike `println!` under a test's capture.
        let line = format!("acknowledged {n} {} {} {}\n", a.unwrap(), b.unwrap(), c.unwrap());
        say(line.as_bytes());
    }
}

fn say(bytes: &[u8]) {
    use std::io::Write;
    let mut out = std::fs::File::options().append(true).open("/dev/stderr").unwrap();
    out.write_all(bytes).unwrap();
}

#[tokio::test]
async fn a_kill_in_the_middle_loses_nothing_acknowledged() {
    for round in 0..3_u32 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let acknowledged = write_and_kill(&path, 10 + 40 * round);
        let store = SqliteStore::open(&path).unwrap();
        for line in &acknowledged {
            let words: Vec<&str> = line.split(' ').collect();
            for (part, revision) in ["a", "b", "c"].into_iter().zip(&words[2..]) {
                let key = format!("{}/{part}", words[1]);
                let record =
                    store.get(&key).await.unwrap().unwrap_or_else(|| panic!("{key} was acknowledged"));
                assert_eq!(
                    (record.revision.to_string().as_str(), &record.value[..]),
                    (*revision, key.as_bytes())
                );
            }
        }
        put(&store, "after", Precondition::ABSENT).await.expect("it can be written to again");
    }
}

/// Starts a writer, kills it after `count` acknowledgements, and answers them all.
fn write_and_kill(path: &Path, count: u32) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "store::crash::writes_until_it_is_killed"])
        .env(WRITER_FILE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < count as usize {
        let line = lines.next().expect("the writer writes until it is killed").unwrap();
        if line.starts_with("acknowledged ") {
            acknowledged.push(line);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said and we had not read was acknowledged as well; its last line may be cut short.
    let rest = lines
        .map_while(Result::ok)
        .filter(|line| line.starts_with("acknowledged ") && line.split(' ').count() == 5);
    acknowledged.extend(rest);
    acknowledged
}

#[tokio::test]
async fn a_second_coordinator_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let first = SqliteStore::open(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("store.db"), "{error}");
    put(&first, "a", Precondition::Any).await.expect("the first one is not disturbed");
    drop(first);
    SqliteStore::open(&path).expect("free again");
}

#[tokio::test]
async fn files_in_a_bad_state_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| SqliteStore::open(dir.path().join(name)).unwrap_err();

    std::fs::write(dir.path().join("text"), "this is not a database at all, just some text. ".repeat(100))
        .unwrap();
    assert!(matches!(open("text"), StoreError::Corrupt { .. }), "{}", open("text"));

    assert!(matches!(open("no/such/folder/store.db"), StoreError::Open { .. }));

    let foreign = rusqlite::Connection::open(dir.path().join("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE other (x)").unwrap();
    drop(foreign);
    assert!(open("foreign").to_string().contains("another program"), "{}", open("foreign"));

    drop(SqliteStore::open(dir.path().join("newer")).unwrap());
    let newer = rusqlite::Connection::open(dir.path().join("newer")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(matches!(open("newer"), StoreError::Newer { found: 99, .. }), "{}", open("newer"));
}

#[tokio::test]
async fn a_damaged_file_is_found_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    for n in 0..200 {
        put(&store, &format!("{n:03}{}", "x".repeat(400)), Precondition::Any).await.unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4096] {
        *byte ^= 0xff;
    }
    std::fs::write(&path, bytes).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn every_commit_is_synced_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let connection = super::schema::open(&path).unwrap();
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("synchronous"), 2, "FULL");
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

/// `max_page_count` makes SQLite answer as on a full disk.
#[tokio::test]
async fn a_full_disk_is_told_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let full = super::schema::open(&path).unwrap();
    full.pragma_update(None, "max_page_count", 8).unwrap();
    let error = full.execute("INSERT INTO record VALUES ('big', zeroblob(1000000), 1)", []).unwrap_err();
    let error = super::schema::explain(&path, &error);
    assert!(matches!(error, StoreError::Full { .. }) && error.retryable(), "{error}");
    drop(full);
    let store = SqliteStore::open(&path).unwrap();
    tokio::time::timeout(Duration::from_secs(10), put(&store, "a", Precondition::Any))
        .await
        .unwrap()
        .unwrap();
}
