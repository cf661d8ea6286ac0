//! Stories of one instance as scripts: each line is what happens, then what must be done and what is reported.

mod boot;
mod lives;
mod mend;
mod properties;
mod refresh;
mod routed;
mod stories;

use super::{AdoptedRun, Effect, Event, Instance, Trouble};
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::configuration::{ConfigFile, Configuration, OnChange};
use baton_model::id::{Digest, PortName, ReleaseNumber, RunNumber, ServiceName, Version};
use baton_model::lifecycle::{Hook, Lifecycle, Near, Reload, RunKind};
use baton_model::observed::Exit;
use baton_model::plan::InstancePlan;
use baton_model::rollout::{OnFailure, RolloutPolicy, Strategy};
use baton_model::spec::{
    Amount, Check, Checks, Count, LogPolicy, Placement, Port, PortKind, Probe, RestartMode, RestartPolicy,
    ServiceSpec, StopPolicy, StopSignal,
};
use baton_model::time::{BootMs, Millis};
use std::collections::BTreeMap;

/// A first release comes up, with its checks passing.
const UP: &str = "plan 1    -> stage 1 | fetching 1
                  staged 1  -> start 1=1 | starting 1
                  started 1 -> check 1 | starting 1
                  ready 1   -> | ready 1";

/// What kind of service a story is about.
#[derive(Clone, Copy, Debug)]
struct Kind {
    fixed: bool,
    checks: bool,
    restart: RestartMode,
    configured: bool,
    life: Life,
}

/// What it has of a lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Plain,
    /// A one-shot.
    Job,
    /// It comes after `db` on its node.
    After,
    /// It reloads by SIGHUP and has an `after_ready` hook.
    Reloads,
    /// Gateways send it requests.
    Routed,
}

const SOCKET: Kind =
    Kind { fixed: false, checks: true, restart: RestartMode::Always, configured: false, life: Life::Plain };
const FIXED: Kind = Kind { fixed: true, ..SOCKET };
const ROUTED: Kind = Kind { life: Life::Routed, ..SOCKET };
/// Its releases differ in nothing but files, told of by SIGHUP; each fifth in one that asks for a restart.
const CONFIGURED: Kind = Kind { configured: true, ..SOCKET };
const UNCHECKED: Kind = Kind { checks: false, ..SOCKET };
const NEVER: Kind = Kind { restart: RestartMode::Never, ..SOCKET };
const ON_FAILURE: Kind = Kind { restart: RestartMode::OnFailure, ..SOCKET };

fn plan(kind: Kind, release: u64, attempt: u32) -> InstancePlan {
    let port = if kind.fixed { PortKind::Fixed { port: 80 } } else { PortKind::Socket { port: 80 } };
    let web = || PortName::new("web").expect("a valid name");
    let check = Check {
        probe: Probe::Tcp { port: web() },
        interval: Millis::secs(1),
        timeout: Millis::secs(1),
        rise: 1,
        fall: 3,
    };
    let spec = ServiceSpec {
        name: ServiceName::new("web").expect("a valid name"),
        exec: vec!["server".to_owned()],
        env: BTreeMap::new(),
        ports: BTreeMap::from([(web(), Port { kind: port })]),
        checks: Checks { startup: None, readiness: kind.checks.then_some(check), liveness: None },
        stop: StopPolicy { signal: StopSignal::Sigterm, timeout: Millis::secs(10), drain: Millis::secs(30) },
        restart: RestartPolicy {
            mode: kind.restart,
            base: Millis(100),
            max: Millis::secs(30),
            reset_after: Millis::secs(60),
            crash_loop_after: 3,
        },
        placement: Placement {
            count: Count::Replicas(1),
            require: BTreeMap::new(),
            spread: None,
            lost_after: Millis::secs(60),
        },
        min_available: Amount::Number(0),
        rollout: RolloutPolicy {
            strategy: Strategy::Rolling,
            batch: Amount::Number(1),
            max_unavailable: Amount::Number(1),
            zone_at_a_time: false,
            first_zone_bake: Millis::ZERO,
            min_healthy: Millis::ZERO,
            healthy_deadline: Millis::secs(60),
            progress_deadline: Millis::secs(120),
            failure_tolerance: Amount::Number(0),
            on_failure: OnFailure::RollBack,
            approve_before: Vec::new(),
            analysis: Vec::new(),
        },
        logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
        lifecycle: Default::default(),
        limits: Default::default(),
        sandbox: Default::default(),
        configuration: if kind.configured { configuration(release) } else { Default::default() },
        route: (kind.life == Life::Routed).then(crate::fleet::route_spec),
    };
    let mut spec = spec;
    spec.lifecycle = lifecycle(kind.life);
    let bytes = if kind.configured { 0 } else { release };
    let digest = Digest([u8::try_from(bytes % 256).expect("below 256"); 32]);
    InstancePlan {
        release: ReleaseNumber(release),
        version: Version::new(format!("{release}.0")).expect("a valid version"),
        attempt,
        reload: 0,
        released: Default::default(),
        artifact: Artifact { digest, size_bytes: 1, format: ArtifactFormat::Tar, unpacked_bytes: 1 },
        spec,
    }
}

