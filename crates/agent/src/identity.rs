//! Who this node is to the coordinator: joining once, and a fresh certificate long before the present one ends.

use crate::config::{AgentFile, StateDir, StateError};
use baton_model::id::NodeName;
use baton_proto::identity::{self, IdentityError, JoinAs, Role, Token};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How a host becomes a node.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// The state directory to make.
    pub dir: PathBuf,
    /// The coordinator, `HOST:PORT`; also remembered as where to connect from now on.
    pub coordinator: String,
    /// Further coordinator addresses to remember.
    pub other_coordinators: Vec<String>,
    /// The one-time token, as `baton node token` printed it.
    pub token: String,
    /// The node's name.
    pub name: NodeName,
    /// The address that the node's services are reached at, and that its sockets are bound to.
    pub address: IpAddr,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Replace an identity that is already in the directory.
    pub force: bool,
}

/// Why a host could not become a node; nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The token, the coordinator, or the certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token lets somebody else join, not a node.
    #[error("this token is for {}; get one for a node with `baton node token`", role.noun())]
    NotForNodes {
        /// What it is for.
        role: Role,
    },
    /// The address cannot be bound on this host.
    #[error(
        "{address} is not an address of this host ({source}): give the one that clients reach it at, as `ip address` lists them"
    )]
    Address {
        /// The address.
        address: IpAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Trades a one-time token for an identity and writes the state directory.
///
/// # Errors
/// [`JoinError`]; nothing is there then that was not there before.
pub async fn join(options: JoinOptions) -> Result<AgentFile, JoinError> {
    let missing = Missing::below(&options.dir);
    let joined = join_here(options).await;
    if joined.is_err() {
        missing.remove();
    }
    joined
}

/// What was not there before a join, innermost first.
struct Missing(Vec<PathBuf>);

impl Missing {
    fn below(dir: &Path) -> Self {
        let inside = StateDir::LAID_OUT.iter().map(|name| dir.join(name));
        let outside = dir.ancestors().map(Path::to_owned).filter(|path| path != Path::new(""));
        Self(inside.chain(outside).filter(|path| !path.exists()).collect())
    }

    /// Removes what is empty; whatever somebody has put there meanwhile stays.
    fn remove(self) {
        for path in self.0 {
            // One that was never made, or is in use by now, is no matter.
            let _ = match std::fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => std::fs::remove_dir(&path),
                Ok(_) => std::fs::remove_file(&path),
                Err(_) => Ok(()),
            };
        }
    }
}

async fn join_here(options: JoinOptions) -> Result<AgentFile, JoinError> {
    let token: Token = options.token.trim().parse()?;
    if token.role != Role::Node {
        return Err(JoinError::NotForNodes { role: token.role });
    }
    // Found out now, and not when the first service wants its socket.
    std::net::TcpListener::bind((options.address, 0))
        .map_err(|source| JoinError::Address { address: options.address, source })?;
    let state = StateDir::open(&options.dir)?;
    match state.agent_file() {
        Ok(present) if !options.force => {
            return Err(StateError::AlreadyJoined {
                dir: state.root().display().to_string(),
                name: present.name.to_string(),
            }
            .into());
        }
        // A damaged file is no reason not to replace it when that was asked for.
        Ok(_) | Err(StateError::NotJoined { .. }) => {}
        Err(_) if options.force => {}
        Err(error) => return Err(error.into()),
    }
    let joiner = JoinAs {
        name: options.name.to_string(),
        address: options.address.to_string(),
        labels: options.labels.clone(),
    };
    let identity = identity::join(&options.coordinator, &token, joiner).await?;
    identity.save(&state.identity_dir())?;
    let mut coordinators = vec![options.coordinator];
    coordinators.extend(options.other_coordinators);
    let file =
        AgentFile { name: options.name, coordinators, address: options.address, labels: options.labels };
    state.write_agent_file(&file)?;
    Ok(file)
}
