//! Order among the services of one node: the first start of an instance waits for what its service comes after.
//!
//! Who is ready on the node is the agent's to know; it says so by [`Event::Dependencies`](super::Event). Only the
//! first start waits (after a boot: the first since): a service does not go down with what it came after.

use super::Instance;
use super::state::Current;
use baton_model::id::ServiceName;
use baton_model::lifecycle::Near;
use baton_model::plan::InstancePlan;
use serde::{Deserialize, Serialize};

/// What is known of the services that must be ready here before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// They were ready once since this instance last had nothing running.
    met: bool,
    /// What is not ready, for people.
    unready: String,
}

impl Order {
    /// Nothing of the instance runs any more, and it may be that nothing of the node does.
    pub(super) fn begins_anew(&mut self) {
        *self = Self::default();
    }
}

impl Instance {
    /// The services on this node that it waits for now.
    #[must_use]
    pub fn waits_for(&self) -> Vec<&ServiceName> {
        match &self.current {
            Current::Staged { plan, .. } if !self.order.met => same_node(plan).collect(),
            Current::Staged { .. } | Current::Absent | Current::Fetching { .. } | Current::Running(_) => {
                Vec::new()
            }
            Current::Parked { .. } | Current::Failed { .. } | Current::Done { .. } => Vec::new(),
        }
    }

    /// The services that its present release comes after on its node: while it is here, they are stopped after it.
    #[must_use]
    pub fn comes_after(&self) -> Vec<&ServiceName> {
        let plan = self.current.plan().or(self.target.as_deref());
        plan.into_iter().flat_map(same_node).collect()
    }

    /// Takes in what is not ready; `None`: all of it is.
    pub(super) fn dependencies(&mut self, unready: Option<String>) {
        self.order = match unready {
            None => Order { met: true, unready: String::new() },
            Some(unready) => Order { met: self.order.met, unready },
        };
    }

    /// Whether the start of this plan has to wait.
    pub(super) fn must_wait(&self, plan: &InstancePlan) -> bool {
        !self.order.met && same_node(plan).next().is_some()
    }

    /// Why it waits, for people; empty where it does not.
    pub(super) fn why_it_waits(&self) -> String {
        match self.waits_for().first() {
            None => String::new(),
            Some(_) if self.order.unready.is_empty() => "it waits for the services it comes after".to_owned(),
            Some(_) => self.order.unready.clone(),
        }
    }
}

fn same_node(plan: &InstancePlan) -> impl Iterator<Item = &ServiceName> {
    plan.spec.lifecycle.after.iter().filter_map(|(name, near)| match near {
        Near::SameNode => Some(name),
        Near::Anywhere => None,
    })
}
