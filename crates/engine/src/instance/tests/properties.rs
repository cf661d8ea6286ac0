//! Whatever happens and in whatever order: no panic, never two that serve, and rest once all is answered.

use super::{CONFIGURED, FIXED, Kind, ROUTED, SOCKET, UNCHECKED, event, found, instance};
use crate::instance::{AdoptedRun, Effect, Event, Instance, Trouble};
use baton_model::id::RunNumber;
use baton_model::observed::{Exit, InstanceState};
use baton_model::spec::StopSignal;
use baton_model::time::{BootMs, Millis};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// What the node of the test knows of a run that is alive.
#[derive(Clone, Debug)]
struct Alive {
    release: u64,
    /// New connections may come to it.
    serves: bool,
    /// It was told to drain or to stop.
    leaves: bool,
}

/// A node that carries effects out, one at a time and never at once.
struct Node {
    kind: Kind,
    instance: Instance,
    now: BootMs,
    due: VecDeque<Effect>,
    alive: BTreeMap<RunNumber, Alive>,
    /// The release that can never be started well, if any.
    bad: Option<u64>,
}

/// What a test case does to the node.
#[derive(Clone, Debug)]
enum Act {
    Plan(Option<(u64, u32)>),
    /// Gateways let go of every run up to this one, of a release that is wanted.
    Release(u64, u64),
    /// Carries out the next effect and answers it well (0), or badly.
    Answer(u8),
    Wait(u64),
    /// The agent dies and comes back; with the host: nothing is alive.
    Restart {
        host: bool,
    },
    Lose(u64),
    Crash(u64),
    /// Something out of place.
    Stray(u8, u64),
}

impl Node {
    fn new(kind: Kind, bad: Option<u64>) -> Self {
        let (due, alive) = (VecDeque::new(), BTreeMap::new());
        Self { kind, instance: instance(), now: BootMs(1000), due, alive, bad }
    }

