//! One question to a run, and its answer in words.

use super::Subject;
use super::dial::plain;
use baton_model::id::PortName;
use baton_model::spec::{Check, Probe};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Bytes of an answer's body that are read before the connection is closed, so that a server which is still sending
/// sees an orderly end; more than a health endpoint has to say.
const BODY_MAX: usize = 64 * 1024;
/// After a command has ended, how long its stderr is read while another process holds it open.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Bytes of a command's last words on stderr that are told.
const STDERR_TOLD: usize = 200;

/// Asks once. `Err` says what happened, in words that stay the same while the cause does.
pub(crate) async fn ask(subject: &Subject, check: &Check) -> Result<(), String> {
    let limit = check.timeout.duration();
    let asked = async {
        match &check.probe {
            Probe::Exec { command } => exec(subject, command, limit).await,
            Probe::Http { port, path, status } => http(subject, port, path, *status).await,
            Probe::Tcp { port } => subject.dial.connect(port).await.map(drop),
            Probe::Grpc { port, service } => grpc(subject, port, service).await,
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{}: no answer within {}", shown(subject, &check.probe), check.timeout)),
    }
}

fn shown(subject: &Subject, probe: &Probe) -> String {
    let at = |port: &PortName| {
        subject.dial.target(port).map_or_else(|_| format!("port {port}"), |target| target.to_string())
    };
    match probe {
        Probe::Exec { command } => format!("command `{}`", command.join(" ")),
        Probe::Http { port, path, .. } => format!("GET {path} on {}", at(port)),
        Probe::Tcp { port } => format!("connect to {}", at(port)),
        Probe::Grpc { port, .. } => format!("gRPC health on {}", at(port)),
    }
}

async fn http(subject: &Subject, port: &PortName, path: &str, status: Option<u16>) -> Result<(), String> {
    let target = subject.dial.target(port)?;
    let failed = |what: String| format!("GET {path} on {target}: {what}");
    let stream = subject.dial.connect(port).await?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BODY_MAX)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let request = http::Request::get(path)
        .header(http::header::HOST, target.authority())
        .header(http::header::USER_AGENT, concat!("baton-check/", env!("CARGO_PKG_VERSION")))
        .header(http::header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(http_error(&error)))?;
        let got = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > BODY_MAX {
                break;
            }
        }
        Ok::<u16, String>(got)
    };
    // The connection is driven here and not in a task of its own, so that it ends with the check.
    tokio::pin!(exchange, connection);
    let mut driven = false;
    let got = loop {
        tokio::select! {
            got = &mut exchange => break got?,
            _ = &mut connection, if !driven => driven = true,
        }
    };
    let passes = match status {
        Some(only) => got == only,
        None => (200..400).contains(&got),
    };
    if passes { Ok(()) } else { Err(failed(format!("status {got}"))) }
}

fn http_error(error: &hyper::Error) -> String {
    use std::error::Error as _;
    if error.is_incomplete_message() {
        return "the connection was closed before an answer".to_owned();
    }
    match error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
        Some(io) => plain(io),
        None => error.to_string(),
    }
}

async fn grpc(subject: &Subject, port: &PortName, service: &str) -> Result<(), String> {
    let target = subject.dial.target(port)?;
    let failed = |what: String| format!("gRPC health on {target}: {what}");
    let stream = subject.dial.connect(port).await?;
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("a check connects once")))
    });
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", target.authority()))
        .map_err(|error| failed(error.to_string()))?;
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|_| failed("what answers does not speak HTTP/2".to_owned()))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| failed(format!("{} ({})", status.message(), status.code())))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other @ (ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown) => {
            Err(failed(other.as_str_name().to_owned()))
        }
    }
}

async fn exec(subject: &Subject, words: &[String], limit: Duration) -> Result<(), String> {
    let shown = format!("command `{}`", words.join(" "));
    let command =
        subject.around.command(words, &subject.spec).map_err(|error| format!("{shown}: {error}"))?;
    let mut starting = tokio::process::Command::new(&command.program);
    subject
        .confined
        .confine(starting.as_std_mut(), &command.cwd)
        .map_err(|error| format!("{shown}: its sandbox cannot be entered: {}", plain(&error)))?;
    let mut child = starting
        .args(&command.args)
        .env_clear()
        .envs(command.env)
        .current_dir(&command.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Its own group, so that what it started ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{shown}: {}", plain(&error)))?;
    let group = Group(child.id());
    let mut words_told = Vec::new();
    let finished = tokio::time::timeout(limit, async {
        if let Some(stderr) = child.stderr.take() {
            // A descendant may hold stderr open after the command has ended; its exit is what counts.
            let mut stderr = stderr.take(STDERR_TOLD as u64);
            tokio::select! {
                _ = stderr.read_to_end(&mut words_told) => {}
                status = child.wait() => {
                    // What it said before it ended is in the pipe; a descendant that holds it open is not waited for.
                    let rest = stderr.read_to_end(&mut words_told);
                    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
                    return status;
                }
            }
        }
        child.wait().await
    })
    .await;
    drop(group);
    match finished {
        Err(_) => Err(format!("{shown}: did not end in time and was killed")),
        Ok(Err(error)) => Err(format!("{shown}: {}", plain(&error))),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let told = String::from_utf8_lossy(&words_told);
            let last = told.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let status = status.to_string();
            Err(if last.is_empty() {
                format!("{shown}: {status}")
            } else {
                format!("{shown}: {status}: {last}")
            })
        }
    }
}

/// The process group of a check's command: killed when the check is over, however it ends.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) else { return };
        // The group is ours: its leader is our own child, and while any member of the group lives its number is not
        // given to another (credentials(7)). When none lives, this fails with ESRCH and harms nobody.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}
