//! From a template and what is known on a node to the text of a file.
//!
//! Templates are MiniJinja's (Jinja2 without its Python): `{{ ports.http }}`, `{% for peer in peers %}`. A name that is
//! not known is an error, never an empty text. Every bound has a name: a template comes from a person, and is rendered
//! by agents that have other things to do.

use crate::configuration::Peer;
use crate::id::{InstanceId, NodeName, ReleaseNumber, Version};
use crate::spec::{PortKind, ServiceSpec};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Largest template.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// Largest file that is made of one.
pub const RENDERED_BYTES_MAX: usize = 1024 * 1024;
/// Steps of the template engine: some milliseconds, and enough for a line per peer of a thousand.
const FUEL: u64 = 1_000_000;

/// What a template may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `node.name`.
    pub node: NodeName,
    /// `node.address`.
    pub address: String,
    /// `node.labels`.
    pub labels: BTreeMap<String, String>,
    /// `instance`; `service` and `slot` are parts of it.
    pub instance: InstanceId,
    /// `version`.
    pub version: Version,
    /// `release`.
    pub release: ReleaseNumber,
    /// `ports`, by name.
    pub ports: BTreeMap<String, u16>,
    /// `peers`: where the service's instances are, this one among them.
    pub peers: Vec<Peer>,
    /// `config_dir`.
    pub config_dir: String,
    /// `secrets_dir`.
    pub secrets_dir: String,
}

/// The names at the top, for those who meant one of them.
const NAMES: &str =
    "service, instance, slot, version, release, node, ports, peers, config_dir and secrets_dir";

/// Why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}; {help}")]
pub struct RenderError {
    /// The line, counted from 1.
    pub line: usize,
    /// The bytes of the template it is about, where that is known.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: String,
}

/// The text that `template` gives with these facts.
///
/// # Errors
/// Names the line, what is wrong with it, and what to write instead.
pub fn render(template: &str, facts: &Facts) -> Result<String, RenderError> {
    render_with(template, values(facts, texts(&facts.labels)))
}

/// Whether `template` gives a text with made-up facts of the right shape, so that a mistake is found before a deploy.
/// Labels differ from node to node: here each is there.
///
/// # Errors
/// As [`render`].
pub fn rehearse(template: &str, spec: &ServiceSpec) -> Result<(), RenderError> {
    render_with(template, values(&sample(spec), Value::from_object(AnyLabel))).map(drop)
}

fn values(facts: &Facts, labels: Value) -> Value {
    context! {
        service => facts.instance.service.as_str(),
        instance => facts.instance.to_string(),
        slot => facts.instance.slot,
        version => facts.version.as_str(),
        release => facts.release.0,
        node => context! { name => facts.node.as_str(), address => facts.address.as_str(), labels },
        ports => numbers(&facts.ports),
        peers => facts.peers.iter().map(peer_value).collect::<Vec<_>>(),
        config_dir => facts.config_dir.as_str(),
        secrets_dir => facts.secrets_dir.as_str(),
    }
}

fn peer_value(peer: &Peer) -> Value {
    context! {
        instance => peer.instance.to_string(),
        slot => peer.instance.slot,
        node => peer.node.as_str(),
        address => peer.address.as_str(),
        ports => numbers(&peer.ports),
    }
}

fn texts(entries: &BTreeMap<String, String>) -> Value {
    Value::from_pairs(entries.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

fn numbers(entries: &BTreeMap<String, u16>) -> Value {
    Value::from_pairs(entries.iter().map(|(name, number)| (name.as_str(), *number)))
}

/// As usual, but a file ends as its template does.
fn syntax() -> SyntaxConfig {
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    syntax.build().expect("the usual delimiters")
}

fn render_with(template: &str, values: Value) -> Result<String, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(syntax());
    environment.set_debug(true);
    environment.set_fuel(Some(FUEL));
    let told = |error: &minijinja::Error| explain(template, error);
    let compiled = environment.template_from_str(template).map_err(|error| told(&error))?;
    let text = compiled.render(values).map_err(|error| told(&error))?;
    if text.len() > RENDERED_BYTES_MAX {
        return Err(RenderError {
            line: 1,
            span: None,
            what: format!("the file would have {} bytes", text.len()),
            help: format!("write a template that gives at most {RENDERED_BYTES_MAX}"),
        });
    }
    Ok(text)
}

/// A template engine's error in our words.
fn explain(template: &str, error: &minijinja::Error) -> RenderError {
    let span = error.range().filter(|range| template.get(range.clone()).is_some());
    let written = span.clone().and_then(|range| template.get(range)).map(str::trim).unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    let (what, help) = match error.kind() {
        ErrorKind::UndefinedError => (
            format!("`{written}` is not known here"),
            format!(
                "known are {NAMES}; write `| default(\"...\")` after what may be missing on some nodes, such as a label"
            ),
        ),
        ErrorKind::OutOfFuel => {
            ("the template takes too many steps".to_owned(), "write a shorter loop".to_owned())
        }
        ErrorKind::SyntaxError => (
            format!("this is not a template: {detail}"),
            "close each `{{` with `}}` and each `{% if %}` or `{% for %}` with its end; for literal braces write `{% raw %}...{% endraw %}`"
                .to_owned(),
        ),
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest | ErrorKind::UnknownMethod => (
            format!("{detail}: `{written}`"),
            "use the filters, functions and tests of MiniJinja (https://docs.rs/minijinja)".to_owned(),
        ),
        // The kinds are the engine's own, and may become more.
        kind => {
            let about = if written.is_empty() { String::new() } else { format!(" in `{written}`") };
            (
                format!("{kind}{about}{}{detail}", if detail.is_empty() { "" } else { ": " }),
                "correct this line; docs/configuration.md shows templates that work".to_owned(),
            )
        }
    };
    RenderError { line: error.line().unwrap_or(1), span, what, help }
}

/// Answers every question for a label.
#[derive(Debug)]
struct AnyLabel;

impl Object for AnyLabel {
    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(Value::from("label"))
    }
}

