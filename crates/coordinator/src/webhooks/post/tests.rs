//! Real servers, over TCP and over TLS.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers one request with `answer`, and returns what came.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut came = Vec::new();
    while !came.ends_with(b"}") {
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => break,
            Ok(read) => came.extend_from_slice(&part[..read]),
        }
    }
    // The client may have gone, which it then says itself.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(came).unwrap()
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn ask(status: &str) -> Result<(), Failure> {
    let (listener, port) = listen().await;
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: /other\r\n\r\n");
    let serving = tokio::spawn(async move { answer(listener.accept().await.unwrap().0, &text).await });
    let posted =
        post_trusting(None, &format!("http://127.0.0.1:{port}/hook?a=b"), "web.1", "{\"a\":1}").await;
    let came = serving.await.unwrap();
    assert!(came.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{came}");
    for header in ["content-type: application/json", "idempotency-key: web.1", "content-length: 7"] {
        assert!(came.contains(&format!("\r\n{header}\r\n")), "{header} is not in {came}");
    }
    assert!(
        came.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")) && came.ends_with("\r\n\r\n{\"a\":1}"),
        "{came}"
    );
    posted
}

#[tokio::test]
async fn the_answer_says_whether_it_is_worth_another_attempt() {
    assert_eq!(ask("204 No Content").await, Ok(()));
    for status in ["500 No", "503 Later", "429 Slower"] {
        assert!(matches!(ask(status).await, Err(Failure::Passing(_))), "{status}");
    }
    for status in ["404 No", "410 Gone"] {
        assert!(matches!(ask(status).await, Err(Failure::Final(_))), "{status}");
    }
    let Err(Failure::Final(why)) = ask("302 Found").await else { panic!("a redirect is not followed") };
    assert!(why.contains("302") && why.contains("not followed"), "{why}");
    let refused = post_trusting(None, "http://127.0.0.1:1", "x", "{}").await;
    assert!(matches!(refused, Err(Failure::Passing(why)) if why.contains("refused")));
}

/// A server for `localhost`, and the file of the authority that vouches for it.
fn tls(dir: &Path) -> (TlsAcceptor, PathBuf) {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let path = dir.join("authority.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), path)
}

#[tokio::test]
async fn a_server_is_posted_to_over_tls_when_its_authority_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (acceptor, authority) = tls(dir.path());
    let (_, stranger) = {
        let other = dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        tls(&other)
    };
    for (roots, trusted) in [(Some(authority), true), (Some(stranger), false), (None, false)] {
        let (listener, port) = listen().await;
        let acceptor = acceptor.clone();
        let serving = tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            match acceptor.accept(stream).await {
                Ok(stream) => answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await,
                Err(_) => String::new(),
            }
        });
        let url = format!("https://localhost:{port}/hook");
        let posted = post_trusting(roots.as_deref(), &url, "web.1", "{\"secret\":1}").await;
        assert_eq!(posted.is_ok(), trusted, "{posted:?}");
        assert_eq!(serving.await.unwrap().contains("secret"), trusted);
    }
}
