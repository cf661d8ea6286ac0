//! Requests of users that are known by name, one after the other: no retries, every answer looked at.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A request that takes longer has failed. A gateway gives its instances half a minute.
const WITHIN: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The version that answered, from the header `X-Version`.
    pub version: String,
    /// Its body.
    pub body: String,
}

/// A request of a user, on a connection of its own. Without a name it is nobody's.
///
/// # Panics
/// When there is no whole answer: nothing that a user asks may fail.
#[must_use]
#[track_caller]
pub fn ask(target: SocketAddr, user: Option<&str>, path: &str) -> Answer {
    let user = user.map(|name| format!("X-User: {name}\r\n")).unwrap_or_default();
    send(target, &format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{user}\r\n"))
}

/// A request with a body of this many bytes.
///
/// # Panics
/// As [`ask`].
#[must_use]
#[track_caller]
pub fn post(target: SocketAddr, path: &str, bytes: usize) -> Answer {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n");
    send(target, &(head + &"x".repeat(bytes)))
}

#[track_caller]
fn send(target: SocketAddr, request: &str) -> Answer {
    let line = request.lines().next().unwrap_or_default().to_owned();
    exchange(target, request).unwrap_or_else(|error| panic!("{line} at {target}: {error}"))
}

fn exchange(target: SocketAddr, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&target, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let broken = |what: &str| std::io::Error::other(format!("{what}: {line:?}"));
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or_else(|| broken("no status"))?;
    let (mut version, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "x-version" => version = value.to_owned(),
            "content-length" => length = value.parse().map_err(|_| broken("no length"))?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Answer { status, version, body: String::from_utf8_lossy(&body).into_owned() })
}
