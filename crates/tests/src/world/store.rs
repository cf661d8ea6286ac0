//! The simulated store: records with revisions, compare-and-set, and no mercy.

use super::mutation::Mutation;
use baton_engine::cycle::{PlanRecord, Snapshot, Versioned, Write, Written};
use baton_engine::progress::ServiceProgress;
use baton_model::desired::Desired;
use baton_model::id::{NodeName, Revision, ServiceName};
use std::collections::BTreeMap;

/// What is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) desired: Desired,
    pub(crate) progress: BTreeMap<ServiceName, Versioned<ServiceProgress>>,
    pub(crate) plans: BTreeMap<NodeName, Versioned<PlanRecord>>,
    last: u64,
}

impl Store {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { desired: self.desired.clone(), progress: self.progress.clone(), plans: self.plans.clone() }
    }

    /// Grows with each write.
    pub(crate) fn revision(&self) -> u64 {
        self.last
    }

    /// Compare and set.
    pub(crate) fn apply(&mut self, write: &Write, mutation: Option<Mutation>) -> Written {
        let (has, expected) = match write {
            Write::Progress(service, expected, _) => {
                (self.progress.get(service).map(|record| record.revision), *expected)
            }
            Write::Plan(node, expected, _) => (self.plans.get(node).map(|record| record.revision), *expected),
        };
        if has.unwrap_or_default() != expected && mutation != Some(Mutation::CompareAndSetSkipped) {
            return Written::Conflict;
        }
        self.last += 1;
        let revision = Revision(self.last);
        match write {
            Write::Progress(service, _, Some(value)) => {
                self.progress.insert(service.clone(), Versioned { revision, value: value.clone() });
            }
            Write::Progress(service, _, None) => {
                self.progress.remove(service);
            }
            Write::Plan(node, _, record) => {
                self.plans.insert(node.clone(), Versioned { revision, value: record.clone() });
            }
        }
        Written::Stored(revision)
    }

    /// Another writer touches a record without changing it: the next compare-and-set on it is lost.
    pub(crate) fn touch(&mut self, service: &ServiceName, node: &NodeName) {
        self.last += 2;
        if let Some(record) = self.progress.get_mut(service) {
            record.revision = Revision(self.last - 1);
        }
        if let Some(record) = self.plans.get_mut(node) {
            record.revision = Revision(self.last);
        }
    }
}
