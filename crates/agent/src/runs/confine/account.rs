//! Users and groups by name or number, as this node knows them.
//!
//! Names are asked of the C library, which may ask a directory server: not for the agent's own thread.

use super::refusal::Refusal;
use crate::shim::confine::GROUPS_MAX;
use baton_model::confinement::Sandbox;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::ffi::CString;

/// Whom a workload runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
    /// Supplementary groups, as the child reads them: little-endian numbers.
    pub(super) wire: Vec<u8>,
    /// The user's name, where it has one.
    pub(super) name: Option<String>,
}

/// Looks up `user` and `group`, each a name or a number. `None` where both are `None`.
///
/// # Errors
/// One of them is not known here, or cannot be looked up.
pub(super) fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Account>, Refusal> {
    let named = group.map(look_up_group).transpose()?;
    let Some(user) = user else {
        return Ok(named.map(|group| Account {
            user: Uid::effective().as_raw(),
            group,
            // The agent's other groups are not the service's.
            wire: Vec::new(),
            name: None,
        }));
    };
    let Some(entry) = look_up_user(user)? else {
        let number = user.parse().map_err(|_| unknown("user", user))?;
        let group = named.ok_or(Refusal::NoGroup(number))?;
        return Ok(Some(Account { user: number, group, wire: Vec::new(), name: None }));
    };
    let group = named.unwrap_or_else(|| entry.gid.as_raw());
    let wire = groups_of(&entry.name, group)?;
    Ok(Some(Account { user: entry.uid.as_raw(), group, wire, name: Some(entry.name) }))
}

impl Account {
    /// The name, or the number where it has none.
    pub(super) fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.user.to_string())
    }
}

/// Whose the things are that are made for a workload with this sandbox: its user and group, where it has its own.
///
/// # Errors
/// As [`look_up`].
pub(crate) fn owner(sandbox: &Sandbox) -> Result<Option<(u32, u32)>, Refusal> {
    let account = look_up(sandbox.user.as_deref(), sandbox.group.as_deref())?;
    Ok(account.map(|account| (account.user, account.group)))
}

fn look_up_user(name: &str) -> Result<Option<User>, Refusal> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    found.map_err(|error| failed("user", name, error))
}

fn look_up_group(name: &str) -> Result<u32, Refusal> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name).map_err(|error| failed("group", name, error))?;
    Ok(found.ok_or_else(|| unknown("group", name))?.gid.as_raw())
}

fn groups_of(user: &str, group: u32) -> Result<Vec<u8>, Refusal> {
    let name = CString::new(user).map_err(|_| unknown("user", user))?;
    let groups = getgrouplist(&name, Gid::from_raw(group)).map_err(|error| failed("user", user, error))?;
    if groups.len() > GROUPS_MAX {
        return Err(Refusal::TooManyGroups { name: user.to_owned(), count: groups.len(), most: GROUPS_MAX });
    }
    Ok(groups.into_iter().flat_map(|group| group.as_raw().to_le_bytes()).collect())
}

fn unknown(kind: &'static str, name: &str) -> Refusal {
    Refusal::UnknownAccount { kind, name: name.to_owned() }
}

fn failed(kind: &'static str, name: &str, error: nix::Error) -> Refusal {
    Refusal::Lookup { kind, name: name.to_owned(), why: error.desc().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let root = look_up(Some("root"), None).unwrap().unwrap();
        assert_eq!((root.user, root.group, root.name.as_deref()), (0, 0, Some("root")));
        assert_eq!(root.wire[..4], [0; 4]);
        assert_eq!(look_up(Some("0"), None).unwrap().unwrap(), root);
        assert_eq!(look_up(None, None), Ok(None));
        let only_group = look_up(None, Some("0")).unwrap().unwrap();
        assert_eq!((only_group.group, only_group.wire), (0, vec![]));
        let number = look_up(Some("3999999999"), Some("7")).unwrap().unwrap();
        assert_eq!((number.user, number.group, number.name), (3_999_999_999, 7, None));
    }

    #[test]
    fn what_is_not_known_is_told() {
        for (user, group, expect) in [
            (Some("no-such-user"), None, "user `no-such-user` does not exist"),
            (None, Some("no-such-group"), "group `no-such-group` does not exist"),
            (Some("3999999999"), None, "name it in `sandbox.group`"),
        ] {
            let told = look_up(user, group).unwrap_err().to_string();
            assert!(told.contains(expect), "{told}");
        }
    }
}
