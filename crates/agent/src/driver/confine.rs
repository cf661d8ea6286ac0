//! Limits and sandbox of a release on this node: asked when it is staged, and made for each run.

use super::told::told;
use crate::runs::{Confinement, Host, Needs};
use crate::workload::Surroundings;
use baton_model::spec::ServiceSpec;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a run of `program` is confined to. Names are looked up, which may wait for a directory server.
///
/// # Errors
/// What this node cannot do, and what to do about it.
pub(super) async fn resolve(
    spec: &ServiceSpec,
    around: &Surroundings,
    program: &Path,
    host: &Arc<Host>,
) -> Result<Confinement, String> {
    let (limits, sandbox, host) = (spec.limits.clone(), spec.sandbox.clone(), Arc::clone(host));
    let needs = needs(around, program);
    apart(move || Confinement::resolve(&limits, &sandbox, &needs, &host).map_err(|refusal| told(&refusal)))
        .await
}

/// Tries the confinement of a release with its program, in a folder `scratch` that is there only meanwhile.
///
/// # Errors
/// What this node cannot do, or what would fail.
pub(super) async fn rehearse(
    spec: &ServiceSpec,
    around: &Surroundings,
    program: &Path,
    host: &Arc<Host>,
    scratch: PathBuf,
) -> Result<(), String> {
    let confinement = resolve(spec, around, program, host).await?;
    let needs = needs(around, program);
    apart(move || confinement.rehearse(&needs, &scratch)).await
}

/// Whose the things are that are made for the workload: its user and group, where it has its own.
///
/// # Errors
/// They are not known here.
pub(super) async fn owner(spec: &ServiceSpec) -> Result<Option<(u32, u32)>, String> {
    let sandbox = spec.sandbox.clone();
    apart(move || crate::runs::confine::owner(&sandbox).map_err(|refusal| told(&refusal))).await
}

/// What the workload must see, whatever is kept from it.
fn needs(around: &Surroundings, program: &Path) -> Needs {
    Needs { tree: around.tree.clone(), home: around.home.clone(), program: program.to_owned() }
}

/// Not on the agent's own thread.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(format!("the sandbox could not be looked into: {error}")))
}
