//! `gateway.toml`: where a gateway listens, with which certificates, and what it allows a client.
//!
//! What belongs to a service (hosts, timeouts, retries) comes with the route table; what belongs to the host is here.

use crate::network::Network;
use baton_model::time::Millis;
use serde::{Deserialize, Deserializer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Everything that `gateway.toml` can say.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// HTTP/1.1, and HTTP/2 with prior knowledge.
    pub http: Vec<SocketAddr>,
    /// The same over TLS; ALPN chooses.
    pub https: Vec<SocketAddr>,
    /// The address on which TCP routes get their ports.
    pub tcp: IpAddr,
    /// Certificates; the first is for clients that name no host, or one that no certificate has.
    #[serde(rename = "certificate")]
    pub certificates: Vec<CertificateFiles>,
    /// Threads that carry traffic, each with its own connections; 0 is one for each processor.
    pub workers: usize,
    /// Where the gateway is, for routes that prefer instances of their own zone.
    pub zone: Option<String>,
    /// Proxies in front of the gateway, whose word on the client counts; anybody else's does not.
    pub trusted_proxies: Vec<Network>,
    /// A file of JSON lines, one for each request; none where it is not given.
    pub access_log: Option<PathBuf>,
    /// Where Prometheus asks for `/metrics`; nowhere where it is not given.
    pub metrics: Option<SocketAddr>,
    /// A Unix socket over which the next program of this gateway takes the listening sockets.
    pub handover: Option<PathBuf>,
    /// What a client is allowed.
    pub limits: ClientLimits,
    /// How the gateway leaves.
    pub drain: DrainLimits,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate, and after it those that lead to the authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a client is allowed, whatever it asks for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientLimits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// The request line and all header fields together; more is answered 431.
    pub header_bytes: usize,
    /// Header fields; more is answered 431.
    pub headers: usize,
    /// From the end of one request, or the connection's begin, to the end of the next one's head.
    #[serde(deserialize_with = "written")]
    pub header_timeout: Millis,
    /// A client that takes nothing of its answer for so long is cut off; zero waits for ever. Not for WebSockets, which have
    /// their own limit on silence.
    #[serde(deserialize_with = "written")]
    pub send_timeout: Millis,
    /// HTTP/2 requests at a time on one connection.
    pub streams: u32,
}

/// How the gateway leaves.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainLimits {
    /// An idle HTTP/1.1 connection is kept this long for a last request, which is answered `Connection: close`: so no
    /// client finds the connection closed under the request that it just sent.
    #[serde(deserialize_with = "written")]
    pub linger: Millis,
    /// What is not done by then is cut, and counted.
    #[serde(deserialize_with = "written")]
    pub timeout: Millis,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            https: Vec::new(),
            tcp: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            certificates: Vec::new(),
            workers: 0,
            zone: None,
            trusted_proxies: Vec::new(),
            access_log: None,
            metrics: None,
            handover: None,
            limits: ClientLimits::default(),
            drain: DrainLimits::default(),
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            header_bytes: 32 * 1024,
            headers: 100,
            header_timeout: Millis::secs(30),
            send_timeout: Millis::secs(60),
            streams: 200,
        }
    }
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self { linger: Millis::secs(5), timeout: Millis::secs(60) }
    }
}

/// Why a `gateway.toml` is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is not a gateway's configuration: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl GatewayConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| ConfigError::Parse { path: path.to_owned(), reason })
    }

    /// Parses and checks the text of a file; the error says what to change.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if !config.https.is_empty() && config.certificates.is_empty() {
            return Err("`https` needs a certificate: add [[certificate]] with `chain` and `key`".to_owned());
        }
        let limits = &config.limits;
        if limits.connections == 0 || limits.headers == 0 || limits.streams == 0 {
            return Err(
                "`limits.connections`, `limits.headers` and `limits.streams` must be at least 1".to_owned()
            );
        }
        if limits.header_timeout.0 == 0 {
            return Err("`limits.header_timeout` must be more than 0: no head comes in no time".to_owned());
        }
        if limits.header_bytes < HEADER_BYTES_MIN {
            return Err(format!("`limits.header_bytes` must be at least {HEADER_BYTES_MIN}"));
        }
        Ok(config)
    }

    /// How many threads carry traffic.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        }
    }
}

/// A duration as people write it: `"500ms"`, `"10s"`.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    Millis::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Below this the HTTP implementation has no room for a line.
const HEADER_BYTES_MIN: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = GatewayConfig::parse("").expect("valid");
        assert_eq!(config.limits.header_timeout, Millis::secs(30));
        assert!(config.worker_count() >= 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("https = [\"127.0.0.1:443\"]", "[[certificate]]"),
            ("[limits]\nconnections = 0", "limits.connections"),
            ("[limits]\nheader_bytes = 10", "at least 8192"),
            ("[limits]\nheader_timeout = \"0s\"", "header_timeout"),
            ("colour = 1", "colour"),
            ("trusted_proxies = [\"10.0.0.0/8\", \"lan\"]", "`lan` is no network"),
            ("[drain]\nlinger = 5", "string"),
        ] {
            let error = GatewayConfig::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
