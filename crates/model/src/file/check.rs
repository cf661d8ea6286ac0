//! Asks whether a [`ServiceSpec`] makes sense: ranges of single fields, and contradictions between them.
//!
//! Fields are named by the path they have in a service file, which is also how an operator finds them when the
//! spec came by wire.

mod cohort;
mod configuration;
mod confinement;
mod fleet;
mod lifecycle;
mod ports;
mod strategy;
mod traffic;
mod webhook;
mod workload;

use super::problem::Finding;
use crate::route::Weight;
use crate::spec::ServiceSpec;
use crate::time::Millis;
use std::fmt::Display;

/// Everything about the spec that does not make sense.
pub(super) fn findings(spec: &ServiceSpec) -> Vec<Finding> {
    let mut findings = Findings::default();
    workload::check(spec, &mut findings);
    configuration::check(spec, &mut findings);
    lifecycle::check(spec, &mut findings);
    confinement::check(spec, &mut findings);
    fleet::check(spec, &mut findings);
    traffic::check(spec, &mut findings);
    strategy::check(spec, &mut findings);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, fields: &[&str], message: impl Into<String>, help: impl Into<String>) {
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        self.0.push(Finding { fields, message: message.into(), help: help.into() });
    }

    /// Tells a value outside of `least..=most`; whether it was inside.
    fn range<T: PartialOrd + Display>(&mut self, field: &str, value: T, least: T, most: T) -> bool {
        if value < least {
            self.add(
                &[field],
                format!("`{field}` is {value}, less than it may be"),
                format!("write {least} or more, up to {most}"),
            );
            return false;
        }
        if value > most {
            self.add(
                &[field],
                format!("`{field}` is {value}, more than it may be"),
                format!("write {most} or less, down to {least}"),
            );
            return false;
        }
        true
    }

    /// Tells a share of more than everything; whether it was one that can be.
    fn share(&mut self, field: &str, share: Weight) -> bool {
        self.range(field, share, Weight::NONE, Weight::ALL)
    }

    /// The same for a length of time, which is written in quotes.
    fn duration(&mut self, field: &str, value: Millis, least: Millis, most: Millis) -> bool {
        self.range(field, Quoted(value), Quoted(least), Quoted(most))
    }
}

/// A length of time as it is written in the file.
#[derive(PartialEq, PartialOrd)]
struct Quoted(Millis);

impl Display for Quoted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}
