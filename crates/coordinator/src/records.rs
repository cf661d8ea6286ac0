//! How records are kept in the store: their keys, and JSON with a format version around it.
//!
//! ```text
//! cluster                  what this cluster is called, and where it listens
//! clock                    the latest time that was shown, for the next start
//! node/<name>              a node as its operators want it             written by the API and by a join
//! gateway/<name>           a gateway that has joined                   written by a join
//! service/<name>           a service as its operators want it          written by the API
//! progress/<service>       what the engine remembers                   written by reconcile alone; of a service
//!                          that is gone its last slot number stays
//! trial/<service>          what gateways counted of a comparison  written by its task alone, while a rollout compares
//! plan/<node>              who runs what, with its generation          written by reconcile alone
//! outbox/<number>          events of a decision, on their way there    written with the decision, removed by the journal
//! webhook/<id>             a verdict that is to be posted           written with the decision, removed by the journal
//! upgrade                  the agents' program, node by node            written by the API and by the upgrade's task
//! secret/<name>            a secret's revisions, encrypted             written by the API
//! event/<first number>     a batch of the journal                      written by the journal alone
//! journal/floor            what trimmed batches said of agents' numbers
//! authority/...            tokens and members                          written by the authority alone
//! ```

mod typed;

pub use typed::RecordsError;
pub(crate) use typed::{Records, putting};

use baton_model::id::{EventSeq, GatewayName, NodeName, SecretName, ServiceName};
use baton_model::time::UnixMs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The format this coordinator writes. It reads this one and every older one.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const NODES: &str = "node/";
pub(crate) const GATEWAYS: &str = "gateway/";
pub(crate) const SERVICES: &str = "service/";
pub(crate) const PROGRESS: &str = "progress/";
pub(crate) const PLANS: &str = "plan/";
pub(crate) const TRIALS: &str = "trial/";
pub(crate) const SECRETS: &str = "secret/";
pub(crate) const EVENTS: &str = "event/";
pub(crate) const OUTBOX: &str = "outbox/";
pub(crate) const WEBHOOKS: &str = "webhook/";
pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const CLOCK: &str = "clock";
pub(crate) const UPGRADE: &str = "upgrade";
pub(crate) const JOURNAL_FLOOR: &str = "journal/floor";

/// The cluster's own record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    /// Its name; part of every identity.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created_at: UnixMs,
    /// Where its coordinator listens unless told otherwise.
    pub(crate) listen: SocketAddr,
}

pub(crate) fn node(name: &NodeName) -> String {
    format!("{NODES}{name}")
}

pub(crate) fn gateway(name: &GatewayName) -> String {
    format!("{GATEWAYS}{name}")
}

pub(crate) fn service(name: &ServiceName) -> String {
    format!("{SERVICES}{name}")
}

pub(crate) fn progress(service: &ServiceName) -> String {
    format!("{PROGRESS}{service}")
}

pub(crate) fn plan(node: &NodeName) -> String {
    format!("{PLANS}{node}")
}

pub(crate) fn secret(name: &SecretName) -> String {
    format!("{SECRETS}{name}")
}

pub(crate) fn trial(service: &ServiceName) -> String {
    format!("{TRIALS}{service}")
}

/// Padded, so that the order of keys is the order of numbers.
pub(crate) fn events(first: EventSeq) -> String {
    format!("{EVENTS}{:020}", first.0)
}

/// Padded, so that the order of keys is the order in which they were written.
pub(crate) fn outbox(number: u64) -> String {
    format!("{OUTBOX}{number:020}")
}

pub(crate) fn webhook(id: &str) -> String {
    format!("{WEBHOOKS}{id}")
}

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It was written by a newer coordinator.
    #[error(
        "record `{key}` has format {found} and this coordinator knows formats up to {FORMAT}: it was written by a newer one; start that one again, or upgrade"
    )]
    TooNew {
        /// Which record.
        key: String,
        /// Its format.
        found: u32,
    },
    /// It is not what it should be.
    #[error("record `{key}` cannot be read; restore the store from a backup")]
    Malformed {
        /// Which record.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Its key names nothing that can exist.
    #[error("record `{key}` is named after nothing that can exist; restore the store from a backup")]
    BadKey {
        /// Which record.
        key: String,
    },
    /// A value that cannot be written down, which is a mistake of ours.
    #[error("record `{key}` cannot be written down")]
    Unwritable {
        /// Which record.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

#[derive(Serialize)]
struct Written<'a, T> {
    format: u32,
    value: &'a T,
}

#[derive(Deserialize)]
struct Read<T> {
    format: u32,
    value: T,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, RecordError> {
    serde_json::to_vec(&Written { format: FORMAT, value })
        .map_err(|source| RecordError::Unwritable { key: key.to_owned(), source })
}

/// Reads the bytes of a record.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    match serde_json::from_slice::<Read<T>>(bytes) {
        Ok(read) if read.format <= FORMAT => Ok(read.value),
        Ok(read) => Err(RecordError::TooNew { key: key.to_owned(), found: read.format }),
        // A newer format may not parse as ours at all: then its number is the better explanation.
        Err(source) => match serde_json::from_slice::<FormatOnly>(bytes) {
            Ok(FormatOnly { format }) if format > FORMAT => {
                Err(RecordError::TooNew { key: key.to_owned(), found: format })
            }
            Ok(_) | Err(_) => Err(RecordError::Malformed { key: key.to_owned(), source }),
        },
    }
}

/// The name at the end of a key.
pub(crate) fn name_in<T: std::str::FromStr>(key: &str, prefix: &str) -> Result<T, RecordError> {
    key.strip_prefix(prefix)
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| RecordError::BadKey { key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::desired::Node;
    use std::collections::BTreeMap;

    #[test]
    fn records_round_trip() {
        let record = Node {
            name: NodeName::new("n1").unwrap(),
            address: "127.0.0.1".to_owned(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            cordoned: true,
            draining: false,
            joined_at: UnixMs(7),
        };
        let key = node(&record.name);
        let bytes = encode(&key, &record).unwrap();
        assert!(bytes.starts_with(br#"{"format":1,"#));
        assert_eq!(decode::<Node>(&key, &bytes).unwrap(), record);
        assert_eq!(name_in::<NodeName>(&key, NODES).unwrap(), record.name);
    }

    #[test]
    fn a_newer_format_is_named_even_where_it_does_not_parse() {
        for text in [r#"{"format":2,"value":5}"#, r#"{"format":2,"contents":"?"}"#] {
            let error = decode::<u64>("clock", text.as_bytes()).unwrap_err();
            assert!(matches!(error, RecordError::TooNew { found: 2, .. }), "{error}");
            assert!(error.to_string().contains("upgrade"), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_record_is_an_error() {
        for text in ["", "{}", r#"{"format":1,"value":"x"}"#, r#"{"format":1,"val"#] {
            assert!(
                matches!(decode::<u64>("clock", text.as_bytes()), Err(RecordError::Malformed { .. })),
                "{text}"
            );
        }
        assert!(matches!(name_in::<NodeName>("node/Not A Name", NODES), Err(RecordError::BadKey { .. })));
    }

    #[test]
    fn keys_of_events_are_in_the_order_of_their_numbers() {
        assert!(events(EventSeq(9)) < events(EventSeq(10)));
        assert!(events(EventSeq(u64::MAX)) > events(EventSeq(1)));
    }
}
