//! `verified-bytes` and `no-foreign-kill`: what is done to processes on a host.

use super::{Holds, broken};
use crate::world::mutation::Mutation;
use crate::world::workload::Run;
use baton_model::id::{InstanceId, NodeName, RunNumber};

/// `verified-bytes`: what is executed is what the digest says.
pub(crate) fn verified_bytes(node: &NodeName, id: &InstanceId, intact: Option<bool>) -> Holds {
    match intact {
        Some(true) => Ok(()),
        Some(false) => {
            broken("verified-bytes", format!("{node} executes {id} from bytes that are not its release's"))
        }
        None => broken("verified-bytes", format!("{node} executes {id} from nowhere")),
    }
}

/// `no-foreign-kill`: only a run whose shim has proven itself is signalled. The process id of one that is gone may be
/// anybody's by now.
pub(crate) fn no_foreign_kill(
    id: &InstanceId,
    number: RunNumber,
    run: Option<&Run>,
    mutation: Option<Mutation>,
) -> Holds {
    if run.is_none() && mutation == Some(Mutation::IdentityUnproven) {
        return broken(
            "no-foreign-kill",
            format!("{id} run {number} is gone, and its process id was signalled"),
        );
    }
    Ok(())
}
