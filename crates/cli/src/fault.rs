//! Errors as an operator reads them: one line that says what went wrong, one that says what to do.

use crate::exit::Exit;
use baton_proto::identity::IdentityError;
use std::fmt;

/// What went wrong and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    what: String,
    advice: String,
    exit: Exit,
}

impl Fault {
    /// Something in the world is not as it must be.
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into(), exit: Exit::Error }
    }

    /// The command line, or a file it names, is wrong.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit: Exit::BadUsage, ..Self::new(what, advice) }
    }

    /// The operator asked for the end before it was done.
    pub(crate) fn interrupted() -> Self {
        Self {
            exit: Exit::Interrupted,
            ..Self::new("interrupted", "run it again when you like; nothing is left behind")
        }
    }

    /// What the coordinator answered, with its own advice or else one by the kind of its answer.
    pub(crate) fn refused(status: &tonic::Status) -> Self {
        use tonic::Code;
        let (what, own_advice) = sentence(status);
        // What the peer says has no source, a broken connection does; one that cannot be made has our own words.
        if std::error::Error::source(status).is_some() && own_advice.is_none() {
            return Self::new(
                "the connection to the coordinator was lost",
                "it may be restarting: try again in a few seconds; `baton context show` names its address",
            );
        }
        let advice = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                "check that the coordinator runs and that `baton context show` names its address; then try again"
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                "ask for a fresh operator token (`baton node token --operator` on the coordinator's host) and use `baton context add`"
            }
            Code::NotFound => "`baton service ls` and `baton node ls` show what exists",
            Code::InvalidArgument => "correct the value named above",
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => {
                "look with `baton service show` or `baton rollout status`, then try again"
            }
            Code::ResourceExhausted => "send less, or make room on the coordinator's disk",
            Code::Unimplemented => {
                "the coordinator is of another version: compare `baton version` on both hosts"
            }
            Code::OutOfRange => {
                "the request is larger than a coordinator takes: make the service file smaller"
            }
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
                "look at the coordinator's log; this is not a fault of your command"
            }
        };
        let exit = if status.code() == Code::InvalidArgument { Exit::BadUsage } else { Exit::Error };
        Self { exit, ..Self::new(what, own_advice.as_deref().unwrap_or(advice)) }
    }
}

/// The message of a status, or its code where the peer gave none; and what to do, after the last semicolon:
/// a reason from a node may have some of its own.
fn sentence(status: &tonic::Status) -> (String, Option<String>) {
    let text = status.message().trim();
    match text.rsplit_once("; ") {
        Some((what, advice)) => (what.to_owned(), Some(advice.to_owned())),
        None if text.is_empty() => (format!("the coordinator refused: {}", status.code()), None),
        None => (text.to_owned(), None),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

/// Prints `error` on stderr in at most two lines and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error, color: bool) -> Exit {
    let (red, dim, plain) = if color { ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let Some(fault) = explain(error) else {
        eprintln!("{red}error:{plain} {}", one_line(&format!("{error:#}")));
        return Exit::Error;
    };
    eprintln!("{red}error:{plain} {}", one_line(&fault.what));
    eprintln!("{dim}   do:{plain} {}", one_line(&fault.advice));
    fault.exit
}

/// What went wrong, without what to do: for a line that says that it is tried again.
pub(crate) fn briefly(error: &anyhow::Error) -> String {
    one_line(&explain(error).map_or_else(|| format!("{error:#}"), |fault| fault.what))
}

/// The fault behind an error, whichever crate it came from.
fn explain(error: &anyhow::Error) -> Option<Fault> {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return Some(fault.clone());
    }
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return Some(Fault::refused(status));
    }
    // Errors about identities say what to do after their first semicolon.
    let identity = error.downcast_ref::<IdentityError>()?;
    let text = identity.to_string();
    let (what, advice) = text.split_once("; ")?;
    let is_usage = matches!(identity, IdentityError::NotAnAddress { .. } | IdentityError::Token(_));
    Some(if is_usage { Fault::usage(what, advice) } else { Fault::new(what, advice) })
}

/// Whether the error is that nobody reads our output any more.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_coordinators_own_words() {
        let fault = Fault::refused(&tonic::Status::not_found("there is no service `web`"));
        assert_eq!(fault.to_string(), "there is no service `web`");
        assert!(fault.advice.contains("service ls"));
        let fault = Fault::refused(&tonic::Status::not_found("no `web`; deploy it"));
        assert_eq!((fault.what.as_str(), fault.advice.as_str()), ("no `web`", "deploy it"));
        let broken = tonic::Status::from_error(Box::new(std::io::Error::other("h2 protocol error")));
        assert!(Fault::refused(&broken).to_string().contains("was lost"));
        let fault = Fault::refused(&tonic::Status::new(tonic::Code::Unavailable, ""));
        assert!(fault.to_string().starts_with("the coordinator refused"), "{fault}");
    }

    #[test]
    fn bad_usage_has_its_own_code() {
        let error = anyhow::Error::from(Fault::usage("a\nb", "c"));
        assert_eq!(report(&error, false), Exit::BadUsage);
        assert_eq!(report(&anyhow::anyhow!("x"), false), Exit::Error);
    }
}
