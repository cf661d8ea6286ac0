//! What the sample service answers, and how it does so badly where it was told to.

use super::{Faults, quote};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest delay that `/wait/MS` grants.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The headers by which an answer says who made it, whatever its status is.
pub(crate) const RELEASE_HEADER: &str = "sample-release";
pub(crate) const INSTANCE_HEADER: &str = "sample-instance";
pub(crate) const PID_HEADER: &str = "sample-pid";

/// What it says it is.
#[derive(Clone, Debug)]
pub(super) struct Site {
    release: String,
    instance: String,
    /// The same, as headers.
    named: [(HeaderName, HeaderValue); 3],
    faults: Faults,
    /// Requests for pages so far.
    pages: Arc<AtomicU64>,
    /// Set once it was asked to stop: answers then ask the client to close.
    pub(super) stopping: CancellationToken,
}

impl Site {
    /// A site of this release and instance.
    ///
    /// # Errors
    /// When one of the names cannot stand in a header.
    pub(super) fn new(release: String, instance: String, faults: Faults) -> Result<Self> {
        let value = |text: &str| {
            HeaderValue::from_str(text).with_context(|| format!("{text:?} cannot stand in a header"))
        };
        let named = [
            (HeaderName::from_static(RELEASE_HEADER), value(&release)?),
            (HeaderName::from_static(INSTANCE_HEADER), value(&instance)?),
            (HeaderName::from_static(PID_HEADER), HeaderValue::from(std::process::id())),
        ];
        let stopping = CancellationToken::new();
        Ok(Self { release, instance, named, faults, pages: Arc::default(), stopping })
    }

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
            _ if self.faults.unhealthy => {
                (StatusCode::INTERNAL_SERVER_ERROR, "unhealthy, as --unhealthy asks\n".to_owned())
            }
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/" => self.page(None).await,
            _ if path.starts_with("/wait/") => self.page(None).await,
            _ => match path.strip_prefix("/quote/").and_then(|number| number.parse().ok()) {
                Some(number) => self.page(Some(number)).await,
                None => (StatusCode::NOT_FOUND, "nothing here\n".to_owned()),
            },
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response.headers_mut().extend(self.named.clone());
        if self.stopping.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// A page as the faults have it: late, an error, or wrong.
    async fn page(&self, asked: Option<u64>) -> (StatusCode, String) {
        tokio::time::sleep(self.faults.slow_by.duration()).await;
        let number = self.pages.fetch_add(1, Ordering::Relaxed) + 1;
        if hits(number, self.faults.fail_one_in) {
            return (StatusCode::INTERNAL_SERVER_ERROR, "an error, as --fail-one-in asks\n".to_owned());
        }
        let text = match asked {
            None => format!("{} {} {}\n", self.release, self.instance, std::process::id()),
            Some(asked) if hits(asked, self.faults.miscount_one_in) => quote(asked + 1),
            Some(asked) => quote(asked),
        };
        (StatusCode::OK, text)
    }
}

/// Whether it is the turn of every `one_in`-th; never of 0.
const fn hits(number: u64, one_in: u64) -> bool {
    one_in > 0 && number.is_multiple_of(one_in)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn ask(site: &Site, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(()).unwrap();
        let response = site.answer(request).await;
        assert_eq!(response.headers()[RELEASE_HEADER], "2.0", "whatever it answers, it says who it is");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn faults_are_as_many_as_asked_for_and_never_of_its_health() {
        let site = |faults| Site::new("2.0".into(), "shop.1".into(), faults).unwrap();
        let good = site(Faults::default());
        assert_eq!(ask(&good, "/quote/7").await, (200, quote(7)));
        assert_eq!(ask(&good, "/quote/x").await.0, 404);
        let failing = site(Faults { fail_one_in: 3, ..Faults::default() });
        let mut answers = Vec::new();
        for number in 1..=6 {
            assert_eq!(ask(&failing, "/healthz").await.0, 200);
            answers.push(ask(&failing, &format!("/quote/{number}")).await.0);
        }
        assert_eq!(answers, [200, 200, 500, 200, 200, 500]);
        let wrong = site(Faults { miscount_one_in: 10, ..Faults::default() });
        assert_eq!(ask(&wrong, "/quote/20").await, (200, quote(21)));
        assert_eq!(ask(&wrong, "/quote/21").await, (200, quote(21)));
    }
}
