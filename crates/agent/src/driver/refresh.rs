//! The files of runs: written anew for a release that needs no new process, and for peers that moved.

use super::effects::order;
use super::told::told;
use super::{Driver, Inner};
use crate::journal::Draft;
use baton_engine::instance::Event;
use baton_model::configuration::Provision;
use baton_model::id::{InstanceId, RunNumber, ServiceName};
use baton_model::plan::InstancePlan;
use baton_model::spec::StopSignal;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Driver {
    /// Writes the files of this plan for a run, then tells its process.
    pub(super) fn refresh(
        &mut self,
        id: &InstanceId,
        run: RunNumber,
        plan: Box<InstancePlan>,
        signals: Vec<StopSignal>,
    ) {
        // A run that is gone is told as lost or stopped; what is due about it then has nothing to do with this.
        let Some(handle) = self.handle(id, run) else { return };
        let (inner, instance) = (self.inner.clone(), id.clone());
        let (provisions, journal) = (Arc::clone(&self.parts.provisions), self.parts.journal.clone());
        tokio::spawn(async move {
            let (of, ports) = (instance.clone(), handle.ports().clone());
            let laid_out =
                tokio::task::spawn_blocking(move || provisions.lay_out(&of, run, &plan, &ports)).await;
            let event = match laid_out {
                Ok(Ok(_)) => Event::Refreshed(run),
                Ok(Err(error)) => Event::RefreshFailed { run, reason: told(&error) },
                Err(error) => Event::RefreshFailed { run, reason: told(&error) },
            };
            if event == Event::Refreshed(run) {
                for signal in signals {
                    if let Err(error) = order(&handle, || handle.signal(signal)).await {
                        let message = format!(
                            "{instance} could not be told of its new files by {}: {}; restart it if it does not look for itself",
                            signal.name(),
                            told(&error)
                        );
                        journal
                            .record(Draft::error("signal-not-sent", message).of(&instance).with("run", run));
                    }
                }
            }
            let _ = inner.send(Inner::Refreshed { instance, run, event }).await;
        });
    }

    pub(super) fn take_refreshed(&mut self, id: &InstanceId, run: RunNumber, event: Event) {
        self.step(id, event);
        // Peers may have moved again since the files were made.
        self.follow_peers(id, run);
    }

    /// Takes in what the coordinator sent for a service of this node.
    pub(super) fn take_provision(&mut self, service: ServiceName, provision: Provision) {
        if let Err(error) = self.parts.provisions.take(service.clone(), provision) {
            let message = format!(
                "what {service} is provided with could not be written on this node: {error}; a restart of the agent would \
                 forget it until the coordinator is reached"
            );
            self.parts.journal.record(Draft::error("provision-not-written", message));
        }
        let of_service = self.instances.iter().filter(|(id, _)| id.service == service);
        let runs: Vec<(InstanceId, Vec<RunNumber>)> =
            of_service.map(|(id, managed)| (id.clone(), managed.live.keys().copied().collect())).collect();
        for (id, runs) in runs {
            self.step(&id, Event::Provisioned);
            runs.into_iter().for_each(|run| self.follow_peers(&id, run));
        }
    }

    /// Tells the machine where a run's files have another text by now.
    pub(super) fn follow_peers(&mut self, id: &InstanceId, run: RunNumber) {
        let Some(managed) = self.instances.get(id) else { return };
        let (Some(live), Some(plan)) = (managed.live.get(&run), managed.machine().plan_of(run)) else {
            return;
        };
        let differing = self.parts.provisions.differing(id, run, plan, live.handle.ports());
        if let Some(signals) = differing {
            self.step(id, Event::Rerendered { run, signals });
        }
    }

    /// Forgets what no instance of this node needs any more.
    pub(super) fn forget_provisions(&self) {
        let planned = self.parts.plan.current().into_iter().flat_map(|plan| plan.instances.keys());
        let services: BTreeSet<ServiceName> =
            planned.chain(self.instances.keys()).map(|id| id.service.clone()).collect();
        let plans = self.instances.values().flat_map(|managed| managed.machine().plans());
        self.parts.provisions.retain(&services, plans);
    }
}
