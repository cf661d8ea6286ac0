//! The state that the API, the sessions and the background tasks share; the app builds it.

use crate::artifacts::Artifacts;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::counts::Counts;
use crate::events::Journal;
use crate::evidence::EvidenceLog;
use crate::gateways::Gateways;
use crate::logs::LogBroker;
use crate::reconcile::View;
use crate::records::Records;
use crate::secrets::Secrets;
use crate::sessions::Sessions;
use crate::trials::TrialLog;
use crate::usage::UsageLog;
use crate::webhooks::undelivered::Undelivered;
use baton_model::evidence::Evidence;
use baton_model::id::GatewayName;
use baton_model::observed::Observed;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the parts of a running coordinator share.
pub(crate) struct Coordinator {
    pub(crate) cluster: String,
    pub(crate) clock: Clock,
    pub(crate) records: Records,
    pub(crate) journal: Arc<Journal>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) evidence: Arc<EvidenceLog>,
    pub(crate) trials: Arc<TrialLog>,
    pub(crate) usage: Arc<UsageLog>,
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) logs: Arc<LogBroker>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) undelivered: Undelivered,
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// Cancelled when the coordinator stops: answers that go on for ever end.
    pub(crate) stop: CancellationToken,
}

impl Coordinator {
    /// What is, of nodes and gateways: for a question that is asked beside the decisions.
    pub(crate) fn observed(&self) -> Observed {
        Observed { gateways: self.gateways.observed(), ..self.sessions.observed() }
    }

    /// Takes in what a gateway counted.
    pub(crate) fn take_evidence(&self, gateway: &GatewayName, mut evidence: Evidence) {
        self.trials.take(&self.gateways.table(), std::mem::take(&mut evidence.trials));
        self.evidence.take(gateway, evidence);
    }
}
