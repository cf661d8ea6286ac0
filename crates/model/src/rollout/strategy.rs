//! Strategies as data. The engine compiles each once into stages; what they share is one stage machine.

use crate::amount::Amount;
use crate::route::{Condition, Key, Weight};
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// The shape of a rollout. All but rolling need a route, since they tell requests apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Batches of instances, swapped in place.
    Rolling,
    /// A growing share of the requests, and of the instances, in steps.
    Canary(Canary),
    /// A whole second set beside the first, then a switch of all requests at once.
    BlueGreen(BlueGreen),
    /// A split by a stable key for a fixed time; an operator decides.
    Ab(AbTest),
    /// A second set that serves nobody and is sent copies of requests.
    Dark(DarkLaunch),
}

impl Strategy {
    /// The word by which a service file names it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Canary(_) => "canary",
            Self::BlueGreen(_) => "blue-green",
            Self::Ab(_) => "ab",
            Self::Dark(_) => "dark",
        }
    }

    /// Whether it runs a whole second set of instances beside the first for a while.
    #[must_use]
    pub const fn has_second_set(&self) -> bool {
        match self {
            Self::Rolling | Self::Canary(_) | Self::Ab(_) => false,
            Self::BlueGreen(_) | Self::Dark(_) => true,
        }
    }
}

/// A growing share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Requests that have all of this get the new release first; empty where there is no such cohort.
    pub cohort: Vec<Condition>,
    /// Steps within the cohort alone, before [`Canary::steps`]; the last one's share of the cohort stays with the new
    /// release from then on.
    pub cohort_steps: Vec<CanaryStep>,
    /// Steps of everybody; the last one is everything.
    pub steps: Vec<CanaryStep>,
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The new release's share of the requests.
    pub weight: Weight,
    /// Its instances; as many as its share of the requests needs where left out. Of a cohort, one.
    pub instances: Option<Amount>,
    /// How long it rests at that share, watched, before the next step.
    pub bake: Millis,
}

/// A whole second set, and a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlueGreen {
    /// How requests reach the second set before the switch.
    pub preview: Preview,
    /// How long the rollout watches after the switch, before it has succeeded.
    pub bake: Millis,
    /// How long the first set runs on after that, so that a return takes no start.
    pub keep_warm: Millis,
}

/// How requests reach a release that serves nobody yet. Either of the two is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Requests with this header, whatever its value; its name in lower case.
    pub header: Option<String>,
    /// Requests to this host, which is one of the route's.
    pub host: Option<String>,
}

impl Preview {
    /// The questions of which one must be answered yes.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let header = self.header.clone().map(|name| Condition::Is { key: Key::Header(name), value: None });
        let host = self.host.clone().map(|name| Condition::Host { name });
        header.into_iter().chain(host).collect()
    }
}

/// A split by a stable key for a fixed time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbTest {
    /// What tells those who take part apart; a request without it takes no part and gets the release before.
    pub key: Key,
    /// How many of them get the new release.
    pub share: Weight,
    /// How long it is measured. Then an operator promotes or aborts.
    pub duration: Millis,
}

/// A second set that serves nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DarkLaunch {
    /// How many of the requests are copied.
    pub share: Weight,
    /// How long it is watched.
    pub duration: Millis,
    /// Requests with a larger body are not copied, and counted.
    pub body_bytes_max: u64,
    /// Copies in flight at a time per gateway; what is over it is not copied, and counted.
    pub in_flight_max: u32,
    /// Copy methods that are not safe in the sense of RFC 9110, 9.2.1, too.
    pub unsafe_methods: bool,
    /// Compare the bodies of the two answers, not only status and latency.
    pub compare_bodies: bool,
    /// What follows when it was watched and every gate has passed.
    pub then: AfterDark,
    /// How requests reach the second set.
    pub preview: Preview,
    /// How long the first set runs on after a promotion.
    pub keep_warm: Millis,
}

/// What follows a dark launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterDark {
    /// An operator promotes or aborts.
    Wait,
    /// All requests are switched to the second set, without anybody asked.
    Promote,
}
