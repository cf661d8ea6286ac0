//! What releases get of the requests.

use super::field::{WireError, counted, measured, optional_text};
use super::route::weight;
use crate::v1;
use baton_model::id::ReleaseNumber;
use baton_model::status::ReleaseTraffic;
use baton_model::time::Millis;

impl From<ReleaseTraffic> for v1::ReleaseTraffic {
    fn from(traffic: ReleaseTraffic) -> Self {
        Self {
            release: traffic.release.0,
            version: traffic.version.map(Into::into),
            weight: traffic.weight.0.into(),
            rules: traffic.rules,
            instances: traffic.instances,
            span_ms: traffic.span.0,
            requests: traffic.requests,
            errors: traffic.errors,
            in_flight: traffic.in_flight,
            diverted: traffic.diverted,
            left_out: traffic.left_out,
            p50_ms: traffic.p50_ms,
            p99_ms: traffic.p99_ms,
            mirrored: traffic.mirrored,
            unmirrored: traffic.unmirrored,
            differing: traffic.differing,
        }
    }
}

impl TryFrom<v1::ReleaseTraffic> for ReleaseTraffic {
    type Error = WireError;
    fn try_from(wire: v1::ReleaseTraffic) -> Result<Self, WireError> {
        Ok(Self {
            release: ReleaseNumber(counted("release", wire.release)?),
            version: optional_text("version", wire.version.as_deref())?,
            weight: weight("weight", wire.weight)?,
            rules: wire.rules,
            instances: wire.instances,
            span: Millis(wire.span_ms),
            requests: wire.requests,
            errors: wire.errors,
            in_flight: wire.in_flight,
            diverted: wire.diverted,
            left_out: wire.left_out,
            p50_ms: measured("p50_ms", wire.p50_ms)?,
            p99_ms: measured("p99_ms", wire.p99_ms)?,
            mirrored: wire.mirrored,
            unmirrored: wire.unmirrored,
            differing: wire.differing,
        })
    }
}
