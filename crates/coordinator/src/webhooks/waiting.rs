//! A webhook as it waits in the store, from the commit that says it on.

use crate::records;
use crate::store::{Change, Precondition};
use baton_engine::outcome::{EventDraft, WebhookCall};
use baton_model::desired::Desired;
use baton_model::id::{ReleaseNumber, ServiceName, Version};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A verdict that waits to be posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub(super) service: ServiceName,
    pub(super) call: WebhookCall,
    pub(super) from_version: Option<Version>,
    pub(super) to_version: Option<Version>,
}

impl Webhook {
    /// Names this verdict and no other, on each attempt alike.
    pub(super) fn id(&self) -> String {
        let WebhookCall { rollout, stage, threshold, verdict, .. } = &self.call;
        format!("{}.{rollout}.{stage}.{threshold}.{}", self.service, verdict.at.0)
    }

    /// What is posted.
    pub(super) fn body(&self, cluster: &str) -> String {
        let WebhookCall { rollout, stage, from, to, verdict, .. } = &self.call;
        let release = |number: ReleaseNumber, version: &Option<Version>| json!({ "number": number, "version": version });
        let body = json!({
            "id": self.id(),
            "kind": "analysis-failed",
            "cluster": cluster,
            "service": self.service,
            "rollout": rollout,
            "stage": stage,
            "from": from.map(|from| release(from, &self.from_version)),
            "to": release(*to, &self.to_version),
            "verdict": verdict,
        });
        body.to_string()
    }

    /// Whom it is for, without what may be secret in the address.
    pub(super) fn target(&self) -> &str {
        let url = self.call.url.as_str();
        let host = url.find("://").map_or(0, |at| at + 3);
        url[host..].find(['/', '?']).map_or(url, |end| &url[..host + end])
    }
}

/// What is to be committed with the events of a decision, for those of them that somebody is to be told of.
pub(crate) fn changes(drafts: &[EventDraft], desired: &Desired) -> Result<Vec<Change>, records::RecordError> {
    let mut changes = Vec::new();
    for draft in drafts {
        let (Some(call), Some(service)) = (&draft.webhook, &draft.service) else { continue };
        let releases = desired.services.get(service).map(|service| &service.releases);
        let version = |number: &ReleaseNumber| Some(releases?.get(number)?.version.clone());
        let webhook = Webhook {
            service: service.clone(),
            from_version: call.from.as_ref().and_then(version),
            to_version: version(&call.to),
            call: WebhookCall::clone(call),
        };
        let mut change =
            records::putting(records::webhook(&webhook.id()), baton_model::id::Revision(0), &webhook)?;
        // It is there already where the answer to an earlier commit was lost.
        change.precondition = Precondition::Any;
        changes.push(change);
    }
    Ok(changes)
}
