//! From a spec to a process: program, arguments and environment, final.
//!
//! Nothing of the agent's own environment reaches a workload, so that it behaves the same on every node.

use crate::provisions::Folders;
use baton_model::id::{InstanceId, NodeName, Version};
use baton_model::spec::ServiceSpec;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

/// As Debian gives it to services.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// UTF-8 without a country.
const LANGUAGE: &str = "C.UTF-8";

/// What a workload is told of where it runs.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) node: NodeName,
    pub(crate) address: IpAddr,
    pub(crate) instance: InstanceId,
    pub(crate) version: Version,
    /// Every port of the run, by name.
    pub(crate) ports: BTreeMap<String, u16>,
    /// The public path of every Unix socket of the run, by name.
    pub(crate) sockets: BTreeMap<String, String>,
    /// The unpacked artifact: the working directory.
    pub(crate) tree: PathBuf,
    /// Its rendered files and its secrets, where it has any.
    pub(crate) folders: Folders,
    /// `HOME`: the instance's own folder, kept through restarts and swaps.
    pub(crate) home: PathBuf,
}

/// A command that can be executed as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: PathBuf,
}

/// Why a command cannot be made; the text says what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CommandError {
    #[error("the command is empty; give a program")]
    Empty,
    #[error(
        "`{0}` leads out of the artifact's folder; give a path inside it, or an absolute path of the node"
    )]
    Outside(String),
    #[error("`{0}` is not in the artifact; check this path and what was packed")]
    Missing(String),
}

impl Surroundings {
    /// The command for `words` (program and arguments, as in `ServiceSpec::exec`) in the environment of `spec`.
    pub(crate) fn command(&self, words: &[String], spec: &ServiceSpec) -> Result<Command, CommandError> {
        let mut words = words.iter().map(|word| self.expand(word));
        let program = self.program(&words.next().ok_or(CommandError::Empty)?)?;
        Ok(Command {
            program,
            args: words.map(OsString::from).collect(),
            env: self.environment(spec),
            cwd: self.tree.clone(),
        })
    }

