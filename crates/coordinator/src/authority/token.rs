//! One-time tokens: made, checked, and used up exactly once.

use super::error::{AuthorityError, ago};
use crate::records::{decode, encode};
use crate::store::{Precondition, Store, StoreError};
use baton_model::id::{Digest, Revision};
use baton_model::time::UnixMs;
use baton_proto::identity::{Role, Subject, Token};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::time::{Duration, SystemTime};

const TOKENS: &str = "authority/token/";
/// Records of tokens that are kept, used and expired ones included.
const TOKENS_MAX: usize = 10_000;
/// A token that was used or has expired is remembered this long, so that whoever tries it is told so.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TokenRecord {
    role: Role,
    /// Only this name may join with it, where set.
    name: Option<String>,
    /// SHA-256 of the secret. The secret has 256 random bits, so its hash needs neither salt nor slowness.
    secret_sha256: Digest,
    expires_at: UnixMs,
    used: Option<Used>,
}

/// That and by whom a token was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    at: UnixMs,
    by: String,
}

/// Makes a token and its record.
pub(super) async fn create(
    store: &dyn Store,
    role: Role,
    name: Option<String>,
    authority: Digest,
    ttl: Duration,
    now: SystemTime,
) -> Result<(Token, SystemTime), AuthorityError> {
    let kept = sweep(store, now).await?;
    if kept >= TOKENS_MAX {
        return Err(AuthorityError::TooManyTokens(kept));
    }
    let token = Token { role, id: random()?, secret: random()?, authority };
    let expires_at = now + ttl;
    let record =
        TokenRecord { role, name, secret_sha256: hash(&token), expires_at: unix_ms(expires_at), used: None };
    let key = key_of(&token);
    store.put(&key, encode(&key, &record)?.into(), Precondition::ABSENT).await?;
    Ok((token, expires_at))
}

/// A token that may be used now.
pub(super) struct Valid {
    key: String,
    id: String,
    record: TokenRecord,
    revision: Revision,
}

/// Checks a token that `name` shows, and changes nothing.
pub(super) async fn check(
    store: &dyn Store,
    token: &Token,
    name: &str,
    now: SystemTime,
) -> Result<Valid, AuthorityError> {
    let (key, id, role) = (key_of(token), token.id_text(), token.role);
    let Some(found) = store.get(&key).await? else {
        return Err(AuthorityError::TokenUnknown { id, role });
    };
    let record: TokenRecord = decode(&key, &found.value)?;
    // Hashes are compared, so how long it takes says nothing about the secret.
    if record.secret_sha256 != hash(token) || record.role != token.role {
        return Err(AuthorityError::TokenUnknown { id, role });
    }
    if let Some(used) = record.used {
        return Err(AuthorityError::TokenUsed {
            id,
            role,
            when: ago(system_time(used.at), now),
            by: used.by,
        });
    }
    if unix_ms(now) >= record.expires_at {
        return Err(AuthorityError::TokenExpired {
            id,
            role,
            when: ago(system_time(record.expires_at), now),
        });
    }
    match &record.name {
        Some(bound) if bound != name => {
            Err(AuthorityError::TokenForAnotherName { id, bound: bound.clone(), asked: name.to_owned() })
        }
        Some(_) | None => Ok(Valid { key, id, record, revision: found.revision }),
    }
}

impl Valid {
    /// Whether it was made for exactly this name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.record.name.as_deref() == Some(name)
    }

    /// Uses the token up. Of several that try at the same time, one succeeds.
    pub(super) async fn use_up(
        self,
        store: &dyn Store,
        by: &Subject,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let used = Used { at: unix_ms(now), by: by.to_string() };
        let record = TokenRecord { used: Some(used), ..self.record.clone() };
        match store.put(&self.key, encode(&self.key, &record)?.into(), Precondition::Is(self.revision)).await
        {
            Ok(_) => Ok(()),
            // The record changes only by being used, or swept when it is long over.
            Err(StoreError::Conflict { .. }) => Err(self.lost(store, now).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Says who was faster.
    async fn lost(&self, store: &dyn Store, now: SystemTime) -> Result<AuthorityError, AuthorityError> {
        let (id, role) = (self.id.clone(), self.record.role);
        let Some(found) = store.get(&self.key).await? else {
            return Ok(AuthorityError::TokenUnknown { id, role });
        };
        let record: TokenRecord = decode(&self.key, &found.value)?;
        Ok(match record.used {
            Some(used) => {
                AuthorityError::TokenUsed { id, role, when: ago(system_time(used.at), now), by: used.by }
            }
            None => AuthorityError::TokenUnknown { id, role },
        })
    }
}

/// Forgets tokens that are long over; answers how many records remain.
async fn sweep(store: &dyn Store, now: SystemTime) -> Result<usize, AuthorityError> {
    let mut remaining = 0;
    for found in store.list(TOKENS).await? {
        let record: TokenRecord = decode(&found.key, &found.value)?;
        let over = record.used.map_or(record.expires_at, |used| used.at);
        if unix_ms(now).since(over).duration() > REMEMBERED {
            store.delete(&found.key, Precondition::Any).await?;
        } else {
            remaining += 1;
        }
    }
    Ok(remaining)
}

fn key_of(token: &Token) -> String {
    format!("{TOKENS}{}", token.id_text())
}

fn hash(token: &Token) -> Digest {
    Digest(Sha256::digest(token.secret).into())
}

fn random<const N: usize>() -> Result<[u8; N], AuthorityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| AuthorityError::Signing(format!("the system gives no randomness ({error})")))?;
    Ok(bytes)
}

pub(super) fn unix_ms(time: SystemTime) -> UnixMs {
    let length = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixMs(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn system_time(time: UnixMs) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(time.0)
}
