//! Which lines of a log a request wants. Lines are picked on their node: what nobody wants is not sent.

use super::line::Line;
use baton_proto::v1;
use regex::bytes::{Regex, RegexBuilder};

/// Memory that a compiled expression, and its cache, may each take: the agent stays small whatever is asked.
const GREP_BYTES_MAX: usize = 1 << 20;

/// What is asked of every line.
#[derive(Debug)]
pub(super) struct Pick {
    since_ms: Option<u64>,
    stderr: Option<bool>,
    grep: Option<Regex>,
}

impl Pick {
    /// What `request` asks of lines.
    ///
    /// # Errors
    /// Says what is wrong with the regular expression.
    pub(super) fn of(request: &v1::LogRequest) -> Result<Self, String> {
        let grep = request.grep.as_deref().map(|pattern| {
            let mut builder = RegexBuilder::new(pattern);
            let built = builder.size_limit(GREP_BYTES_MAX).dfa_size_limit(GREP_BYTES_MAX).build();
            built.map_err(|error| format!("`{pattern}` is no regular expression that can be used: {error}"))
        });
        let stderr = match request.stream() {
            v1::LogStream::Unspecified => None,
            v1::LogStream::Stdout => Some(false),
            v1::LogStream::Stderr => Some(true),
        };
        Ok(Self { since_ms: request.since_ms, stderr, grep: grep.transpose()? })
    }

    /// Whether the last lines that are wanted may lie far before the last lines that there are.
    pub(super) fn is_sparse(&self) -> bool {
        self.stderr.is_some() || self.grep.is_some()
    }

    /// Whether this line is wanted.
    pub(super) fn admits(&self, line: &Line) -> bool {
        self.since_ms.is_none_or(|since| line.at_ms >= since)
            && self.stderr.is_none_or(|stderr| line.stderr == stderr)
            && self.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(request: v1::LogRequest) -> Vec<u64> {
        let line = |at_ms, stderr, text: &str| Line { at_ms, stderr, text: text.into() };
        let lines = [line(1, false, "GET /a 200"), line(2, true, "oops"), line(3, false, "GET /b 500")];
        let pick = Pick::of(&request).unwrap();
        lines.iter().filter(|line| pick.admits(line)).map(|line| line.at_ms).collect()
    }

    #[test]
    fn lines_are_picked_by_time_stream_and_expression() {
        let all = v1::LogRequest::default();
        assert_eq!(picked(all.clone()), [1, 2, 3]);
        assert_eq!(picked(v1::LogRequest { since_ms: Some(2), ..all.clone() }), [2, 3]);
        assert_eq!(picked(v1::LogRequest { stream: v1::LogStream::Stderr.into(), ..all.clone() }), [2]);
        assert_eq!(picked(v1::LogRequest { stream: v1::LogStream::Stdout.into(), ..all.clone() }), [1, 3]);
        assert_eq!(picked(v1::LogRequest { grep: Some("5..$".into()), ..all.clone() }), [3]);
        assert_eq!(picked(v1::LogRequest { grep: Some("(?i)get".into()), since_ms: Some(2), ..all }), [3]);
    }

    #[test]
    fn an_expression_that_is_none_or_takes_too_much_is_refused() {
        for pattern in ["(", "(\\w{100}){1000}"] {
            let refused = Pick::of(&v1::LogRequest { grep: Some(pattern.into()), ..Default::default() });
            assert!(refused.unwrap_err().contains(pattern));
        }
    }
}
