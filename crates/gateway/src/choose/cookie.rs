//! The cookie by which a client stays with its release.
//!
//! It holds the client's point on the split, not a release: when weights change, clients with a cookie move exactly as
//! those with a key do, and the split is followed by all of them. It says nothing else about the client.

use crate::hash::POINTS;
use crate::request::{RequestView, cookie};
use baton_model::route::Entry;
use http::HeaderValue;

/// How long a client keeps it: longer than any rollout.
const MAX_AGE_SECONDS: u32 = 30 * 24 * 3600;

#[derive(Debug)]
pub(super) struct Cookie {
    name: String,
    path: String,
}

impl Cookie {
    pub(super) fn new(name: &str, entry: &Entry) -> Self {
        let path = match entry {
            // A `;` would end the attribute.
            Entry::Http { path, .. } if !path.contains(';') => path.clone(),
            Entry::Http { .. } | Entry::Tcp { .. } => "/".to_owned(),
        };
        Self { name: name.to_owned(), path }
    }

    /// The point that a client brings; anything that is not one of ours is as good as none.
    pub(super) fn point(&self, view: &RequestView<'_>) -> Option<u16> {
        let value = cookie(view.headers, &self.name)?;
        if value.is_empty() || value.len() > 4 || !value.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let point = value.iter().fold(0, |point, digit| point * 10 + u16::from(digit - b'0'));
        (point < POINTS).then_some(point)
    }

    /// The point of a `Set-Cookie` that was made by [`Self::set`].
    pub(super) fn given(&self, set: &HeaderValue) -> Option<u16> {
        let text = set.to_str().ok()?;
        text.strip_prefix(&self.name)?.strip_prefix('=')?.split(';').next()?.parse().ok()
    }

    /// The `Set-Cookie` of a new client (RFC 6265, 4.1).
    pub(super) fn set(&self, point: u16, secure: bool) -> HeaderValue {
        let Self { name, path } = self;
        let secure = if secure { "; Secure" } else { "" };
        let text =
            format!("{name}={point}; Path={path}; Max-Age={MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(text).expect("the cookie's name and path were checked")
    }
}