/// Facts of the right shape: the service's own ports, and two peers.
fn sample(spec: &ServiceSpec) -> Facts {
    let number = |kind: &PortKind| match kind {
        PortKind::Socket { port } | PortKind::Udp { port } | PortKind::Fixed { port } => Some(*port),
        PortKind::Dynamic => Some(32_768),
        PortKind::Unix { .. } => None,
    };
    let ports: BTreeMap<String, u16> =
        spec.ports.iter().filter_map(|(name, port)| Some((name.to_string(), number(&port.kind)?))).collect();
    let node = |slot: u64| NodeName::new(format!("node-{slot}")).expect("a valid name");
    let peers = (1..=2).map(|slot| Peer {
        instance: InstanceId { service: spec.name.clone(), slot },
        node: node(slot),
        address: format!("192.0.2.{slot}"),
        ports: ports.clone(),
    });
    Facts {
        node: node(1),
        address: "192.0.2.1".to_owned(),
        labels: BTreeMap::new(),
        instance: InstanceId { service: spec.name.clone(), slot: 1 },
        version: Version::new("1.0").expect("a valid version"),
        release: ReleaseNumber(1),
        peers: peers.collect(),
        ports,
        config_dir: "/run/config".to_owned(),
        secrets_dir: "/run/secrets".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let peer = |slot: u64| Peer {
            instance: format!("web.{slot}").parse().unwrap(),
            node: format!("n{slot}").parse().unwrap(),
            address: format!("10.0.0.{slot}"),
            ports: [("http".to_owned(), 8080), ("admin-api".to_owned(), 81)].into(),
        };
        Facts {
            node: "n1".parse().unwrap(),
            address: "10.0.0.1".to_owned(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            instance: "web.1".parse().unwrap(),
            version: "2.0".parse().unwrap(),
            release: ReleaseNumber(7),
            ports: [("http".to_owned(), 8080)].into(),
            peers: (1..=3).map(peer).collect(),
            config_dir: "/c".to_owned(),
            secrets_dir: "/s".to_owned(),
        }
    }

    #[test]
    fn everything_known_can_be_written() {
        let template = "{{ service }} {{ instance }} {{ slot }} {{ version }} {{ release }} {{ node.name }} {{ node.address }} \
                        {{ node.labels.zone }} {{ ports.http }} {{ config_dir }} {{ secrets_dir }} {{ node.labels.rack | default('r0') }}\n";
        assert_eq!(render(template, &facts()).unwrap(), "web web.1 1 2.0 7 n1 10.0.0.1 a 8080 /c /s r0\n");
    }

    #[test]
    fn peers_can_be_walked_without_oneself() {
        let template = "{% for peer in peers if peer.instance != instance -%}\n\
                        server {{ peer.address }}:{{ peer.ports.http }} {{ peer.node }} {{ peer.ports['admin-api'] }};\n\
                        {% endfor -%}\n";
        assert_eq!(
            render(template, &facts()).unwrap(),
            "server 10.0.0.2:8080 n2 81;\nserver 10.0.0.3:8080 n3 81;\n"
        );
    }

    #[test]
    fn text_is_not_escaped_and_keeps_its_last_line_end() {
        assert_eq!(render("<a href=\"{{ 'x&y' }}\">\n\n", &facts()).unwrap(), "<a href=\"x&y\">\n\n");
    }

    fn check(template: &str, line: usize, what: &str, help: &str) {
        let error = render(template, &facts()).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.what.contains(what) && error.help.contains(help), "{error}");
    }

    #[test]
    fn mistakes_have_a_line_and_a_remedy() {
        check("a\n{{ node.adress }}\n", 2, "`node.adress` is not known", "known are service");
        check("{{ prots.http }}", 1, "is not known", "ports");
        check("a\nb\n{{ version \n", 3, "not a template", "close each");
        check("{% for p in peers %}", 1, "not a template", "{% for %}");
        check("{{ version | upcase }}", 1, "upcase", "MiniJinja");
        check(
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
            1,
            "too many steps",
            "shorter",
        );
    }
}
