//! An answer of HTTP/1, read whole.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The connection is not to be used again.
    pub close: bool,
    /// The version that answered: the `version=` that the body carries, or the header `x-version` or `sample-release`. Empty where none did.
    pub version: String,
    /// Its body.
    pub body: String,
}

/// Reads a whole answer.
///
/// # Errors
/// It was cut short, took longer than the connection's timeout, or is not HTTP.
pub(super) fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Answer> {
    let cut =
        || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the connection ended before the answer");
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(cut());
    }
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("not HTTP: {line:?}")))?;
    let (mut length, mut close, mut header_version) = (None, line.starts_with("HTTP/1.0"), None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(cut());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<usize>().ok(),
            "connection" => close |= value.eq_ignore_ascii_case("close"),
            "x-version" | "sample-release" => header_version = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None => {
            close = true;
            reader.read_to_end(&mut body)?;
        }
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    let in_body = body.split_whitespace().find_map(|word| word.strip_prefix("version="));
    let version = in_body.map(str::to_owned).or(header_version).unwrap_or_default();
    Ok(Answer { status, close, version, body })
}
