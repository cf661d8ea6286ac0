//! Reads the sections of a strategy: `[rollout.canary]`, `[rollout.blue_green]`, `[rollout.ab]`, `[rollout.dark]`.

use super::problem::{Fault, type_name};
use super::reader::{Fields, Reader, Section};
use super::{defaults, traffic, value};
use crate::rollout::{AbTest, AfterDark, BlueGreen, Canary, CanaryStep, DarkLaunch, Preview, Strategy};
use crate::route::{Key, Weight};
use crate::time::Millis;
use toml::de::DeValue;

pub(super) const CANARY: &[&str] = &["steps", "bake", "cohort", "cohort_steps"];
pub(super) const BLUE_GREEN: &[&str] = &["preview_header", "preview_host", "bake", "keep_warm"];
pub(super) const AB: &[&str] = &["key", "share", "duration"];
pub(super) const DARK: &[&str] = &[
    "share",
    "duration",
    "body",
    "in_flight",
    "unsafe_methods",
    "compare_bodies",
    "then",
    "preview_header",
    "preview_host",
    "keep_warm",
];
const STEP: &[&str] = &["weight", "instances", "bake"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Rolling,
    Canary,
    BlueGreen,
    Ab,
    Dark,
}

impl Word {
    const ALL: &[(&str, Self)] = &[
        ("rolling", Self::Rolling),
        ("canary", Self::Canary),
        ("blue-green", Self::BlueGreen),
        ("ab", Self::Ab),
        ("dark", Self::Dark),
    ];
}

/// The strategy, with what its own section says. `split_by`: the key of the route, where there is one.
pub(super) fn strategy(reader: &mut Reader, rollout: &Section<'_, '_>, split_by: Option<&Key>) -> Strategy {
    let word = reader.field(rollout, "strategy", |v| value::word(v, Word::ALL));
    if !reader.is_broken("rollout.strategy") {
        refuse_other_sections(reader, rollout, word.unwrap_or(Word::Rolling));
    }
    match word.unwrap_or(Word::Rolling) {
        Word::Rolling => Strategy::Rolling,
        Word::Canary => Strategy::Canary(canary(reader, rollout)),
        Word::BlueGreen => Strategy::BlueGreen(blue_green(reader, rollout)),
        Word::Ab => Strategy::Ab(ab(reader, rollout, split_by)),
        Word::Dark => Strategy::Dark(dark(reader, rollout)),
    }
}

fn refuse_other_sections(reader: &mut Reader, rollout: &Section<'_, '_>, word: Word) {
    let sections = [
        ("canary", "canary", Word::Canary),
        ("blue_green", "blue-green", Word::BlueGreen),
        ("ab", "ab", Word::Ab),
        ("dark", "dark", Word::Dark),
    ];
    for (section, name, of) in sections {
        if let Some((_, span)) = rollout.names().into_iter().find(|(it, _)| *it == section && of != word) {
            let what = format!("has a meaning only for `strategy = \"{name}\"`");
            let fault =
                Fault::new(what, format!("write `strategy = \"{name}\"` in `[rollout]`, or take it out"));
            reader.fault(&format!("rollout.{section}"), span, &fault);
        }
    }
}

fn canary(reader: &mut Reader, rollout: &Section<'_, '_>) -> Canary {
    let section = reader.section(rollout, "canary", Fields::Only(CANARY));
    let bake = reader.field(&section, "bake", value::duration).unwrap_or(defaults::CANARY_BAKE);
    let is_empty = |value: &DeValue<'_>| value.as_array().is_some_and(|list| list.is_empty());
    if let Some(cohort) = section.get("cohort").filter(|cohort| is_empty(cohort.get_ref())) {
        let help = "write what its requests have, such as [\"header:x-beta\"], or take it out";
        let fault = Fault::new("asks for nothing, so nobody is meant", help);
        reader.fault("rollout.canary.cohort", cohort.span(), &fault);
    }
    let cohort = reader
        .list(&section, "cohort", |v| list_fault("cohort", v, "\"header:x-beta\""), traffic::condition)
        .unwrap_or_default();
    let mut steps = |field: &str, default: &[Weight]| {
        let plain = |weight: &Weight| CanaryStep { weight: *weight, instances: None, bake };
        let written =
            reader.list(&section, field, |v| list_fault(field, v, "\"5%\", \"100%\""), |v| step(v, bake));
        written.unwrap_or_else(|| default.iter().map(plain).collect())
    };
    let in_cohort: &[Weight] = if cohort.is_empty() { &[] } else { &[Weight::ALL] };
    Canary {
        cohort_steps: steps("cohort_steps", in_cohort),
        steps: steps("steps", &defaults::CANARY_STEPS),
        cohort,
    }
}

