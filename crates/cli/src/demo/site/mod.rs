//! The services that the demo deploys: folders with this very program, and service files that a person could have
//! written.
//!
//! `web` takes its sockets from the shim and is rolled; `shop` gets a port for each run, so that a whole second set of
//! it fits on the same nodes, and each of its versions comes by another strategy.

mod file;

use super::load::{Asked, Side};
use crate::global::Global;
use crate::pack::Packed;
use crate::release::Source;
use anyhow::{Context as _, Result};
use baton_model::id::ServiceName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A service of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Listens on sockets of the shim's.
    Web,
    /// Listens on a port of each run's own.
    Shop,
}

impl Site {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Web, Self::Shop];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        self.asked().service
    }

    /// How it is asked.
    pub(super) const fn asked(self) -> Asked {
        match self {
            Self::Web => Asked { service: "web", host: "web.demo" },
            Self::Shop => Asked { service: "shop", host: "shop.demo" },
        }
    }

    /// Its name as the coordinator has it.
    pub(super) fn service(self) -> Result<ServiceName> {
        Ok(ServiceName::new(self.name())?)
    }
}

/// What is wrong with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It fails its check, and so answers nobody.
    Unhealthy,
    /// It is well by its check, and answers one request in three with an error.
    Errors,
    /// It is well by its check, and answers after [`SLOW_BY`].
    Slow,
    /// It is well by its check, and answers one question in ten wrongly.
    Miscounts,
}

/// How much too late a slow version answers: twice what its threshold allows, and more than a good version takes on a
/// machine that is busy; an unoptimized build is busy by itself.
pub(super) const SLOW_BY: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 1_000 });

/// How a version takes the place of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Rolling,
    Canary,
    BlueGreen,
    Dark,
}

/// A version of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Of which service.
    pub(super) site: Site,
    /// What it is called.
    pub(super) name: &'static str,
    /// The folder that is its artifact.
    pub(super) artifact: &'static str,
    /// What is wrong with it.
    pub(super) fault: Fault,
    /// How it comes.
    pub(super) strategy: Strategy,
}

/// The artifacts. Most versions have the first: they differ by their settings, and nodes need not fetch it again.
const PROGRAMS: [&str; 2] = ["program-1", "program-2"];

const fn web(name: &'static str, artifact: &'static str, fault: Fault) -> Version {
    Version { site: Site::Web, name, artifact, fault, strategy: Strategy::Rolling }
}

const fn shop(name: &'static str, fault: Fault, strategy: Strategy) -> Version {
    Version { site: Site::Shop, name, artifact: PROGRAMS[0], fault, strategy }
}

/// What is there first.
pub(super) const WEB_1: Version = web("1.0", PROGRAMS[0], Fault::None);
/// What it is rolled to.
pub(super) const WEB_2: Version = web("2.0", PROGRAMS[1], Fault::None);
/// Fails its check.
pub(super) const WEB_3: Version = web("3.0", PROGRAMS[1], Fault::Unhealthy);
/// What is there first.
pub(super) const SHOP_1: Version = shop("1.0", Fault::None, Strategy::Rolling);
/// A canary that is well.
pub(super) const SHOP_2: Version = shop("2.0", Fault::None, Strategy::Canary);
/// A canary that answers with errors.
pub(super) const SHOP_3: Version = shop("3.0", Fault::Errors, Strategy::Canary);
/// A canary that is slow.
pub(super) const SHOP_4: Version = shop("4.0", Fault::Slow, Strategy::Canary);
/// Switched to, and back.
pub(super) const SHOP_5: Version = shop("5.0", Fault::None, Strategy::BlueGreen);
/// Sent copies, and found to answer otherwise.
pub(super) const SHOP_6: Version = shop("6.0", Fault::Miscounts, Strategy::Dark);

impl Version {
    /// As the load counts it.
    pub(super) fn side(self) -> Side {
        Side::new(self.site.name(), self.name)
    }

    /// `shop 2.0`.
    pub(super) fn title(self) -> String {
        format!("{} {}", self.site.name(), self.name)
    }

    /// Writes its service file into `dir`, beside the artifacts, and packs what it names, as `baton deploy` does;
    /// `packed` is the same artifact, where an earlier version had it.
    pub(super) fn prepare(
        self,
        dir: &Path,
        replicas: u8,
        packed: Option<Arc<Packed>>,
    ) -> Result<(Source, Arc<Packed>)> {
        let file = dir.join(format!("{}-{}.toml", self.site.name(), self.name));
        std::fs::write(&file, file::text(self, replicas))?;
        // Nothing in this file is wrong, so there is nobody to be told in colour.
        let quiet = Global::quiet();
        let source = Source::load(&quiet, &file)?;
        let packed = match packed {
            Some(packed) => packed,
            None => Arc::new(source.pack(&quiet)?),
        };
        Ok((source, packed))
    }
}

/// Makes the artifacts in `dir`: folders with this program in them.
pub(super) fn make_artifacts(dir: &Path) -> Result<()> {
    for name in PROGRAMS {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("ARTIFACT"), format!("{name}\n"))?;
        copy_program(&folder.join("baton"))?;
    }
    Ok(())
}

/// A hard link to this program costs no space; across file systems it is copied.
fn copy_program(to: &Path) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
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
