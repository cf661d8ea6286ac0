//! `baton service reload`: every instance takes in its configuration without a restart.

use crate::exit::Exit;
use crate::global::Global;
use crate::live::Style;
use crate::table::{Table, plain, styled};
use anyhow::Result;
use baton_model::id::ServiceName;
use baton_model::observed::{ReloadObserved, ReloadPhase};
use baton_model::status::{PlacedInstance, ServiceStatus};
use std::time::{Duration, Instant};

/// Pause between two looks whether every instance has answered.
const ANSWER_POLL: Duration = Duration::from_millis(100);

/// Asks for it, waits for the answers, and shows them.
///
/// # Errors
/// When the coordinator cannot be reached or refuses, as it does where the service has no `[reload]`.
pub(super) async fn run(global: &Global, service: &ServiceName, wait: Duration) -> Result<Exit> {
    let mut api = global.api().await?;
    let number = api.reload_service(service).await?;
    let deadline = Instant::now() + wait;
    let status = loop {
        let status = api.service(service).await?;
        let all = status.instances.iter().all(|instance| answer(instance, number).is_some());
        if all || Instant::now() >= deadline {
            break status;
        }
        tokio::time::sleep(ANSWER_POLL).await;
    };
    if global.json {
        global.print_json(&status)?;
    } else {
        table(&status, number).print(global)?;
    }
    Ok(outcome(&status, number))
}

/// What the instance says of this reload, or of a later one, once that has ended.
fn answer(instance: &PlacedInstance, number: u64) -> Option<&ReloadObserved> {
    let reload = instance.observed.as_ref()?.reload.as_ref()?;
    (reload.number >= number && reload.phase != ReloadPhase::Running).then_some(reload)
}

fn outcome(status: &ServiceStatus, number: u64) -> Exit {
    let answers = || status.instances.iter().map(|instance| answer(instance, number));
    if answers().flatten().any(|reload| reload.phase == ReloadPhase::Failed) {
        return Exit::Failed;
    }
    if answers().all(|answer| answer.is_some()) { Exit::Done } else { Exit::TimedOut }
}

fn table(status: &ServiceStatus, number: u64) -> Table {
    let mut table = Table::new(&["INSTANCE", "NODE", "RELOAD", "NOTE"]);
    for instance in &status.instances {
        let (style, word, note) = match answer(instance, number) {
            Some(reload) => match reload.phase {
                ReloadPhase::Done => (Style::Good, "done", reload.reason.clone()),
                ReloadPhase::Failed => (Style::Bad, "failed", reload.reason.clone()),
                ReloadPhase::Running => (Style::Busy, "running", String::new()),
            },
            None => (Style::Warn, "no answer yet", why_silent(instance)),
        };
        table.row(vec![
            plain(&instance.id),
            plain(&instance.node),
            styled(style, word),
            styled(Style::Dim, note),
        ]);
    }
    table
}

/// What keeps an instance from answering; it reloads, or starts anew, when it can.
fn why_silent(instance: &PlacedInstance) -> String {
    match &instance.observed {
        _ if instance.node_silent => "its node is silent".to_owned(),
        None => "its node has not reported it".to_owned(),
        Some(observed) if observed.reason.is_empty() => format!("it is {}", observed.state),
        Some(observed) => observed.reason.clone(),
    }
}
