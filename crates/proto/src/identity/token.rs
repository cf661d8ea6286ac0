//! The one-time token: its role, its secret, and the fingerprint of the authority it belongs to.

use super::error::IdentityError;
use baton_model::id::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a token or a certificate lets its bearer be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An agent on a host.
    Node,
    /// A process that carries traffic.
    Gateway,
    /// A person or a pipeline with the CLI.
    Operator,
}

impl Role {
    /// The word used in tokens, certificates and on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
        }
    }

    /// The same after its article: "a node".
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Node => "a node",
            Self::Gateway => "a gateway",
            Self::Operator => "an operator",
        }
    }

    /// The command that makes a token for it.
    #[must_use]
    pub const fn token_command(self) -> &'static str {
        match self {
            Self::Node => "baton node token",
            Self::Gateway => "baton gateway token",
            Self::Operator => "baton node token --operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Role {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "node" => Ok(Self::Node),
            "gateway" => Ok(Self::Gateway),
            "operator" => Ok(Self::Operator),
            other => Err(IdentityError::Token(format!(
                "its role is `{other}`, not `node`, `gateway` or `operator`"
            ))),
        }
    }
}

/// A one-time token: `baton1.<role>.<id>.<secret>.<SHA-256 of the authority's certificate>`, numbers in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What its bearer may become.
    pub role: Role,
    /// Names the token in the coordinator's records and in messages; not secret.
    pub id: [u8; Token::ID_BYTES],
    /// What proves that the bearer was given the token.
    pub secret: [u8; Token::SECRET_BYTES],
    /// SHA-256 of the authority's certificate in DER; pins the coordinator.
    pub authority: Digest,
}

impl Token {
    /// Length of the id.
    pub const ID_BYTES: usize = 8;
    /// Length of the secret: 256 bits, so that it can be neither guessed nor found from its hash.
    pub const SECRET_BYTES: usize = 32;
    const PREFIX: &'static str = "baton1";

    /// The id in hex, as records and messages name the token.
    #[must_use]
    pub fn id_text(&self) -> String {
        hex(&self.id)
    }
}

/// Without the secret: a token may end up in a log by mistake, its secret may not.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("role", &self.role).field("id", &self.id_text()).finish_non_exhaustive()
    }
}

/// The whole text, secret included.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}.{}", Self::PREFIX, self.role, hex(&self.id), hex(&self.secret), self.authority)
    }
}

impl FromStr for Token {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bad = |detail: &str| IdentityError::Token(detail.to_owned());
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [prefix, role, id, secret, authority] = parts[..] else {
            return Err(bad("it does not have five parts with dots between them"));
        };
        if prefix != Self::PREFIX {
            return Err(bad("it does not begin with `baton1.`"));
        }
        Ok(Self {
            role: role.parse()?,
            id: unhex(id).ok_or_else(|| bad("its third part is not 16 hex digits"))?,
            secret: unhex(secret).ok_or_else(|| bad("its fourth part is not 64 hex digits"))?,
            authority: authority.parse().map_err(|_| bad("its last part is not 64 hex digits"))?,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { role: Role::Node, id: [1; 8], secret: [0xab; 32], authority: Digest([7; 32]) }
    }

    #[test]
    fn text_round_trips_and_debug_hides_the_secret() {
        let text = token().to_string();
        assert_eq!(text.parse::<Token>().unwrap(), token());
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token());
        assert!(!format!("{:?}", token()).contains("abab"));
    }

    #[test]
    fn wrong_texts_are_refused_with_the_part_that_is_wrong() {
        let good = token().to_string();
        for (text, expect) in [
            (String::new(), "five parts"),
            (good.replace("baton1", "baton2"), "begin with"),
            (good.replace("node", "root"), "`root`"),
            (good.replacen("01", "0g", 1), "third part"),
            (good.replacen("ab", "a", 1), "fourth part"),
            (good.replacen("ab", "é", 1), "fourth part"),
            (good[..good.len() - 1].to_owned(), "last part"),
        ] {
            // `replacen` must have changed something other than the prefix.
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
            assert!(error.contains("baton node token") && error.contains("baton gateway token"), "{error}");
        }
    }
}
