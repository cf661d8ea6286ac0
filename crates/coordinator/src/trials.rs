//! What gateways counted of the comparisons that are under way: for as long as a rollout compares, and over restarts.
//!
//! ```text
//! gateway ─ each second, all of it ─► ledger of its service: counts by source, everybody's clients in two sketches
//!                                        │ every SAVE_EVERY, where something is new
//!                                        ▼
//!                                     store: trial/<service>            deleted when the service is not rolled out any more
//! ```
//!
//! A source is one life of a gateway. What it says takes the place of what it said before, so reports may be lost or
//! doubled; what this coordinator did not hear before it ended is said to the next one, unless the gateway ends in the
//! same [`SAVE_EVERY`].

use crate::records::{self, Records, RecordsError, TRIALS};
use baton_model::evidence::sketch::Sketch;
use baton_model::evidence::trial::{TrialCounts, TrialEvidence};
use baton_model::id::{Revision, RolloutId, ServiceName};
use baton_model::observed::TrialObserved;
use baton_model::route::RouteTable;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is new is written this often: a comparison is written some ten thousand times in a day, and a second of it is not
/// worth a write of its own.
pub(crate) const SAVE_EVERY: Duration = Duration::from_secs(2);
/// Sources of one comparison that are kept; what further ones say of requests is left out and told once. More than any
/// fleet has gateways, each of them restarted a few times, and some MB.
const SOURCES_MAX: usize = 1000;

/// The comparisons that are under way.
pub(crate) struct TrialLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ledgers: BTreeMap<ServiceName, Ledger>,
    /// The records that are in the store.
    stored: BTreeMap<ServiceName, Revision>,
    /// That more sources than are kept have reported.
    full_told: bool,
}

/// One comparison.
#[derive(Clone, Default)]
struct Ledger {
    counted: Counted,
    /// Something is not in the store.
    unsaved: bool,
    /// All of it together, until something is new.
    sum: Option<TrialObserved>,
}

/// What was counted of one comparison, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    rollout: RolloutId,
    /// What each source said last.
    sources: BTreeMap<u64, TrialCounts>,
    /// The clients of the release before, of all sources.
    control: Sketch,
    /// The clients of the new one.
    treatment: Sketch,
}