    fn step(&mut self, event: Event) -> usize {
        let effects = self.instance.step(event, self.now);
        let said = effects.len();
        for effect in effects {
            if let Effect::Note { .. } = effect {
                continue;
            }
            self.due.push_back(effect);
        }
        said
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Plan(None) => drop(self.step(Event::Plan(None))),
            Act::Plan(Some((release, attempt))) => {
                let plan = super::plan(self.kind, *release, *attempt);
                self.step(Event::Plan(Some(Box::new(plan))));
            }
            Act::Release(release, run) => {
                self.step(event(self.kind, &format!("plan-released {release} {run}")));
            }
            Act::Answer(fault) => self.answer(*fault),
            Act::Wait(secs) => {
                self.now = self.now.plus(Millis::secs(*secs));
                self.step(Event::Timer);
            }
            Act::Restart { host } => self.restart(*host),
            Act::Lose(run) => {
                if self.alive.remove(&RunNumber(*run)).is_some() {
                    self.step(Event::ShimLost(RunNumber(*run)));
                }
            }
            Act::Crash(run) => {
                if self.alive.contains_key(&RunNumber(*run)) {
                    self.exited(RunNumber(*run), Some(Millis(100)), false);
                }
            }
            Act::Stray(which, number) => self.stray(*which, *number),
        }
        let serving = self.alive.values().filter(|run| run.serves && !run.leaves).count();
        assert!(serving <= 1, "two serve: {:?}", self.alive);
        let staying = self.alive.values().filter(|run| !run.leaves).count();
        assert!(staying <= 2, "two candidates: {:?}", self.alive);
    }

    fn exited(&mut self, run: RunNumber, restart_in: Option<Millis>, crash_loop: bool) {
        self.step(Event::Exited {
            run,
            exit: Exit::Code(1),
            restarts: 1,
            restart_in,
            crash_loop,
            last_words: String::new(),
            damage: None,
        });
    }

    /// Effects that were not carried out yet are lost; those that stopped runs are gone with them.
    fn restart(&mut self, host: bool) {
        self.due.clear();
        if host {
            self.alive.clear();
        }
        let alive: BTreeMap<RunNumber, AdoptedRun> =
            self.alive.iter().map(|(run, alive)| (*run, found(alive.release, Some(7)))).collect();
        let mut twin = self.instance.clone();
        let first = twin.step(Event::Resumed { alive: alive.clone(), booted: host }, self.now);
        let once = twin.clone();
        let second = twin.step(Event::Resumed { alive: alive.clone(), booted: host }, self.now);
        let losses = |effect: &&Effect| {
            !matches!(effect, Effect::Forget(_) | Effect::Note { .. } | Effect::Steer { .. })
        };
        let due = |effects: &[Effect]| {
            let mut due: Vec<String> = effects
                .iter()
                .filter(losses)
                .map(|effect| format!("{:?}", started(effect.clone())))
                .collect();
            due.sort();
            due
        };
        assert_eq!(due(&first), due(&second), "what is due after a restart is said alike the second time");
        assert_eq!(once, twin, "a second `Resumed` changes nothing");
        self.step(Event::Resumed { alive, booted: host });
    }

    fn answer(&mut self, fault: u8) {
        let Some(effect) = self.due.pop_front() else { return };
        match effect {
            Effect::Stage(plan) if fault == 0 => drop(self.step(Event::Staged(plan.release))),
            Effect::Stage(plan) => {
                let reason = "no bytes".to_owned();
                let trouble = match fault {
                    1 => Trouble::Passing,
                    2 => Trouble::Lasting,
                    _ => Trouble::Final,
                };
                self.step(Event::StageFailed { release: plan.release, reason, trouble });
            }
            Effect::Start { run, plan, beside } => {
                if fault == 1 {
                    self.step(Event::StartFailed { run, reason: "no socket".to_owned() });
                    return;
                }
                self.alive
                    .insert(run, Alive { release: plan.release.0, serves: beside.is_none(), leaves: false });
                self.step(Event::Started { run, pid: 7, ports: BTreeMap::new() });
            }
            Effect::Check { run, plan } if self.alive.contains_key(&run) => {
                if self.bad == Some(plan.release.0) || fault == 2 {
                    self.exited(run, Some(Millis::secs(1)), true);
                } else {
                    self.step(Event::Health { run, ready: fault == 0, detail: String::new() });
                }
            }
            Effect::Steer { run, from } => {
                if let Some(alive) = self.alive.get_mut(&run) {
                    alive.serves = true;
                }
                if let Some(alive) = from.and_then(|from| self.alive.get_mut(&from)) {
                    alive.serves = false;
                }
                self.step(Event::Steered(run));
            }
            Effect::Drain { run, .. } => {
                self.leaves(run);
                self.step(Event::Drained { run, cut: 0 });
            }
            Effect::Stop { run, .. } => {
                self.leaves(run);
                self.alive.remove(&run);
                self.step(Event::Stopped { run, killed: fault > 0 });
            }
            Effect::Mend { run, .. } => {
                let event = match fault {
                    0 => Event::Mended { run, fetched: true },
                    _ => Event::MendFailed { run, reason: "no bytes".to_owned() },
                };
                self.step(event);
            }
            Effect::Reload { run, number } => {
                let failure = (fault > 0).then(|| "deaf".to_owned());
                self.step(Event::Reloaded { run, reload: number, failure });
            }
            Effect::Refresh { run, .. } if fault == 1 => {
                self.step(Event::RefreshFailed { run, reason: "no space".to_owned() });
            }
            Effect::Refresh { run, plan, .. } => {
                if let Some(alive) = self.alive.get_mut(&run) {
                    alive.release = plan.release.0;
                }
                // The other way to fail: they are written, and the agent dies before it says so.
                if fault == 0 {
                    self.step(Event::Refreshed(run));
                    self.look_at_files(run);
                }
            }
            Effect::TellReady { .. } => {}
            Effect::Check { .. } | Effect::Restart { .. } | Effect::Forget(_) | Effect::Note { .. } => {}
        }
    }

    /// As the agent does after each answer: what is written is compared with what should be, since an answer may have
    /// been about something that was asked for earlier.
    fn look_at_files(&mut self, run: RunNumber) {
        let Some(alive) = self.alive.get(&run) else { return };
        if self.instance.plan_of(run).is_some_and(|plan| plan.release.0 != alive.release) {
            self.step(Event::Rerendered { run, signals: vec![StopSignal::Sighup] });
        }
    }

    fn leaves(&mut self, run: RunNumber) {
        if let Some(alive) = self.alive.get_mut(&run) {
            alive.leaves = true;
        }
    }

    fn stray(&mut self, which: u8, number: u64) {
        let verbs = ["staged", "stage-failed", "ready", "unready", "not-live", "steered", "drained", "timer"];
        let verb = verbs[usize::from(which) % verbs.len()];
        self.step(event(self.kind, &format!("{verb} {number}")));
    }

    /// Answers everything well until there is nothing left to answer.
    fn heal(&mut self) {
        self.restart(false);
        for _ in 0..400 {
            while !self.due.is_empty() {
                self.act(&Act::Answer(0));
            }
            let Some(at) = self.instance.wake_at() else { return };
            self.now = self.now.max(at);
            self.step(Event::Timer);
        }
        panic!("it does not come to rest: {:?}", self.instance);
    }
}

