//! Answers requests for logs from the files that the shims write.
//!
//! The files are the queue: nothing is buffered beside them, so a slow reader slows nobody down. A reader that is
//! slower than the rotation for so long that files are removed under it is told so in a line. [`line`] parses,
//! [`files`] finds where the last lines begin, [`follow`] goes on from there, [`pick`] leaves out what is not wanted.

mod files;
mod follow;
mod line;
mod pick;
mod retain;

pub(crate) use retain::{keep_bounded, prune_removed, prune_runs};

use crate::config::StateDir;
use baton_model::id::InstanceId;
use baton_proto::v1::{self, agent_message::Message};
use files::FileId;
use follow::{Follower, Place, Told};
use pick::Pick;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Most lines of the past in one answer, per instance.
const TAIL_MAX: u32 = 100_000;
/// Text in one message at most; a message limit of 4 MiB leaves ample room, the outbox's memory less.
const BATCH_BYTES: usize = 32 * 1024;
/// While someone follows, files are looked at this often. Without a follower nobody looks.
const FOLLOW_EVERY: Duration = Duration::from_millis(150);

/// Text of the last wanted lines that is kept while the rest is read, at most.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// While nothing is found in a long log, the caller hears this often that it is being read.
const LIFE_EVERY: Duration = Duration::from_secs(2);
/// Lines read before others get their turn: a filter that wants nothing must not hold up the heartbeat.
const LINES_AT_ONCE: usize = 1024;

/// Serves one request until its end, or until the task is dropped.
pub(crate) async fn serve(
    state: Arc<StateDir>,
    request: v1::LogRequest,
    out: mpsc::Sender<v1::AgentMessage>,
) {
    let number = request.request;
    let mut answer = Answer::new(number, request.follow, out);
    let error = match run(&state, &request, &mut answer).await {
        Ok(()) => String::new(),
        Err(Ended::Reading(error)) => format!("the logs cannot be read on this node: {error}"),
        Err(Ended::Asked(why)) => why,
        Err(Ended::Closed) => return,
    };
    let _ = answer.end(error).await;
}

/// Why an answer ends early.
enum Ended {
    /// The files cannot be read.
    Reading(io::Error),
    /// What was asked makes no sense.
    Asked(String),
    /// Nobody takes the answer any more.
    Closed,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Reading(error)
    }
}

async fn run(state: &StateDir, request: &v1::LogRequest, answer: &mut Answer) -> Result<(), Ended> {
    let pick = Pick::of(request).map_err(Ended::Asked)?;
    let known = places(&request.after);
    let mut readers: BTreeMap<InstanceId, Reader> = BTreeMap::new();
    for id in instances(state, request)? {
        let folder = state.log_dir(&id);
        let mut reader = match known.get(&id) {
            Some(places) => Reader::from(Follower::resume(&folder, places)?),
            // It came since the request that this one goes on with: everything of it is new.
            None if !known.is_empty() => Reader::from(Follower::tail(&folder, TAIL_MAX)?),
            None => Reader::last(&folder, request, &pick, answer).await?,
        };
        reader.read_all(&id, &pick, answer).await?;
        readers.insert(id, reader);
    }
    answer.flush_marks().await?;
    if !request.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        for id in instances(state, request)? {
            let reader = match readers.entry(id.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                // It came after the request: everything of it is new.
                Entry::Vacant(entry) => {
                    entry.insert(Reader::from(Follower::tail(&state.log_dir(&id), TAIL_MAX)?))
                }
            };
            reader.follower.look()?;
            reader.read_all(&id, &pick, answer).await?;
        }
        answer.flush().await?;
    }
}

/// Where an earlier request stood, as it gives it back.
fn places(marks: &[v1::LogMark]) -> BTreeMap<InstanceId, BTreeMap<u64, Place>> {
    let mut places: BTreeMap<InstanceId, BTreeMap<u64, Place>> = BTreeMap::new();
    for mark in marks {
        // A mark of ours names an instance; anything else marks nothing.
        let Ok(id) = mark.instance.parse() else { continue };
        let place = Place { file: FileId(mark.file), offset: mark.offset, begun: mark.begun };
        places.entry(id).or_default().insert(mark.run, place);
    }
    places
}

/// Reads the log of one instance.
struct Reader {
    follower: Follower,
    /// Wanted lines of the past that were read already.
    kept: VecDeque<Told>,
    /// Wanted lines that are passed over: more are wanted of the past than the request takes.
    passed_over: u64,
}

impl From<Follower> for Reader {
    fn from(follower: Follower) -> Self {
        Self { follower, kept: VecDeque::new(), passed_over: 0 }
    }
}

