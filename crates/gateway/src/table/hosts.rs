//! From a request's host and path to the route that names them.

use std::borrow::Cow;
use std::collections::HashMap;

/// Which of several values belongs to a host and a path.
#[derive(Debug)]
pub(crate) struct Hosts<T> {
    /// By name, in lower case.
    exact: HashMap<String, Paths<T>>,
    /// By what follows the `*.`, in lower case.
    below: HashMap<String, Paths<T>>,
    any: Paths<T>,
}

/// Values by the beginning of the path, the longest first.
#[derive(Debug)]
struct Paths<T>(Vec<(String, T)>);

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Paths<T> {
    fn add(&mut self, prefix: &str, value: T) {
        let at = self.0.partition_point(|(other, _)| other.len() >= prefix.len());
        self.0.insert(at, (prefix.to_owned(), value));
    }

    fn find(&self, path: &str) -> Option<&T> {
        self.0.iter().find(|(prefix, _)| begins(path, prefix)).map(|(_, value)| value)
    }
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: Paths::default() }
    }
}

impl<T: Clone> Hosts<T> {
    /// Adds what is for `hosts`, or for any host where none is named, and paths below `path`.
    pub(crate) fn add(&mut self, hosts: &[String], path: &str, value: &T) {
        let prefix = trimmed(path);
        for host in hosts {
            let host = host.to_ascii_lowercase();
            match host.strip_prefix("*.") {
                Some(parent) => self.below.entry(parent.to_owned()).or_default().add(prefix, value.clone()),
                None => self.exact.entry(host).or_default().add(prefix, value.clone()),
            }
        }
        if hosts.is_empty() {
            self.any.add(prefix, value.clone());
        }
    }

    /// The value of the longest path of the most exact name that has one for this path: the name itself, then `*.` and
    /// the longest of its parents. What is for any host is taken only where no name fits the host at all.
    pub(crate) fn find(&self, host: Option<&str>, path: &str) -> Option<&T> {
        let Some(host) = host.map(bare) else { return self.any.find(path) };
        let host: Cow<'_, str> = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let mut named = false;
        let exact = self.exact.get(host.as_ref());
        let parents =
            std::iter::successors(Some(host.as_ref()), |name| name.split_once('.').map(|(_, rest)| rest));
        let below = parents
            .skip(1)
            .take(if self.below.is_empty() { 0 } else { usize::MAX })
            .filter_map(|parent| self.below.get(parent));
        for paths in exact.into_iter().chain(below) {
            named = true;
            if let Some(value) = paths.find(path) {
                return Some(value);
            }
        }
        if named { None } else { self.any.find(path) }
    }
}

/// A host without its port and without the dot at the end of a full name.
pub(crate) fn bare(host: &str) -> &str {
    let name = match host.strip_prefix('[') {
        // An IPv6 address keeps its brackets, as it is written in URIs.
        Some(rest) => rest.find(']').map_or(host, |end| &host[..end + 2]),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// A prefix without the slashes at its end: `/api/` and `/api` are the same, and `/` is the empty one.
pub(crate) fn trimmed(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// Whether a path begins with a prefix of whole segments.
pub(crate) fn begins(path: &str, trimmed: &str) -> bool {
    path.strip_prefix(trimmed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || trimmed.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(routes: &[(&[&str], &str, &'static str)], requests: &[(Option<&str>, &str, Option<&str>)]) {
        let mut hosts = Hosts::default();
        for (names, path, service) in routes {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            hosts.add(&names, path, service);
        }
        for (host, path, expect) in requests {
            assert_eq!(hosts.find(*host, path).copied(), *expect, "{host:?} {path}");
        }
    }

    #[test]
    fn the_longest_path_of_whole_segments_wins() {
        check(
            &[(&["a.test"], "/", "root"), (&["a.test"], "/api/", "api"), (&["a.test"], "/api/v2", "v2")],
            &[
                (Some("a.test"), "/", Some("root")),
                (Some("a.test"), "/apis", Some("root")),
                (Some("a.test"), "/api", Some("api")),
                (Some("a.test"), "/api/v1", Some("api")),
                (Some("a.test"), "/api/v2/x", Some("v2")),
                (Some("a.test"), "*", Some("root")),
                (Some("b.test"), "/", None),
                (None, "/", None),
            ],
        );
    }

    #[test]
    fn the_most_exact_name_wins_and_any_host_takes_only_what_nobody_names() {
        check(
            &[
                (&["x.a.test"], "/only", "exact"),
                (&["*.a.test"], "/", "below"),
                (&["*.x.a.test"], "/", "deeper"),
                (&["b.test"], "/only", "named"),
                (&[], "/", "any"),
            ],
            &[
                (Some("x.a.test"), "/only", Some("exact")),
                (Some("x.a.test"), "/", Some("below")),
                (Some("y.x.a.test"), "/", Some("deeper")),
                (Some("a.test"), "/", Some("any")),
                (Some("b.test"), "/", None),
                (Some("c.test"), "/", Some("any")),
                (None, "/", Some("any")),
            ],
        );
    }

    #[test]
    fn case_ports_and_final_dots_are_not_part_of_a_name() {
        check(
            &[(&["A.test"], "/", "a"), (&["[::1]"], "/", "v6")],
            &[
                (Some("a.TEST:8080"), "/", Some("a")),
                (Some("a.test."), "/", Some("a")),
                (Some("a.test.:80"), "/", Some("a")),
                (Some("[::1]:8080"), "/", Some("v6")),
                (Some("[::1]"), "/", Some("v6")),
                (Some("[::1"), "/", None),
                (Some(""), "/", None),
            ],
        );
    }
}
