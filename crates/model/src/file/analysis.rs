//! Reads `[rollout.analysis.NAME]`: what is asked of the evidence while a new release is watched.

use super::problem::Fault;
use super::reader::{Fields, Reader, Section};
use super::{confinement, defaults, traffic, value};
use crate::rollout::{AnalysisAction, Metric, Threshold};
use crate::route::Weight;
use crate::time::Millis;

pub(super) const ANALYSIS: &[&str] =
    &["metric", "max", "min", "quantile", "window", "min_requests", "action", "webhook"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum MetricWord {
    ErrorShare,
    Latency,
    RequestRate,
    Restarts,
    Cpu,
    Memory,
    Differing,
}

impl MetricWord {
    const ALL: &[(&str, Self)] = &[
        ("error-share", Self::ErrorShare),
        ("latency", Self::Latency),
        ("request-rate", Self::RequestRate),
        ("restarts", Self::Restarts),
        ("cpu", Self::Cpu),
        ("memory", Self::Memory),
        ("differing", Self::Differing),
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::ErrorShare => "error-share",
            Self::Latency => "latency",
            Self::RequestRate => "request-rate",
            Self::Restarts => "restarts",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Differing => "differing",
        }
    }

    /// The field of its bound, what to write there, and the fields among [`ANALYSIS`] that mean nothing to it.
    const fn fields(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::ErrorShare | Self::Differing => ("max", "write `max = \"1%\"`", &["min", "quantile"]),
            Self::Latency => ("max", "write `max = \"250ms\"`", &["min"]),
            Self::RequestRate => ("min", "write `min = 10`, in requests a second", &["max", "quantile"]),
            Self::Restarts => ("max", "write `max = 0`", &["min", "quantile", "min_requests"]),
            Self::Cpu => (
                "max",
                "write `max = \"150%\"`, in percent of one processor",
                &["min", "quantile", "min_requests"],
            ),
            Self::Memory => ("max", "write `max = \"512MiB\"`", &["min", "quantile", "min_requests"]),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ActionWord {
    Hold,
    Pause,
    RollBack,
    Webhook,
}

/// All thresholds, in the order of their names.
pub(super) fn analysis(reader: &mut Reader, rollout: &Section<'_, '_>) -> Vec<Threshold> {
    let section = reader.section(rollout, "analysis", Fields::Any);
    let names: Vec<String> = section.names().into_iter().map(|(name, _)| name.to_owned()).collect();
    names.iter().filter_map(|name| threshold(reader, &section, name)).collect()
}

fn threshold(reader: &mut Reader, analysis: &Section<'_, '_>, name: &str) -> Option<Threshold> {
    let section = reader.section(analysis, name, Fields::Only(ANALYSIS));
    if !section.is_present() {
        return None;
    }
    let help = "write `metric = \"error-share\"`, `\"latency\"`, `\"request-rate\"`, `\"restarts\"`, `\"cpu\"`, \
                `\"memory\"` or `\"differing\"`";
    reader.missing(&section, "metric", help);
    let word = reader.field(&section, "metric", |v| value::word(v, MetricWord::ALL))?;
    let metric = metric(reader, &section, word);
    let requests_min = match word {
        MetricWord::Restarts | MetricWord::Cpu | MetricWord::Memory | MetricWord::RequestRate => 0,
        MetricWord::ErrorShare | MetricWord::Latency | MetricWord::Differing => {
            defaults::ANALYSIS_REQUESTS_MIN
        }
    };
    let threshold = Threshold {
        name: name.to_owned(),
        metric,
        window: reader.field(&section, "window", value::duration).unwrap_or(defaults::ANALYSIS_WINDOW),
        requests_min: reader.field(&section, "min_requests", value::number).unwrap_or(requests_min),
        action: action(reader, &section),
    };
    Some(threshold)
}

fn metric(reader: &mut Reader, section: &Section<'_, '_>, word: MetricWord) -> Metric {
    let (bound, help, foreign) = word.fields();
    for field in foreign {
        if let Some((_, span)) = section.names().into_iter().find(|(name, _)| name == field) {
            let what = format!("has no meaning for the metric `{}`", word.word());
            reader.fault(&format!("{}.{field}", section.path), span, &Fault::new(what, "leave it out"));
        }
    }
    reader.missing(section, bound, help);
    // What is missing or broken is told, and its placeholder takes part in no check.
    match word {
        MetricWord::ErrorShare => Metric::ErrorShare {
            at_most: reader.field(section, "max", traffic::weight).unwrap_or(Weight::NONE),
        },
        MetricWord::Differing => Metric::Differing {
            at_most: reader.field(section, "max", traffic::weight).unwrap_or(Weight::NONE),
        },
        MetricWord::Latency => Metric::Latency {
            quantile: reader
                .field(section, "quantile", traffic::weight)
                .unwrap_or(defaults::ANALYSIS_QUANTILE),
            at_most: reader.field(section, "max", value::duration).unwrap_or(Millis(1)),
        },
        MetricWord::RequestRate => {
            Metric::RequestRate { at_least: reader.field(section, "min", value::number).unwrap_or(1) }
        }
        MetricWord::Restarts => {
            Metric::Restarts { at_most: reader.field(section, "max", value::number).unwrap_or_default() }
        }
        MetricWord::Cpu => Metric::Cpu {
            at_most_percent: reader.field(section, "max", confinement::processors).unwrap_or(1),
        },
        MetricWord::Memory => {
            Metric::Memory { at_most: reader.field(section, "max", value::size).unwrap_or(1 << 20) }
        }
    }
}

fn action(reader: &mut Reader, section: &Section<'_, '_>) -> AnalysisAction {
    const WORDS: &[(&str, ActionWord)] = &[
        ("roll-back", ActionWord::RollBack),
        ("pause", ActionWord::Pause),
        ("hold", ActionWord::Hold),
        ("webhook", ActionWord::Webhook),
    ];
    let word = reader.field(section, "action", |v| value::word(v, WORDS));
    let url = reader.field(section, "webhook", value::text);
    if word != Some(ActionWord::Webhook)
        && let Some((_, span)) = section.names().into_iter().find(|(name, _)| *name == "webhook")
    {
        let what = "has a meaning only for `action = \"webhook\"`";
        let fault = Fault::new(what, "write `action = \"webhook\"` beside it, or leave it out");
        reader.fault(&format!("{}.webhook", section.path), span, &fault);
    }
    match word.unwrap_or(ActionWord::RollBack) {
        ActionWord::RollBack => AnalysisAction::RollBack,
        ActionWord::Pause => AnalysisAction::Pause,
        ActionWord::Hold => AnalysisAction::Hold,
        ActionWord::Webhook => {
            reader.missing(section, "webhook", "write `webhook = \"https://hooks.example.com/verdict\"`");
            AnalysisAction::Webhook { url: url.unwrap_or_default() }
        }
    }
}
