//! The cookie by which a client stays with its release.
//!
//! It holds the client's point on the split, not a release: when weights change, clients with a cookie move exactly as
//! those with a key do, and the split is followed by all of them. It says nothing else about the client.

use crate::hash::POINTS;
use crate::request::{RequestView, cookie};
use crate::table::hosts::trimmed;
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
            Entry::Http { path, .. } if !path.contains(';') => match trimmed(path) {
                "" => "/".to_owned(),
                // Without the slash at its end, so that a client brings it to the path itself too (RFC 6265, 5.1.4).
                path => path.to_owned(),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::LOOPBACK;
    use http::HeaderMap;
    use http::header::COOKIE;
    use proptest::prelude::*;

    fn brought(cookie: &Cookie, value: &[u8]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(value).ok()?);
        cookie.point(&RequestView { headers: &headers, ..RequestView::connection(LOOPBACK) })
    }

    proptest! {
        /// Whatever a client brings is a point of ours or none; and what it was given it brings back.
        #[test]
        fn anything_may_be_brought(value in "(at=)?[0-9;= +-]{0,12}", noise in prop::collection::vec(any::<u8>(), 0..40)) {
            let cookie = Cookie::new("at", &Entry::Tcp { listen: 1 });
            prop_assert!(brought(&cookie, value.as_bytes()).is_none_or(|point| point < POINTS));
            prop_assert!(brought(&cookie, &noise).is_none_or(|point| point < POINTS));
        }

        #[test]
        fn what_was_given_is_brought_back(point in 0..POINTS, path in "/[ -~]{0,20}", secure in any::<bool>()) {
            let entry = Entry::Http { hosts: Vec::new(), path, protocol: baton_model::route::HttpProtocol::Http1 };
            let cookie = Cookie::new("at", &entry);
            let set = cookie.set(point, secure);
            prop_assert_eq!(cookie.given(&set), Some(point));
            let pair = set.to_str().expect("text").split(';').next().expect("a pair").to_owned();
            prop_assert_eq!(brought(&cookie, pair.as_bytes()), Some(point));
        }
    }
}
