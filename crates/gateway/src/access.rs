//! The access log: a JSON line for each request, written by a thread of its own. A disk that is slow costs lines, which
//! are counted, and never a request.

use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// Lines that wait for the disk.
const WAITING_MAX: usize = 16 * 1024;
/// Why an answer did not come to its end, where nothing else is wrong.
pub(crate) const CLIENT_LEFT: &str = "the client went away";
/// Why a client was cut off in the middle of its answer.
pub(crate) const CLIENT_STUCK: &str = "the client took nothing of its answer for too long";
/// A line is on its way to the disk after this long, also where few come.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The log of a gateway.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// A line. Times are the gateway's; bytes are those of the answer's body.
#[derive(Debug, Serialize)]
struct Line {
    /// Milliseconds since the Unix epoch, when the request's head had come.
    at_ms: u64,
    id: String,
    client: IpAddr,
    method: String,
    host: Option<String>,
    path: String,
    service: Option<String>,
    release: Option<u64>,
    upstream: Option<String>,
    attempts: u32,
    status: u16,
    bytes: u64,
    /// To the head of the answer.
    head_us: u64,
    /// To its end.
    whole_us: u64,
    /// Why it did not end as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// A request's line while the request lasts. One that is dropped is that of a client that went away.
#[derive(Debug)]
pub(crate) struct Record {
    log: AccessLog,
    begun: Instant,
    /// Until it is written.
    line: Option<Box<Line>>,
}

impl AccessLog {
    /// Opens the file, or appends to it.
    ///
    /// # Errors
    /// It cannot be written to.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&waiting, BufWriter::new(file), &counted))?;
        Ok(Self { lines, lost })
    }

    /// Begins the line of a request.
    pub(crate) fn begin(
        &self,
        client: IpAddr,
        method: &Method,
        host: Option<&str>,
        path: &str,
        begun: Instant,
    ) -> Record {
        let at_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let line = Line {
            at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX),
            id: String::new(),
            client,
            method: method.to_string(),
            host: host.map(str::to_owned),
            path: path.to_owned(),
            service: None,
            release: None,
            upstream: None,
            attempts: 0,
            status: 0,
            bytes: 0,
            head_us: 0,
            whole_us: 0,
            trouble: None,
        };
        Record { log: self.clone(), begun, line: Some(Box::new(line)) }
    }
}

impl Record {
    fn note(&mut self, what: impl FnOnce(&mut Line)) {
        if let Some(line) = &mut self.line {
            what(line);
        }
    }

    /// The request's id is known, and whose it is.
    pub(crate) fn named(&mut self, id: &HeaderValue, service: &str) {
        self.note(|line| {
            line.id = id.to_str().unwrap_or_default().to_owned();
            line.service = Some(service.to_owned());
        });
    }

    /// So many tries were made, for an answer of this release.
    pub(crate) fn tried(&mut self, attempts: u32, release: Option<u64>) {
        self.note(|line| (line.attempts, line.release) = (attempts, release));
    }

    /// The head of the answer is there.
    pub(crate) fn headed(&mut self, status: StatusCode) {
        let head_us = micros(self.begun);
        self.note(|line| (line.status, line.head_us) = (status.as_u16(), head_us));
    }

    /// It is an instance's answer.
    pub(crate) fn answered(&mut self, upstream: String, release: u64) {
        self.note(|line| (line.upstream, line.release) = (Some(upstream), Some(release)));
    }

    /// All of it was passed on.
    pub(crate) fn ended(mut self, bytes: u64) {
        self.note(|line| line.bytes = bytes);
        self.write();
    }

    /// It broke off.
    pub(crate) fn broke(mut self, bytes: u64, trouble: &str) {
        self.note(|line| (line.bytes, line.trouble) = (bytes, Some(trouble.to_owned())));
        self.write();
    }

    fn write(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        line.whole_us = micros(self.begun);
        if self.log.lines.try_send(*line).is_err() {
            self.log.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.note(|line| line.trouble = Some(CLIENT_LEFT.to_owned()));
        self.write();
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Writes until the last sender is gone.
fn write(waiting: &Receiver<Line>, mut file: BufWriter<impl Write>, lost: &AtomicU64) {
    let mut flushed = Instant::now();
    loop {
        let mut written = match waiting.recv_timeout(FLUSH_EVERY) {
            Ok(line) => put(&mut file, &line),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if written.is_ok() && flushed.elapsed() >= FLUSH_EVERY {
            written = file.flush();
            flushed = Instant::now();
        }
        if let Err(error) = written {
            lost.fetch_add(1, Relaxed);
            tracing::warn!(%error, "the access log cannot be written");
        }
        let lines = lost.swap(0, Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "lines of the access log were lost");
        }
    }
    let _ = file.flush();
}

fn put(file: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_and_says_what_came_of_the_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = AccessLog::open(&path).expect("a file");
        let client = IpAddr::from([192, 0, 2, 1]);
        let mut record = log.begin(client, &Method::GET, Some("a.test"), "/\"x", Instant::now());
        record.named(&HeaderValue::from_static("id-1"), "web");
        record.tried(2, Some(1));
        record.headed(StatusCode::OK);
        record.answered("web.1/2".to_owned(), 3);
        record.broke(7, CLIENT_LEFT);
        drop(log);
        let line = loop {
            let text = std::fs::read_to_string(&path).expect("text");
            if text.ends_with('\n') {
                break text;
            }
            std::thread::yield_now();
        };
        let line: serde_json::Value = serde_json::from_str(&line).expect("json");
        for (field, value) in [
            ("id", "id-1".into()),
            ("path", "/\"x".into()),
            ("service", "web".into()),
            ("release", 3.into()),
            ("upstream", "web.1/2".into()),
            ("attempts", 2.into()),
            ("status", 200.into()),
            ("bytes", 7.into()),
            ("trouble", serde_json::Value::from("the client went away")),
        ] {
            assert_eq!(line[field], value, "{field}");
        }
    }
}
