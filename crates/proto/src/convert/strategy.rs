//! Strategies, thresholds and verdicts.

use super::field::{WireError, choice, each, optional, required};
use super::route::{filled, weight};
use crate::v1;
use baton_model::rollout::{
    AbTest, AfterDark, AnalysisAction, Answer, BlueGreen, Canary, CanaryStep, DarkLaunch, Measured, Metric,
    Preview, Strategy, Threshold, Verdict,
};
use baton_model::time::{Millis, UnixMs};
use v1::rollout_policy::Shape;

/// A strategy on the wire: the choice, and its shape where it has one.
pub(super) fn to_wire(strategy: Strategy) -> (v1::Strategy, Option<Shape>) {
    let shape = match strategy {
        Strategy::Rolling => return (v1::Strategy::Rolling, None),
        Strategy::Canary(canary) => Shape::Canary(canary.into()),
        Strategy::BlueGreen(it) => Shape::BlueGreen(it.into()),
        Strategy::Ab(it) => Shape::Ab(it.into()),
        Strategy::Dark(it) => Shape::Dark(it.into()),
    };
    (v1::Strategy::Shaped, Some(shape))
}

/// The strategy of a policy.
pub(super) fn from_wire(strategy: i32, shape: Option<Shape>) -> Result<Strategy, WireError> {
    Ok(match (choice("strategy", strategy)?, shape) {
        (v1::Strategy::Unspecified, _) => return Err(WireError::unset("strategy")),
        (v1::Strategy::Rolling, None) => Strategy::Rolling,
        (v1::Strategy::Rolling, Some(_)) => return Err(WireError::new("shape", "a rolling policy has none")),
        (v1::Strategy::Shaped, None) => return Err(WireError::unset("shape")),
        (v1::Strategy::Shaped, Some(Shape::Canary(wire))) => {
            Strategy::Canary(required("canary", Some(wire))?)
        }
        (v1::Strategy::Shaped, Some(Shape::BlueGreen(wire))) => {
            Strategy::BlueGreen(required("blue_green", Some(wire))?)
        }
        (v1::Strategy::Shaped, Some(Shape::Ab(wire))) => Strategy::Ab(required("ab", Some(wire))?),
        (v1::Strategy::Shaped, Some(Shape::Dark(wire))) => Strategy::Dark(required("dark", Some(wire))?),
    })
}

