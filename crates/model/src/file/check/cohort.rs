//! A canary's cohort that nobody could be in: all of its questions must be answered with yes, and no request answers
//! these so.

use super::Findings;
use crate::file::value::shorten;
use crate::route::{Condition, Entry, Key, RouteSpec};

const FIELD: &str = "rollout.canary.cohort";
/// Most questions about one request.
const CONDITIONS_MAX: usize = 16;

pub(super) fn check(cohort: &[Condition], route: &RouteSpec, findings: &mut Findings) {
    if cohort.len() > CONDITIONS_MAX {
        let message = format!("`{FIELD}` asks {} questions about a request", cohort.len());
        findings.add(&[FIELD], message, format!("write at most {CONDITIONS_MAX}"));
        return;
    }
    let Entry::Http { hosts, path, .. } = &route.entry else {
        if !cohort.is_empty() {
            findings.add(
                &[FIELD, "route.protocol"],
                format!("`{FIELD}` looks at requests, and `protocol = \"tcp\"` understands none"),
                "take it out: connections are shared out by the client's address",
            );
        }
        return;
    };
    for (index, condition) in cohort.iter().enumerate() {
        let at = format!("{FIELD}[{index}]");
        if let Some((why, help)) = unanswered(condition, hosts, path) {
            findings.add(&[&at, FIELD], format!("`{at}` is `{}`, {why}", shown(condition)), help);
        }
        let mut earlier = cohort[..index].iter().enumerate();
        let other = earlier.find(|(_, other)| !go_together(other, condition));
        if let Some((before, other)) = other {
            let (one, other) = (shown(condition), shown(other));
            findings.add(
                &[&at, &format!("{FIELD}[{before}]"), FIELD],
                format!(
                    "`{at}` is `{one}` and `{FIELD}[{before}]` is `{other}`: all of a cohort's conditions must hold, and no \
                     request has both, so nobody would be in it"
                ),
                help_for(condition),
            );
        }
    }
}

fn shown(condition: &Condition) -> String {
    shorten(&condition.to_string())
}

fn help_for(condition: &Condition) -> String {
    match condition {
        Condition::Is { key, value: Some(_) } => {
            format!("keep one of the two, or write \"{key}\" to take every value of it")
        }
        Condition::Is { .. } | Condition::Path { .. } | Condition::Host { .. } | Condition::Share { .. } => {
            "keep one of the two".to_owned()
        }
    }
}

/// Whether some request could answer both with yes. A header may come twice, but no client means it to.
fn go_together(one: &Condition, other: &Condition) -> bool {
    match (one, other) {
        (
            Condition::Is { key: of_one, value: Some(one) },
            Condition::Is { key: of_other, value: Some(other) },
        ) => of_one != of_other || one == other,
        (Condition::Host { name: one }, Condition::Host { name: other }) => one.eq_ignore_ascii_case(other),
        (Condition::Path { prefix: one }, Condition::Path { prefix: other }) => lie_together(one, other),
        (
            Condition::Is { .. } | Condition::Host { .. } | Condition::Path { .. } | Condition::Share { .. },
            Condition::Is { .. } | Condition::Host { .. } | Condition::Path { .. } | Condition::Share { .. },
        ) => true,
    }
}

/// Why no request of this route answers it with yes, and what to write.
fn unanswered(condition: &Condition, hosts: &[String], path: &str) -> Option<(String, String)> {
    match condition {
        Condition::Host { name } if !is_taken(hosts, name) => {
            let why = "which is none of `route.hosts`, so no gateway sends its requests here".to_owned();
            Some((why, format!("add \"{name}\" to `hosts` in `[route]`, or take it out")))
        }
        Condition::Path { prefix } if !lie_together(prefix, path) => {
            let why = format!("and gateways send only what is below `route.path`, `{}`, here", shorten(path));
            let below = format!("{}{prefix}", path.trim_end_matches('/'));
            Some((why, format!("write the whole path: \"path:{below}\"")))
        }
        Condition::Is { key: key @ (Key::Header(_) | Key::Cookie(_)), value: Some(value) } => {
            let ends = matches!(key, Key::Cookie(_)) && value.contains(';');
            let spaced = value.trim_ascii() != value;
            if ends {
                let why = "and a `;` ends the value of a cookie".to_owned();
                return Some((why, "write the value without it".to_owned()));
            }
            spaced.then(|| {
                let why = "and no value begins or ends with a space once it has come by HTTP".to_owned();
                (why, format!("write \"{key}={}\"", value.trim_ascii()))
            })
        }
        Condition::Is { .. } | Condition::Host { .. } | Condition::Path { .. } | Condition::Share { .. } => {
            None
        }
    }
}

/// Whether a path can lie below both: one of them lies below the other, whole segments counted.
fn lie_together(one: &str, other: &str) -> bool {
    let below = |path: &str, prefix: &str| {
        let prefix = prefix.trim_end_matches('/');
        path.trim_end_matches('/')
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(one, other) || below(other, one)
}

/// Whether a gateway sends requests with this host here: it is named, or below a name with `*.`; or none is named.
pub(super) fn is_taken(hosts: &[String], host: &str) -> bool {
    let below = |wild: &str| {
        let parent = wild.strip_prefix("*.").and_then(|parent| host.strip_suffix(parent));
        parent.is_some_and(|name| name.len() > 1 && name.ends_with('.'))
    };
    hosts.is_empty() || hosts.iter().any(|it| it == host || below(it))
}
