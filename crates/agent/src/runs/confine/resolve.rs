//! Asks of a service's limits and sandbox what only the node can answer.

use super::Confinement;
use super::account::{self, Account};
use super::host::Host;
use super::refusal::Refusal;
use baton_model::confinement::{Limits, Sandbox};
use std::path::{Path, PathBuf};

/// What `private_tmp` covers.
pub(super) const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];

/// What a workload is made of, and must see.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The unpacked artifact.
    pub tree: PathBuf,
    /// The instance's own folder; it need not be there yet.
    pub home: PathBuf,
    /// The program.
    pub program: PathBuf,
}

/// See [`Confinement::resolve`].
pub(super) fn resolve(
    limits: &Limits,
    sandbox: &Sandbox,
    needs: &Needs,
    host: &Host,
) -> Result<Confinement, Refusal> {
    can_limit(limits, host)?;
    let account = can_switch(sandbox, host)?;
    can_bound(sandbox, host)?;
    can_mount(sandbox, needs, host)?;
    if let Some(nice) = sandbox.nice.filter(|nice| *nice < host.ability.nice_min) {
        return Err(Refusal::CannotNice { asked: nice, least: host.ability.nice_min });
    }
    let folder = sandbox.working_directory.as_deref();
    let working_directory = folder.map(|folder| working_directory(folder, &needs.tree)).transpose()?;
    Ok(Confinement {
        limits: limits.clone(),
        sandbox: sandbox.clone(),
        account,
        home: needs.home.clone(),
        working_directory,
    })
}

fn can_limit(limits: &Limits, host: &Host) -> Result<(), Refusal> {
    let controllers = &host.ability.controllers;
    for (controller, limit) in limits.controllers() {
        if !controllers.contains(&controller) {
            let names: Vec<&str> = controllers.iter().map(|it| it.name()).collect();
            let has = if names.is_empty() { "none".to_owned() } else { format!("only {}", names.join(", ")) };
            return Err(Refusal::Controller { limit, controller, has });
        }
    }
    let asked = [
        ("open_files", limits.open_files, host.ability.open_files_max, "LimitNOFILE="),
        ("core", limits.core_bytes, host.core_max, "LimitCORE="),
    ];
    for (limit, asked, most, setting) in asked {
        if let Some(asked) = asked.filter(|asked| *asked > most) {
            return Err(Refusal::Limit { limit, asked, most, setting });
        }
    }
    Ok(())
}

/// The account, where it is another than the agent's.
fn can_switch(sandbox: &Sandbox, host: &Host) -> Result<Option<Account>, Refusal> {
    let Some(account) = account::look_up(sandbox.user.as_deref(), sandbox.group.as_deref())? else {
        return Ok(None);
    };
    if host.ability.users {
        return Ok(Some(account));
    }
    if account.user != host.user {
        return Err(Refusal::CannotSwitch { field: "user", user: host.user });
    }
    if account.group != host.group {
        return Err(Refusal::CannotSwitch { field: "group", user: host.user });
    }
    // It is who the agent is: nothing to switch, and no right needed.
    Ok(None)
}

fn can_bound(sandbox: &Sandbox, host: &Host) -> Result<(), Refusal> {
    let Some(kept) = &sandbox.capabilities else { return Ok(()) };
    if !host.ability.capabilities {
        return Err(Refusal::CannotBound(host.user));
    }
    match kept.iter().find(|capability| !host.has(**capability)) {
        Some(missing) => Err(Refusal::NotOurs(*missing)),
        None => Ok(()),
    }
}

fn can_mount(sandbox: &Sandbox, needs: &Needs, host: &Host) -> Result<(), Refusal> {
    let Some(field) = sandbox.needs_mounts() else { return Ok(()) };
    if !host.ability.mounts {
        return Err(Refusal::CannotMount { field });
    }
    for (field, paths) in [("read_only", &sandbox.read_only), ("hidden", &sandbox.hidden)] {
        if let Some(path) = paths.iter().find(|path| !Path::new(path).exists()) {
            return Err(Refusal::NoPath { field, path: path.clone() });
        }
    }
    for path in &sandbox.hidden {
        not_covered("hidden", path, needs)?;
    }
    if sandbox.private_tmp {
        for path in PRIVATE {
            if !Path::new(path).is_dir() {
                return Err(Refusal::NoPath { field: "private_tmp", path: path.to_owned() });
            }
            not_covered("private_tmp", path, needs)?;
        }
    }
    Ok(())
}

/// What is mounted over `path` must not take away what the workload is made of.
fn not_covered(field: &'static str, path: &str, needs: &Needs) -> Result<(), Refusal> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let covering = real(Path::new(path));
    let needed = [&needs.tree, &needs.home, &needs.program];
    match needed.into_iter().find(|needed| real(needed).starts_with(&covering)) {
        Some(covered) => Err(Refusal::Covers { field, path: path.to_owned(), covered: covered.clone() }),
        None => Ok(()),
    }
}