impl TrialLog {
    /// Goes on with what is stored.
    pub(crate) async fn open(records: &Records) -> Result<Arc<Self>, RecordsError> {
        let mut state = State::default();
        for (key, read) in records.list::<Counted>(TRIALS).await? {
            let service: ServiceName = records::name_in(&key, TRIALS)?;
            state.stored.insert(service.clone(), read.revision);
            state.ledgers.insert(service, Ledger { counted: read.value, ..Ledger::default() });
        }
        Ok(Arc::new(Self { state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a gateway counted. What the present table does not ask for is left out.
    pub(crate) fn take(&self, table: &RouteTable, trials: BTreeMap<ServiceName, TrialEvidence>) {
        let mut state = self.lock();
        for (service, evidence) in trials {
            let asked = table.routes.get(&service).and_then(|route| route.trial.as_ref());
            if asked.is_some_and(|trial| trial.rollout == evidence.rollout) {
                state.take(service, evidence);
            }
        }
    }

    /// What was counted of these services, which are being rolled out; of others nothing is kept any longer.
    pub(crate) fn watch(&self, rolling: &BTreeSet<ServiceName>) -> BTreeMap<ServiceName, TrialObserved> {
        let mut state = self.lock();
        state.ledgers.retain(|service, _| rolling.contains(service));
        let each = state.ledgers.iter_mut().map(|(service, ledger)| (service.clone(), ledger.sum().clone()));
        each.collect()
    }

    /// Writes what is new, and removes what is not kept any longer. What could not be written is tried again next time.
    pub(crate) async fn save(&self, records: &Records) -> Result<(), RecordsError> {
        let (new, gone) = {
            let state = self.lock();
            (state.unsaved(), state.gone())
        };
        for (service, counted) in new {
            let revision = records.set(&records::trial(&service), &counted).await?;
            let mut state = self.lock();
            state.stored.insert(service.clone(), revision);
            // What came in meanwhile is for the next time.
            if let Some(ledger) = state.ledgers.get_mut(&service) {
                ledger.unsaved = ledger.counted != counted;
            }
        }
        for (service, revision) in gone {
            records.delete(&records::trial(&service), revision).await?;
            self.lock().stored.remove(&service);
        }
        Ok(())
    }
}

impl State {
    fn take(&mut self, service: ServiceName, evidence: TrialEvidence) {
        let ledger = self.ledgers.entry(service).or_default();
        if ledger.counted.rollout != evidence.rollout {
            *ledger = Ledger::default();
            ledger.counted.rollout = evidence.rollout;
        }
        let counted = &mut ledger.counted;
        counted.control.merge(&evidence.control);
        counted.treatment.merge(&evidence.treatment);
        if counted.sources.len() < SOURCES_MAX || counted.sources.contains_key(&evidence.source) {
            counted.sources.insert(evidence.source, evidence.counts);
        } else if !std::mem::replace(&mut self.full_told, true) {
            tracing::warn!(
                sources = SOURCES_MAX,
                "more gateways have counted a comparison than is kept; the rest is left out"
            );
        }
        ledger.unsaved = true;
        ledger.sum = None;
    }

    fn unsaved(&self) -> Vec<(ServiceName, Counted)> {
        let new = self.ledgers.iter().filter(|(_, ledger)| ledger.unsaved);
        new.map(|(service, ledger)| (service.clone(), ledger.counted.clone())).collect()
    }

    /// Records of what is not kept any longer.
    fn gone(&self) -> Vec<(ServiceName, Revision)> {
        let gone = self.stored.iter().filter(|(service, _)| !self.ledgers.contains_key(*service));
        gone.map(|(service, revision)| (service.clone(), *revision)).collect()
    }
}

impl Ledger {
    fn sum(&mut self) -> &TrialObserved {
        let counted = &self.counted;
        self.sum.get_or_insert_with(|| {
            let mut counts = TrialCounts::default();
            counted.sources.values().for_each(|source| counts.merge(source));
            TrialObserved {
                rollout: counted.rollout,
                sources: u32::try_from(counted.sources.len()).unwrap_or(u32::MAX),
                counts,
                control_clients: counted.control.count(),
                treatment_clients: counted.treatment.count(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use baton_model::evidence::StatusCounts;
    use baton_model::evidence::trial::ArmCounts;

    fn web() -> ServiceName {
        "web".parse().unwrap()
    }

    fn said(source: u64, rollout: u64, requests: u64, clients: std::ops::Range<u64>) -> TrialEvidence {
        let mut treatment = Sketch::default();
        clients.for_each(|client| treatment.add(client.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let status = StatusCounts { successful: requests, ..StatusCounts::default() };
        let arm = ArmCounts { status, ..ArmCounts::default() };
        TrialEvidence {
            source,
            rollout: RolloutId(rollout),
            counts: TrialCounts { treatment: arm, ..TrialCounts::default() },
            control: Sketch::default(),
            treatment,
        }
    }

    fn seen(log: &TrialLog) -> (u64, u64, u64, u32) {
        let seen = log.watch(&BTreeSet::from([web()])).remove(&web()).unwrap_or_default();
        (seen.rollout.0, seen.counts.treatment.requests(), seen.treatment_clients, seen.sources)
    }

    async fn opened(store: &Arc<MemoryStore>) -> (Records, Arc<TrialLog>) {
        let records = Records::new(Arc::clone(store) as Arc<_>);
        let log = TrialLog::open(&records).await.unwrap();
        (records, log)
    }

    #[tokio::test]
    async fn reports_may_be_doubled_and_lost_and_gateways_add_up() {
        let (_, log) = opened(&Arc::default()).await;
        for evidence in
            [said(1, 3, 10, 0..30), said(1, 3, 10, 0..30), said(2, 3, 5, 20..40), said(1, 3, 25, 0..50)]
        {
            log.lock().take(web(), evidence);
        }
        assert_eq!(seen(&log), (3, 30, 50, 2));
        log.lock().take(web(), said(1, 4, 1, 0..1));
        assert_eq!(seen(&log), (4, 1, 1, 1), "another rollout is another comparison");
    }

    #[tokio::test]
    async fn what_is_saved_survives_and_what_is_over_is_removed() {
        let store = Arc::default();
        let (records, log) = opened(&store).await;
        log.lock().take(web(), said(1, 3, 10, 0..30));
        log.save(&records).await.unwrap();
        let (records, log) = opened(&store).await;
        assert_eq!(seen(&log), (3, 10, 30, 1));
        log.lock().take(web(), said(1, 3, 12, 0..31));
        assert_eq!(seen(&log), (3, 12, 31, 1), "the gateway goes on under its number");
        assert!(log.watch(&BTreeSet::new()).is_empty());
        log.save(&records).await.unwrap();
        let (_, log) = opened(&store).await;
        assert_eq!(seen(&log).0, 0);
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_left_out() {
        let (_, log) = opened(&Arc::default()).await;
        log.take(&RouteTable::default(), BTreeMap::from([(web(), said(1, 3, 10, 0..30))]));
        assert_eq!(seen(&log).0, 0);
    }
}
