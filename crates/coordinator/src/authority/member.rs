//! Members: the names that have joined, until they are removed.

use super::error::{AuthorityError, ago};
use super::token::{system_time, unix_ms};
use crate::records::{decode, encode};
use crate::store::{Precondition, Store, StoreError};
use baton_model::id::Revision;
use baton_model::time::UnixMs;
use baton_proto::identity::{Peer, Role, Subject};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

const MEMBERS: &str = "authority/member/";

/// A name that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// When it joined, the latest time.
    pub joined_at: UnixMs,
    /// The id of the token it joined with.
    pub token: String,
}

/// A name that may be taken, as it was when it was looked at.
pub(super) struct Seat {
    subject: Subject,
    revision: Revision,
}

/// Looks whether a name may be taken; a name that is in use may be only when `replace` says so.
pub(super) async fn seat(
    store: &dyn Store,
    subject: &Subject,
    replace: bool,
    now: SystemTime,
) -> Result<Seat, AuthorityError> {
    let key = key_of(subject);
    let Some(found) = store.get(&key).await? else {
        return Ok(Seat { subject: subject.clone(), revision: Revision(0) });
    };
    if replace {
        return Ok(Seat { subject: subject.clone(), revision: found.revision });
    }
    let member: Member = decode(&key, &found.value)?;
    Err(AuthorityError::NameTaken { subject: subject.clone(), when: ago(system_time(member.joined_at), now) })
}

impl Seat {
    /// Takes the name, unless someone was faster.
    pub(super) async fn take(
        self,
        store: &dyn Store,
        token: &str,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let member = Member { joined_at: unix_ms(now), token: token.to_owned() };
        let key = key_of(&self.subject);
        match store.put(&key, encode(&key, &member)?.into(), Precondition::Is(self.revision)).await {
            Ok(_) => Ok(()),
            // Two tokens, one name, the same moment. This token is used up all the same: joining again needs a
            // new one, which the operator has to make with another name in mind anyway.
            Err(StoreError::Conflict { .. }) => {
                Err(AuthorityError::NameTaken { subject: self.subject, when: ago(now, now) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) async fn admit(store: &dyn Store, peer: &Peer) -> Result<(), AuthorityError> {
    let subject = subject_of(peer)?;
    match store.get(&key_of(&subject)).await? {
        Some(_) => Ok(()),
        None => Err(AuthorityError::NotAMember { subject }),
    }
}

pub(super) async fn forget(store: &dyn Store, peer: &Peer) -> Result<(), AuthorityError> {
    store.delete(&key_of(&subject_of(peer)?), Precondition::Any).await?;
    Ok(())
}

pub(super) fn subject_of(peer: &Peer) -> Result<Subject, AuthorityError> {
    Ok(match peer {
        Peer::Node(name) => Subject::Node(name.clone()),
        Peer::Gateway(name) => Subject::Gateway(name.clone()),
        Peer::Operator(name) => Subject::new(Role::Operator, name)?,
    })
}

fn key_of(subject: &Subject) -> String {
    match subject {
        Subject::Node(name) => format!("{MEMBERS}node/{name}"),
        Subject::Gateway(name) => format!("{MEMBERS}gateway/{name}"),
        Subject::Operator(name) => format!("{MEMBERS}operator/{name}"),
        Subject::Coordinator => format!("{MEMBERS}coordinator"),
    }
}