fn lifecycle(life: Life) -> Lifecycle {
    let mut lifecycle = Lifecycle::default();
    match life {
        Life::Plain | Life::Routed => {}
        Life::Job => lifecycle.kind = RunKind::OneShot,
        Life::After => {
            lifecycle.after.insert(ServiceName::new("db").expect("a valid name"), Near::SameNode);
        }
        Life::Reloads => {
            lifecycle.reload = Some(Reload::Signal { signal: StopSignal::Sighup, timeout: Millis::secs(5) });
            lifecycle.hooks.after_ready =
                Some(Hook { command: vec!["hello".to_owned()], timeout: Millis::secs(5) });
        }
    }
    lifecycle
}

fn configuration(release: u64) -> Configuration {
    let file = |template: u64, on_change| ConfigFile { template: template.to_string(), on_change };
    let told = file(release, OnChange::Signal(StopSignal::Sighup));
    let boot = file(release / 5, OnChange::Restart);
    Configuration {
        files: BTreeMap::from([("app.conf".to_owned(), told), ("boot.conf".to_owned(), boot)]),
        secrets: BTreeMap::new(),
    }
}

fn instance() -> Instance {
    Instance::new("web.1".parse().expect("a valid instance"))
}

fn found(release: u64, pid: Option<u32>) -> AdoptedRun {
    AdoptedRun {
        release: ReleaseNumber(release),
        pid,
        ports: BTreeMap::new(),
        restarts: 0,
        last_exit: None,
        crash_loop: false,
    }
}

/// An event from its line. `plan 2`, `plan 2 1` (attempt), `plan none`, `resumed 1=1 2=2` (run=release), `booted`, `staged 2`,
/// `stage-failed 2` (`stage-failed! 2`: trying again will not help), `no-space 2`, `started 1`, `start-failed 1`, `crashed 1`,
/// `crash-loop 1`, `damaged 1`, `mended 1`, `found-good 1`, `mend-failed 1`, `ended 1 0` (run, code; it stays down), `ready 1`, `unready 1`, `not-live 1`, `steered 2`,
/// `drained 1`, `stopped 1`, `lost 1`, `timer`; `plan-reload 1 2` (release, reloads asked for), `plan-released 2 1` (release, run), `reloaded 1 2`,
/// `reload-failed 1 2` (run, reload), `unready-deps`, `ready-deps`.
fn event(kind: Kind, line: &str) -> Event {
    let mut words = line.split_whitespace();
    let verb = words.next().expect("a verb");
    let rest: Vec<&str> = words.collect();
    let number = |at: usize| rest[at].parse::<u64>().expect("a number");
    let run = || RunNumber(number(0));
    let ended = |code, restart_in, crash_loop| Event::Exited {
        run: run(),
        exit: Exit::Code(code),
        restarts: 1,
        restart_in,
        crash_loop,
        last_words: String::new(),
        damage: None,
    };
    match verb {
        "plan" if rest[0] == "none" => Event::Plan(None),
        "plan-reload" => {
            let mut plan = plan(kind, number(0), 0);
            plan.reload = number(1);
            Event::Plan(Some(Box::new(plan)))
        }
        "plan-released" => {
            let mut plan = plan(kind, number(0), 0);
            plan.released = RunNumber(number(1));
            Event::Plan(Some(Box::new(plan)))
        }
        "plan" => {
            let attempt = rest.get(1).map_or(0, |text| text.parse().expect("a number"));
            Event::Plan(Some(Box::new(plan(kind, number(0), attempt))))
        }
        "resumed" | "booted" => Event::Resumed {
            booted: verb == "booted",
            alive: rest
                .iter()
                .map(|pair| {
                    let (run, release) = pair.split_once('=').expect("run=release");
                    let run: u64 = run.parse().expect("a number");
                    let pid = u32::try_from(100 + run).expect("a pid");
                    (RunNumber(run), found(release.parse().expect("a number"), Some(pid)))
                })
                .collect(),
        },
        "staged" => Event::Staged(ReleaseNumber(number(0))),
        "stage-failed" | "stage-failed!" => Event::StageFailed {
            release: ReleaseNumber(number(0)),
            reason: "no bytes".to_owned(),
            trouble: if verb == "stage-failed" { Trouble::Passing } else { Trouble::Final },
        },
        "no-space" => Event::StageFailed {
            release: ReleaseNumber(number(0)),
            reason: "the disk is full".to_owned(),
            trouble: Trouble::Lasting,
        },
        "started" => {
            let pid = u32::try_from(100 + number(0)).expect("a pid");
            Event::Started { run: run(), pid, ports: BTreeMap::new() }
        }
        "start-failed" => Event::StartFailed { run: run(), reason: "address in use".to_owned() },
        "crashed" => ended(1, Some(Millis(100)), false),
        "crash-loop" => ended(1, Some(Millis::secs(5)), true),
        "ended" => ended(i32::try_from(number(1)).expect("a code"), None, false),
        "ready" => Event::Health { run: run(), ready: true, detail: "ok".to_owned() },
        "unready" => Event::Health { run: run(), ready: false, detail: "503".to_owned() },
        "damaged" => Event::Exited {
            run: run(),
            exit: Exit::Exec(74),
            restarts: 1,
            restart_in: Some(Millis::secs(5)),
            crash_loop: false,
            last_words: String::new(),
            damage: Some("bin/web is missing".to_owned()),
        },
        "mended" | "found-good" => Event::Mended { run: run(), fetched: verb == "mended" },
        "mend-failed" => Event::MendFailed { run: run(), reason: "no coordinator".to_owned() },
        "not-live" => Event::NotLive { run: run(), detail: "hangs".to_owned() },
        "steered" => Event::Steered(run()),
        "steer-failed" => Event::SteerFailed { run: run(), reason: "no memory".to_owned() },
        "drained" => Event::Drained { run: run(), cut: 0 },
        "stopped" => Event::Stopped { run: run(), killed: false },
        "lost" => Event::ShimLost(run()),
        "unready-deps" => Event::Dependencies { unready: Some("`db` is not ready on this node".to_owned()) },
        "ready-deps" => Event::Dependencies { unready: None },
        "reloaded" => Event::Reloaded { run: run(), reload: number(1), failure: None },
        "reload-failed" => {
            Event::Reloaded { run: run(), reload: number(1), failure: Some("deaf".to_owned()) }
        }
        "refreshed" => Event::Refreshed(run()),
        "refresh-failed" => Event::RefreshFailed { run: run(), reason: "no space".to_owned() },
        "rerendered" => Event::Rerendered { run: run(), signals: vec![StopSignal::Sigusr1] },
        "provisioned" => Event::Provisioned,
        "timer" => Event::Timer,
        other => panic!("no such line: {other}"),
    }
}

