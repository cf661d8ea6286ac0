//! Strategies in steps, which swap in place: canary and A/B test. A step first changes as many instances as its share of
//! the requests needs, batch by batch, and moves the requests when they are healthy.

use super::plan::{Plan, batch_size, ordered, stage};
use crate::progress::{StageProgress, Traffic};
use crate::turn::Turn;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::rollout::{AbTest, Canary, CanaryStep};
use baton_model::route::{Between, Condition, Key, Rule, Weight};
use baton_model::spec::ServiceSpec;
use baton_model::time::Millis;

/// A growing share: of a cohort first, where there is one, then of everybody.
pub(super) fn canary(turn: &Turn<'_>, canary: &Canary, to: ReleaseNumber, spec: &ServiceSpec) -> Plan {
    let split_by = spec.route.as_ref().map_or(Key::Address, |route| route.split_by.clone());
    let test = test(turn);
    let mut slots = Slots::of(turn, to, spec);
    let mut stages = Vec::new();
    let mut step = 0;
    for within in &canary.cohort_steps {
        step += 1;
        let rules = cohort(canary, within.weight, (&split_by, test), to);
        let traffic = Traffic { rules, ..Traffic::default() };
        // How many requests a cohort makes is not known: it is assumed to be small.
        let share = within.instances.map_or(1, |wanted| slots.of_amount(wanted));
        let title = format!("{} of the cohort", within.weight);
        stages.extend(slots.step(share, Step { title, number: step, traffic, bake: within.bake }));
    }
    let in_cohort = canary.cohort_steps.last().map(|last| cohort(canary, last.weight, (&split_by, test), to));
    for all in &canary.steps {
        step += 1;
        let everything = all.weight == Weight::ALL;
        let rules = in_cohort.clone().filter(|_| !everything).unwrap_or_default();
        let traffic = Traffic { weight: all.weight, rules, ..Traffic::default() };
        let share = slots.of_step(all);
        let title = all.weight.to_string();
        stages.extend(slots.step(share, Step { title, number: step, traffic, bake: all.bake }));
    }
    Plan { stages, traffic: Some(Traffic::default()), keep_warm: Millis::ZERO }
}

/// The rule that gives the new release a share of the cohort.
fn cohort(canary: &Canary, share: Weight, (key, test): (&Key, RolloutId), to: ReleaseNumber) -> Vec<Rule> {
    let mut conditions = canary.cohort.clone();
    if share < Weight::ALL {
        conditions.push(Condition::Share { key: key.clone(), share, test });
    }
    vec![Rule { conditions, to }]
}

/// A share of those with the key, for a time; then all of it, when an operator says so.
pub(super) fn ab(turn: &Turn<'_>, ab: &AbTest, to: ReleaseNumber, spec: &ServiceSpec) -> Plan {
    let mut slots = Slots::of(turn, to, spec);
    let (key, share, test) = (ab.key.clone(), ab.share, test(turn));
    let condition = Condition::Share { key: key.clone(), share, test };
    let trial = Some(Between::Clients { key, share, test });
    let rules = vec![Rule { conditions: vec![condition], to }];
    let traffic = Traffic { rules, trial, ..Traffic::default() };
    let share = slots.of_step(&CanaryStep { weight: ab.share, bake: ab.duration, instances: None });
    let title = format!("{} by {}", ab.share, ab.key);
    let mut stages = slots.step(share, Step { title, number: 1, traffic, bake: ab.duration });
    let traffic = Traffic { weight: Weight::ALL, ..Traffic::default() };
    let step = Step { title: "everybody".to_owned(), number: 2, traffic, bake: Millis::ZERO };
    let mut everybody = slots.step(slots.whole, step);
    // Nothing is promoted but by an operator.
    everybody.iter_mut().take(1).for_each(|stage| stage.approval = true);
    stages.extend(everybody);
    Plan { stages, traffic: Some(Traffic::default()), keep_warm: Millis::ZERO }
}

/// Who hashes are drawn for: each rollout has its own, kept with its stages.
fn test(turn: &Turn<'_>) -> RolloutId {
    turn.service.request.as_ref().map_or(RolloutId(0), |request| request.id)
}

/// The slots that are still to be changed, in their order.
struct Slots {
    left: Vec<u64>,
    /// All that serve.
    whole: usize,
    /// So many of them take all requests.
    floor: usize,
    batch: usize,
}

/// One step, before it is cut into batches.
struct Step {
    title: String,
    number: u32,
    traffic: Traffic,
    bake: Millis,
}

impl Slots {
    fn of(turn: &Turn<'_>, to: ReleaseNumber, spec: &ServiceSpec) -> Self {
        let left = ordered(turn, to);
        let whole = turn.serving().count();
        let floor = turn.budget.floor.min(spec.min_available.ceil_of(turn.promised(spec)));
        let floor = usize::try_from(floor).unwrap_or(usize::MAX);
        Self { batch: batch_size(&spec.rollout, left.len()), whole, floor, left }
    }

    /// As many as have the step's share of the instances, rounded up, and no more than leave the release before enough for
    /// the rest of the requests: what its instances cannot take would go to the new one, beyond its share. What is left to
    /// the new one can take the share all the same, wherever the floor is less than all instances. The release before keeps
    /// one until everything goes.
    fn of_step(&self, step: &CanaryStep) -> usize {
        if step.weight == Weight::ALL {
            return self.whole;
        }
        let part =
            |whole: usize, share: Weight| (whole * usize::from(share.0)).div_ceil(usize::from(Weight::ALL.0));
        let spared = self.whole.saturating_sub(part(self.floor, step.weight.rest()));
        let by_weight = part(self.whole, step.weight).min(spared);
        step.instances.map_or(by_weight, |wanted| self.of_amount(wanted))
    }

    fn of_amount(&self, wanted: baton_model::spec::Amount) -> usize {
        let whole = u32::try_from(self.whole).unwrap_or(u32::MAX);
        usize::try_from(wanted.ceil_of(whole)).unwrap_or(usize::MAX)
    }

    /// The stages of a step after which `share` of all are changed; the last of them moves the requests.
    fn step(&mut self, share: usize, step: Step) -> Vec<StageProgress> {
        let most = if step.traffic.weight == Weight::ALL { self.whole } else { self.whole.saturating_sub(1) };
        let share = share.clamp(most.min(1), most);
        let done = self.whole - self.left.len().min(self.whole);
        let count = share.saturating_sub(done).min(self.left.len());
        let slots: Vec<u64> = self.left.drain(..count).collect();
        let batches = slots.len().div_ceil(self.batch).max(1);
        let mut stages = Vec::with_capacity(batches);
        for index in 0..batches {
            let from = (index * self.batch).min(slots.len());
            let cohort = slots[from..(from + self.batch).min(slots.len())].iter().copied().collect();
            let title = if batches == 1 {
                step.title.clone()
            } else {
                format!("{}, batch {} of {batches}", step.title, index + 1)
            };
            stages.push(StageProgress { step: step.number, ..stage(title, cohort) });
        }
        if let Some(last) = stages.last_mut() {
            last.traffic = Some(step.traffic);
            last.bake_ms = step.bake.0;
            last.analysed = true;
        }
        stages
    }
}
