//! The service that the demo deploys: a folder with this very program, and a service file that a person could
//! have written.

use crate::global::Global;
use crate::pack::Packed;
use crate::release::Source;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// The service's name.
pub(super) const SERVICE: &str = "web";
/// The port it is reached at, on each node's address.
pub(super) const PORT: u16 = 8080;

/// How long a release is given: fetching and unpacking it included, and an unoptimized build is large and slow.
const HEALTHY_DEADLINE: &str = if cfg!(debug_assertions) { "20s" } else { "5s" };

/// A version of the sample service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// What it is called.
    pub(super) name: &'static str,
    /// Whether it answers as it should.
    pub(super) healthy: bool,
}

/// The first one.
pub(super) const FIRST: Version = Version { name: "1.0", healthy: true };
/// The one it is rolled to.
pub(super) const SECOND: Version = Version { name: "2.0", healthy: true };
/// The one that fails its check.
pub(super) const BAD: Version = Version { name: "3.0", healthy: false };

impl Version {
    /// Writes its service file and artifact into `dir` and packs them, as `baton deploy` does.
    pub(super) fn prepare(self, dir: &Path, replicas: u8) -> Result<(Source, Packed)> {
        let folder = dir.join(format!("web-{}", self.name));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("RELEASE"), format!("{}\n", self.name))?;
        copy_program(&folder.join("baton"))?;
        let file = dir.join(format!("web-{}.toml", self.name));
        std::fs::write(&file, self.file(replicas))?;
        // Nothing in this file is wrong, so there is nobody to be told in colour.
        let quiet = Global::quiet();
        let source = Source::load(&quiet, &file)?;
        let packed = source.pack(&quiet)?;
        Ok((source, packed))
    }

    /// Deadlines are short, so that the demo is; the defaults are for real services.
    fn file(self, replicas: u8) -> String {
        let Self { name, healthy } = self;
        let fault = if healthy { "" } else { r#", "--unhealthy""# };
        format!(
            r#"# {SERVICE} {name}, as `baton demo` deploys it
name = "{SERVICE}"
artifact = "web-{name}"
exec = ["baton", "sample-web", "--release", "${{VERSION}}", "--instance", "${{INSTANCE}}"{fault}]

[ports.http]
kind = "socket"
port = {PORT}

[checks.readiness]
kind = "http"
port = "http"
path = "/healthz"
interval = "200ms"
timeout = "200ms"

[stop]
timeout = "5s"
drain = "0s"

[placement]
replicas = {replicas}

[rollout]
batch = 1
max_unavailable = 1
min_healthy = "500ms"
healthy_deadline = "{HEALTHY_DEADLINE}"
progress_deadline = "60s"
first_zone_bake = "0s"
"#
        )
    }
}

/// A hard link to this program costs no space; across file systems it is copied.
fn copy_program(to: &Path) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    if std::fs::hard_link(&program, to).is_err() {
        std::fs::copy(&program, to)
            .with_context(|| format!("cannot copy {} to {}", program.display(), to.display()))?;
    }
    Ok(())
}

/// Where the artifacts of the demo are made.
pub(super) fn folder(cluster: &Path) -> PathBuf {
    cluster.join("demo")
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::file;

    #[test]
    fn every_version_is_a_right_service_file() {
        for version in [FIRST, SECOND, BAD] {
            let text = version.file(3);
            let parsed = file::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
            assert_eq!(parsed.spec.exec.contains(&"--unhealthy".to_owned()), !version.healthy);
        }
    }
}
