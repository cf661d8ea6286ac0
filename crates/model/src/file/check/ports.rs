//! What can be wrong with ports, and with checks that name one.

use super::Findings;
use crate::file::suggest::{closest, one_of};
use crate::file::value::shorten;
use crate::id::PortName;
use crate::spec::{Claim, PortKind, ServiceSpec};
use std::collections::BTreeMap;

/// Most ports of a service.
const PORTS_MAX: usize = 32;
/// Longest path of a Unix socket: a `sockaddr_un` holds 107 bytes (unix(7)), and each run has a name beside it.
const SOCKET_PATH_MAX: usize = 80;

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    if spec.ports.len() > PORTS_MAX {
        findings.add(
            &["ports"],
            format!("there are {} ports", spec.ports.len()),
            format!("declare at most {PORTS_MAX}"),
        );
    }
    let mut taken: BTreeMap<Claim, &PortName> = BTreeMap::new();
    for (name, port) in &spec.ports {
        let Some(claim) = port.kind.claim() else { continue };
        let field = |name: &PortName| match claim {
            Claim::Tcp(_) | Claim::Udp(_) => format!("ports.{name}.port"),
            Claim::Path(_) => format!("ports.{name}.path"),
        };
        match &claim {
            Claim::Tcp(0) | Claim::Udp(0) => {
                findings.add(
                    &[&field(name)],
                    format!("`{}` is 0, which is not a port", field(name)),
                    "write a number from 1 to 65535, or `kind = \"dynamic\"`",
                );
                continue;
            }
            Claim::Path(path) => socket_path(&field(name), path, findings),
            Claim::Tcp(_) | Claim::Udp(_) => {}
        }
        if let PortKind::Unix { mode, .. } = port.kind {
            findings.range(&format!("ports.{name}.mode"), mode, 0, 0o777);
        }
        if let Some(other) = taken.get(&claim) {
            let (message, help) = match &claim {
                Claim::Tcp(number) | Claim::Udp(number) => (
                    format!("ports `{other}` and `{name}` are both {number}"),
                    "give each port a number of its own",
                ),
                Claim::Path(path) => (
                    format!("ports `{other}` and `{name}` are both at {}", shorten(path)),
                    "give each socket a path of its own",
                ),
            };
            findings.add(&[&field(name), &field(other)], message, help);
        }
        taken.insert(claim, name);
    }
}

fn socket_path(field: &str, path: &str, findings: &mut Findings) {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if path.contains(odd) || path.contains("//") || path.ends_with('/') || !path.starts_with('/') {
        findings.add(
            &[field],
            format!("`{field}` is `{}`, which is not the absolute path of a socket", shorten(path)),
            "write it from the root of the file system, without spaces: \"/run/web/web.sock\"",
        );
    } else if path.split('/').any(|part| matches!(part, "." | "..")) {
        findings.add(
            &[field],
            format!("`{field}` is `{}`, which goes back on itself", shorten(path)),
            "write it without `.` and `..`: \"/run/web/web.sock\"",
        );
    }
    if path.len() > SOCKET_PATH_MAX {
        findings.add(
            &[field],
            format!("`{field}` has {} bytes, more than the address of a socket can have", path.len()),
            format!("write at most {SOCKET_PATH_MAX} bytes: \"/run/web/web.sock\""),
        );
    }
}

/// The port that a check asks must be there, and be one that can be connected to.
pub(super) fn asked(check: &str, port: &PortName, spec: &ServiceSpec, findings: &mut Findings) {
    let field = format!("checks.{check}.port");
    if let Some(found) = spec.ports.get(port) {
        if matches!(found.kind, PortKind::Udp { .. }) {
            findings.add(
                &[&field, &format!("ports.{port}.protocol")],
                format!("`{field}` names port `{port}`, which is a UDP port and takes no connection"),
                "name another port, or ask with a command: `kind = \"exec\"`",
            );
        }
        return;
    }
    let names = || spec.ports.keys().map(PortName::as_str);
    let help = match (spec.ports.is_empty(), closest(port.as_str(), names())) {
        (true, _) => format!("declare it: `[ports.{port}]` with `kind = \"socket\"` and `port = 8080`"),
        (false, Some(meant)) => format!("did you mean `{meant}`?"),
        (false, None) => format!("write {}, or declare `[ports.{port}]`", one_of(names())),
    };
    findings.add(
        &[&field, "ports"],
        format!("`{field}` names port `{port}`, which the service does not have"),
        help,
    );
}
