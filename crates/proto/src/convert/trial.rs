//! Two releases that are compared: what gateways are told, what they count, and what is concluded.

use super::field::{WireError, Within as _, counted, each, optional, required, tally};
use super::route::weight;
use super::strategy::answer;
use crate::v1;
use baton_model::evidence::sketch::Sketch;
use baton_model::evidence::trial::{ArmCounts, CopyCounts, TrialCounts, TrialEvidence};
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::rollout::{ArmReport, Comparison, Estimate, LatencyEffect, SampleRatio};
use baton_model::route::{Between, Trial};
use baton_model::time::UnixMs;

impl From<Trial> for v1::Trial {
    fn from(trial: Trial) -> Self {
        Self {
            rollout: trial.rollout.0,
            control: trial.control.0,
            treatment: trial.treatment.0,
            between: Some(trial.between.into()),
        }
    }
}

impl TryFrom<v1::Trial> for Trial {
    type Error = WireError;
    fn try_from(wire: v1::Trial) -> Result<Self, WireError> {
        Ok(Self {
            rollout: RolloutId(counted("rollout", wire.rollout)?),
            control: ReleaseNumber(counted("control", wire.control)?),
            treatment: ReleaseNumber(counted("treatment", wire.treatment)?),
            between: required("between", wire.between)?,
        })
    }
}

