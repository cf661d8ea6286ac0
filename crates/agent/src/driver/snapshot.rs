//! What is reported to the coordinator, in a form that only changes when something happened.

use super::record::Managed;
use baton_model::id::{Generation, InstanceId};
use baton_model::observed::InstanceObserved;
use baton_model::time::BootMs;
use std::collections::BTreeMap;

/// The whole state of the node's instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The plan that is on disk.
    pub(crate) generation: Generation,
    /// Each instance, and since when it is ready on this node's boot clock.
    pub(crate) instances: BTreeMap<InstanceId, (InstanceObserved, Option<BootMs>)>,
}

impl Snapshot {
    pub(super) fn of(generation: Generation, instances: &BTreeMap<InstanceId, Managed>, now: BootMs) -> Self {
        let instances = instances
            .iter()
            .filter_map(|(id, managed)| {
                let (mut observed, ready_for) = managed.machine().observe(now)?;
                if let Some(live) = managed.live.get(&observed.run) {
                    let state = live.handle.state();
                    observed.log_drops = state.log_drops;
                    if observed.pid.is_some() {
                        observed.status = state.notified.status;
                    }
                }
                let ready_since = ready_for.map(|length| BootMs(now.0.saturating_sub(length.0)));
                Some((id.clone(), (observed, ready_since)))
            })
            .collect();
        Self { generation, instances }
    }
}
