//! What gateways count.

use super::field::{WireError, Within as _, counted, keyed, required, tally};
use crate::v1;
use baton_model::evidence::histogram::{Histogram, Stored};
use baton_model::evidence::{Evidence, ReleaseEvidence, ServiceEvidence, StatusCounts};
use baton_model::id::ReleaseNumber;
use baton_model::time::Millis;

impl From<Evidence> for v1::Evidence {
    fn from(evidence: Evidence) -> Self {
        let services = evidence.services.into_iter();
        Self {
            span_ms: evidence.span.0,
            services: services.map(|(name, counted)| (name.into(), counted.into())).collect(),
            trials: evidence.trials.into_iter().map(|(name, trial)| (name.into(), trial.into())).collect(),
        }
    }
}

impl TryFrom<v1::Evidence> for Evidence {
    type Error = WireError;
    fn try_from(wire: v1::Evidence) -> Result<Self, WireError> {
        Ok(Self {
            span: Millis(wire.span_ms),
            services: keyed("services", wire.services)?,
            trials: keyed("trials", wire.trials)?,
        })
    }
}

impl From<ServiceEvidence> for v1::ServiceEvidence {
    fn from(evidence: ServiceEvidence) -> Self {
        let releases = evidence.releases.into_iter();
        Self {
            requests: evidence.requests,
            unanswered: evidence.unanswered,
            refused: evidence.refused,
            fallbacks: evidence.fallbacks,
            queued: evidence.queued,
            over_budget: evidence.over_budget,
            waiting: evidence.waiting,
            releases: releases.map(|(number, counted)| (number.0, counted.into())).collect(),
        }
    }
}

impl TryFrom<v1::ServiceEvidence> for ServiceEvidence {
    type Error = WireError;
    fn try_from(wire: v1::ServiceEvidence) -> Result<Self, WireError> {
        let release = |(number, evidence): (u64, v1::ReleaseEvidence)| {
            let field = format!("releases[{number}]");
            let evidence = ReleaseEvidence::try_from(evidence).within(&field)?;
            Ok((ReleaseNumber(counted(&field, number)?), evidence))
        };
        Ok(Self {
            requests: tally("requests", wire.requests)?,
            unanswered: tally("unanswered", wire.unanswered)?,
            refused: tally("refused", wire.refused)?,
            fallbacks: tally("fallbacks", wire.fallbacks)?,
            queued: tally("queued", wire.queued)?,
            over_budget: tally("over_budget", wire.over_budget)?,
            waiting: tally("waiting", wire.waiting)?,
            releases: wire.releases.into_iter().map(release).collect::<Result<_, WireError>>()?,
        })
    }
}

impl From<ReleaseEvidence> for v1::ReleaseEvidence {
    fn from(evidence: ReleaseEvidence) -> Self {
        Self {
            status: Some(evidence.status.into()),
            failures: evidence.failures,
            broken: evidence.broken,
            diverted: evidence.diverted,
            cancelled: evidence.cancelled,
            retries: evidence.retries,
            hedges: evidence.hedges,
            exposures: evidence.exposures,
            in_flight: evidence.in_flight,
            left_out: evidence.left_out,
            mirrored: evidence.mirrored,
            unmirrored: evidence.unmirrored,
            compared: evidence.compared,
            differing: evidence.differing,
            latency: Some(evidence.latency.into()),
        }
    }
}

impl TryFrom<v1::ReleaseEvidence> for ReleaseEvidence {
    type Error = WireError;
    fn try_from(wire: v1::ReleaseEvidence) -> Result<Self, WireError> {
        Ok(Self {
            status: required("status", wire.status)?,
            failures: tally("failures", wire.failures)?,
            broken: tally("broken", wire.broken)?,
            diverted: tally("diverted", wire.diverted)?,
            cancelled: tally("cancelled", wire.cancelled)?,
            retries: tally("retries", wire.retries)?,
            hedges: tally("hedges", wire.hedges)?,
            exposures: tally("exposures", wire.exposures)?,
            in_flight: tally("in_flight", wire.in_flight)?,
            left_out: tally("left_out", wire.left_out)?,
            mirrored: tally("mirrored", wire.mirrored)?,
            unmirrored: tally("unmirrored", wire.unmirrored)?,
            compared: tally("compared", wire.compared)?,
            differing: tally("differing", wire.differing)?,
            latency: required("latency", wire.latency)?,
        })
    }
}

impl From<StatusCounts> for v1::StatusCounts {
    fn from(counts: StatusCounts) -> Self {
        let StatusCounts { informational, successful, redirected, client_error, server_error } = counts;
        Self { informational, successful, redirected, client_error, server_error }
    }
}

impl TryFrom<v1::StatusCounts> for StatusCounts {
    type Error = WireError;
    fn try_from(wire: v1::StatusCounts) -> Result<Self, WireError> {
        Ok(Self {
            informational: tally("informational", wire.informational)?,
            successful: tally("successful", wire.successful)?,
            redirected: tally("redirected", wire.redirected)?,
            client_error: tally("client_error", wire.client_error)?,
            server_error: tally("server_error", wire.server_error)?,
        })
    }
}

impl From<Histogram> for v1::Histogram {
    fn from(histogram: Histogram) -> Self {
        let Stored { counts, max_us, sum_us } = histogram.into();
        let (steps, counts) = counts.into_iter().map(|(step, count)| (u32::from(step), count)).unzip();
        Self { steps, counts, max_us, sum_us }
    }
}

impl TryFrom<v1::Histogram> for Histogram {
    type Error = WireError;
    fn try_from(wire: v1::Histogram) -> Result<Self, WireError> {
        if wire.steps.len() != wire.counts.len() {
            let problem = format!("{} steps cannot have {} counts", wire.steps.len(), wire.counts.len());
            return Err(WireError::new("counts", problem));
        }
        let step = |step: u32| {
            u16::try_from(step).map_err(|_| WireError::new("steps", format!("step {step} does not exist")))
        };
        let pairs = wire.steps.into_iter().zip(wire.counts);
        let counts: Vec<(u16, u64)> =
            pairs.map(|(number, count)| Ok((step(number)?, count))).collect::<Result<_, WireError>>()?;
        let histogram = Self::try_from(Stored { counts, max_us: wire.max_us, sum_us: wire.sum_us })
            .map_err(|error| WireError::new("steps", error))?;
        tally("counts", histogram.total())?;
        Ok(histogram)
    }
}