impl From<Between> for v1::Between {
    fn from(between: Between) -> Self {
        use v1::between::Kind;
        let kind = match between {
            Between::Clients { key, share, test } => {
                Kind::Clients(v1::KeyShare { key: Some(key.into()), share: share.0.into(), test: test.0 })
            }
            Between::Copies => Kind::Copies(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Between> for Between {
    type Error = WireError;
    fn try_from(wire: v1::Between) -> Result<Self, WireError> {
        use v1::between::Kind;
        Ok(match wire.kind {
            Some(Kind::Clients(part)) => Self::Clients {
                key: required("key", part.key).within("clients")?,
                share: weight("clients.share", part.share)?,
                test: RolloutId(part.test),
            },
            Some(Kind::Copies(true)) => Self::Copies,
            Some(Kind::Copies(false)) | None => return Err(WireError::unset("kind")),
        })
    }
}

impl From<TrialEvidence> for v1::TrialEvidence {
    fn from(evidence: TrialEvidence) -> Self {
        let TrialCounts { control, treatment, copies } = evidence.counts;
        Self {
            source: evidence.source,
            rollout: evidence.rollout.0,
            control: Some(control.into()),
            treatment: Some(treatment.into()),
            copies: Some(copies.into()),
            control_clients: evidence.control.registers().to_vec().into(),
            treatment_clients: evidence.treatment.registers().to_vec().into(),
        }
    }
}

impl TryFrom<v1::TrialEvidence> for TrialEvidence {
    type Error = WireError;
    fn try_from(wire: v1::TrialEvidence) -> Result<Self, WireError> {
        let sketch = |field: &str, registers: prost::bytes::Bytes| {
            Sketch::from_registers(Vec::from(registers)).map_err(|error| WireError::new(field, error))
        };
        Ok(Self {
            source: wire.source,
            rollout: RolloutId(counted("rollout", wire.rollout)?),
            counts: TrialCounts {
                control: required("control", wire.control)?,
                treatment: required("treatment", wire.treatment)?,
                copies: required("copies", wire.copies)?,
            },
            control: sketch("control_clients", wire.control_clients)?,
            treatment: sketch("treatment_clients", wire.treatment_clients)?,
        })
    }
}

impl From<ArmCounts> for v1::ArmCounts {
    fn from(counts: ArmCounts) -> Self {
        Self {
            status: Some(counts.status.into()),
            failures: counts.failures,
            latency: Some(counts.latency.into()),
        }
    }
}

impl TryFrom<v1::ArmCounts> for ArmCounts {
    type Error = WireError;
    fn try_from(wire: v1::ArmCounts) -> Result<Self, WireError> {
        Ok(Self {
            status: required("status", wire.status)?,
            failures: tally("failures", wire.failures)?,
            latency: required("latency", wire.latency)?,
        })
    }
}

impl From<CopyCounts> for v1::CopyCounts {
    fn from(counts: CopyCounts) -> Self {
        Self {
            drawn: counts.drawn,
            sent: counts.sent,
            not_safe: counts.not_safe,
            not_small: counts.not_small,
            not_free: counts.not_free,
            not_there: counts.not_there,
            unanswered: counts.unanswered,
            compared: counts.compared,
            differs_unanswered: counts.differs_unanswered,
            differs_status: counts.differs_status,
            differs_body: counts.differs_body,
            noise: counts.noise,
        }
    }
}

impl TryFrom<v1::CopyCounts> for CopyCounts {
    type Error = WireError;
    fn try_from(wire: v1::CopyCounts) -> Result<Self, WireError> {
        Ok(Self {
            drawn: tally("drawn", wire.drawn)?,
            sent: tally("sent", wire.sent)?,
            not_safe: tally("not_safe", wire.not_safe)?,
            not_small: tally("not_small", wire.not_small)?,
            not_free: tally("not_free", wire.not_free)?,
            not_there: tally("not_there", wire.not_there)?,
            unanswered: tally("unanswered", wire.unanswered)?,
            compared: tally("compared", wire.compared)?,
            differs_unanswered: tally("differs_unanswered", wire.differs_unanswered)?,
            differs_status: tally("differs_status", wire.differs_status)?,
            differs_body: tally("differs_body", wire.differs_body)?,
            noise: tally("noise", wire.noise)?,
        })
    }
}

impl From<Comparison> for v1::Comparison {
    fn from(it: Comparison) -> Self {
        Self {
            between: Some(it.between.into()),
            since_ms: it.since.0,
            until_ms: it.until.0,
            sources: it.sources,
            control: Some(it.control.into()),
            treatment: Some(it.treatment.into()),
            errors: it.errors.map(Into::into),
            latency: it.latency.into_iter().map(Into::into).collect(),
            sample_ratio: it.sample_ratio.map(Into::into),
            copies: it.copies.map(Into::into),
            conclusion: it.conclusion,
        }
    }
}

impl TryFrom<v1::Comparison> for Comparison {
    type Error = WireError;
    fn try_from(wire: v1::Comparison) -> Result<Self, WireError> {
        Ok(Self {
            between: required("between", wire.between)?,
            since: UnixMs(wire.since_ms),
            until: UnixMs(wire.until_ms),
            sources: wire.sources,
            control: required("control", wire.control)?,
            treatment: required("treatment", wire.treatment)?,
            errors: optional("errors", wire.errors)?,
            latency: each("latency", wire.latency)?,
            sample_ratio: optional("sample_ratio", wire.sample_ratio)?,
            copies: optional("copies", wire.copies)?,
            conclusion: wire.conclusion,
        })
    }
}

impl From<ArmReport> for v1::ArmReport {
    fn from(arm: ArmReport) -> Self {
        Self {
            release: arm.release.0,
            clients: arm.clients,
            requests: arm.requests,
            errors: arm.errors,
            error_share: arm.error_share.map(Into::into),
            p50_us: arm.p50_us,
            p90_us: arm.p90_us,
            p99_us: arm.p99_us,
        }
    }
}

impl TryFrom<v1::ArmReport> for ArmReport {
    type Error = WireError;
    fn try_from(wire: v1::ArmReport) -> Result<Self, WireError> {
        Ok(Self {
            release: ReleaseNumber(counted("release", wire.release)?),
            clients: wire.clients,
            requests: wire.requests,
            errors: wire.errors,
            error_share: optional("error_share", wire.error_share)?,
            p50_us: wire.p50_us,
            p90_us: wire.p90_us,
            p99_us: wire.p99_us,
        })
    }
}

impl From<Estimate> for v1::Estimate {
    fn from(estimate: Estimate) -> Self {
        Self { low: estimate.low, value: estimate.value, high: estimate.high }
    }
}

impl TryFrom<v1::Estimate> for Estimate {
    type Error = WireError;
    fn try_from(wire: v1::Estimate) -> Result<Self, WireError> {
        Ok(Self { low: wire.low, value: wire.value, high: wire.high })
    }
}

impl From<LatencyEffect> for v1::LatencyEffect {
    fn from(effect: LatencyEffect) -> Self {
        Self { percent: effect.percent, slower_us: Some(effect.slower_us.into()) }
    }
}

impl TryFrom<v1::LatencyEffect> for LatencyEffect {
    type Error = WireError;
    fn try_from(wire: v1::LatencyEffect) -> Result<Self, WireError> {
        Ok(Self { percent: wire.percent, slower_us: required("slower_us", wire.slower_us)? })
    }
}

impl From<SampleRatio> for v1::SampleRatio {
    fn from(ratio: SampleRatio) -> Self {
        let answer = v1::Answer::from(ratio.answer);
        Self {
            expected: ratio.expected,
            observed: ratio.observed,
            chance: ratio.chance,
            answer: answer.into(),
        }
    }
}

impl TryFrom<v1::SampleRatio> for SampleRatio {
    type Error = WireError;
    fn try_from(wire: v1::SampleRatio) -> Result<Self, WireError> {
        Ok(Self {
            expected: wire.expected,
            observed: wire.observed,
            chance: wire.chance,
            answer: answer("answer", wire.answer)?,
        })
    }
}
