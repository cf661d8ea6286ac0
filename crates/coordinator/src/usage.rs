//! What instances used lately, as agents measure it every two seconds: kept for the services that are being rolled out with a
//! bound to it, for as long as the longest window of theirs. Never stored: a coordinator that starts begins with none.

use crate::clock::Clock;
use baton_model::id::{InstanceId, ReleaseNumber, ServiceName};
use baton_model::metrics::{InstanceMetrics, NodeMetrics, Usage};
use baton_model::time::{Millis, UnixMs};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Samples of an instance that are kept: an hour of them, one every two seconds, and an agent that measures more often is heard
/// as often as that.
const SAMPLES_MAX: usize = 1800;

/// What is kept of one instance, oldest first.
type Samples = Arc<VecDeque<Usage>>;

/// The samples of the services that are watched.
pub(crate) struct UsageLog {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For how long each is watched.
    watched: BTreeMap<ServiceName, Millis>,
    samples: BTreeMap<InstanceId, Samples>,
}

impl UsageLog {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody asks for samples.
    pub(crate) fn is_watching(&self) -> bool {
        !self.lock().watched.is_empty()
    }

    /// Takes in what an agent measured, as of now. `running` knows which release an instance runs.
    pub(crate) fn take(&self, metrics: &NodeMetrics, running: impl Fn(&InstanceId) -> Option<ReleaseNumber>) {
        self.lock().take(metrics, running, self.clock.now());
    }

    /// The samples of these services, each for as long; from now on those of no other are kept.
    pub(crate) fn watch(&self, watched: BTreeMap<ServiceName, Millis>) -> BTreeMap<InstanceId, Samples> {
        self.lock().watch(watched, self.clock.now())
    }
}

impl State {
    fn take(
        &mut self,
        metrics: &NodeMetrics,
        running: impl Fn(&InstanceId) -> Option<ReleaseNumber>,
        now: UnixMs,
    ) {
        for (id, measured) in
            metrics.instances.iter().filter(|(id, _)| self.watched.contains_key(&id.service))
        {
            let Some(release) = running(id) else { continue };
            let samples = Arc::make_mut(self.samples.entry(id.clone()).or_default());
            samples.push_back(sample(measured, release, now));
            if samples.len() > SAMPLES_MAX {
                samples.pop_front();
            }
        }
    }

    fn watch(
        &mut self,
        watched: BTreeMap<ServiceName, Millis>,
        now: UnixMs,
    ) -> BTreeMap<InstanceId, Samples> {
        self.watched = watched;
        let watched = &self.watched;
        self.samples.retain(|id, samples| {
            let Some(kept) = watched.get(&id.service) else { return false };
            let old = samples.iter().take_while(|sample| now.since(sample.at) > *kept).count();
            if old > 0 {
                Arc::make_mut(samples).drain(..old);
            }
            !samples.is_empty()
        });
        self.samples.clone()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52, and not below zero"
)]
fn sample(measured: &InstanceMetrics, release: ReleaseNumber, at: UnixMs) -> Usage {
    let milli_cores = (measured.cpu.max(0.0) * 1000.0).ceil() as u64;
    Usage { at, release, milli_cores, memory_bytes: measured.memory_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(cpu: f64) -> NodeMetrics {
        let instance = InstanceMetrics { cpu, memory_bytes: 7, processes: 1 };
        let instances = ["web.1", "web.2", "db.1"].map(|id| (id.parse().unwrap(), instance));
        NodeMetrics { instances: instances.into(), ..NodeMetrics::default() }
    }

    #[test]
    fn what_is_watched_is_kept_for_its_window_and_nothing_else() {
        let mut state = State::default();
        let watched: BTreeMap<ServiceName, Millis> = [("web".parse().unwrap(), Millis::secs(10))].into();
        let running = |id: &InstanceId| (id.slot == 1).then_some(ReleaseNumber(2));
        state.take(&metrics(0.5), running, UnixMs(0));
        assert!(state.watch(watched.clone(), UnixMs(0)).is_empty(), "nobody had asked for it");
        for second in 1..=20 {
            state.take(&metrics(0.8125), running, UnixMs(second * 1000));
        }
        let kept = state.watch(watched, UnixMs(20_000));
        assert_eq!(kept.keys().map(ToString::to_string).collect::<Vec<_>>(), ["web.1"]);
        let samples = &kept[&"web.1".parse().unwrap()];
        let expect =
            Usage { at: UnixMs(10_000), release: ReleaseNumber(2), milli_cores: 813, memory_bytes: 7 };
        assert_eq!((samples.len(), samples.front()), (11, Some(&expect)));
        for second in 0..2 * SAMPLES_MAX as u64 {
            state.take(&metrics(0.0), running, UnixMs(20_000 + second));
        }
        assert_eq!(state.samples[&"web.1".parse().unwrap()].len(), SAMPLES_MAX);
        assert!(state.watch(BTreeMap::new(), UnixMs(30_000)).is_empty() && state.samples.is_empty());
    }
}
