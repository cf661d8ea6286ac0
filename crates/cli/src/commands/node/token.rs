//! `baton node token`, `baton gateway token`: a one-time token that a new node, gateway or operator joins with.

use crate::exit::Exit;
use crate::global::Global;
use crate::show;
use anyhow::Result;
use baton_model::time::{Millis, UnixMs};
use baton_proto::identity::Role;
use baton_proto::v1;
use std::io::Write as _;

/// A length of time in which something can happen.
pub(in crate::commands) fn lifetime(text: &str) -> Result<Millis, String> {
    match Millis::parse(text)? {
        Millis::ZERO => {
            Err("a token that may never be used is none; write a length such as \"10m\"".to_owned())
        }
        some => Ok(some),
    }
}

/// Makes it, prints it, and says how it is used.
///
/// # Errors
/// When the coordinator cannot be reached or refuses.
pub(in crate::commands) async fn run(
    global: &Global,
    name: Option<String>,
    role: Role,
    ttl: Millis,
) -> Result<Exit> {
    let request = v1::CreateTokenRequest {
        role: role.word().to_owned(),
        name: name.clone(),
        ttl_s: ttl.0.div_ceil(1000),
    };
    let made = global.api().await?.create_token(request).await?;
    let expires = UnixMs(made.expires_at_ms);
    if global.json {
        global.print_json(
            &serde_json::json!({ "token": made.token, "role": role, "name": name, "expires_at": expires }),
        )?;
        return Ok(Exit::Done);
    }
    writeln!(std::io::stdout(), "{}", made.token)?;
    let who = name.as_deref().unwrap_or("NAME");
    eprintln!("good once, until {}; use it with", show::date(expires));
    match role {
        Role::Operator => {
            eprintln!("  baton context add CONTEXT --coordinator HOST:PORT --as {who} --token TOKEN");
        }
        Role::Gateway => {
            eprintln!("  baton gateway join --coordinator HOST:PORT --name {who} --dir DIR --token TOKEN");
        }
        Role::Node => {
            eprintln!(
                "  baton agent join --coordinator HOST:PORT --name {who} --address IP --dir DIR --token TOKEN"
            );
        }
    }
    Ok(Exit::Done)
}
