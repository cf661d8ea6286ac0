//! TLS: certificates by name, taken in anew without a connection lost.

use crate::fleet::{Fleet, Instance, eventually, get, local, rest, route, until};
use baton_gateway::config::CertificateFiles;
use baton_gateway::{Gateway, GatewayConfig, PlacePurpose, table::Served};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Writes a certificate for one host, valid until a year; gives it.
fn certificate(folder: &Path, host: &str, until: i32) -> (CertificateFiles, CertificateDer<'static>) {
    let mut parameters = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("a name");
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("signed");
    let files = CertificateFiles {
        chain: folder.join(format!("{host}.pem")),
        key: folder.join(format!("{host}.key")),
    };
    std::fs::write(&files.key, key.serialize_pem()).expect("written");
    std::fs::write(&files.chain, certificate.pem()).expect("written");
    let der = CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("our own");
    (files, der)
}

async fn connect(
    fleet: &Fleet,
    host: &'static str,
    trusted: &CertificateDer<'static>,
    protocol: Option<&[u8]>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocol.iter().map(|it| it.to_vec()).collect();
    let stream = TcpStream::connect(fleet.address(PlacePurpose::Https)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host).expect("a name"), stream).await
}

#[tokio::test]
async fn a_host_gets_its_certificate_and_a_new_one_without_a_connection_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, a_trusted) = certificate(folder.path(), "a.test", 4000);
    let (b, b_trusted) = certificate(folder.path(), "b.test", 4000);
    let echo = Instance::echo().await;
    let fleet = Fleet::with(route(&[&echo]), |config| {
        config.https = vec![local(0)];
        config.certificates = vec![a, b];
    })
    .await;
    let mut kept = connect(&fleet, "a.test", &a_trusted, None).await.expect("its certificate");
    let mut other = connect(&fleet, "b.test", &b_trusted, Some(b"http/1.1")).await.expect("its certificate");
    other.write_all(get("/").as_bytes()).await.expect("room");
    let answer = rest(&mut other).await;
    assert!(answer.contains("x-forwarded-proto: https"), "{answer}");
    connect(&fleet, "b.test", &a_trusted, None).await.expect_err("not that one's certificate");

    // One that is over is refused, and the old one stays; a good one is taken in.
    certificate(folder.path(), "a.test", 2021);
    let (_, renewed) = certificate(folder.path(), "b.test", 4000);
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    connect(&fleet, "b.test", &b_trusted, None).await.expect("a reload is whole or nothing");
    let (_, a_renewed) = certificate(folder.path(), "a.test", 4000);
    eventually("the new certificate", async || connect(&fleet, "b.test", &renewed, None).await.ok()).await;
    connect(&fleet, "a.test", &a_renewed, None).await.expect("and the other one");
    kept.write_all(b"GET /kept HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("it goes on");
    assert!(until(&mut kept, "GET /kept").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_gateway_does_not_start_with_a_certificate_that_is_no_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, _) = certificate(folder.path(), "a.test", 2021);
    let config = GatewayConfig { https: vec![local(0)], certificates: vec![old], ..GatewayConfig::default() };
    let error = Gateway::start(config, Arc::new(Served::new(None))).await.err().expect("refused");
    assert!(error.to_string().contains("not valid now"), "{error}");
}