impl Reader {
    /// Begins with as many of the last wanted lines as the request takes.
    async fn last(
        folder: &Path,
        request: &v1::LogRequest,
        pick: &Pick,
        answer: &mut Answer,
    ) -> Result<Self, Ended> {
        let tail = match (request.tail_lines, request.since_ms) {
            (0, Some(_)) => TAIL_MAX,
            (lines, _) => lines.min(TAIL_MAX),
        };
        if !pick.is_sparse() {
            return Ok(Self::from(Follower::tail(folder, tail)?));
        }
        // In one pass where the last wanted lines are few: a workload that floods may have rotated all of them away by
        // the next. Where they are many they are only counted, and read again.
        let (mut wanted, mut kept, mut kept_bytes) = (0_u64, VecDeque::new(), 0);
        let mut follower = Follower::tail(folder, u32::MAX)?;
        let mut turn = Turn::default();
        while let Some(told) = follower.next()? {
            turn.count(answer).await?;
            if !pick.admits(&told.line) {
                continue;
            }
            wanted += 1;
            if kept_bytes > KEPT_BYTES_MAX {
                continue;
            }
            kept_bytes += told.cost();
            kept.push_back(told);
            if kept.len() > tail as usize {
                kept_bytes -= kept.pop_front().as_ref().map_or(0, Told::cost);
            }
        }
        if kept_bytes <= KEPT_BYTES_MAX {
            return Ok(Self { follower, kept, passed_over: 0 });
        }
        let follower = Follower::tail(folder, u32::MAX)?;
        Ok(Self { follower, kept: VecDeque::new(), passed_over: wanted.saturating_sub(u64::from(tail)) })
    }

    /// Passes on the wanted lines that there are.
    async fn read_all(&mut self, id: &InstanceId, pick: &Pick, answer: &mut Answer) -> Result<(), Ended> {
        let mut turn = Turn::default();
        for told in std::mem::take(&mut self.kept) {
            answer.add(id, told).await?;
        }
        while let Some(told) = self.follower.next()? {
            turn.count(answer).await?;
            if !pick.admits(&told.line) {
                continue;
            }
            if self.passed_over > 0 {
                self.passed_over -= 1;
                continue;
            }
            answer.add(id, told).await?;
        }
        self.passed_over = 0;
        for (run, place) in self.follower.places() {
            answer.mark(id, run, place);
        }
        Ok(())
    }
}

/// Gives way to the agent's other work now and then.
#[derive(Default)]
struct Turn {
    lines: usize,
}

impl Turn {
    async fn count(&mut self, answer: &mut Answer) -> Result<(), Ended> {
        self.lines += 1;
        if self.lines.is_multiple_of(LINES_AT_ONCE) {
            tokio::task::yield_now().await;
            answer.show_life().await?;
        }
        Ok(())
    }
}

/// The instances that a request is about and that have logs here.
fn instances(state: &StateDir, request: &v1::LogRequest) -> io::Result<Vec<InstanceId>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(state.logs_dir()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(id) = name.parse::<InstanceId>() else { continue };
        let wanted = match &request.instance {
            Some(instance) => *instance == name,
            None => id.service.as_str() == request.service,
        };
        if wanted {
            found.push(id);
        }
    }
    found.sort();
    Ok(found)
}

/// An answer on its way, in batches.
struct Answer {
    request: u64,
    lines: Vec<v1::LogLine>,
    bytes: usize,
    /// Where each run stands after `lines`, where the request will want to know.
    marks: BTreeMap<(InstanceId, u64), Place>,
    marked: bool,
    sent_at: Instant,
    out: mpsc::Sender<v1::AgentMessage>,
}

impl Answer {
    fn new(request: u64, marked: bool, out: mpsc::Sender<v1::AgentMessage>) -> Self {
        let sent_at = Instant::now();
        Self { request, lines: Vec::new(), bytes: 0, marks: BTreeMap::new(), marked, sent_at, out }
    }

    async fn add(&mut self, id: &InstanceId, told: Told) -> Result<(), Ended> {
        let Told { line, run, place } = told;
        self.bytes += line.text.len();
        self.lines.push(v1::LogLine {
            instance: id.to_string(),
            at_ms: line.at_ms,
            stderr: line.stderr,
            text: line.text.into(),
        });
        if let Some(place) = place {
            self.mark(id, run, place);
        }
        if self.bytes >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    fn mark(&mut self, id: &InstanceId, run: u64, place: Place) {
        if self.marked {
            self.marks.insert((id.clone(), run), place);
        }
    }

    /// Sends the lines that wait. Marks alone wait for the next lines: until then, going on at the older ones tells
    /// the same.
    async fn flush(&mut self) -> Result<(), Ended> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.send(false, String::new()).await
    }

    /// Sends what waits, be it marks alone: a request that goes on must know where this one began.
    async fn flush_marks(&mut self) -> Result<(), Ended> {
        if self.lines.is_empty() && self.marks.is_empty() {
            return Ok(());
        }
        self.send(false, String::new()).await
    }

    /// Sends what waits, be it nothing, where nothing was sent for a while.
    async fn show_life(&mut self) -> Result<(), Ended> {
        if self.sent_at.elapsed() < LIFE_EVERY { Ok(()) } else { self.send(false, String::new()).await }
    }

    async fn end(&mut self, error: String) -> Result<(), Ended> {
        self.send(true, error).await
    }

    async fn send(&mut self, end: bool, error: String) -> Result<(), Ended> {
        self.bytes = 0;
        self.sent_at = Instant::now();
        let lines = std::mem::take(&mut self.lines);
        let mark = |((instance, run), place): ((InstanceId, u64), Place)| v1::LogMark {
            instance: instance.to_string(),
            run,
            file: place.file.0,
            offset: place.offset,
            begun: place.begun,
        };
        let marks = std::mem::take(&mut self.marks).into_iter().map(mark).collect();
        let message = Message::LogLines(v1::LogLines { request: self.request, lines, end, error, marks });
        self.out.send(v1::AgentMessage { message: Some(message) }).await.map_err(|_| Ended::Closed)
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
