//! What holds for every store. One suite; each store below runs all of it.

use super::{
    Change, KEY_BYTES_MAX, MemoryStore, Precondition, SqliteStore, Store, StoreError, VALUE_BYTES_MAX, Watch,
};
use baton_model::id::Revision;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A wake-up that does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(10);

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.put(key, Bytes::copy_from_slice(value.as_bytes()), Precondition::Any).await.unwrap()
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let found = store.get(key).await.unwrap();
    found.map(|record| String::from_utf8(record.value.to_vec()).unwrap())
}

async fn revision(store: &dyn Store, key: &str) -> Revision {
    store.get(key).await.unwrap().map_or(Revision(0), |record| record.revision)
}

/// Whether a wake-up waits to be taken; takes it.
async fn woken(watch: &mut Watch) -> bool {
    tokio::time::timeout(Duration::ZERO, watch.changed()).await.is_ok_and(|woken| woken.is_ok())
}

async fn what_is_put_is_got_until_it_is_deleted(store: Arc<dyn Store>) {
    assert_eq!(store.get("a").await.unwrap(), None);
    let first = put(&*store, "a", "1").await;
    let record = store.get("a").await.unwrap().unwrap();
    assert_eq!((record.key.as_str(), &record.value[..], record.revision), ("a", &b"1"[..], first));
    let second = put(&*store, "a", "2").await;
    assert!(second > first);
    assert_eq!(value(&*store, "a").await.as_deref(), Some("2"));
    store.delete("a", Precondition::Any).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    store.delete("a", Precondition::Any).await.expect("removing nothing is fine");
    let empty = put(&*store, "empty", "").await;
    assert_eq!(
        (revision(&*store, "empty").await, value(&*store, "empty").await.as_deref()),
        (empty, Some(""))
    );
}

async fn one_counter_numbers_all_changes(store: Arc<dyn Store>) {
    let a = put(&*store, "a", "1").await;
    let b = put(&*store, "b", "1").await;
    assert!(a > Revision(0) && b > a);
    assert_eq!(revision(&*store, "a").await, a, "another key's change is not ours");
    store.delete("b", Precondition::Any).await.unwrap();
    let again = put(&*store, "b", "1").await;
    assert!(again > b, "a key made again never shows an old revision");
    let lost = store.put("b", Bytes::new(), Precondition::Is(b)).await.unwrap_err();
    assert_eq!(lost, StoreError::Conflict { key: "b".to_owned(), expected: b, actual: again });
}

async fn preconditions_hold_or_nothing_changes(store: Arc<dyn Store>) {
    let is = Precondition::Is;
    let missing = store.put("a", Bytes::new(), is(Revision(7))).await.unwrap_err();
    assert!(missing.is_conflict() && !missing.retryable());
    assert!(store.delete("a", is(Revision(7))).await.unwrap_err().is_conflict());
    store.delete("a", Precondition::ABSENT).await.expect("nothing is there, as was said");
    let first = store.put("a", Bytes::from_static(b"1"), Precondition::ABSENT).await.unwrap();
    assert!(store.put("a", Bytes::new(), Precondition::ABSENT).await.unwrap_err().is_conflict());
    let second = store.put("a", Bytes::from_static(b"2"), is(first)).await.unwrap();
    assert!(store.put("a", Bytes::new(), is(first)).await.unwrap_err().is_conflict());
    assert!(store.delete("a", is(first)).await.unwrap_err().is_conflict());
    assert!(store.delete("a", Precondition::ABSENT).await.unwrap_err().is_conflict());
    assert_eq!((value(&*store, "a").await.as_deref(), revision(&*store, "a").await), (Some("2"), second));
    store.delete("a", is(second)).await.unwrap();
    assert_eq!(value(&*store, "a").await, None);
}

async fn a_commit_is_made_whole_or_not_at_all(store: Arc<dyn Store>) {
    let change = |key: &str, value: Option<&'static str>, precondition| Change {
        key: key.to_owned(),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        precondition,
    };
    let old = put(&*store, "old", "1").await;
    let mut watch = store.watch("");
    let changes = vec![
        change("new", Some("1"), Precondition::ABSENT),
        change("old", None, Precondition::Is(old)),
        change("none", None, Precondition::Any),
    ];
    let revisions = store.commit(changes).await.unwrap();
    assert!(revisions[0] > old && revisions[1] > revisions[0]);
    assert_eq!(revisions[2], Revision(0), "nothing was there to be removed");
    assert!(woken(&mut watch).await);
    assert_eq!((value(&*store, "new").await.as_deref(), value(&*store, "old").await), (Some("1"), None));
    // One lost precondition, wherever it stands, leaves all as it was.
    for lost in 0..2 {
        let mut changes =
            vec![change("new", Some("2"), Precondition::Any), change("more", Some("2"), Precondition::Any)];
        changes[lost].precondition = Precondition::Is(Revision(u64::MAX));
        assert!(store.commit(changes).await.unwrap_err().is_conflict());
    }
    assert!(!woken(&mut watch).await, "nothing changed");
    assert_eq!((value(&*store, "new").await.as_deref(), value(&*store, "more").await), (Some("1"), None));
    let twice = vec![change("a", Some("1"), Precondition::Any), change("a", None, Precondition::Any)];
    assert!(matches!(store.commit(twice).await, Err(StoreError::Refused(_))));
    assert_eq!(store.commit(Vec::new()).await.unwrap(), []);
}

