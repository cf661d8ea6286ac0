use super::writer::Opened;
use super::*;
use crate::records::{self, Records};
use crate::store::MemoryStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A journal with its writer, which can be stopped and opened again on the same store.
struct Desk {
    records: Records,
    kept_max: usize,
    journal: Arc<Journal>,
    stop: CancellationToken,
    writing: JoinHandle<()>,
}

impl Desk {
    async fn open(records: Records, kept_max: usize) -> Self {
        let Opened { journal, writer, .. } = open(records.clone(), kept_max).await.unwrap();
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));
        Self { records, kept_max, journal, stop, writing }
    }

    async fn new(kept_max: usize) -> Self {
        Self::open(Records::new(Arc::new(MemoryStore::new())), kept_max).await
    }

    /// Writes what waits, ends, and opens again.
    async fn reopen(self) -> Self {
        self.stop.cancel();
        self.writing.await.unwrap();
        Self::open(self.records, self.kept_max).await
    }

    async fn tell(&self, node: &str, sequence: u64) {
        let told = self.journal.record_from_agent(node.parse().unwrap(), sequence, about(node, sequence));
        told.unwrap().await.unwrap();
    }

    fn all(&self) -> Vec<String> {
        let mut cursor = EventSeq(0);
        let mut messages = Vec::new();
        loop {
            let (page, reached) = self.journal.page(cursor, &Filter::default());
            if reached == cursor {
                return messages;
            }
            cursor = reached;
            messages.extend(page.iter().map(|event| event.message.clone()));
        }
    }
}

fn about(node: &str, number: u64) -> Event {
    let mut event = event(UnixMs(number), Severity::Info, "test", format!("{node} {number}"));
    event.node = Some(node.parse().unwrap());
    event
}

#[tokio::test]
async fn an_event_of_an_agent_is_kept_once_also_over_a_restart() {
    let desk = Desk::new(100).await;
    for sequence in [1, 2, 2, 1, 3] {
        desk.tell("n1", sequence).await;
    }
    desk.tell("n2", 1).await;
    let desk = desk.reopen().await;
    desk.tell("n1", 3).await;
    desk.tell("n1", 4).await;
    assert_eq!(desk.all(), ["n1 1", "n1 2", "n1 3", "n2 1", "n1 4"]);
}

#[tokio::test]
async fn a_node_that_was_forgotten_is_numbered_anew() {
    let desk = Desk::new(100).await;
    desk.tell("n1", 5).await;
    desk.journal.forget("n1".parse().unwrap()).await;
    let desk = desk.reopen().await;
    desk.tell("n1", 1).await;
    assert_eq!(desk.all(), ["n1 5", "n1 1"]);
    // The record of the forgetting has taken a number; the next event does not overwrite it.
    let desk = desk.reopen().await;
    desk.tell("n1", 1).await;
    desk.tell("n1", 2).await;
    assert_eq!(desk.all(), ["n1 5", "n1 1", "n1 2"]);
}

#[tokio::test]
async fn the_journal_is_bounded_and_still_knows_what_it_was_told() {
    let kept_max = 500;
    let desk = Desk::new(kept_max).await;
    desk.tell("n0", 7).await;
    for number in 1..=4000 {
        desk.journal.record(vec![about("n1", number)]);
        if number % 100 == 0 {
            desk.tell("n2", number).await;
        }
    }
    let desk = desk.reopen().await;
    let all = desk.all();
    assert!(all.len() >= kept_max, "{}", all.len());
    assert!(all.len() < kept_max + 2000, "{}", all.len());
    assert!(all.iter().any(|message| message == "n1 4000"));
    assert!(!all.iter().any(|message| message == "n0 7"), "the oldest went");
    desk.tell("n0", 7).await;
    assert!(!desk.all().iter().any(|message| message == "n0 7"), "it was told before");
    let last =
        desk.journal.page(desk.journal.cursor_before_last(1, &Filter::default()), &Filter::default()).0;
    assert!(last[0].seq.0 > 4000, "numbers go on: {:?}", last[0]);
}

#[tokio::test]
async fn readers_see_what_they_asked_for() {
    let desk = Desk::new(100).await;
    for sequence in 1..=5 {
        desk.tell("n1", sequence).await;
        desk.tell("n2", sequence).await;
    }
    let of = |node: &str| Filter { node: Some(node.parse().unwrap()), service: None };
    let after = |cursor, filter: &Filter| -> Vec<String> {
        desk.journal.page(cursor, filter).0.iter().map(|event| event.message.clone()).collect()
    };
    assert_eq!(after(desk.journal.cursor_before_last(2, &of("n2")), &of("n2")), ["n2 4", "n2 5"]);
    assert_eq!(after(desk.journal.cursor_before_last(99, &of("n1")), &of("n1")).len(), 5);
    assert_eq!(after(EventSeq(8), &Filter::default()), ["n1 5", "n2 5"]);
    assert_eq!(after(EventSeq(99), &Filter::default()), Vec::<String>::new());
    let latest = desk.journal.latest();
    assert_eq!(*latest.borrow(), EventSeq(10));
}

#[tokio::test]
async fn what_a_killed_coordinator_left_in_the_outbox_is_journaled_once() {
    let desk = Desk::new(100).await;
    desk.tell("n1", 1).await;
    // Killed after the decision's commit, before its events were queued.
    let key = records::outbox(7);
    let left = vec![about("web", 1), about("web", 2)];
    let record = records::putting(key.clone(), baton_model::id::Revision(0), &left).unwrap();
    desk.records.commit(vec![record]).await.unwrap();
    let desk = desk.reopen().await;
    desk.tell("n1", 2).await;
    assert_eq!(desk.all(), ["n1 1", "web 1", "web 2", "n1 2"]);
    assert!(desk.records.get::<Vec<Event>>(&key).await.unwrap().is_none(), "it left the outbox");
    let desk = desk.reopen().await;
    assert_eq!(desk.all(), ["n1 1", "web 1", "web 2", "n1 2"], "and is not told again");
}
