//! Order among the services of this node: who waits for whom, in starting and in leaving.
//!
//! What is ready here is known here: it holds after a boot, too, when no coordinator is there.

use super::Driver;
use crate::clock;
use baton_engine::instance::Event;
use baton_model::id::{InstanceId, ServiceName};
use baton_model::observed::InstanceState;
use std::collections::BTreeSet;

impl Driver {
    /// Tells the instances that wait for other services of this node how those are.
    pub(super) fn tell_dependencies(&mut self) {
        let waiting: Vec<(InstanceId, Option<String>)> = self
            .instances
            .iter()
            .filter(|(_, managed)| !managed.held)
            .filter_map(|(id, managed)| {
                let names = managed.machine().waits_for();
                let unready =
                    (!names.is_empty()).then(|| names.into_iter().find_map(|name| self.why_unready(name)))?;
                (managed.told_unready.as_ref() != Some(&unready)).then(|| (id.clone(), unready))
            })
            .collect();
        for (id, unready) in waiting {
            if let Some(managed) = self.instances.get_mut(&id) {
                // Forgotten when nothing is left to wait for: the next wait begins anew.
                managed.told_unready = unready.is_some().then(|| unready.clone());
            }
            self.step(&id, Event::Dependencies { unready });
        }
    }

    /// Why a service is not ready on this node, for people; `None`: an instance of it is.
    fn why_unready(&self, name: &ServiceName) -> Option<String> {
        let now = clock::boot_now();
        let mut nearest: Option<(InstanceState, String)> = None;
        for (id, managed) in self.instances.iter().filter(|(id, _)| id.service == *name) {
            let Some((seen, _)) = managed.machine().observe(now) else { continue };
            // One that crashes again and again is ready only for moments.
            let ready = seen.state == InstanceState::Ready;
            if ready && !seen.crash_loop {
                return None;
            }
            let told = match seen.reason {
                reason if !reason.is_empty() => reason,
                _ if ready => "it was in a crash loop a moment ago".to_owned(),
                _ => seen.state.to_string(),
            };
            let why = format!("it comes after `{name}`, and {id} is not ready on this node: {told}");
            nearest = Some((seen.state, why));
        }
        let absent =
            || format!("it comes after `{name}`, which has no instance on this node: place one here, too");
        Some(nearest.map_or_else(absent, |(_, why)| why))
    }

    /// Lets go of what the plan no longer names, last what others come after.
    pub(super) fn let_go(&mut self) {
        let Some(plan) = self.parts.plan.current() else { return };
        let leaving: BTreeSet<InstanceId> =
            self.instances.keys().filter(|id| !plan.instances.contains_key(id)).cloned().collect();
        let free = |id: &InstanceId| {
            let others = leaving.iter().filter(|other| *other != id);
            let mut others = others.filter_map(|other| self.instances.get(other));
            !others.any(|other| other.machine().comes_after().contains(&&id.service))
        };
        let mut now: Vec<InstanceId> = leaving.iter().filter(|id| free(id)).cloned().collect();
        if now.is_empty() {
            // A circle, made of releases of different times: nobody is first.
            now = leaving.into_iter().collect();
        }
        for id in now {
            let told = self
                .instances
                .get_mut(&id)
                .is_none_or(|managed| std::mem::replace(&mut managed.let_go, true));
            if !told {
                self.step(&id, Event::Plan(None));
            }
        }
    }
}
