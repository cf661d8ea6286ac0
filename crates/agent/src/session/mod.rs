//! The agent's tie to its coordinator: one stream, kept up for as long as the agent lives.
//!
//! Everything said is whole state or numbered, so a lost stream loses nothing: the next one says it again. Without a
//! coordinator the agent goes on by itself; here it only tries to get back, at every address in turn.
//! [`stream`] is one session from Hello to its end.

mod stream;

use crate::config::{AgentFile, StateDir};
use crate::driver::{Instruction, Outlook};
use crate::journal::{Draft, Journal};
use crate::upgrade::UpgradeLink;
use baton_model::metrics::NodeMetrics;
use baton_model::observed::NodeFacts;
use baton_proto::identity::{Identity, IdentityError};
use baton_proto::reconnect::Backoff;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::Ended;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// So many replacements within [`REPLACED_WINDOW`] mean that two agents take the session from each other.
const REPLACED_OFTEN: usize = 3;
const REPLACED_WINDOW: Duration = Duration::from_secs(60);

/// What a session works with.
pub(crate) struct Session {
    pub(crate) state: Arc<StateDir>,
    pub(crate) node: Arc<AgentFile>,
    /// Where coordinators may be, in the order of trying.
    pub(crate) coordinators: Vec<String>,
    pub(crate) facts: NodeFacts,
    pub(crate) outlook: Outlook,
    pub(crate) metrics: watch::Receiver<Option<NodeMetrics>>,
    pub(crate) journal: Journal,
    pub(crate) instructions: mpsc::Sender<Instruction>,
    /// The connection, while there is one: artifacts are fetched over it too.
    pub(crate) link: watch::Sender<Option<Channel>>,
    /// What to tell the service manager, in one line.
    pub(crate) status: watch::Sender<String>,
    /// To go on as another program, and why one was not taken.
    pub(crate) upgrade: UpgradeLink,
}

/// Keeps a session up until cancelled.
pub(crate) async fn keep(mut session: Session, cancel: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut said = Said::default();
    let mut replaced = VecDeque::new();
    let mut turn = 0;
    while !cancel.is_cancelled() {
        let address = session.coordinators[turn % session.coordinators.len()].clone();
        let ended = tokio::select! {
            () = cancel.cancelled() => return,
            ended = session.once(&address, &mut said) => ended,
        };
        session.link.send_replace(None);
        match ended {
            Ok(Ended::Renewed) => {
                backoff = Backoff::default();
                continue;
            }
            Ok(ended) => {
                if ended.was_welcome() {
                    backoff = Backoff::default();
                }
                if matches!(ended, Ended::Replaced) {
                    backoff.lengthen();
                    tell_if_often(&mut replaced, &session);
                }
                session.lost(&address, &ended.to_string(), &mut said);
            }
            Err(error) => session.lost(&address, &crate::driver::told(&error), &mut said),
        }
        turn += 1;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

impl Session {
    /// Connects and serves one session to its end.
    async fn once(&mut self, address: &str, said: &mut Said) -> Result<Ended, IdentityError> {
        // Read anew each time: a renewal, or a person who joined again, may have replaced it.
        let identity = Identity::load(&self.state.identity_dir())?;
        let channel = baton_proto::identity::connect(address, &identity).await?;
        Ok(stream::serve(self, address, channel, &identity, said).await)
    }

    fn lost(&self, address: &str, why: &str, said: &mut Said) {
        self.status.send_replace(format!("not connected to {address}: {why}"));
        if said.is_news(why) {
            tracing::warn!(
                coordinator = address,
                reason = why,
                "not connected; workloads go on, it is tried again"
            );
        }
    }

    fn connected(&self, address: &str, said: &mut Said) {
        self.status.send_replace(format!("connected to {address}"));
        if said.is_news("connected") {
            tracing::info!(coordinator = address, "connected");
        }
    }
}

/// The state that was said last: each change of it is one line, however often it is met.
#[derive(Debug, Default)]
pub(crate) struct Said(String);

impl Said {
    fn is_news(&mut self, state: &str) -> bool {
        if self.0 == state {
            return false;
        }
        state.clone_into(&mut self.0);
        true
    }
}

fn tell_if_often(replaced: &mut VecDeque<Instant>, session: &Session) {
    let now = Instant::now();
    replaced.push_back(now);
    while replaced.front().is_some_and(|at| now.duration_since(*at) > REPLACED_WINDOW) {
        replaced.pop_front();
    }
    if replaced.len() == REPLACED_OFTEN {
        let message = format!(
            "another agent takes this node's session again and again: two agents seem to share the identity of `{}`; \
             stop one of them, and let it join under its own name",
            session.node.name
        );
        session.journal.record(Draft::error("identity-shared", message));
    }
}
