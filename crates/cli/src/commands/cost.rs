//! What rollouts cost: connections that were cut, processes that had to be killed, gaps, datagrams lost. The agents
//! counted and measured it, and told it as events; here it is put beside the rollout that caused it.

use crate::api::{self, Api, EventQuery};
use anyhow::Result;
use baton_model::event::Event;
use baton_model::id::{InstanceId, ServiceName};
use baton_model::report::RolloutReport;
use baton_model::time::UnixMs;
use serde::Serialize;
use serde_json::Value;
use tokio_stream::StreamExt as _;

/// One thing that a rollout cost. Its field names are part of the CLI's `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cost {
    #[serde(skip)]
    at: UnixMs,
    /// The event that told it: `connections-cut`, `instance-killed`, `datagrams-lost`, or `gap`.
    kind: &'static str,
    /// Where.
    instance: InstanceId,
    #[serde(skip)]
    run: Option<u64>,
    /// How many, or for a gap how many milliseconds.
    amount: u64,
    /// For people.
    text: String,
}

/// Every cost that the journal still tells of this service, oldest first.
///
/// # Errors
/// When the coordinator cannot be reached or refuses.
pub(super) async fn all(api: &mut Api, service: &ServiceName) -> Result<Vec<Cost>> {
    let query =
        EventQuery { after: None, last: 0, follow: false, service: Some(service.clone()), node: None };
    let mut events = api.events(&query).await?;
    let mut costs = Vec::new();
    while let Some(event) = events.next().await {
        costs.extend(cost(&api::event(event?)?));
    }
    soften(&mut costs);
    Ok(costs)
}

/// What was open at the end of a drain is surely cut only where the process was killed: one that ends by its signal may
/// have answered its clients before.
fn soften(costs: &mut [Cost]) {
    let run = |cost: &Cost| (cost.instance.clone(), cost.run);
    let killed: Vec<_> = costs.iter().filter(|cost| cost.kind == "instance-killed").map(run).collect();
    for cost in costs.iter_mut().filter(|cost| cost.kind == "connections-cut") {
        if !killed.contains(&run(cost)) {
            cost.text = format!("told {} to end with {} still open", cost.instance, connections(cost.amount));
        }
    }
}

fn connections(count: u64) -> String {
    format!("{count} {}", if count == 1 { "connection" } else { "connections" })
}

/// Those of one rollout: from its start to the start of the next. An old process may end after the rollout has.
pub(super) fn of<'a>(costs: &'a [Cost], rollout: &RolloutReport, next: Option<UnixMs>) -> Vec<&'a Cost> {
    let within = |cost: &&Cost| cost.at >= rollout.started_at && next.is_none_or(|next| cost.at < next);
    costs.iter().filter(within).collect()
}

impl Cost {
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// The rollout as a document, with what it cost.
///
/// # Errors
/// It cannot be written as JSON.
pub(super) fn document(rollout: &RolloutReport, costs: &[&Cost]) -> Result<Value> {
    let mut document = serde_json::to_value(rollout)?;
    document["costs"] = serde_json::to_value(costs)?;
    Ok(document)
}

fn cost(event: &Event) -> Option<Cost> {
    let instance = event.instance.clone()?;
    let figure = |name: &str| event.fields.get(name).and_then(|value| value.parse::<u64>().ok());
    let (kind, amount, text) = match event.kind.as_str() {
        "connections-cut" => {
            let cut = figure("cut")?;
            ("connections-cut", cut, format!("cut {} on {instance}", connections(cut)))
        }
        "instance-killed" => (
            "instance-killed",
            1,
            format!("killed the old process of {instance}, which did not end by itself"),
        ),
        "datagrams-lost" => {
            let lost = figure("lost")?;
            ("datagrams-lost", lost, format!("lost {lost} datagrams on {instance}"))
        }
        "swap-done" | "instance-ready" => {
            let gap = figure("gap_ms")?;
            ("gap", gap, format!("{instance} served nothing for {gap} ms"))
        }
        _ => return None,
    };
    Some(Cost { at: event.at, kind, instance, run: figure("run"), amount, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::event::Severity;
    use baton_model::id::EventSeq;

    fn told(kind: &str, fields: &[(&str, &str)]) -> Option<String> {
        costing(kind, fields).map(|cost| cost.text)
    }

    fn costing(kind: &str, fields: &[(&str, &str)]) -> Option<Cost> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let event = Event {
            seq: EventSeq(1),
            at: UnixMs(1),
            severity: Severity::Warning,
            kind: kind.to_owned(),
            message: String::new(),
            service: None,
            node: None,
            instance: Some("web.1".parse().unwrap()),
            fields,
        };
        cost(&event)
    }

    #[test]
    fn costs_are_told_in_words() {
        for (kind, fields, expect) in [
            ("connections-cut", &[("cut", "3")][..], Some("cut 3 connections on web.1")),
            ("connections-cut", &[("cut", "1")], Some("cut 1 connection on web.1")),
            ("datagrams-lost", &[("lost", "7")], Some("lost 7 datagrams on web.1")),
            ("swap-done", &[("gap_ms", "120")], Some("web.1 served nothing for 120 ms")),
            ("swap-done", &[("total_ms", "120")], None),
            ("instance-started", &[], None),
        ] {
            assert_eq!(told(kind, fields).as_deref(), expect, "{kind}");
        }
    }

    #[test]
    fn connections_are_cut_for_sure_only_by_a_kill() {
        let of = |kind, run| costing(kind, &[("cut", "3"), ("run", run)]).unwrap();
        let mut costs = [of("connections-cut", "1"), of("connections-cut", "2"), of("instance-killed", "2")];
        soften(&mut costs);
        assert_eq!(costs[0].text, "told web.1 to end with 3 connections still open");
        assert_eq!(costs[1].text, "cut 3 connections on web.1");
    }
}