/// A start whatever the attempt in its plan: a start does not look at it, and a plan may have come with another since.
fn started(effect: Effect) -> Effect {
    match effect {
        Effect::Start { run, mut plan, beside } => {
            plan.attempt = 0;
            Effect::Start { run, plan, beside }
        }
        other => other,
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => proptest::option::weighted(0.9, (1..4_u64, 0..3_u32)).prop_map(Act::Plan),
        1 => (1..4_u64, 0..6_u64).prop_map(|(release, run)| Act::Release(release, run)),
        12 => prop_oneof![6 => Just(0_u8), 1 => Just(1), 1 => Just(2)].prop_map(Act::Answer),
        2 => prop_oneof![Just(1_u64), Just(5), Just(70)].prop_map(Act::Wait),
        1 => proptest::bool::weighted(0.2).prop_map(|host| Act::Restart { host }),
        1 => (1..8_u64).prop_map(Act::Lose),
        1 => (1..8_u64).prop_map(Act::Crash),
        1 => (0..9_u8, 1..6_u64).prop_map(|(which, number)| Act::Stray(which, number)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_never_serves_twice_and_comes_to_rest(
        kind in prop_oneof![Just(SOCKET), Just(FIXED), Just(UNCHECKED), Just(CONFIGURED), Just(ROUTED)],
        bad in proptest::option::of(2..4_u64),
        acts in proptest::collection::vec(act(), 0..60),
        last in proptest::option::weighted(0.9, 1..4_u64),
    ) {
        let mut node = Node::new(kind, bad);
        acts.iter().for_each(|act| node.act(act));
        node.act(&Act::Plan(last.map(|release| (release, 9))));
        node.heal();

        let resting = node.instance.clone();
        prop_assert_eq!(node.step(Event::Timer), 0, "quiet");
        prop_assert_eq!(node.step(Event::Plan(last.map(|release| Box::new(super::plan(kind, release, 9))))), 0, "quiet");
        prop_assert_eq!(&resting, &node.instance);
        let Some(release) = last else {
            prop_assert!(node.instance.is_gone() && node.alive.is_empty());
            return Ok(());
        };
        prop_assert_eq!(node.alive.len(), 1, "exactly one run is left: {:?}", node.alive);
        let (seen, _) = node.instance.observe(node.now).expect("something is there");
        prop_assert_eq!(node.alive.values().next().map(|run| run.release), Some(seen.release.0), "it has its release's files");
        if bad != Some(release) {
            prop_assert_eq!((seen.release.0, seen.state, seen.swap), (release, InstanceState::Ready, None));
        } else if seen.release.0 != release {
            prop_assert_eq!(seen.swap.map(|swap| swap.to.0), Some(release), "a failed swap is told");
        }
    }
}