/// A step: a share, or a section with a share, instances and a bake time of its own.
fn step(written: &DeValue<'_>, bake: Millis) -> Result<CanaryStep, Fault> {
    const FORM: &str =
        "write `{ weight = \"5%\", instances = 2, bake = \"10m\" }`, of which only `weight` is needed";
    let Some(table) = written.as_table() else {
        return Ok(CanaryStep { weight: traffic::weight(written)?, instances: None, bake });
    };
    let names = table.iter().map(|(key, _)| key.get_ref().to_string());
    if let Some(name) = names.into_iter().find(|name| !STEP.contains(&name.as_str())) {
        return Err(Fault::new(format!("has no field `{}`", value::shorten(&name)), FORM));
    }
    let weight = table.get("weight").ok_or_else(|| Fault::new("has no `weight`", FORM))?;
    let own = table.get("bake").map(|bake| value::duration(bake.get_ref())).transpose()?;
    Ok(CanaryStep {
        weight: traffic::weight(weight.get_ref())?,
        instances: table.get("instances").map(|it| value::amount(it.get_ref())).transpose()?,
        bake: own.unwrap_or(bake),
    })
}

fn list_fault(field: &str, written: &DeValue<'_>, example: &str) -> Fault {
    let own = written.as_str().map_or_else(|| example.to_owned(), |text| format!("{text:?}"));
    Fault::new(format!("must be a list, not {}", type_name(written)), format!("write `{field} = [{own}]`"))
}

fn blue_green(reader: &mut Reader, rollout: &Section<'_, '_>) -> BlueGreen {
    let section = reader.section(rollout, "blue_green", Fields::Only(BLUE_GREEN));
    BlueGreen {
        preview: preview(reader, &section),
        bake: reader.field(&section, "bake", value::duration).unwrap_or(defaults::BLUE_GREEN_BAKE),
        keep_warm: reader.field(&section, "keep_warm", value::duration).unwrap_or(defaults::KEEP_WARM),
    }
}

/// An empty text turns the header off.
fn preview(reader: &mut Reader, section: &Section<'_, '_>) -> Preview {
    let header = reader.field(section, "preview_header", value::text);
    let header = header.unwrap_or_else(|| defaults::PREVIEW_HEADER.to_owned()).to_ascii_lowercase();
    Preview {
        header: Some(header).filter(|header| !header.is_empty()),
        host: reader.field(section, "preview_host", value::text),
    }
}

fn ab(reader: &mut Reader, rollout: &Section<'_, '_>, split_by: Option<&Key>) -> AbTest {
    let section = reader.section(rollout, "ab", Fields::Only(AB));
    reader.missing(
        &section,
        "duration",
        "write `duration = \"24h\"` with how long the two releases are compared",
    );
    let key = reader.field(&section, "key", traffic::key);
    AbTest {
        key: key.or_else(|| split_by.cloned()).unwrap_or(defaults::ROUTE_SPLIT_BY),
        share: reader.field(&section, "share", traffic::weight).unwrap_or(defaults::AB_SHARE),
        // Never looked at: the field is told as missing or as broken.
        duration: reader.field(&section, "duration", value::duration).unwrap_or(Millis::secs(1)),
    }
}

fn dark(reader: &mut Reader, rollout: &Section<'_, '_>) -> DarkLaunch {
    const THEN: &[(&str, AfterDark)] = &[("wait", AfterDark::Wait), ("promote", AfterDark::Promote)];
    let section = reader.section(rollout, "dark", Fields::Only(DARK));
    let s = &section;
    DarkLaunch {
        share: reader.field(s, "share", traffic::weight).unwrap_or(defaults::DARK_SHARE),
        duration: reader.field(s, "duration", value::duration).unwrap_or(defaults::DARK_DURATION),
        body_bytes_max: reader.field(s, "body", value::size).unwrap_or(defaults::DARK_BODY_BYTES_MAX),
        in_flight_max: reader.field(s, "in_flight", value::number).unwrap_or(defaults::DARK_IN_FLIGHT_MAX),
        unsafe_methods: reader.field(s, "unsafe_methods", value::flag).unwrap_or(false),
        compare_bodies: reader.field(s, "compare_bodies", value::flag).unwrap_or(false),
        then: reader.field(s, "then", |v| value::word(v, THEN)).unwrap_or(defaults::AFTER_DARK),
        preview: preview(reader, s),
        keep_warm: reader.field(s, "keep_warm", value::duration).unwrap_or(defaults::KEEP_WARM),
    }
}
