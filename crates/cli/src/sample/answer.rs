//! What the sample service answers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest delay that `/wait/MS` grants.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What it says it is.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) release: String,
    pub(super) instance: String,
    pub(super) healthy: bool,
    /// Set once it was asked to stop: answers then ask the client to close.
    pub(super) stopping: CancellationToken,
}

impl Site {
    /// Answers one request.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if let Some(ms) = path.strip_prefix("/wait/").and_then(|ms| ms.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(ms).min(WAIT_MAX)).await;
        }
        if let Some(code) = path.strip_prefix("/exit/").and_then(|code| code.parse().ok()) {
            std::process::exit(code);
        }
        let (status, text) = match path {
            _ if !self.healthy => {
                (StatusCode::INTERNAL_SERVER_ERROR, "unhealthy, as --unhealthy asks\n".to_owned())
            }
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/" => (StatusCode::OK, self.page()),
            _ if path.starts_with("/wait/") => (StatusCode::OK, self.page()),
            _ => (StatusCode::NOT_FOUND, "nothing here\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if self.stopping.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn page(&self) -> String {
        format!("{} {} {}\n", self.release, self.instance, std::process::id())
    }
}
