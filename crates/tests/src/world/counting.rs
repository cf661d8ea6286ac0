//! What gateways count and what they cannot serve: evidence that comes each second, late or never, comparisons, and a port of
//! a TCP route that another program holds at one gateway for a while.
//!
//! All of its chance is of streams of its own: a seed draws the same fleet and the same faults with and without.

use super::World;
use super::coordinator::Coordinator;
use super::gateway::Gateway;
use super::random::Random;
use baton_model::evidence::ReleaseEvidence;
use baton_model::evidence::trial::{ArmCounts, TrialCounts};
use baton_model::id::{GatewayName, ReleaseNumber, RolloutId, ServiceName};
use baton_model::observed::TrialObserved;
use baton_model::rollout::{AnalysisAction, Metric, Strategy, Threshold};
use baton_model::route::{Entry, Trial, UpstreamId, Weight};
use baton_model::spec::ServiceSpec;
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeMap;

/// A report is of so long.
const SPAN_MS: u64 = 1000;
/// Evidence is kept for longer than any stage of this world lasts.
const KEPT_MS: u64 = 600_000;

/// What was counted of each release of each service.
pub(crate) type Counts = BTreeMap<ServiceName, BTreeMap<ReleaseNumber, ReleaseEvidence>>;

/// A comparison at one gateway: whose it is, and requests of the release before and of the new one.
pub(crate) type Compared = (RolloutId, u64, u64);

/// What a gateway reports each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Since the report before.
    pub(crate) counts: Counts,
    /// Whole, since it began to compare.
    pub(crate) compared: BTreeMap<ServiceName, Compared>,
}

/// Draws a threshold on what gateways count, and whether it is connections that are routed.
pub(crate) fn draw(seed: u64, spec: &mut ServiceSpec, port: u16) {
    let mut random = Random::of(seed, &format!("counting {}", spec.name));
    if random.percent(30) {
        spec.rollout.analysis.push(Threshold {
            name: "errors".to_owned(),
            metric: Metric::ErrorShare { at_most: Weight(1_000) },
            window: Millis::secs(random.between(5, 20)),
            requests_min: u32::try_from(random.between(1, 4)).unwrap_or(1),
            action: if random.percent(60) { AnalysisAction::RollBack } else { AnalysisAction::Pause },
        });
    }
    if let (Strategy::Rolling, Some(route)) = (&spec.rollout.strategy, &mut spec.route)
        && random.percent(50)
    {
        route.entry = Entry::Tcp { listen: 7000 + port };
    }
}

impl World {
    /// At one gateway another program holds the port of a TCP route for a while.
    pub(crate) fn take_ports(&mut self) {
        let routed: Vec<ServiceName> = self
            .specs
            .iter()
            .filter(|(_, spec)| matches!(spec.route.as_ref().map(|it| &it.entry), Some(Entry::Tcp { .. })))
            .map(|(name, _)| name.clone())
            .collect();
        let mut random = Random::of(self.options.seed, "taken ports");
        let gateways: Vec<GatewayName> = self.gateways.keys().cloned().collect();
        if gateways.is_empty() || self.options.calm() {
            return;
        }
        for service in routed.into_iter().filter(|_| random.percent(70)).collect::<Vec<_>>() {
            let from = random.between(0, 150_000);
            let until = from + random.between(1_000, 120_000);
            if let Some(gateway) = self.gateways.get_mut(random.pick(&gateways)) {
                gateway.taken.insert(service, (from, until));
            }
        }
    }

    /// Whether a release answers each third request with an error, though it is healthy.
    fn errs(&self, service: &ServiceName, release: ReleaseNumber) -> bool {
        Random::of(self.options.seed, &format!("errors of {service} {release}")).percent(20)
    }

    /// A gateway sends a request and counts what becomes of it.
    pub(crate) fn count(&mut self, name: &GatewayName, id: &UpstreamId) {
        let key = (id.instance.clone(), id.run);
        let answers =
            self.nodes.values().any(|host| host.runs.get(&key).is_some_and(|run| run.pid.is_some()));
        let route = self.gateways.get(name).and_then(|it| it.table.routes.get(&id.instance.service));
        let Some((release, trial)) =
            route.and_then(|route| Some((route.upstreams.get(id)?.release, route.trial.clone())))
        else {
            return;
        };
        let errs = self.errs(&id.instance.service, release);
        let Some(gateway) = self.gateways.get_mut(name) else { return };
        let bad = errs && gateway.requests.is_multiple_of(3);
        let counts = gateway.counted.counts.entry(id.instance.service.clone()).or_default();
        let counted = counts.entry(release).or_default();
        match (answers, bad) {
            (false, _) => counted.failures += 1,
            (true, true) => counted.status.server_error += 1,
            (true, false) => counted.status.successful += 1,
        }
        gateway.compare(&id.instance.service, release, trial.as_ref());
    }
}

impl Gateway {
    fn compare(&mut self, service: &ServiceName, release: ReleaseNumber, trial: Option<&Trial>) {
        let Some(trial) = trial else {
            self.counted.compared.remove(service);
            return;
        };
        let compared = self.counted.compared.entry(service.clone()).or_insert((trial.rollout, 0, 0));
        if compared.0 != trial.rollout {
            *compared = (trial.rollout, 0, 0);
        }
        compared.1 += u64::from(release == trial.control);
        compared.2 += u64::from(release == trial.treatment);
    }

    /// What is to be reported now; what was counted until now is in no later report, whether this one comes or not.
    pub(crate) fn report(&mut self) -> Counted {
        let counts = std::mem::take(&mut self.counted.counts);
        Counted { counts, compared: self.counted.compared.clone() }
    }
}

impl Coordinator {
    /// Takes in a report. It is in memory only: another process begins without.
    pub(crate) fn note_counted(&mut self, gateway: &GatewayName, counted: Counted, now: UnixMs) {
        for (service, releases) in counted.counts {
            let series = self.observed.evidence.entry(service).or_default();
            series.push(UnixMs(now.0 - SPAN_MS), now, releases);
            series.forget_before(UnixMs(now.0 - KEPT_MS));
        }
        self.compared.insert(gateway.clone(), counted.compared);
        let mut sums: BTreeMap<ServiceName, Vec<Compared>> = BTreeMap::new();
        for (service, compared) in self.compared.values().flatten() {
            sums.entry(service.clone()).or_default().push(*compared);
        }
        for (service, all) in sums {
            let newest = all.iter().map(|(rollout, _, _)| *rollout).max().unwrap_or_default();
            let of_newest = all.iter().filter(|(rollout, _, _)| *rollout == newest);
            let (control, treatment) =
                of_newest.fold((0, 0), |sum, (_, control, treatment)| (sum.0 + control, sum.1 + treatment));
            let arm = |requests| {
                let mut arm = ArmCounts::default();
                arm.status.successful = requests;
                arm
            };
            let counts =
                TrialCounts { control: arm(control), treatment: arm(treatment), ..TrialCounts::default() };
            let observed = TrialObserved {
                rollout: newest,
                sources: u32::try_from(all.len()).unwrap_or(u32::MAX),
                counts,
                control_clients: control,
                treatment_clients: treatment,
            };
            self.observed.trials.insert(service, observed);
        }
    }
}
