//! Answers requests for logs from the files that the shims write.
//!
//! The files are the queue: nothing is buffered beside them, so a slow reader slows nobody down. A reader that is
//! slower than the rotation for so long that files are removed under it is told so in a line. [`line`] parses,
//! [`files`] finds where the last lines begin, [`follow`] goes on from there.

mod files;
mod follow;
mod line;
mod retain;

pub(crate) use retain::{prune_removed, prune_runs};

use crate::config::StateDir;
use baton_model::id::InstanceId;
use baton_proto::v1::{self, agent_message::Message};
use follow::Follower;
use line::Line;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most lines of the past in one answer, per instance.
const TAIL_MAX: u32 = 100_000;
/// Text in one message at most; a message limit of 4 MiB leaves ample room, the outbox's memory less.
const BATCH_BYTES: usize = 32 * 1024;
/// While someone follows, files are looked at this often. Without a follower nobody looks.
const FOLLOW_EVERY: Duration = Duration::from_millis(150);

/// Serves one request until its end, or until the task is dropped.
pub(crate) async fn serve(
    state: Arc<StateDir>,
    request: v1::LogRequest,
    out: mpsc::Sender<v1::AgentMessage>,
) {
    let number = request.request;
    let mut answer = Answer { request: number, lines: Vec::new(), bytes: 0, out };
    let error = match run(&state, &request, &mut answer).await {
        Ok(()) => String::new(),
        Err(Ended::Reading(error)) => format!("the logs cannot be read on this node: {error}"),
        Err(Ended::Closed) => return,
    };
    let _ = answer.end(error).await;
}

/// Why an answer ends early.
enum Ended {
    /// The files cannot be read.
    Reading(io::Error),
    /// Nobody takes the answer any more.
    Closed,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Reading(error)
    }
}

async fn run(state: &StateDir, request: &v1::LogRequest, answer: &mut Answer) -> Result<(), Ended> {
    let mut followers: BTreeMap<InstanceId, Follower> = BTreeMap::new();
    let tail = match (request.tail_lines, request.since_ms) {
        (0, Some(_)) => TAIL_MAX,
        (lines, _) => lines.min(TAIL_MAX),
    };
    for id in instances(state, request)? {
        let mut follower = Follower::tail(&state.log_dir(&id), tail)?;
        read_all(&mut follower, &id, request.since_ms, answer).await?;
        followers.insert(id, follower);
    }
    answer.flush().await?;
    if !request.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        for id in instances(state, request)? {
            let follower = match followers.entry(id.clone()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                // It came after the request: everything of it is new.
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Follower::tail(&state.log_dir(&id), TAIL_MAX)?)
                }
            };
            follower.look()?;
            read_all(follower, &id, request.since_ms, answer).await?;
        }
        answer.flush().await?;
    }
}

async fn read_all(
    follower: &mut Follower,
    id: &InstanceId,
    since_ms: Option<u64>,
    answer: &mut Answer,
) -> Result<(), Ended> {
    while let Some(line) = follower.next()? {
        if since_ms.is_none_or(|since| line.at_ms >= since) {
            answer.add(id, line).await?;
        }
    }
    Ok(())
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
    out: mpsc::Sender<v1::AgentMessage>,
}

impl Answer {
    async fn add(&mut self, id: &InstanceId, line: Line) -> Result<(), Ended> {
        self.bytes += line.text.len();
        self.lines.push(v1::LogLine {
            instance: id.to_string(),
            at_ms: line.at_ms,
            stderr: line.stderr,
            text: line.text.into(),
        });
        if self.bytes >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.send(false, String::new()).await
    }

    async fn end(&mut self, error: String) -> Result<(), Ended> {
        self.send(true, error).await
    }

    async fn send(&mut self, end: bool, error: String) -> Result<(), Ended> {
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        let message = Message::LogLines(v1::LogLines { request: self.request, lines, end, error });
        self.out.send(v1::AgentMessage { message: Some(message) }).await.map_err(|_| Ended::Closed)
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
