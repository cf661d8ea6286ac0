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

/// A request's line while the request lasts.
#[derive(Debug)]
pub(crate) struct Record {
    log: AccessLog,
    begun: Instant,
    line: Box<Line>,
}

/// Who answered.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) service: Option<&'a str>,
    pub(crate) release: Option<u64>,
    pub(crate) upstream: Option<String>,
    pub(crate) attempts: u32,
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
        Record { log: self.clone(), begun, line: Box::new(line) }
    }
}

impl Record {
    /// The request's id is known.
    pub(crate) fn named(&mut self, id: &HeaderValue) {
        self.line.id = id.to_str().unwrap_or_default().to_owned();
    }

    /// The head of the answer is there.
    pub(crate) fn headed(&mut self, status: StatusCode, by: Answered<'_>) {
        self.line.status = status.as_u16();
        self.line.service = by.service.map(str::to_owned);
        self.line.release = by.release;
        self.line.upstream = by.upstream;
        self.line.attempts = by.attempts;
        self.line.head_us = micros(self.begun);
    }

    /// All of it was passed on.
    pub(crate) fn ended(mut self, bytes: u64) {
        self.line.bytes = bytes;
        self.write();
    }

    /// It broke off.
    pub(crate) fn broke(mut self, bytes: u64, trouble: &str) {
        self.line.bytes = bytes;
        self.line.trouble = Some(trouble.to_owned());
        self.write();
    }

    fn write(mut self) {
        self.line.whole_us = micros(self.begun);
        if self.log.lines.try_send(*self.line).is_err() {
            self.log.lost.fetch_add(1, Relaxed);
        }
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
        record.named(&HeaderValue::from_static("id-1"));
        let upstream = Some("web.1/2".to_owned());
        let by = Answered { service: Some("web"), release: Some(3), upstream, attempts: 2 };
        record.headed(StatusCode::OK, by);
        record.broke(7, "the client went away");
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