async fn lists_are_in_the_order_of_bytes_and_only_of_the_prefix(store: Arc<dyn Store>) {
    // `%`, `_` and `*` mean something to SQL patterns; a key beyond the last prefix byte; more than one byte.
    for key in ["b/2", "a", "b/10", "b", "b/", "c", "b0", "b/é", "b/%", "b%", "b/\u{10ffff}", "b/_", "B/1"] {
        put(&*store, key, key).await;
    }
    let keys = async |prefix| -> Vec<String> {
        store.list(prefix).await.unwrap().into_iter().map(|record| record.key).collect()
    };
    assert_eq!(keys("b/").await, ["b/", "b/%", "b/10", "b/2", "b/_", "b/é", "b/\u{10ffff}"]);
    assert_eq!(keys("b%").await, ["b%"]);
    assert_eq!(keys("x").await, [""; 0]);
    let all = keys("").await;
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!((all.len(), &all), (13, &sorted));
    for record in store.list("b/").await.unwrap() {
        assert_eq!(store.get(&record.key).await.unwrap(), Some(record));
    }
}

/// Many tasks count up one record, each by compare-and-set: no step may be lost or doubled.
async fn races_have_one_winner(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const STEPS: u64 = 10;
    put(&*store, "n", "0").await;
    let counting = (0..TASKS).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut done = 0;
            while done < STEPS {
                let record = store.get("n").await.unwrap().unwrap();
                let n: u64 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                match store.put("n", (n + 1).to_string().into(), Precondition::Is(record.revision)).await {
                    Ok(_) => done += 1,
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        })
    });
    for task in counting.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(value(&*store, "n").await, Some((TASKS * STEPS).to_string()));
    // And one of many that make the same key.
    let making = (0..TASKS).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.put("new", n.to_string().into(), Precondition::ABSENT).await })
    });
    let mut made = 0;
    for task in making.collect::<Vec<_>>() {
        made += u64::from(task.await.unwrap().is_ok());
    }
    assert_eq!(made, 1);
}

async fn watches_wake_for_their_prefix_and_fold(store: Arc<dyn Store>) {
    put(&*store, "a/0", "before").await;
    let mut watch = store.watch("a/");
    let mut all = store.watch("");
    assert!(!woken(&mut watch).await, "what was before the watch does not wake");
    put(&*store, "b", "1").await;
    assert!(!woken(&mut watch).await, "another prefix does not wake");
    assert!(woken(&mut all).await);
    let _ = store.put("a/1", Bytes::new(), Precondition::Is(Revision(99))).await.unwrap_err();
    store.delete("a/none", Precondition::Any).await.unwrap();
    assert!(!woken(&mut watch).await, "what changed nothing does not wake");
    for _ in 0..3 {
        put(&*store, "a/1", "1").await;
    }
    assert!(woken(&mut watch).await, "who has an answer has also woken the watches");
    assert!(!woken(&mut watch).await, "three changes fold into one wake-up");
    store.delete("a/1", Precondition::Any).await.unwrap();
    assert!(woken(&mut watch).await, "a deletion wakes");
    // One that waits already.
    let waiting = tokio::spawn(async move { watch.changed().await });
    put(&*store, "a/2", "1").await;
    tokio::time::timeout(PATIENCE, waiting).await.expect("woken").unwrap().unwrap();
    drop(store);
    tokio::time::timeout(PATIENCE, async { while all.changed().await.is_ok() {} })
        .await
        .expect("told of the end");
}

async fn records_that_are_too_large_are_refused(store: Arc<dyn Store>) {
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for (key, size) in [("", 1), (long.as_str(), 1), ("k", VALUE_BYTES_MAX + 1)] {
        let error = store.put(key, vec![0; size].into(), Precondition::Any).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
    }
    assert_eq!(store.list("").await.unwrap(), []);
    store
        .put(&long[1..], vec![7; VALUE_BYTES_MAX].into(), Precondition::Any)
        .await
        .expect("the largest that fits");
    assert_eq!(store.get(&long[1..]).await.unwrap().unwrap().value.len(), VALUE_BYTES_MAX);
}

/// Runs every part on a fresh store of each kind.
macro_rules! conforms {
    ($($part:ident),+ $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $part() {
                super::$part(Arc::new(MemoryStore::new())).await;
            })+
        }
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $part() {
                let dir = tempfile::tempdir().unwrap();
                super::$part(Arc::new(SqliteStore::open(dir.path().join("store.db")).unwrap())).await;
            })+
        }
    };
}

conforms! {
    what_is_put_is_got_until_it_is_deleted,
    one_counter_numbers_all_changes,
    preconditions_hold_or_nothing_changes,
    a_commit_is_made_whole_or_not_at_all,
    lists_are_in_the_order_of_bytes_and_only_of_the_prefix,
    races_have_one_winner,
    watches_wake_for_their_prefix_and_fold,
    records_that_are_too_large_are_refused,
}
