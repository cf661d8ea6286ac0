//! What becomes of a decision that the audit refuses: the services that would break an invariant stay as they are
//! stored, and people are called; all others go on. One service's trouble must not freeze the rest.

use crate::audit::{Findings, audit_seen};
use crate::decide::{Held, decide_holding, look};
use crate::input::Input;
use crate::outcome::{EventDraft, Outcome};
use crate::sight::Sightings;
use baton_model::event::Severity;
use baton_model::id::ServiceName;
use baton_model::time::Millis;
use std::collections::BTreeMap;

/// A refused service is decided again after this long: what is wrong will not pass by itself soon.
const REFUSED_AFTER: Millis = Millis::secs(10);
/// Services hardly touch one another, so that all refusals come with the first pass and the second is sound. After so
/// many passes something deeper is wrong, and every service stays as it is.
const PASSES_MAX: u32 = 3;

/// One decision as the coordinator makes it: decides, and again without the services that the audit refuses, until it
/// refuses none. A sound outcome, and why each of the others was refused.
#[must_use]
pub fn decide_audited(input: &Input<'_>) -> (Outcome, BTreeMap<ServiceName, String>) {
    decide_judged(input, audit_seen)
}

fn decide_judged(input: &Input<'_>, judge: impl Fn(&Sightings<'_>, &Outcome) -> Findings) -> (Outcome, Held) {
    let sightings = look(input);
    let until = input.now.plus(REFUSED_AFTER);
    let mut held = Held::new();
    for _ in 0..PASSES_MAX {
        let outcome = decide_holding(&sightings, &held, until);
        let findings = judge(&sightings, &outcome);
        if findings.is_empty() {
            return (outcome, held);
        }
        held.extend(findings.into_iter().map(|(service, violations)| {
            let list: Vec<String> =
                violations.iter().map(|v| format!("{}: {}", v.invariant, v.detail)).collect();
            let why = format!(
                "a decision was refused by the audit and nothing of it was done: {}",
                list.join("; ")
            );
            (service, why)
        }));
    }
    for name in input.desired.services.keys().chain(input.progress.keys()) {
        let why = "decisions about other services were refused by the audit again and again";
        held.entry(name.clone()).or_insert_with(|| why.to_owned());
    }
    (decide_holding(&sightings, &held, until), held)
}

/// Calls people.
pub(super) fn event(service: &ServiceName, why: &str) -> EventDraft {
    EventDraft {
        severity: Severity::Error,
        kind: "audit-refused",
        message: format!("{service}: {why}; please report this, it is a mistake of Baton's"),
        service: Some(service.clone()),
        node: None,
        instance: None,
        fields: BTreeMap::new(),
        webhook: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Violation;
    use crate::fleet::{fleet, service_name, spec};
    use crate::input::ALL_CONFIRMED;
    use baton_model::time::Millis;

    /// Decides on two fresh services and refuses `refused`; `expect`: the services that change.
    fn check(refused: &[&str], expect: &[&str]) {
        let mut fleet = fleet(2, 1);
        fleet.run(Millis::secs(1)).deploy(spec("api", 1)).deploy(spec("web", 1));
        let (observed, progress) = (fleet.observed(), fleet.memory());
        let input = Input {
            desired: &fleet.desired,
            observed: &observed,
            progress: &progress,
            unconfirmed: &ALL_CONFIRMED,
            now: fleet.now,
        };
        let broken = || vec![Violation { invariant: "test", detail: "is broken".to_owned() }];
        let judge = |_: &Sightings<'_>, outcome: &Outcome| {
            let bad = outcome.progress.keys().filter(|name| refused.contains(&name.as_str()));
            bad.map(|name| (name.clone(), broken())).collect::<Findings>()
        };
        let (outcome, held) = decide_judged(&input, judge);
        let changed: Vec<&str> = outcome.progress.keys().map(ServiceName::as_str).collect();
        assert_eq!(changed, expect);
        let planned = outcome.assignments.values().flatten().map(|(id, _)| id.service.as_str());
        assert_eq!(planned.collect::<Vec<_>>(), expect, "plans follow what is stored");
        assert!(outcome.events.iter().all(|event| {
            event.service.as_ref().is_none_or(|service| expect.contains(&service.as_str()))
        }));
        for name in refused {
            let waiting = &outcome.report.services[&service_name(name)].waiting;
            let said = waiting.iter().any(|w| w.gate == "audit" && w.reason.contains("test: is broken"));
            assert!(said && held.contains_key(&service_name(name)), "{waiting:?}");
        }
    }

    #[test]
    fn what_is_refused_stays_as_it_is_and_the_others_go_on() {
        check(&[], &["api", "web"]);
        check(&["api"], &["web"]);
        check(&["api", "web"], &[]);
    }
}
