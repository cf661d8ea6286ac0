//! The client's side: a gRPC channel over mutual TLS, and errors that tell what is wrong.

use super::error::IdentityError;
use super::files::Identity;
use super::tls;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::CertificateDer;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A coordinator that has not answered the handshake by then is unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An HTTP/2 ping this often on a connection, so that a peer that vanished is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A ping not answered by then ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the coordinator at `address` (`HOST:PORT`) as `identity`.
///
/// Answers only after the coordinator has accepted our certificate, so that every reason to be refused is told
/// here. The channel connects again by itself with this same identity; after a renewal, connect anew.
///
/// # Errors
/// [`IdentityError`] tells an unreachable coordinator, one of another authority and an expired certificate apart.
pub async fn connect(address: &str, identity: &Identity) -> Result<Channel, IdentityError> {
    connect_at(address, identity, SystemTime::now()).await
}

/// The same where this host's clock says `now`: a certificate that has ended by it is not even tried.
///
/// # Errors
/// As [`connect`].
pub async fn connect_at(
    address: &str,
    identity: &Identity,
    now: SystemTime,
) -> Result<Channel, IdentityError> {
    let (from, until) = identity.validity()?;
    let who = identity.subject()?.1.to_string();
    if now < from {
        let detail = "it is not valid yet, so this host's clock or the coordinator's is wrong".to_owned();
        return Err(IdentityError::Expired { who, detail });
    }
    if now >= until {
        return Err(IdentityError::Expired { who, detail: format!("it ended on {}", identity.ended_on()?) });
    }
    open(address, tls::client(identity.authority()?, Some(identity))?, who).await
}

/// Connects without a certificate of our own, to join.
pub(super) async fn connect_to_join(
    address: &str,
    authority: CertificateDer<'static>,
) -> Result<Channel, IdentityError> {
    open(address, tls::client(authority, None)?, "this host".to_owned()).await
}

async fn open(address: &str, config: Arc<ClientConfig>, who: String) -> Result<Channel, IdentityError> {
    let unreachable = |detail: String| IdentityError::Unreachable { address: address.to_owned(), detail };
    // `http`, because for `https` tonic insists on a TLS of its own; the connector below speaks nothing but TLS.
    let endpoint = Endpoint::try_from(format!("http://{address}"))
        .map_err(|_| IdentityError::NotAnAddress { address: address.to_owned() })?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // What the connector says is kept beside tonic's error, which does not give its cause back.
    let failure: Arc<Mutex<Option<IdentityError>>> = Arc::default();
    let (target, who, reason): (Arc<str>, Arc<str>, _) = (address.into(), who.into(), Arc::clone(&failure));
    let connector = tower::service_fn(move |_: Uri| {
        let (target, who, config, reason) =
            (Arc::clone(&target), Arc::clone(&who), Arc::clone(&config), Arc::clone(&reason));
        async move {
            let greeted = handshake(&target, config, &who).await.map_err(|error| {
                let told = io::Error::other(error.to_string());
                *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                told
            });
            greeted.map(TokioIo::new)
        }
    });
    let connected = endpoint.connect_with_connector(connector).await;
    let reason = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (connected, reason) {
        (Ok(channel), _) => Ok(channel),
        (Err(_), Some(reason)) => Err(reason),
        (Err(error), None) => {
            Err(unreachable(error.source().map_or_else(|| error.to_string(), ToString::to_string)))
        }
    }
}

/// A TCP connection and a greeting on it, both within [`CONNECT_TIMEOUT`].
async fn handshake(address: &str, config: Arc<ClientConfig>, who: &str) -> Result<Greeted, IdentityError> {
    meet(address, |stream| greet(stream, address, config, who)).await
}

/// Connects to `address` and lets `talk` begin on the connection, both within [`CONNECT_TIMEOUT`].
///
/// # Errors
/// What `talk` answers; before it, that `address` is none or that nothing listens there; and which of the two was
/// too slow.
pub(super) async fn meet<T, F: Future<Output = Result<T, IdentityError>>>(
    address: &str,
    talk: impl FnOnce(TcpStream) -> F,
) -> Result<T, IdentityError> {
    let unreachable = |detail: String| IdentityError::Unreachable { address: address.to_owned(), detail };
    if !is_address(address) {
        return Err(IdentityError::NotAnAddress { address: address.to_owned() });
    }
    let (limit, deadline) = (CONNECT_TIMEOUT.as_secs(), Instant::now() + CONNECT_TIMEOUT);
    let stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable(format!("no connection within {limit} s")))?
        .map_err(|error| unreachable(error.to_string()))?;
    timeout_at(deadline, talk(stream)).await.map_err(|_| {
        unreachable(format!(
            "it took the connection but did not answer within {limit} s, so it hangs or is another program"
        ))
    })?
}

/// Whether the text is `HOST:PORT`; whether there is such a host is the resolver's to say.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let named = !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']);
        (named || bracketed) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// A TLS handshake, up to the server's first byte.
///
/// In TLS 1.3 a client's handshake is over before the server has looked at the client's certificate (RFC 8446,
/// section 2); a refusal comes as an alert in place of the first data. An HTTP/2 server speaks first (its
/// SETTINGS; RFC 9113, section 3.4), so its first byte means that we are accepted.
async fn greet(
    stream: TcpStream,
    address: &str,
    config: Arc<ClientConfig>,
    who: &str,
) -> Result<Greeted, IdentityError> {
    let _ = stream.set_nodelay(true);
    let mut stream = TlsConnector::from(config)
        .connect(tls::server_name(), stream)
        .await
        .map_err(|error| explain(&error, address, who))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(IdentityError::NotACoordinator {
            address: address.to_owned(),
            detail: "it does not speak HTTP/2".to_owned(),
        });
    }
    let mut first = [0; 1];
    match stream.read(&mut first).await {
        Ok(1) => Ok(Greeted { first: Some(first[0]), stream }),
        Ok(_) => Err(IdentityError::NotACoordinator {
            address: address.to_owned(),
            detail: "it closed the connection".to_owned(),
        }),
        Err(error) => Err(explain(&error, address, who)),
    }
}

/// Says in our words what an error of the TLS handshake means.
pub(super) fn explain(error: &io::Error, address: &str, who: &str) -> IdentityError {
    use rustls::Error as Tls;
    let address = address.to_owned();
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) else {
        return IdentityError::Unreachable { address, detail: error.to_string() };
    };
    match tls {
        Tls::AlertReceived(AlertDescription::CertificateExpired) => {
            IdentityError::Expired { who: who.to_owned(), detail: "the coordinator says so".to_owned() }
        }
        Tls::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied,
        ) => IdentityError::NotAccepted { address, detail: tls.to_string() },
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => IdentityError::WrongName { address, detail: tls.to_string() },
        Tls::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => IdentityError::CoordinatorExpired { address },
        Tls::InvalidCertificate(_) => IdentityError::WrongAuthority { address, detail: tls.to_string() },
        Tls::InvalidMessage(_) => {
            IdentityError::NotACoordinator { address, detail: "it does not speak TLS".to_owned() }
        }
        // rustls' error type is open; whatever else it says, the other side is not one of ours.
        other => IdentityError::NotACoordinator { address, detail: other.to_string() },
    }
}

/// A connection whose first byte was already read.
struct Greeted {
    first: Option<u8>,
    stream: TlsStream<TcpStream>,
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["10.0.0.1:7443", "[::1]:7443", "coordinator.example:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["10.0.0.1", "::1:7443", "http://10.0.0.1:7443", "h:7443/x", "h:0", "h:99999", ":7443", "", "h:"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
