//! The port that scrapers ask for the page of [`super::prometheus`].

use super::prometheus;
use crate::table::Served;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Scrapers at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// A scraper that has not sent its request by then is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left), so that failing is not all that is done.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` until `stop`.
pub async fn serve(listener: TcpListener, served: Arc<Served>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let served = Arc::clone(&served);
                    connections.spawn(async move {
                        let answers = service_fn(move |request| std::future::ready(answer(&request, &served)));
                        let mut connection = http1::Builder::new();
                        connection.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                        if let Err(error) = connection.serve_connection(TokioIo::new(stream), answers).await {
                            tracing::debug!(%error, "a scraper's connection broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a scraper cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

fn answer(request: &Request<Incoming>, served: &Served) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status, text: &'static str| {
        let mut answer = Response::new(Full::from(text));
        *answer.status_mut() = status;
        answer
    };
    Ok(match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => {
            let mut page = Response::new(Full::from(prometheus::text(&served.load(), Instant::now())));
            page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::CONTENT_TYPE));
            page
        }
        ("/metrics", _) => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "ask by GET\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "the page is at /metrics\n"),
    })
}
