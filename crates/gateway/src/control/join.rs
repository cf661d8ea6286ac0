//! How a host gets a gateway: once, with a one-time token.

use super::home::{GatewayFile, Home, HomeError};
use baton_model::id::GatewayName;
use baton_proto::identity::{self, IdentityError, JoinAs, Role, Token};
use std::path::PathBuf;
use std::time::Duration;

/// How a gateway joins.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Its folder, made where it is not there.
    pub dir: PathBuf,
    /// Where coordinators are (`HOST:PORT`): the first is asked now, all of them are remembered.
    pub coordinators: Vec<String>,
    /// The one-time token, as `baton gateway token` printed it.
    pub token: String,
    /// The gateway's name.
    pub name: GatewayName,
    /// Replace an identity that is already in the folder.
    pub force: bool,
}

/// Why a gateway could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The token, the coordinator, or the certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token lets somebody else join.
    #[error("this token is for {}; get one for a gateway with `baton gateway token`", role.noun())]
    NotForGateways {
        /// What it is for.
        role: Role,
    },
    /// No coordinator was given.
    #[error("no coordinator was given; name one with --coordinator HOST:PORT")]
    NoCoordinator,
}

/// Trades a one-time token for an identity and writes the gateway's folder; all in it is the folder's owner's then, whoever
/// joins.
///
/// # Errors
/// [`JoinError`]; the folder is then as it was.
pub async fn join(options: JoinOptions) -> Result<(), JoinError> {
    let token: Token = options.token.trim().parse()?;
    if token.role != Role::Gateway {
        return Err(JoinError::NotForGateways { role: token.role });
    }
    let coordinator = options.coordinators.first().ok_or(JoinError::NoCoordinator)?;
    let home = Home::open(&options.dir)?;
    home.lock(Duration::ZERO).await?;
    match home.file() {
        Ok(present) if !options.force => {
            return Err(HomeError::AlreadyJoined { dir: options.dir, name: present.name }.into());
        }
        // A damaged file is no reason not to replace it when that was asked for.
        Ok(_) | Err(HomeError::NotJoined { .. }) => {}
        Err(_) if options.force => {}
        Err(error) => return Err(error.into()),
    }
    let joiner = JoinAs { name: options.name.to_string(), ..JoinAs::default() };
    let identity = identity::join(coordinator, &token, joiner).await?;
    identity.save(&home.identity_dir())?;
    home.write_file(&GatewayFile { name: options.name, coordinators: options.coordinators })?;
    identity::give_to_owner(&options.dir).map_err(|source| HomeError::Io {
        action: "give",
        path: options.dir,
        source,
    })?;
    Ok(())
}
