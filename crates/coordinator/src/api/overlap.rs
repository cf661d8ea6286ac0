//! Routes of several services, asked of a deploy: no two may take the same requests, or gateways would refuse the table.

use super::status::Refusal;
use crate::records::SERVICES;
use crate::state::Coordinator;
use baton_model::desired::Service;
use baton_model::id::ServiceName;
use baton_model::route::contradiction::claims;
use baton_model::spec::ServiceSpec;

/// Refuses a spec whose route takes what another service's does. Two deploys at the same moment may each pass; then the
/// gateways refuse the table, go on by the one before, and `baton gateway ls` says so.
pub(super) async fn check(coordinator: &Coordinator, spec: &ServiceSpec) -> Result<(), Refusal> {
    if spec.route.is_none() {
        return Ok(());
    }
    let read = coordinator.records.list::<Service>(SERVICES).await?;
    let others = read.iter().map(|(_, read)| &read.value).filter(|service| !service.removed);
    judge(spec, others.filter_map(wanted))
}

/// The release of a service that is wanted.
fn wanted(service: &Service) -> Option<&ServiceSpec> {
    let request = service.request.as_ref()?;
    service.releases.get(&request.to).map(|release| &release.spec)
}

fn judge<'a>(spec: &ServiceSpec, others: impl Iterator<Item = &'a ServiceSpec>) -> Result<(), Refusal> {
    let mine = spec.route.as_ref().map(|route| claims(&route.entry)).unwrap_or_default();
    for other in others.filter(|other| other.name != spec.name) {
        let theirs = other.route.as_ref().map(|route| claims(&route.entry)).unwrap_or_default();
        if let Some(what) = mine.iter().find(|what| theirs.contains(what)) {
            return Err(taken(&spec.name, &other.name, what));
        }
    }
    Ok(())
}

fn taken(name: &ServiceName, other: &ServiceName, what: &str) -> Refusal {
    Refusal::NotNow(format!(
        "`{name}` and `{other}` would both take {what}: change `hosts`, `path` or `listen` in the `[route]` of one of them"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mine: &str, theirs: &str, is_refused: bool) {
        let spec = |name: &str, route: &str| {
            let file = format!(
                "name = \"{name}\"\nartifact = \"./a\"\nexec = [\"a\"]\n[ports.http]\nkind = \"dynamic\"\n{route}"
            );
            baton_model::file::parse(&file).expect("a right file").spec
        };
        let (mine, theirs) = (spec("web", mine), spec("shop", theirs));
        assert_eq!(judge(&mine, [&theirs].into_iter()).is_err(), is_refused, "{mine:?} {theirs:?}");
        assert!(judge(&mine, [&mine].into_iter()).is_ok(), "a service may take what it has");
    }

    #[test]
    fn two_services_take_different_requests() {
        check("[route]\n", "[route]\n", true);
        check("[route]\n", "", false);
        check("[route]\npath = \"/api/\"\n", "[route]\npath = \"/api\"\n", true);
        check(
            "[route]\nhosts = [\"a.example\", \"b.example\"]\n",
            "[route]\nhosts = [\"b.example\"]\n",
            true,
        );
        check("[route]\nhosts = [\"a.example\"]\n", "[route]\n", false);
        check(
            "[route]\nprotocol = \"tcp\"\nlisten = 5432\n",
            "[route]\nprotocol = \"tcp\"\nlisten = 5432\n",
            true,
        );
    }
}
