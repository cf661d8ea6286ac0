//! What the model cannot hold is refused, by the path of the field.

use super::{WireError, instance_to_wire, instances_observed};
use super::{observed, reports, samples, statuses};
use crate::v1;
use baton_model::desired::{Node, Release};
use baton_model::event::Event;
use baton_model::metrics::NodeMetrics;
use baton_model::plan::NodePlan;
use baton_model::report::ServiceReport;
use baton_model::spec::ServiceSpec;
use baton_model::status::ServiceStatus;
use baton_model::time::UnixMs;

/// The path that an error must name, and what breaks the field.
pub(super) type Case<W> = (&'static str, fn(&mut W));

/// Breaks one field of a good message, and compares the path of the error.
pub(super) fn refused<M, W>(good: impl Fn() -> W, cases: &[Case<W>])
where
    M: TryFrom<W, Error = WireError> + std::fmt::Debug,
{
    M::try_from(good()).expect("the unbroken message");
    for (path, damage) in cases {
        let mut wire = good();
        damage(&mut wire);
        let error = M::try_from(wire).expect_err(path);
        assert_eq!(error.path, *path, "{error}");
    }
}

#[test]
fn specs() {
    fn readiness(wire: &mut v1::ServiceSpec) -> &mut v1::Check {
        wire.checks.as_mut().unwrap().readiness.as_mut().unwrap()
    }
    refused::<ServiceSpec, v1::ServiceSpec>(
        || super::specs::specs().swap_remove(1).into(),
        &[
            ("name", |wire| wire.name = "Web".to_owned()),
            ("checks", |wire| wire.checks = None),
            ("stop.signal", |wire| wire.stop.as_mut().unwrap().signal = "SIGSTOP".to_owned()),
            ("restart.mode", |wire| wire.restart.as_mut().unwrap().mode = 0),
            ("restart.mode", |wire| wire.restart.as_mut().unwrap().mode = 99),
            ("placement.count", |wire| wire.placement.as_mut().unwrap().count = None),
            ("min_available", |wire| wire.min_available = None),
            ("min_available.percent", |wire| {
                wire.min_available = Some(v1::Amount { value: Some(v1::amount::Value::Percent(101)) });
            }),
            ("min_available.value", |wire| wire.min_available = Some(v1::Amount { value: None })),
            ("rollout.strategy", |wire| wire.rollout.as_mut().unwrap().strategy = 0),
            ("rollout.batch.value", |wire| {
                wire.rollout.as_mut().unwrap().batch = Some(v1::Amount { value: None })
            }),
            ("sandbox.capabilities", |wire| {
                let names = vec!["CAP_ROOT".to_owned()];
                wire.sandbox.as_mut().unwrap().capabilities = Some(v1::Capabilities { names });
            }),
            ("lifecycle.after[\"db\"]", |wire| {
                wire.lifecycle.as_mut().unwrap().after.insert("db".to_owned(), 0);
            }),
            ("lifecycle.watchdog_ms", |wire| wire.lifecycle.as_mut().unwrap().watchdog_ms = Some(0)),
            ("lifecycle.reload.signal", |wire| {
                let kind = Some(v1::reload::Kind::Signal("SIGSTOP".to_owned()));
                wire.lifecycle.as_mut().unwrap().reload = Some(v1::Reload { kind, timeout_ms: 1 });
            }),
            ("lifecycle.before_stop.command", |wire| {
                let hook = v1::Hook { command: Vec::new(), timeout_ms: 1 };
                wire.lifecycle.as_mut().unwrap().before_stop = Some(hook);
            }),
            ("logs.keep", |wire| wire.logs.as_mut().unwrap().keep = 0),
            ("ports[\"http\"].kind", |wire| {
                wire.ports.insert("http".to_owned(), v1::Port { kind: None });
            }),
            ("ports[\"a b\"]", |wire| {
                wire.ports.insert("a b".to_owned(), v1::Port { kind: Some(v1::port::Kind::Dynamic(true)) });
            }),
            ("ports[\"x\"].socket", |wire| {
                wire.ports.insert("x".to_owned(), v1::Port { kind: Some(v1::port::Kind::Socket(70_000)) });
            }),
            ("ports[\"x\"].fixed", |wire| {
                wire.ports.insert("x".to_owned(), v1::Port { kind: Some(v1::port::Kind::Fixed(0)) });
            }),
            ("checks.readiness.timeout_ms", |wire| readiness(wire).timeout_ms = 0),
            ("checks.readiness.interval_ms", |wire| readiness(wire).interval_ms = 0),
            ("checks.readiness.rise", |wire| readiness(wire).rise = 0),
            ("checks.readiness.probe", |wire| readiness(wire).probe = None),
            ("checks.readiness.http.status", |wire| {
                let http = v1::HttpProbe { port: "http".to_owned(), path: "/".to_owned(), status: Some(99) };
                readiness(wire).probe = Some(v1::check::Probe::Http(http));
            }),
            ("checks.readiness.tcp.port", |wire| {
                readiness(wire).probe = Some(v1::check::Probe::Tcp(v1::TcpProbe { port: String::new() }));
            }),
            ("checks.readiness.exec.command", |wire| {
                readiness(wire).probe = Some(v1::check::Probe::Exec(v1::ExecProbe { command: vec![] }));
            }),
        ],
    );
}

#[test]
fn releases_and_plans() {
    fn artifact(wire: &mut v1::Release) -> &mut v1::Artifact {
        wire.artifact.as_mut().unwrap()
    }
    refused::<Release, v1::Release>(
        || samples::releases().swap_remove(0).into(),
        &[
            ("number", |wire| wire.number = 0),
            ("version", |wire| wire.version = "1 0".to_owned()),
            ("artifact", |wire| wire.artifact = None),
            ("artifact.digest", |wire| artifact(wire).digest = "abc".to_owned()),
            ("artifact.format", |wire| artifact(wire).format = None),
            ("artifact.archive", |wire| artifact(wire).format = Some(v1::artifact::Format::Archive(0))),
            ("artifact.file", |wire| {
                artifact(wire).format = Some(v1::artifact::Format::File("../../etc/passwd".to_owned()));
            }),
            ("artifact.file", |wire| {
                artifact(wire).format = Some(v1::artifact::Format::File("..".to_owned()))
            }),
            ("spec.stop", |wire| wire.spec.as_mut().unwrap().stop = None),
        ],
    );
    refused::<NodePlan, v1::NodePlan>(
        || samples::plans().swap_remove(2).into(),
        &[
            ("node", |wire| wire.node = String::new()),
            ("releases[1].version", |wire| wire.releases[1].version = String::new()),
            ("instances[2].release_index", |wire| wire.instances[2].release_index = u32::MAX),
            // db.1 with a release of web.
            ("instances[0].release_index", |wire| {
                wire.instances[0].release_index = wire.instances[5].release_index
            }),
            ("instances[1].id", |wire| wire.instances[1].id = "db".to_owned()),
            ("instances[1].id", |wire| wire.instances[1].id = wire.instances[0].id.clone()),
        ],
    );
}

#[test]
fn nodes_metrics_and_events() {
    refused::<Node, v1::Node>(
        || samples::nodes().swap_remove(0).into(),
        &[
            ("name", |wire| wire.name = "n_1".to_owned()),
            ("address", |wire| wire.address = "localhost".to_owned()),
        ],
    );
    refused::<NodeMetrics, v1::NodeMetrics>(
        || observed::metrics().swap_remove(1).into(),
        &[
            ("cpu", |wire| wire.cpu = f64::NAN),
            ("load1", |wire| wire.load1 = -1.0),
            ("instances[\"web.1\"].cpu", |wire| wire.instances.get_mut("web.1").unwrap().cpu = f64::INFINITY),
            ("instances[\"web\"]", |wire| {
                wire.instances.insert("web".to_owned(), v1::InstanceMetrics::default());
            }),
        ],
    );
    refused::<Event, v1::Event>(
        || samples::events().swap_remove(1).into(),
        &[
            ("severity", |wire| wire.severity = 0),
            ("kind", |wire| wire.kind = "Not a word".to_owned()),
            ("instance", |wire| wire.instance = Some("web.0".to_owned())),
            ("node", |wire| wire.node = Some(String::new())),
        ],
    );
}

#[test]
fn reports_and_statuses() {
    fn rollout(wire: &mut v1::ServiceReport) -> &mut v1::RolloutReport {
        wire.rollout.as_mut().unwrap()
    }
    refused::<ServiceReport, v1::ServiceReport>(
        || reports::reports().swap_remove(1).into(),
        &[
            ("health", |wire| wire.health = 0),
            ("waiting[1].subject", |wire| wire.waiting[1].subject = None),
            ("waiting[3].subject.instance", |wire| {
                wire.waiting[3].subject =
                    Some(v1::Subject { kind: Some(v1::subject::Kind::Instance(String::new())) });
            }),
            ("rollout.outcome", |wire| rollout(wire).outcome = 0),
            ("rollout.id", |wire| rollout(wire).id = 0),
            ("rollout.stages[2].state", |wire| rollout(wire).stages[2].state = 0),
            ("rollout.stages[0].instances[\"web.1\"]", |wire| {
                rollout(wire).stages[0].instances.insert("web.1".to_owned(), 0);
            }),
        ],
    );
    refused::<ServiceStatus, v1::ServiceStatus>(
        || statuses::services().swap_remove(1).into(),
        &[
            ("report", |wire| wire.report = None),
            ("instances[1].observed.state", |wire| wire.instances[1].observed.as_mut().unwrap().state = 0),
            ("instances[1].observed.id", |wire| {
                wire.instances[1].observed.as_mut().unwrap().id = "web.9".to_owned()
            }),
            ("instances[1].wanted_version", |wire| wire.instances[1].wanted_version = String::new()),
            ("releases[0].number", |wire| wire.releases[0].number = 0),
        ],
    );
}

#[test]
fn observed_instances() {
    let good = || -> Vec<v1::Instance> {
        let instances = observed::instances().into_iter();
        instances.map(|(id, one)| instance_to_wire(&id, one, UnixMs(1))).collect()
    };
    instances_observed(good(), UnixMs(1)).expect("the unbroken message");
    let cases: [Case<Vec<v1::Instance>>; 7] = [
        ("instances[0].id", |wire| wire[0].id = "web".to_owned()),
        ("instances[1].id", |wire| wire[1].id = wire[0].id.clone()),
        ("instances[2].state", |wire| wire[2].state = 42),
        ("instances[3].ports[\"http\"]", |wire| {
            wire[3].ports.insert("http".to_owned(), 65_536);
        }),
        ("instances[4].swap.phase", |wire| wire[4].swap.as_mut().unwrap().phase = 0),
        ("instances[0].last_exit.before_start.kind", |wire| {
            let kind = Some(v1::exit::Kind::BeforeStart(v1::HookEnd { kind: None }));
            wire[0].last_exit = Some(v1::Exit { kind, watchdog_triggered: false });
        }),
        ("instances[0].last_exit.kind", |wire| {
            wire[0].last_exit = Some(v1::Exit { kind: None, watchdog_triggered: false })
        }),
    ];
    for (path, damage) in cases {
        let mut wire = good();
        damage(&mut wire);
        assert_eq!(instances_observed(wire, UnixMs(1)).expect_err(path).path, path);
    }
}
