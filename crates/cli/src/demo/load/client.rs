//! One HTTP/1.1 request over one connection, with nothing done behind the caller's back.
//!
//! Written for the load generator, since every client library retries, hides or merges the very failures
//! that must be counted: here a request is sent once, and what happened to it is said.

use crate::sample::{INSTANCE_HEADER, PID_HEADER, RELEASE_HEADER};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest accepted head and body of an answer; the sample's are some 250 bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody took the connection.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection ended before the answer did.
    Cut,
    /// No answer in time.
    TimedOut,
    /// An error that no instance answered: the gateway's own.
    Status,
    /// An answer that is not the one to this request.
    Body,
}

impl Failure {
    /// A word for receipts.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Cut => "cut",
            Self::TimedOut => "timed out",
            Self::Status => "answered by no instance",
            Self::Body => "answered wrongly",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Cut,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// The host that it is asked of.
    pub(crate) host: &'a str,
    /// The path.
    pub(crate) path: &'a str,
    /// Further lines of the head, each with its line end.
    pub(crate) headers: &'a str,
    /// Whether the connection is used again.
    pub(crate) keep: bool,
}

/// An open connection with no request on it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
}

/// Who made an answer, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) release: String,
    pub(crate) instance: String,
    pub(crate) pid: u32,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The instance that made it; `None` for an answer of the gateway's own.
    pub(crate) author: Option<Author>,
    pub(crate) body: String,
    /// The connection, when the server keeps it open.
    pub(crate) connection: Option<Connection>,
}

impl Connection {
    /// Opens one.
    pub(crate) async fn open(target: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(target).await.map_err(|error| Failure::of(&error))?;
        // A request is one segment; it must not wait for the answer to the one before.
        stream.set_nodelay(true).map_err(|error| Failure::of(&error))?;
        Ok(Self { stream })
    }

    /// Whether the server has not closed it by now: asked of the kernel, as every pool of connections does
    /// before it uses one again.
    pub(crate) fn is_open(&self) -> bool {
        use nix::sys::socket::{MsgFlags, recv};
        use std::os::fd::AsRawFd as _;
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        matches!(recv(self.stream.as_raw_fd(), &mut [0; 1], flags), Err(nix::errno::Errno::EAGAIN))
    }

    /// Sends one GET once and reads the whole answer.
    pub(crate) async fn get(mut self, question: Question<'_>) -> Result<Answer, Failure> {
        let Question { host, path, headers, keep } = question;
        let connection = if keep { "keep-alive" } else { "close" };
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).await.map_err(|error| Failure::of(&error))?;
        let mut bytes = Vec::with_capacity(512);
        let head = loop {
            if let Some(head) = Head::parse(&bytes)? {
                break head;
            }
            self.read_more(&mut bytes).await?;
        };
        while bytes.len() < head.length + head.body {
            self.read_more(&mut bytes).await?;
        }
        // What comes beyond the body's length was asked by nobody, and makes the answer a wrong one.
        let body = String::from_utf8(bytes.split_off(head.length)).map_err(|_| Failure::Body)?;
        let connection = (keep && !head.close).then_some(self);
        Ok(Answer { status: head.status, author: head.author, body, connection })
    }

    async fn read_more(&mut self, bytes: &mut Vec<u8>) -> Result<(), Failure> {
        if bytes.len() > ANSWER_MAX {
            return Err(Failure::Body);
        }
        match self.stream.read_buf(bytes).await {
            Ok(0) => Err(Failure::Cut),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::of(&error)),
        }
    }
}

/// The part of an answer's head that matters here.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Bytes up to and with the empty line.
    length: usize,
    status: u16,
    /// Bytes of the body.
    body: usize,
    close: bool,
    author: Option<Author>,
}

impl Head {
    /// `None` until the whole head is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        let Some(length) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..length]).map_err(|_| Failure::Body)?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status = status.ok_or(Failure::Body)?;
        let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim())
        };
        let author = || {
            let (release, instance) = (header(RELEASE_HEADER)?, header(INSTANCE_HEADER)?);
            let pid = header(PID_HEADER)?.parse().ok()?;
            Some(Author { release: release.to_owned(), instance: instance.to_owned(), pid })
        };
        // Neither the sample nor the gateway in front of it sends so short an answer without its length.
        let body = header("content-length").and_then(|length| length.parse().ok()).ok_or(Failure::Body)?;
        let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(Some(Self { length, status, body, close, author: author() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nconnection: close\r\n\r\nabc";
        assert_eq!(Head::parse(&text[..20]), Ok(None));
        let head = Head { length: text.len() - 3, status: 200, body: 3, close: true, author: None };
        assert_eq!(Head::parse(text), Ok(Some(head)));
        assert_eq!(Head::parse(b"SSH-2.0-x\r\n\r\n"), Err(Failure::Body));
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Failure::Body), "of no known length");
    }

    #[test]
    fn an_answer_says_who_made_it() {
        let text =
            "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nSample-Release: 3.0\r\nsample-instance: shop.2\r\n";
        let head = |rest: &str| Head::parse(format!("{text}{rest}\r\n").as_bytes()).unwrap().unwrap();
        let author = Author { release: "3.0".into(), instance: "shop.2".into(), pid: 42 };
        assert_eq!(head("sample-pid: 42\r\n").author, Some(author));
        assert_eq!(head("").author, None);
    }
}