/// Effects in a line; notes are for people and left out.
fn effects_line(effects: &[Effect]) -> String {
    let words = effects.iter().filter_map(|effect| match effect {
        Effect::Stage(plan) => Some(format!("stage {}", plan.release)),
        Effect::Start { run, plan, beside: None } => Some(format!("start {run}={}", plan.release)),
        Effect::Start { run, plan, beside: Some(beside) } => {
            Some(format!("start {run}={} beside {beside}", plan.release))
        }
        Effect::Check { run, .. } => Some(format!("check {run}")),
        Effect::Steer { run, from: None } => Some(format!("steer {run}")),
        Effect::Steer { run, from: Some(from) } => Some(format!("steer {run} from {from}")),
        Effect::Drain { run, within } => Some(format!("drain {run} {within}")),
        Effect::Stop { run, .. } => Some(format!("stop {run}")),
        Effect::Restart { run, .. } => Some(format!("restart {run}")),
        Effect::Mend { run, .. } => Some(format!("mend {run}")),
        Effect::Reload { run, number } => Some(format!("reload {run} #{number}")),
        Effect::TellReady { run } => Some(format!("tell-ready {run}")),
        Effect::Refresh { run, plan, signals } => {
            let signals: Vec<&str> = signals.iter().map(|signal| signal.name()).collect();
            Some(format!("refresh {run}={} {}", plan.release, signals.join(" ")).trim_end().to_owned())
        }
        Effect::Forget(run) => Some(format!("forget {run}")),
        Effect::Note { .. } => None,
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What is reported, in a line.
fn observed_line(instance: &Instance, now: BootMs) -> String {
    match instance.observe(now) {
        None => "nothing".to_owned(),
        Some((seen, _)) => {
            let swap = seen.swap.map_or_else(String::new, |swap| format!(", {} {}", swap.phase, swap.to));
            format!("{} {}{swap}", seen.state, seen.release)
        }
    }
}

/// Runs a story: lines of `[+seconds] event -> effects | observed`. The machine is written and read back between
/// any two lines, as it is on a node.
fn check(kind: Kind, story: &str) {
    let mut instance = instance();
    let mut now = BootMs(1000);
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (before, expected) = line.split_once("->").expect("a line has `->`");
        let mut before = before.trim();
        if let Some((wait, rest)) = before.strip_prefix('+').and_then(|text| text.split_once(' ')) {
            now = now.plus(Millis::secs(wait.parse().expect("seconds")));
            before = rest;
        }
        let effects = instance.step(event(kind, before), now);
        let got = format!("{} | {}", effects_line(&effects), observed_line(&instance, now));
        assert_eq!(got.trim(), expected.trim(), "\nafter `{before}` in this story:\n{story}");
        let stored = serde_json::to_string(&instance).expect("an instance can be written");
        instance = serde_json::from_str(&stored).expect("an instance can be read back");
    }
}
