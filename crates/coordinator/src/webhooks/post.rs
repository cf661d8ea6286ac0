//! One attempt to post a webhook. Redirects are not followed, and of the answer only its status counts.

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Where systems keep the certificates of the authorities that they trust: Debian, Red Hat, Alpine.
const ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// The variable by which OpenSSL, curl and others are told another such file.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// Why a webhook was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be another time.
    Passing(String),
    /// It will not be.
    Final(String),
}

/// Posts `body`; done when the server has answered 200 to 299.
pub(super) async fn post(url: &str, id: &str, body: &str) -> Result<(), Failure> {
    let roots = std::env::var_os(ROOTS_VARIABLE).map(PathBuf::from);
    let roots = roots.or_else(|| ROOTS.iter().map(PathBuf::from).find(|path| path.exists()));
    post_trusting(roots.as_deref(), url, id, body).await
}

/// The same, with the authorities whose certificates are in a file.
pub(super) async fn post_trusting(
    roots: Option<&Path>,
    url: &str,
    id: &str,
    body: &str,
) -> Result<(), Failure> {
    let not_an_address = || Failure::Final("its address cannot be posted to".to_owned());
    let uri: Uri = url.parse().map_err(|_| not_an_address())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(not_an_address());
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let tls = scheme == "https";
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("baton/", env!("CARGO_PKG_VERSION")))
        .header("idempotency-key", id)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .map_err(|_| not_an_address())?;
    let stream = TcpStream::connect((host, port)).await.map_err(passing("it cannot be reached"))?;
    if !tls {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| not_an_address())?;
    let connector = connector(roots.map(Path::to_owned)).await?;
    let stream = connector.connect(name, stream).await.map_err(passing("no TLS connection can be made"))?;
    send(stream, request).await
}

/// Who is trusted is read anew each time: it changes while a coordinator runs, and posts are rare.
async fn connector(roots: Option<PathBuf>) -> Result<TlsConnector, Failure> {
    let Some(path) = roots else {
        let why =
            "this host has no file of trusted authorities: install ca-certificates, or set SSL_CERT_FILE";
        return Err(Failure::Passing(why.to_owned()));
    };
    let read = tokio::task::spawn_blocking(move || {
        let failed = passing(format!("{} cannot be used", path.display()));
        let mut store = RootCertStore::empty();
        match CertificateDer::pem_file_iter(&path) {
            // Of what a system trusts not all may be understood; what is not, is not trusted.
            Ok(found) => drop(store.add_parsable_certificates(found.flatten())),
            Err(error) => return Err(failed(error)),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config
            .map_err(passing("TLS cannot be set up"))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    });
    read.await.map_err(passing("the trusted authorities were not read"))?
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), Failure> {
    let broken = || passing("the connection broke");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken())?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let status = sender.send_request(request).await.map_err(broken())?.status();
    judge(status)
}

fn judge(status: StatusCode) -> Result<(), Failure> {
    let code = status.as_u16();
    match code {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::Final(format!(
            "it answered {code}, and redirects are not followed: name the address itself"
        ))),
        // Too slow, too early, too many (RFC 9110, 15.5.9; RFC 8470; RFC 6585, 4).
        408 | 425 | 429 | 500..=599 => Err(Failure::Passing(format!("it answered {code}"))),
        _ => Err(Failure::Final(format!("it answered {code}"))),
    }
}

/// An error with its causes, told after what was tried.
fn passing<E: Error>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let what = what.into();
    move |error| {
        let mut text = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(source) = cause {
            text = format!("{text}: {source}");
            cause = source.source();
        }
        Failure::Passing(text)
    }
}

#[cfg(test)]
mod tests;
