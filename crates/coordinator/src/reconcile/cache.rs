//! What the store holds that decisions need, kept in memory: only what may have changed is read again.

use crate::records::{self, GATEWAYS, NODES, PLANS, PROGRESS, Records, RecordsError, SERVICES};
use crate::store::{Change, Precondition};
use baton_engine::cycle::{PlanRecord, Snapshot, Versioned, Write};
use baton_engine::progress::ServiceProgress;
use baton_engine::route;
use baton_model::desired::{Desired, Gateway, Node, Service};
use baton_model::id::{Revision, ServiceName};
use baton_model::route::Route;
use baton_model::time::UnixMs;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The snapshot, and which parts of it have to be read again.
pub(crate) struct Cache {
    snapshot: Arc<Snapshot>,
    services: BTreeMap<ServiceName, Revision>,
    desired_is_stale: bool,
    /// Only this task writes progress and plans; they are read again only after a write that failed.
    memory_is_stale: bool,
}

impl Cache {
    pub(crate) async fn read(records: &Records) -> Result<Self, RecordsError> {
        let mut cache = Self {
            snapshot: Arc::default(),
            services: BTreeMap::new(),
            desired_is_stale: true,
            memory_is_stale: true,
        };
        cache.refresh(records).await?;
        Ok(cache)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// The routes that are remembered.
    pub(crate) fn routes(&self) -> BTreeMap<ServiceName, Route> {
        route::routes(self.snapshot.progress.iter().map(|(name, read)| (name, &read.value)))
    }

    /// The latest time that is written in any of it: the clock must not start before.
    pub(crate) fn latest_time(&self) -> UnixMs {
        let requests = self.snapshot.desired.services.values().filter_map(|service| service.request.as_ref());
        let mut latest = requests.map(|request| request.requested_at).max().unwrap_or_default();
        for progress in self.snapshot.progress.values().map(|read| &read.value) {
            latest = progress.slots.values().map(|slot| slot.assigned_at).fold(latest, UnixMs::max);
            let Some(rollout) = &progress.rollout else { continue };
            latest = latest
                .max(rollout.started_at)
                .max(rollout.progressed_at)
                .max(rollout.ended_at.unwrap_or_default());
            let stages =
                rollout.stages.iter().flat_map(|stage| [stage.started_at, stage.healthy_at, stage.ended_at]);
            latest = stages.flatten().fold(latest, UnixMs::max);
        }
        latest
    }

    /// Somebody wrote what operators want.
    pub(crate) fn desired_changed(&mut self) {
        self.desired_is_stale = true;
    }

    /// Nothing in here is sure any more.
    pub(crate) fn forget(&mut self) {
        self.desired_is_stale = true;
        self.memory_is_stale = true;
    }

    /// Reads what may have changed.
    pub(crate) async fn refresh(&mut self, records: &Records) -> Result<(), RecordsError> {
        if self.desired_is_stale {
            let nodes = records.list::<Node>(NODES).await?;
            let gateways = records.list::<Gateway>(GATEWAYS).await?;
            let services = records.list::<Service>(SERVICES).await?;
            self.services =
                services.iter().map(|(_, read)| (read.value.name.clone(), read.revision)).collect();
            let desired = Desired {
                nodes: nodes.into_iter().map(|(_, read)| (read.value.name.clone(), read.value)).collect(),
                services: services
                    .into_iter()
                    .map(|(_, read)| (read.value.name.clone(), read.value))
                    .collect(),
                gateways: gateways.into_iter().map(|(_, read)| read.value.name).collect(),
            };
            Arc::make_mut(&mut self.snapshot).desired = desired;
            self.desired_is_stale = false;
        }
        if self.memory_is_stale {
            let mut progress = BTreeMap::new();
            for (key, read) in records.list::<ServiceProgress>(PROGRESS).await? {
                progress.insert(records::name_in(&key, PROGRESS)?, read);
            }
            let mut plans = BTreeMap::new();
            for (key, read) in records.list::<PlanRecord>(PLANS).await? {
                plans.insert(records::name_in(&key, PLANS)?, read);
            }
            let snapshot = Arc::make_mut(&mut self.snapshot);
            snapshot.progress = progress;
            snapshot.plans = plans;
            self.memory_is_stale = false;
        }
        Ok(())
    }

    /// Makes one write of a decision durable, together with `beside`: the events that tell of it, and whom they are
    /// posted to. Keeps what was written.
    pub(crate) async fn write(
        &mut self,
        records: &Records,
        write: Write,
        beside: Vec<Change>,
    ) -> Result<Revision, RecordsError> {
        let change = match &write {
            Write::Progress(service, expected, Some(value)) => {
                records::putting(records::progress(service), *expected, value)?
            }
            Write::Progress(service, expected, None) => Change {
                key: records::progress(service),
                value: None,
                precondition: Precondition::Is(*expected),
            },
            Write::Plan(node, expected, value) => records::putting(records::plan(node), *expected, value)?,
        };
        let revisions = records.commit(std::iter::once(change).chain(beside).collect()).await?;
        let revision = revisions.first().copied().unwrap_or_default();
        let snapshot = Arc::make_mut(&mut self.snapshot);
        match write {
            Write::Progress(service, _, Some(value)) => {
                snapshot.progress.insert(service, Versioned { revision, value });
            }
            Write::Progress(service, _, None) => {
                snapshot.progress.remove(&service);
            }
            Write::Plan(node, _, value) => {
                snapshot.plans.insert(node, Versioned { revision, value });
            }
        }
        Ok(revision)
    }

    fn is_forgotten(&self, service: &ServiceName) -> bool {
        self.snapshot.progress.get(service).is_none_or(|read| read.value.is_forgotten())
    }

    /// Forgets the services that were to be removed and of which nothing runs or is remembered any more.
    pub(crate) async fn drop_removed_services(&mut self, records: &Records) -> Result<(), RecordsError> {
        let gone: Vec<ServiceName> = self
            .snapshot
            .desired
            .services
            .values()
            .filter(|service| service.removed && self.is_forgotten(&service.name))
            .map(|service| service.name.clone())
            .collect();
        for name in gone {
            let Some(revision) = self.services.get(&name).copied() else { continue };
            match records.delete(&records::service(&name), revision).await {
                Ok(()) => self.desired_is_stale = true,
                // It was deployed again in the meantime.
                Err(error) if error.is_conflict() => self.desired_is_stale = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
