//! Reports: why things are done, doing, or waiting.

use super::field::{WireError, choice, counted, each, optional, optional_text, required, text};
use super::rollout::outcome;
use super::route::weight;
use crate::v1;
use baton_model::id::{InstanceId, ReleaseNumber, RolloutId};
use baton_model::report::{
    Health, RolloutReport, ServiceReport, StageReport, StageState, Step, Subject, Waiting,
};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

impl From<ServiceReport> for v1::ServiceReport {
    fn from(report: ServiceReport) -> Self {
        let health = match report.health {
            Health::Unknown => v1::Health::Unknown,
            Health::Healthy => v1::Health::Healthy,
            Health::Changing => v1::Health::Changing,
            Health::Degraded => v1::Health::Degraded,
            Health::Down => v1::Health::Down,
        };
        Self {
            health: health.into(),
            stable: report.stable.map(|number| number.0),
            wanted: report.wanted,
            ready: report.ready,
            floor: report.floor,
            rollout: report.rollout.map(Into::into),
            waiting: report.waiting.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::ServiceReport> for ServiceReport {
    type Error = WireError;
    fn try_from(wire: v1::ServiceReport) -> Result<Self, WireError> {
        let health = match choice("health", wire.health)? {
            v1::Health::Unspecified => return Err(WireError::unset("health")),
            v1::Health::Unknown => Health::Unknown,
            v1::Health::Healthy => Health::Healthy,
            v1::Health::Changing => Health::Changing,
            v1::Health::Degraded => Health::Degraded,
            v1::Health::Down => Health::Down,
        };
        Ok(Self {
            health,
            stable: wire.stable.map(ReleaseNumber),
            wanted: wire.wanted,
            ready: wire.ready,
            floor: wire.floor,
            rollout: optional("rollout", wire.rollout)?,
            waiting: each("waiting", wire.waiting)?,
        })
    }
}

impl From<Waiting> for v1::Waiting {
    fn from(waiting: Waiting) -> Self {
        use v1::subject::Kind;
        let kind = match waiting.subject {
            Subject::Service => Kind::Service(true),
            Subject::Rollout => Kind::Rollout(true),
            Subject::Stage(number) => Kind::Stage(number),
            Subject::Instance(id) => Kind::Instance(id.into()),
            Subject::Node(name) => Kind::Node(name.into()),
        };
        Self {
            subject: Some(v1::Subject { kind: Some(kind) }),
            gate: waiting.gate,
            reason: waiting.reason,
            until_ms: waiting.until.map(|until| until.0),
        }
    }
}

impl TryFrom<v1::Waiting> for Waiting {
    type Error = WireError;
    fn try_from(wire: v1::Waiting) -> Result<Self, WireError> {
        Ok(Self {
            subject: required("subject", wire.subject)?,
            gate: wire.gate,
            reason: wire.reason,
            until: wire.until_ms.map(UnixMs),
        })
    }
}

impl TryFrom<v1::Subject> for Subject {
    type Error = WireError;
    fn try_from(wire: v1::Subject) -> Result<Self, WireError> {
        use v1::subject::Kind;
        match wire.kind {
            Some(Kind::Service(true)) => Ok(Self::Service),
            Some(Kind::Rollout(true)) => Ok(Self::Rollout),
            Some(Kind::Stage(number)) => Ok(Self::Stage(number)),
            Some(Kind::Instance(id)) => Ok(Self::Instance(text("instance", &id)?)),
            Some(Kind::Node(name)) => Ok(Self::Node(text("node", &name)?)),
            Some(Kind::Service(false) | Kind::Rollout(false)) | None => Err(WireError::unset("kind")),
        }
    }
}

impl From<RolloutReport> for v1::RolloutReport {
    fn from(report: RolloutReport) -> Self {
        Self {
            id: report.id.0,
            from: report.from.map(|number| number.0),
            to: report.to.0,
            from_version: report.from_version.map(Into::into),
            to_version: report.to_version.into(),
            outcome: v1::RolloutOutcome::from(report.outcome).into(),
            reason: report.reason,
            started_at_ms: report.started_at.0,
            ended_at_ms: report.ended_at.map(|at| at.0),
            stages: report.stages.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::RolloutReport> for RolloutReport {
    type Error = WireError;
    fn try_from(wire: v1::RolloutReport) -> Result<Self, WireError> {
        Ok(Self {
            id: RolloutId(counted("id", wire.id)?),
            from: wire.from.map(ReleaseNumber),
            to: ReleaseNumber(counted("to", wire.to)?),
            from_version: optional_text("from_version", wire.from_version.as_deref())?,
            to_version: text("to_version", &wire.to_version)?,
            outcome: outcome("outcome", wire.outcome)?,
            reason: wire.reason,
            started_at: UnixMs(wire.started_at_ms),
            ended_at: wire.ended_at_ms.map(UnixMs),
            stages: each("stages", wire.stages)?,
        })
    }
}

impl From<StageReport> for v1::StageReport {
    fn from(stage: StageReport) -> Self {
        let state = match stage.state {
            StageState::Pending => v1::StageState::Pending,
            StageState::Running => v1::StageState::Running,
            StageState::Baking => v1::StageState::Baking,
            StageState::Done => v1::StageState::Done,
            StageState::Failed => v1::StageState::Failed,
        };
        Self {
            number: stage.number,
            title: stage.title,
            state: state.into(),
            instances: stage
                .instances
                .into_iter()
                .map(|(id, step)| (id.into(), v1::Step::from(step).into()))
                .collect(),
            started_at_ms: stage.started_at.map(|at| at.0),
            ended_at_ms: stage.ended_at.map(|at| at.0),
            step: stage.step,
            weight: stage.weight.map(|weight| weight.0.into()),
            verdicts: stage.verdicts.into_iter().map(Into::into).collect(),
            comparison: stage.comparison.map(Into::into),
        }
    }
}

impl TryFrom<v1::StageReport> for StageReport {
    type Error = WireError;
    fn try_from(wire: v1::StageReport) -> Result<Self, WireError> {
        let state = match choice("state", wire.state)? {
            v1::StageState::Unspecified => return Err(WireError::unset("state")),
            v1::StageState::Pending => StageState::Pending,
            v1::StageState::Running => StageState::Running,
            v1::StageState::Baking => StageState::Baking,
            v1::StageState::Done => StageState::Done,
            v1::StageState::Failed => StageState::Failed,
        };
        let mut instances: BTreeMap<InstanceId, Step> = BTreeMap::new();
        for (id, at) in wire.instances {
            let field = format!("instances[{id:?}]");
            instances.insert(text(&field, &id)?, step(&field, at)?);
        }
        Ok(Self {
            number: wire.number,
            title: wire.title,
            state,
            instances,
            started_at: wire.started_at_ms.map(UnixMs),
            ended_at: wire.ended_at_ms.map(UnixMs),
            step: wire.step,
            weight: wire.weight.map(|share| weight("weight", share)).transpose()?,
            verdicts: each("verdicts", wire.verdicts)?,
            comparison: optional("comparison", wire.comparison)?,
        })
    }
}

impl From<Step> for v1::Step {
    fn from(step: Step) -> Self {
        match step {
            Step::Pending => Self::Pending,
            Step::Changing => Self::Changing,
            Step::Done => Self::Done,
            Step::Failed => Self::Failed,
            Step::Deferred => Self::Deferred,
        }
    }
}

fn step(field: &str, wire: i32) -> Result<Step, WireError> {
    match choice(field, wire)? {
        v1::Step::Unspecified => Err(WireError::unset(field)),
        v1::Step::Pending => Ok(Step::Pending),
        v1::Step::Changing => Ok(Step::Changing),
        v1::Step::Done => Ok(Step::Done),
        v1::Step::Failed => Ok(Step::Failed),
        v1::Step::Deferred => Ok(Step::Deferred),
    }
}