impl From<Canary> for v1::Canary {
    fn from(canary: Canary) -> Self {
        Self {
            cohort: canary.cohort.into_iter().map(Into::into).collect(),
            cohort_steps: canary.cohort_steps.into_iter().map(Into::into).collect(),
            steps: canary.steps.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Canary> for Canary {
    type Error = WireError;
    fn try_from(wire: v1::Canary) -> Result<Self, WireError> {
        Ok(Self {
            cohort: each("cohort", wire.cohort)?,
            cohort_steps: each("cohort_steps", wire.cohort_steps)?,
            steps: each("steps", wire.steps)?,
        })
    }
}

impl From<CanaryStep> for v1::CanaryStep {
    fn from(step: CanaryStep) -> Self {
        Self { weight: step.weight.0.into(), bake_ms: step.bake.0, instances: step.instances.map(Into::into) }
    }
}

impl TryFrom<v1::CanaryStep> for CanaryStep {
    type Error = WireError;
    fn try_from(wire: v1::CanaryStep) -> Result<Self, WireError> {
        Ok(Self {
            weight: weight("weight", wire.weight)?,
            instances: optional("instances", wire.instances)?,
            bake: Millis(wire.bake_ms),
        })
    }
}

impl From<BlueGreen> for v1::BlueGreen {
    fn from(it: BlueGreen) -> Self {
        Self { preview: Some(it.preview.into()), bake_ms: it.bake.0, keep_warm_ms: it.keep_warm.0 }
    }
}

impl TryFrom<v1::BlueGreen> for BlueGreen {
    type Error = WireError;
    fn try_from(wire: v1::BlueGreen) -> Result<Self, WireError> {
        Ok(Self {
            preview: required("preview", wire.preview)?,
            bake: Millis(wire.bake_ms),
            keep_warm: Millis(wire.keep_warm_ms),
        })
    }
}

impl From<Preview> for v1::Preview {
    fn from(preview: Preview) -> Self {
        Self { header: preview.header, host: preview.host }
    }
}

impl TryFrom<v1::Preview> for Preview {
    type Error = WireError;
    fn try_from(wire: v1::Preview) -> Result<Self, WireError> {
        Ok(Self {
            header: wire.header.map(|name| filled("header", name)).transpose()?,
            host: wire.host.map(|name| filled("host", name)).transpose()?,
        })
    }
}

impl From<AbTest> for v1::AbTest {
    fn from(it: AbTest) -> Self {
        Self { key: Some(it.key.into()), share: it.share.0.into(), duration_ms: it.duration.0 }
    }
}

impl TryFrom<v1::AbTest> for AbTest {
    type Error = WireError;
    fn try_from(wire: v1::AbTest) -> Result<Self, WireError> {
        Ok(Self {
            key: required("key", wire.key)?,
            share: weight("share", wire.share)?,
            duration: Millis(wire.duration_ms),
        })
    }
}

impl From<DarkLaunch> for v1::DarkLaunch {
    fn from(it: DarkLaunch) -> Self {
        Self {
            share: it.share.0.into(),
            duration_ms: it.duration.0,
            body_bytes_max: it.body_bytes_max,
            in_flight_max: it.in_flight_max,
            unsafe_methods: it.unsafe_methods,
            compare_bodies: it.compare_bodies,
            promote: match it.then {
                AfterDark::Wait => false,
                AfterDark::Promote => true,
            },
            preview: Some(it.preview.into()),
            keep_warm_ms: it.keep_warm.0,
        }
    }
}

impl TryFrom<v1::DarkLaunch> for DarkLaunch {
    type Error = WireError;
    fn try_from(wire: v1::DarkLaunch) -> Result<Self, WireError> {
        Ok(Self {
            share: weight("share", wire.share)?,
            duration: Millis(wire.duration_ms),
            body_bytes_max: wire.body_bytes_max,
            in_flight_max: wire.in_flight_max,
            unsafe_methods: wire.unsafe_methods,
            compare_bodies: wire.compare_bodies,
            then: if wire.promote { AfterDark::Promote } else { AfterDark::Wait },
            preview: required("preview", wire.preview)?,
            keep_warm: Millis(wire.keep_warm_ms),
        })
    }
}

impl From<Threshold> for v1::Threshold {
    fn from(threshold: Threshold) -> Self {
        use v1::threshold::Metric as Wire;
        let metric = match threshold.metric {
            Metric::ErrorShare { at_most } => Wire::ErrorShareAtMost(at_most.0.into()),
            Metric::Latency { quantile, at_most } => {
                Wire::Latency(v1::LatencyBound { quantile: quantile.0.into(), at_most_ms: at_most.0 })
            }
            Metric::RequestRate { at_least } => Wire::RequestRateAtLeast(at_least),
            Metric::Restarts { at_most } => Wire::RestartsAtMost(at_most),
            Metric::Cpu { at_most_percent } => Wire::CpuAtMostPercent(at_most_percent),
            Metric::Memory { at_most } => Wire::MemoryAtMost(at_most),
            Metric::Differing { at_most } => Wire::DifferingAtMost(at_most.0.into()),
        };
        Self {
            name: threshold.name,
            metric: Some(metric),
            window_ms: threshold.window.0,
            requests_min: threshold.requests_min,
            action: Some(threshold.action.into()),
        }
    }
}

impl TryFrom<v1::Threshold> for Threshold {
    type Error = WireError;
    fn try_from(wire: v1::Threshold) -> Result<Self, WireError> {
        use v1::threshold::Metric as Wire;
        let metric = match wire.metric.ok_or_else(|| WireError::unset("metric"))? {
            Wire::ErrorShareAtMost(share) => {
                Metric::ErrorShare { at_most: weight("error_share_at_most", share)? }
            }
            Wire::Latency(bound) => Metric::Latency {
                quantile: weight("latency.quantile", bound.quantile)?,
                at_most: Millis(bound.at_most_ms),
            },
            Wire::RequestRateAtLeast(at_least) => Metric::RequestRate { at_least },
            Wire::RestartsAtMost(at_most) => Metric::Restarts { at_most },
            Wire::CpuAtMostPercent(at_most_percent) => Metric::Cpu { at_most_percent },
            Wire::MemoryAtMost(at_most) => Metric::Memory { at_most },
            Wire::DifferingAtMost(share) => {
                Metric::Differing { at_most: weight("differing_at_most", share)? }
            }
        };
        Ok(Self {
            name: wire.name,
            metric,
            window: Millis(wire.window_ms),
            requests_min: wire.requests_min,
            action: required("action", wire.action)?,
        })
    }
}

impl From<AnalysisAction> for v1::AnalysisAction {
    fn from(action: AnalysisAction) -> Self {
        use v1::analysis_action::Kind;
        let kind = match action {
            AnalysisAction::Hold => Kind::Hold(true),
            AnalysisAction::Pause => Kind::Pause(true),
            AnalysisAction::RollBack => Kind::RollBack(true),
            AnalysisAction::Webhook { url } => Kind::Webhook(url),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::AnalysisAction> for AnalysisAction {
    type Error = WireError;
    fn try_from(wire: v1::AnalysisAction) -> Result<Self, WireError> {
        use v1::analysis_action::Kind;
        match wire.kind {
            Some(Kind::Hold(true)) => Ok(Self::Hold),
            Some(Kind::Pause(true)) => Ok(Self::Pause),
            Some(Kind::RollBack(true)) => Ok(Self::RollBack),
            Some(Kind::Webhook(url)) => Ok(Self::Webhook { url: filled("webhook", url)? }),
            Some(Kind::Hold(false) | Kind::Pause(false) | Kind::RollBack(false)) | None => {
                Err(WireError::unset("kind"))
            }
        }
    }
}

impl From<Answer> for v1::Answer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Pass => Self::Pass,
            Answer::Fail => Self::Fail,
            Answer::Inconclusive => Self::Inconclusive,
        }
    }
}

/// The answer to a question.
pub(super) fn answer(field: &str, wire: i32) -> Result<Answer, WireError> {
    Ok(match choice(field, wire)? {
        v1::Answer::Unspecified => return Err(WireError::unset(field)),
        v1::Answer::Pass => Answer::Pass,
        v1::Answer::Fail => Answer::Fail,
        v1::Answer::Inconclusive => Answer::Inconclusive,
    })
}

impl From<Verdict> for v1::Verdict {
    fn from(verdict: Verdict) -> Self {
        Self {
            name: verdict.name,
            answer: v1::Answer::from(verdict.answer).into(),
            at_ms: verdict.at.0,
            since_ms: verdict.since.0,
            requests: verdict.requests,
            measured: verdict.measured.map(Into::into),
            text: verdict.text,
        }
    }
}

impl TryFrom<v1::Verdict> for Verdict {
    type Error = WireError;
    fn try_from(wire: v1::Verdict) -> Result<Self, WireError> {
        Ok(Self {
            name: wire.name,
            answer: answer("answer", wire.answer)?,
            at: UnixMs(wire.at_ms),
            since: UnixMs(wire.since_ms),
            requests: wire.requests,
            measured: optional("measured", wire.measured)?,
            text: wire.text,
        })
    }
}

impl From<Measured> for v1::Measured {
    fn from(measured: Measured) -> Self {
        use v1::measured::Kind;
        let kind = match measured {
            Measured::Share(share) => Kind::Share(share.0.into()),
            Measured::Micros(micros) => Kind::Micros(micros),
            Measured::MilliRate(rate) => Kind::MilliRate(rate),
            Measured::Count(count) => Kind::Count(count),
            Measured::MilliCores(milli) => Kind::MilliCores(milli),
            Measured::Bytes(bytes) => Kind::Bytes(bytes),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Measured> for Measured {
    type Error = WireError;
    fn try_from(wire: v1::Measured) -> Result<Self, WireError> {
        use v1::measured::Kind;
        Ok(match wire.kind.ok_or_else(|| WireError::unset("kind"))? {
            Kind::Share(share) => Self::Share(weight("share", share)?),
            Kind::Micros(micros) => Self::Micros(micros),
            Kind::MilliRate(rate) => Self::MilliRate(rate),
            Kind::Count(count) => Self::Count(count),
            Kind::MilliCores(milli) => Self::MilliCores(milli),
            Kind::Bytes(bytes) => Self::Bytes(bytes),
        })
    }
}
