//! Files, secrets and what a node is provided with.
//!
//! Messages that carry the value of a secret have their `Debug` here: it shows nothing of it.

use super::field::{WireError, counted, port, required, text};
use crate::v1;
use baton_model::configuration::{
    ConfigFile, Configuration, OnChange, Peer, Provision, SecretKey, SecretUse,
};
use baton_model::id::{SecretName, ServiceName};
use baton_model::secret::Secret;
use baton_model::spec::StopSignal;
use baton_model::status::{ConfigurationChange, SecretRevision, SecretStatus};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;
use std::fmt;

impl From<Configuration> for v1::Configuration {
    fn from(configuration: Configuration) -> Self {
        let files = configuration.files.into_iter().map(|(name, file)| (name, file.into()));
        let secrets = configuration.secrets.into_iter().map(|(name, used)| (name, used.into()));
        Self { files: files.collect(), secrets: secrets.collect() }
    }
}

impl TryFrom<v1::Configuration> for Configuration {
    type Error = WireError;
    fn try_from(wire: v1::Configuration) -> Result<Self, WireError> {
        use super::field::keyed;
        Ok(Self { files: keyed("files", wire.files)?, secrets: keyed("secrets", wire.secrets)? })
    }
}

impl From<ConfigFile> for v1::ConfigFile {
    fn from(file: ConfigFile) -> Self {
        Self { template: file.template, on_change: Some(file.on_change.into()) }
    }
}

impl TryFrom<v1::ConfigFile> for ConfigFile {
    type Error = WireError;
    fn try_from(wire: v1::ConfigFile) -> Result<Self, WireError> {
        Ok(Self { template: wire.template, on_change: required("on_change", wire.on_change)? })
    }
}

impl From<SecretUse> for v1::SecretUse {
    fn from(used: SecretUse) -> Self {
        Self { secret: used.secret.into(), revision: used.revision, on_change: Some(used.on_change.into()) }
    }
}

impl TryFrom<v1::SecretUse> for SecretUse {
    type Error = WireError;
    fn try_from(wire: v1::SecretUse) -> Result<Self, WireError> {
        Ok(Self {
            secret: text("secret", &wire.secret)?,
            revision: wire.revision,
            on_change: required("on_change", wire.on_change)?,
        })
    }
}