    /// Where a program is: absolute as it is, else inside the artifact, links followed, never outside of it.
    fn program(&self, word: &str) -> Result<PathBuf, CommandError> {
        let path = Path::new(word);
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(CommandError::Outside(word.to_owned()));
        }
        let missing = |_| CommandError::Missing(word.to_owned());
        let tree = self.tree.canonicalize().map_err(missing)?;
        let found = tree.join(path).canonicalize().map_err(missing)?;
        if !found.starts_with(&tree) {
            return Err(CommandError::Outside(word.to_owned()));
        }
        Ok(found)
    }

    fn environment(&self, spec: &ServiceSpec) -> Vec<(OsString, OsString)> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), SEARCH_PATH.to_owned()),
            ("LANG".to_owned(), LANGUAGE.to_owned()),
            ("HOME".to_owned(), self.home.display().to_string()),
            ("BATON_SERVICE".to_owned(), self.instance.service.to_string()),
            ("BATON_INSTANCE".to_owned(), self.instance.to_string()),
            ("BATON_NODE".to_owned(), self.node.to_string()),
            ("BATON_VERSION".to_owned(), self.version.to_string()),
        ]);
        env.extend(self.ports.iter().map(|(name, port)| (variable("PORT", name), port.to_string())));
        env.extend(self.sockets.iter().map(|(name, path)| (variable("SOCKET", name), path.clone())));
        let folders =
            [("BATON_CONFIG_DIR", &self.folders.config), ("BATON_SECRETS_DIR", &self.folders.secrets)];
        for (name, folder) in folders {
            env.extend(folder.iter().map(|folder| (name.to_owned(), folder.display().to_string())));
        }
        env.extend(spec.env.iter().map(|(name, value)| (name.clone(), self.expand(value))));
        env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Replaces each `${NAME}` that we know; everything else stays, for the program may have its own use for it.
    fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, tail) = rest.split_at(start);
            if let Some(before) = before.strip_suffix('$') {
                // `$${` is a literal `${`, as the service file has it (`baton_model::file::expand`).
                out.push_str(before);
                out.push_str("${");
                rest = &tail[2..];
                continue;
            }
            out.push_str(before);
            match tail.find('}').and_then(|end| Some((self.value(&tail[2..end])?, end))) {
                Some((value, end)) => {
                    out.push_str(&value);
                    rest = &tail[end + 1..];
                }
                None => {
                    out.push_str("${");
                    rest = &tail[2..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    fn value(&self, name: &str) -> Option<String> {
        match name {
            "NODE_NAME" => Some(self.node.to_string()),
            "NODE_ADDRESS" => Some(self.address.to_string()),
            "INSTANCE" => Some(self.instance.to_string()),
            "VERSION" => Some(self.version.to_string()),
            "CONFIG_DIR" => self.folders.config.as_ref().map(|folder| folder.display().to_string()),
            "SECRETS_DIR" => self.folders.secrets.as_ref().map(|folder| folder.display().to_string()),
            _ => {
                let number = self.ports.iter().find(|(port, _)| variable("PORT", port) == name);
                let path = self.sockets.iter().find(|(port, _)| variable("SOCKET", port) == name);
                number.map(|(_, number)| number.to_string()).or_else(|| path.map(|(_, path)| path.clone()))
            }
        }
    }
}

/// `PORT_<NAME>` or `SOCKET_<NAME>`: upper case, `_` for `-`.
fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}_{}", name.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use baton_model::rollout::{OnFailure, RolloutPolicy, Strategy};
    use baton_model::spec::{
        Amount, Checks, Count, LogPolicy, Placement, RestartMode, RestartPolicy, StopPolicy, StopSignal,
    };
    use baton_model::time::Millis;

    /// A plain service, to change a thing or two of.
    pub(crate) fn spec() -> ServiceSpec {
        ServiceSpec {
            name: "web".parse().unwrap(),
            exec: vec!["bin/web".to_owned()],
            env: BTreeMap::new(),
            ports: BTreeMap::new(),
            checks: Checks::default(),
            stop: StopPolicy { signal: StopSignal::Sigterm, timeout: Millis(2_000), drain: Millis(2_000) },
            restart: RestartPolicy {
                mode: RestartMode::Always,
                base: Millis(100),
                max: Millis(1_000),
                reset_after: Millis(60_000),
                crash_loop_after: 5,
            },
            placement: Placement {
                count: Count::Replicas(1),
                require: BTreeMap::new(),
                spread: None,
                lost_after: Millis(60_000),
            },
            min_available: Amount::Number(0),
            rollout: RolloutPolicy {
                strategy: Strategy::Rolling,
                batch: Amount::Number(1),
                max_unavailable: Amount::Number(1),
                zone_at_a_time: false,
                first_zone_bake: Millis::ZERO,
                min_healthy: Millis::ZERO,
                healthy_deadline: Millis(10_000),
                progress_deadline: Millis(10_000),
                failure_tolerance: Amount::Number(0),
                on_failure: OnFailure::RollBack,
                approve_before: Vec::new(),
                analysis: Vec::new(),
            },
            logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
            lifecycle: Default::default(),
            limits: Default::default(),
            sandbox: Default::default(),
            configuration: Default::default(),
            route: None,
        }
    }

    /// Surroundings with the artifact at `tree`.
    pub(crate) fn surroundings(tree: &Path, ports: &[(&str, u16)]) -> Surroundings {
        Surroundings {
            node: "n1".parse().unwrap(),
            address: "127.0.0.1".parse().unwrap(),
            instance: "web.1".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
            sockets: BTreeMap::from([("local".to_owned(), "/run/web.sock".to_owned())]),
            tree: tree.to_owned(),
            folders: Folders { config: Some("/c/web.1-1".into()), secrets: None },
            home: tree.join("home"),
        }
    }

    #[test]
    fn known_names_are_replaced_and_others_stay() {
        let around = surroundings(Path::new("/x"), &[("http", 80), ("admin-api", 81)]);
        for (text, expect) in [
            ("--port=${PORT_HTTP}", "--port=80"),
            ("${PORT_ADMIN_API}${PORT_HTTP}", "8180"),
            ("${NODE_NAME}/${INSTANCE}@${NODE_ADDRESS}", "n1/web.1@127.0.0.1"),
            ("unix:${SOCKET_LOCAL} ${PORT_LOCAL}", "unix:/run/web.sock ${PORT_LOCAL}"),
            ("v${VERSION}", "v1.0"),
            ("${CONFIG_DIR}/app.conf", "/c/web.1-1/app.conf"),
            ("${OTHER} ${", "${OTHER} ${"),
            ("${${VERSION}}", "${1.0}"),
            ("echo $${HOME} $${VERSION} $", "echo ${HOME} ${VERSION} $"),
            ("$VERSION", "$VERSION"),
        ] {
            assert_eq!(around.expand(text), expect, "{text}");
        }
    }

    #[test]
    fn a_program_is_inside_the_artifact_or_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().canonicalize().unwrap().join("tree");
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        std::fs::write(tree.join("bin/web"), "x").unwrap();
        std::os::unix::fs::symlink("bin/web", tree.join("current")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", tree.join("out")).unwrap();
        let around = surroundings(&tree, &[]);
        assert_eq!(around.program("bin/web"), Ok(tree.join("bin/web")));
        assert_eq!(around.program("./current"), Ok(tree.join("bin/web")));
        assert_eq!(around.program("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(around.program("../tree/bin/web"), Err(CommandError::Outside("../tree/bin/web".into())));
        assert_eq!(around.program("out"), Err(CommandError::Outside("out".into())));
        assert_eq!(around.program("nope"), Err(CommandError::Missing("nope".into())));
        assert_eq!(around.command(&[], &spec()), Err(CommandError::Empty));
    }

    #[test]
    fn the_environment_is_ours_and_the_specs_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec();
        spec.env = BTreeMap::from([
            ("LISTEN".to_owned(), "${NODE_ADDRESS}:${PORT_HTTP}".to_owned()),
            ("LANG".to_owned(), "de_AT.UTF-8".to_owned()),
        ]);
        let around = surroundings(folder.path(), &[("http", 80)]);
        let command = around.command(&["/bin/sh".to_owned(), "${VERSION}".to_owned()], &spec).unwrap();
        assert_eq!(command.args, ["1.0"]);
        let env: BTreeMap<_, _> =
            command.env.iter().map(|(k, v)| (k.to_str().unwrap(), v.to_str().unwrap())).collect();
        assert_eq!(env["LISTEN"], "127.0.0.1:80");
        assert_eq!(env["LANG"], "de_AT.UTF-8");
        assert_eq!(env["PORT_HTTP"], "80");
        assert_eq!(env["BATON_INSTANCE"], "web.1");
        let names: Vec<_> = env.keys().copied().collect();
        assert_eq!(
            names,
            [
                "BATON_CONFIG_DIR",
                "BATON_INSTANCE",
                "BATON_NODE",
                "BATON_SERVICE",
                "BATON_VERSION",
                "HOME",
                "LANG",
                "LISTEN",
                "PATH",
                "PORT_HTTP",
                "SOCKET_LOCAL"
            ]
        );
    }
}