fn working_directory(folder: &str, tree: &Path) -> Result<PathBuf, Refusal> {
    let path = Path::new(folder);
    if path.is_absolute() {
        let wrong = || Refusal::WorkingDirectory(folder.to_owned(), "of this node");
        return if path.is_dir() { Ok(path.to_owned()) } else { Err(wrong()) };
    }
    let wrong = || Refusal::WorkingDirectory(folder.to_owned(), "inside the artifact");
    let tree = tree.canonicalize().map_err(|_| wrong())?;
    let found = tree.join(path).canonicalize().map_err(|_| wrong())?;
    if found.starts_with(&tree) && found.is_dir() { Ok(found) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::confinement::{Ability, Controller};

    /// A node that can do nothing but run processes.
    fn bare() -> Host {
        let ability = Ability { open_files_max: 1024, nice_min: 0, ..Ability::default() };
        Host::of(ability, 1000, 0, 0)
    }

    /// A node that can do all of it.
    fn able() -> Host {
        let ability = Ability {
            controllers: Controller::ALL.into(),
            users: true,
            capabilities: true,
            mounts: true,
            open_files_max: 1 << 20,
            nice_min: -20,
            journal: true,
        };
        Host::of(ability, 0, 1 << 10, u64::MAX)
    }

    fn check(host: &Host, limits: Limits, sandbox: Sandbox, expect: &str) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let needs = Needs {
            tree: folder.path().to_owned(),
            home: folder.path().join("home"),
            program: "/bin/sh".into(),
        };
        let told = resolve(&limits, &sandbox, &needs, host)
            .map_or_else(|refusal| refusal.to_string(), |_| "fine".into());
        assert!(told.contains(expect), "expected `{expect}`, got `{told}`");
    }

    fn paths(path: &str) -> std::collections::BTreeSet<String> {
        [path.to_owned()].into()
    }

    #[test]
    fn limits_are_refused_where_they_would_not_hold() {
        let memory = Limits { memory_max: Some(1 << 30), ..Limits::default() };
        check(&able(), memory.clone(), Sandbox::default(), "fine");
        check(&bare(), memory.clone(), Sandbox::default(), "`limits.memory_max` needs the memory controller");
        check(&bare(), memory.clone(), Sandbox::default(), "this node has none");
        let mut some = able();
        some.ability.controllers.remove(&Controller::Memory);
        check(&some, memory, Sandbox::default(), "this node has only cpu, pids, io");
        let files = Limits { open_files: Some(4096), ..Limits::default() };
        check(&bare(), files.clone(), Sandbox::default(), "LimitNOFILE=");
        check(&able(), files, Sandbox::default(), "fine");
        let core = Limits { core_bytes: Some(0), ..Limits::default() };
        check(&bare(), core, Sandbox::default(), "fine");
    }

    #[test]
    fn a_sandbox_is_refused_where_it_would_not_hold() {
        let ask =
            |host: &Host, sandbox: Sandbox, expect: &str| check(host, Limits::default(), sandbox, expect);
        let user = |name: &str| Sandbox { user: Some(name.to_owned()), ..Sandbox::default() };
        ask(&bare(), user("root"), "runs as user 1000 without the right to switch");
        ask(&able(), user("root"), "fine");
        ask(&able(), user("no-such-user"), "user `no-such-user` does not exist");
        let keep =
            |name: &str| Sandbox { capabilities: Some([name.parse().unwrap()].into()), ..Sandbox::default() };
        ask(&bare(), keep("CAP_NET_BIND_SERVICE"), "CAP_SETPCAP");
        ask(&able(), keep("CAP_NET_BIND_SERVICE"), "fine");
        ask(&able(), keep("CAP_SYS_MODULE"), "asks for CAP_SYS_MODULE");
        let hide = |path: &str| Sandbox { hidden: paths(path), ..Sandbox::default() };
        ask(&bare(), hide("/root"), "`sandbox.hidden` needs mounts of its own");
        ask(&able(), hide("/root"), "fine");
        ask(&able(), hide("/no/such/path"), "names /no/such/path, which does not exist");
        ask(&able(), hide("/bin"), "covers /bin/sh with /bin");
        ask(&able(), Sandbox { read_only: paths("/no/such"), ..Sandbox::default() }, "sandbox.read_only");
        // The test's own folder is in /tmp.
        ask(&able(), Sandbox { private_tmp: true, ..Sandbox::default() }, "with /tmp");
        ask(&bare(), Sandbox { nice: Some(-5), ..Sandbox::default() }, "write 0 or more");
        ask(&bare(), Sandbox { nice: Some(5), ..Sandbox::default() }, "fine");
    }

    #[test]
    fn a_working_directory_is_a_folder_of_the_artifact_or_of_the_node() {
        let start = |folder: &str, expect: &str| {
            let sandbox = Sandbox { working_directory: Some(folder.to_owned()), ..Sandbox::default() };
            check(&bare(), Limits::default(), sandbox, expect);
        };
        start("data", "fine");
        start("/etc", "fine");
        start("nope", "not a folder inside the artifact");
        start("/etc/passwd", "not a folder of this node");
    }
}
