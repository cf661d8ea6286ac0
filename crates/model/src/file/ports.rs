//! Reads `[ports.NAME]`.

use super::problem::{Fault, type_name};
use super::reader::{Fields, Reader, Section};
use super::{defaults, value};
use crate::id::PortName;
use crate::spec::{Port, PortKind};
use std::collections::BTreeMap;
use toml::de::DeValue;

pub(super) const PORT: &[&str] = &["kind", "port", "protocol", "path", "mode"];

pub(super) fn ports(reader: &mut Reader, top: &Section<'_, '_>) -> BTreeMap<PortName, Port> {
    let section = reader.section(top, "ports", Fields::Any);
    let mut ports = BTreeMap::new();
    for (name, span) in section.names() {
        let path = format!("ports.{name}");
        let port = port(reader, &section, name);
        match PortName::new(name) {
            Ok(name) => {
                ports.insert(name, port);
            }
            Err(_) => reader.fault(
                &path,
                span,
                &Fault::new(
                    "is not a valid name of a port",
                    "use 1 to 63 lower-case letters, digits and dashes: `[ports.http]`",
                ),
            ),
        }
    }
    ports
}

#[derive(Clone, Copy)]
enum PortWord {
    Socket,
    Dynamic,
    Fixed,
}

#[derive(Clone, Copy)]
enum Protocol {
    Tcp,
    Udp,
}

/// What one port says of itself, each part as far as it could be read.
struct Written {
    number: Option<u16>,
    protocol: Option<Protocol>,
    path: Option<String>,
    mode: Option<u32>,
}

fn port(reader: &mut Reader, ports: &Section<'_, '_>, name: &str) -> Port {
    const KINDS: &[(&str, PortWord)] =
        &[("socket", PortWord::Socket), ("dynamic", PortWord::Dynamic), ("fixed", PortWord::Fixed)];
    const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let section = reader.section(ports, name, Fields::Only(PORT));
    reader.missing(&section, "kind", "write `kind = \"socket\"`, `kind = \"dynamic\"` or `kind = \"fixed\"`");
    let kind = reader.field(&section, "kind", |v| value::word(v, KINDS));
    let written = Written {
        number: reader.field(&section, "port", value::port),
        protocol: reader.field(&section, "protocol", |v| value::word(v, PROTOCOLS)),
        path: reader.field(&section, "path", value::text),
        mode: reader.field(&section, "mode", mode),
    };
    let kind = match kind {
        Some(PortWord::Socket) => socket(reader, &section, written),
        Some(PortWord::Dynamic) => {
            let help = "leave `port` out, or write `kind = \"socket\"` or `kind = \"fixed\"`";
            refuse(
                reader,
                &section,
                "port",
                "has no meaning for a dynamic port, which is picked for each run",
                help,
            );
            only_for_sockets(reader, &section);
            Some(PortKind::Dynamic)
        }
        Some(PortWord::Fixed) => {
            number_needed(reader, &section);
            only_for_sockets(reader, &section);
            written.number.map(|port| PortKind::Fixed { port })
        }
        None => None,
    };
    // A port that could not be read takes part in no further check.
    let kind = kind.unwrap_or_else(|| {
        reader.mark_broken(&section.path);
        PortKind::Dynamic
    });
    Port { kind }
}

fn socket(reader: &mut Reader, section: &Section<'_, '_>, written: Written) -> Option<PortKind> {
    if section.has("path") {
        let what = "has no meaning beside `path`: a Unix socket is reached by its path alone";
        refuse(reader, section, "port", what, "leave it out, or leave `path` out for a TCP port");
        refuse(reader, section, "protocol", what, "leave it out; a Unix socket is a stream socket");
        let mode = if section.has("mode") { written.mode } else { Some(defaults::SOCKET_MODE) };
        return Some(PortKind::Unix { path: written.path?, mode: mode? });
    }
    refuse(
        reader,
        section,
        "mode",
        "has no meaning without `path`: only a Unix socket has permission bits",
        "leave it out, or write `path = \"/run/web/web.sock\"` in place of `port`",
    );
    number_needed(reader, section);
    let port = written.number?;
    match written.protocol {
        None if section.has("protocol") => None,
        None | Some(Protocol::Tcp) => Some(PortKind::Socket { port }),
        Some(Protocol::Udp) => Some(PortKind::Udp { port }),
    }
}

fn number_needed(reader: &mut Reader, section: &Section<'_, '_>) {
    reader.missing(
        section,
        "port",
        "write `port = 8080` with the TCP port, or `kind = \"dynamic\"` for any free one",
    );
}

fn only_for_sockets(reader: &mut Reader, section: &Section<'_, '_>) {
    for field in ["protocol", "path", "mode"] {
        let help = "leave it out, or write `kind = \"socket\"`";
        refuse(reader, section, field, "has a meaning only for `kind = \"socket\"`", help);
    }
}

fn refuse(reader: &mut Reader, section: &Section<'_, '_>, field: &str, what: &str, help: &str) {
    if section.has(field) {
        let path = format!("{}.{field}", section.path);
        let span = reader.span_of(&path);
        reader.fault(&path, span, &Fault::new(what, help));
    }
}

/// Permission bits as chmod(1) has them, in quotes: in TOML a bare 0660 is an error, and 660 would be another number.
fn mode(written: &DeValue<'_>) -> Result<u32, Fault> {
    const HELP: &str = "write the permission bits in octal, in quotes: \"0660\"";
    let DeValue::String(text) = written else {
        return Err(Fault::new(format!("must be text, not {}", type_name(written)), HELP));
    };
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| digits && *bits <= 0o777);
    bits.ok_or_else(|| {
        Fault::new(format!("is `{}`, which are not the bits of a mode", value::shorten(text)), HELP)
    })
}