impl From<OnChange> for v1::OnChange {
    fn from(on_change: OnChange) -> Self {
        use v1::on_change::Kind;
        let kind = match on_change {
            OnChange::Restart => Kind::Restart(true),
            OnChange::Signal(signal) => Kind::Signal(signal.name().to_owned()),
            OnChange::Nothing => Kind::Nothing(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::OnChange> for OnChange {
    type Error = WireError;
    fn try_from(wire: v1::OnChange) -> Result<Self, WireError> {
        use v1::on_change::Kind;
        match wire.kind {
            Some(Kind::Restart(true)) => Ok(Self::Restart),
            Some(Kind::Nothing(true)) => Ok(Self::Nothing),
            Some(Kind::Signal(name)) => {
                StopSignal::ALL.into_iter().find(|signal| signal.name() == name).map(Self::Signal).ok_or_else(
                    || WireError::new("signal", format!("`{name}` is no signal that is known here")),
                )
            }
            Some(Kind::Restart(false) | Kind::Nothing(false)) | None => Err(WireError::unset("kind")),
        }
    }
}

impl From<Peer> for v1::Peer {
    fn from(peer: Peer) -> Self {
        Self {
            instance: peer.instance.into(),
            node: peer.node.into(),
            address: peer.address,
            ports: peer.ports.into_iter().map(|(name, port)| (name, port.into())).collect(),
        }
    }
}

impl TryFrom<v1::Peer> for Peer {
    type Error = WireError;
    fn try_from(wire: v1::Peer) -> Result<Self, WireError> {
        let mut ports = BTreeMap::new();
        for (name, number) in wire.ports {
            let number = port(&format!("ports[{name:?}]"), number)?;
            ports.insert(name, number);
        }
        Ok(Self {
            instance: text("instance", &wire.instance)?,
            node: text("node", &wire.node)?,
            address: wire.address,
            ports,
        })
    }
}

/// What a node is provided with for one service, as it travels.
#[must_use]
pub fn provision_to_wire(service: ServiceName, provision: Provision) -> v1::Provision {
    let secret = |(key, value): (SecretKey, Secret)| v1::SecretValue {
        name: key.name.into(),
        revision: key.revision,
        value: value.expose().to_vec().into(),
    };
    v1::Provision {
        service: service.into(),
        labels: provision.labels,
        peers: provision.peers.into_iter().map(Into::into).collect(),
        secrets: provision.secrets.into_iter().map(secret).collect(),
    }
}

/// What this node is provided with, and for which service.
///
/// # Errors
/// Names the field that the model cannot hold; never a value.
pub fn provision(wire: v1::Provision) -> Result<(ServiceName, Provision), WireError> {
    let mut secrets = BTreeMap::new();
    for (at, secret) in wire.secrets.into_iter().enumerate() {
        let field = |name: &str| format!("secrets[{at}].{name}");
        let key = SecretKey {
            name: text::<SecretName>(&field("name"), &secret.name)?,
            revision: counted(&field("revision"), secret.revision)?,
        };
        if secret.value.len() > Secret::BYTES_MAX {
            return Err(WireError::new(field("value"), format!("more than {} bytes", Secret::BYTES_MAX)));
        }
        secrets.insert(key, Secret::new(secret.value.into()));
    }
    let peers = super::field::each("peers", wire.peers)?;
    Ok((text("service", &wire.service)?, Provision { labels: wire.labels, peers, secrets }))
}

impl From<ConfigurationChange> for v1::ConfigurationChange {
    fn from(change: ConfigurationChange) -> Self {
        Self {
            name: change.name,
            secret: change.secret,
            from_revision: change.from_revision,
            to_revision: change.to_revision,
            diff: change.diff,
            on_change: Some(change.on_change.into()),
        }
    }
}

impl TryFrom<v1::ConfigurationChange> for ConfigurationChange {
    type Error = WireError;
    fn try_from(wire: v1::ConfigurationChange) -> Result<Self, WireError> {
        Ok(Self {
            name: wire.name,
            secret: wire.secret,
            from_revision: wire.from_revision,
            to_revision: wire.to_revision,
            diff: wire.diff,
            on_change: required("on_change", wire.on_change)?,
        })
    }
}

impl From<SecretStatus> for v1::SecretStatus {
    fn from(status: SecretStatus) -> Self {
        let revision = |revision: SecretRevision| v1::SecretRevision {
            revision: revision.revision,
            created_at_ms: revision.created_at.0,
            created_by: revision.created_by,
            size_bytes: revision.size_bytes,
            used_by: revision.used_by,
        };
        Self {
            name: status.name.into(),
            revisions: status.revisions.into_iter().map(revision).collect(),
            now_ms: status.now.0,
        }
    }
}

impl TryFrom<v1::SecretStatus> for SecretStatus {
    type Error = WireError;
    fn try_from(wire: v1::SecretStatus) -> Result<Self, WireError> {
        let revision = |(at, revision): (usize, v1::SecretRevision)| {
            Ok(SecretRevision {
                revision: counted(&format!("revisions[{at}].revision"), revision.revision)?,
                created_at: UnixMs(revision.created_at_ms),
                created_by: revision.created_by,
                size_bytes: revision.size_bytes,
                used_by: revision.used_by,
            })
        };
        let revisions = wire.revisions.into_iter().enumerate().map(revision);
        Ok(Self {
            name: text("name", &wire.name)?,
            revisions: revisions.collect::<Result<_, WireError>>()?,
            now: UnixMs(wire.now_ms),
        })
    }
}

impl fmt::Debug for v1::SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue")
            .field("name", &self.name)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::SetSecretRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetSecretRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provision_travels_and_is_never_printed() {
        let key = SecretKey { name: "db-password".parse().unwrap(), revision: 3 };
        let peer = Peer {
            instance: "web.2".parse().unwrap(),
            node: "n2".parse().unwrap(),
            address: "10.0.0.2".to_owned(),
            ports: [("http".to_owned(), 8080)].into(),
        };
        let sent = Provision {
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            peers: vec![peer.clone()],
            secrets: [(key.clone(), Secret::new(b"hunter2".to_vec()))].into(),
        };
        let wire = provision_to_wire("web".parse().unwrap(), sent);
        let request = v1::SetSecretRequest { name: "x".to_owned(), value: b"hunter2"[..].into() };
        for printed in [format!("{wire:?}"), format!("{wire:#?}"), format!("{request:?}")] {
            // As text, and as the list of its bytes.
            assert!(!printed.contains("hunter2") && !printed.contains("104"), "{printed}");
        }
        let (service, got) = provision(wire).unwrap();
        assert_eq!(got.labels["zone"], "a");
        assert_eq!((service.as_str(), got.peers), ("web", vec![peer]));
        assert_eq!(got.secrets[&key].expose(), b"hunter2");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let value = |revision| v1::SecretValue { name: "x".to_owned(), revision, value: Default::default() };
        let wire = |secret| v1::Provision {
            service: "web".to_owned(),
            secrets: vec![secret],
            ..v1::Provision::default()
        };
        assert_eq!(provision(wire(value(0))).unwrap_err().path, "secrets[0].revision");
        let large = v1::SecretValue { value: vec![0; Secret::BYTES_MAX + 1].into(), ..value(1) };
        assert_eq!(provision(wire(large)).unwrap_err().path, "secrets[0].value");
        let signal = v1::OnChange { kind: Some(v1::on_change::Kind::Signal("SIGWINCH".to_owned())) };
        assert_eq!(OnChange::try_from(signal).unwrap_err().path, "signal");
    }
}
