//! A running coordinator: it owns the clock and the lock on its folder, builds the parts, serves, and ends in order.

use crate::api::{AgentApi, EnrollmentApi, GatewayApi, MESSAGE_BYTES_MAX, OperatorApi};
use crate::artifacts::Artifacts;
use crate::authority::{Authority, Lifetimes, keep_server_certificate};
use crate::background;
use crate::clock::Clock;
use crate::error::CoordinatorError;
use crate::events;
use crate::evidence::EvidenceLog;
use crate::gateways::Gateways;
use crate::init::store_path;
use crate::lock::FileLock;
use crate::logs::LogBroker;
use crate::provisions::Provider;
use crate::reconcile::{Cache, Reconcile};
use crate::records::{self, ClusterRecord, Records};
use crate::secrets::Secrets;
use crate::sessions::{Sessions, Timing};
use crate::state::Coordinator;
use crate::store::{SqliteStore, Store};
use crate::systemd;
use crate::trials::TrialLog;
use crate::usage::UsageLog;
use crate::webhooks::undelivered::Undelivered;
use baton_engine::cycle::Versioned;
use baton_model::time::{Millis, UnixMs};
use baton_proto::identity::{ServerTls, incoming, server_tls};
use baton_proto::v1::agent_service_server::AgentServiceServer;
use baton_proto::v1::enrollment_server::EnrollmentServer;
use baton_proto::v1::gateway_service_server::GatewayServiceServer;
use baton_proto::v1::operator_service_server::OperatorServiceServer;
use std::fs::TryLockError;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;

/// Artifacts larger than this are refused unless configured otherwise.
const ARTIFACT_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// Calls that run at a shutdown have this long to end.
const DRAIN: Duration = Duration::from_secs(5);
/// A connection that does not answer pings for this long is closed.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How a coordinator is run.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Its folder, as `init` made it.
    pub dir: PathBuf,
    /// Where it listens; `None`: where `init` was told to.
    pub listen: Option<SocketAddr>,
    /// Where Prometheus asks for `/metrics`; nowhere where it is not given.
    pub metrics: Option<SocketAddr>,
    /// How often each side of an agent's session speaks.
    pub heartbeat: Millis,
    /// Largest artifact.
    pub artifact_bytes_max: u64,
    /// Events kept in the journal.
    pub events_kept: usize,
    /// For how long the certificates are valid that it gives.
    pub lifetimes: Lifetimes,
}

impl CoordinatorConfig {
    /// The defaults, for a folder.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            listen: None,
            metrics: None,
            heartbeat: Millis::secs(1),
            artifact_bytes_max: ARTIFACT_BYTES_DEFAULT,
            events_kept: events::KEPT_DEFAULT,
            lifetimes: Lifetimes::default(),
        }
    }
}

/// A coordinator that has its folder and its address, and does not serve yet.
pub struct Bound {
    coordinator: Arc<Coordinator>,
    reconcile: Reconcile,
    writer: events::Writer,
    listener: TcpListener,
    address: SocketAddr,
    tls: ServerTls,
    server_identity: baton_proto::identity::Identity,
    metrics: Option<SocketAddr>,
    /// Held as long as the coordinator lives.
    _lock: FileLock,
}

/// Runs a coordinator until `stop`, then ends it in order.
///
/// # Errors
/// When its folder is no cluster or is in use, its store cannot be used, or its address is taken.
pub async fn run(config: CoordinatorConfig, stop: CancellationToken) -> Result<(), CoordinatorError> {
    bind(config).await?.serve(stop).await
}

/// Takes the folder and the address, and reads the store.
///
/// # Errors
/// As [`run`].
pub async fn bind(config: CoordinatorConfig) -> Result<Bound, CoordinatorError> {
    let lock = lock(&config.dir)?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(store_path(&config.dir))?);
    let records = Records::new(Arc::clone(&store));
    let cluster: Versioned<ClusterRecord> = records
        .get(records::CLUSTER)
        .await?
        .ok_or_else(|| CoordinatorError::NoCluster { dir: config.dir.clone() })?;
    let authority = Arc::new(Authority::open(&config.dir, store, config.lifetimes)?);
    let server_identity = authority.server_identity(SystemTime::now())?;
    let tls = server_tls(&server_identity)?;
    let artifacts = Artifacts::open(config.dir.join("artifacts"), config.artifact_bytes_max)
        .map_err(|error| CoordinatorError::Artifacts(crate::api::status::with_sources(&error)))?;
    let opened = events::open(records.clone(), config.events_kept).await?;
    let (journal, writer) = (opened.journal, opened.writer);
    let secrets = Arc::new(Secrets::open(&config.dir, records.clone()).await?);
    let cache = Cache::read(&records).await?;
    let mark = records.get::<UnixMs>(records::CLOCK).await?.map_or(UnixMs(0), |read| read.value);
    let clock = Clock::start(mark.max(opened.latest_time).max(cache.latest_time()));
    // The engine decides by the same length; two of them would disagree about who is silent.
    let timing = Timing { heartbeat: config.heartbeat, silence: baton_engine::SILENT_AFTER };
    let sessions = Sessions::new(clock, timing);
    let stored = records.set(records::CLOCK, &clock.now()).await?;
    let gateways = Gateways::new(clock, timing, stored, cache.routes());
    let evidence = EvidenceLog::new(clock);
    let trials = TrialLog::open(&records).await?;
    let usage = UsageLog::new(clock);
    let (reconcile, view) = Reconcile::new(
        cache,
        records.clone(),
        Arc::clone(&sessions),
        Arc::clone(&gateways),
        Arc::clone(&evidence),
        Arc::clone(&trials),
        Arc::clone(&usage),
        Arc::clone(&journal),
        clock,
        opened.next_outbox,
        Provider::new(Arc::clone(&secrets), Arc::clone(&sessions)),
    );
    let wanted = config.listen.unwrap_or(cluster.value.listen);
    let listen_failed = |source| CoordinatorError::Listen { address: wanted, source };
    let listener = TcpListener::bind(wanted).await.map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;
    let counts = journal.counts();
    let coordinator = Arc::new(Coordinator {
        cluster: cluster.value.name,
        clock,
        records,
        journal,
        logs: LogBroker::new(Arc::clone(&sessions)),
        sessions,
        gateways,
        evidence,
        trials,
        usage,
        artifacts,
        authority,
        secrets,
        counts,
        undelivered: Undelivered::default(),
        view,
        stop: CancellationToken::new(),
    });
    let metrics = config.metrics;
    Ok(Bound {
        coordinator,
        reconcile,
        writer,
        listener,
        address,
        tls,
        server_identity,
        metrics,
        _lock: lock,
    })
}

/// Only one coordinator may run on a folder.
fn lock(dir: &Path) -> Result<FileLock, CoordinatorError> {
    if !store_path(dir).exists() {
        return Err(CoordinatorError::NoCluster { dir: dir.to_owned() });
    }
    let path = dir.join("lock");
    FileLock::take(&path).map_err(|error| match error {
        TryLockError::WouldBlock => CoordinatorError::Locked { dir: dir.to_owned() },
        TryLockError::Error(source) => CoordinatorError::File { action: "lock", path, source },
    })
}

impl Bound {
    /// Where it listens; the port is the real one where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then ends in order: answers, sessions, decisions, journal.
    ///
    /// # Errors
    /// When the server cannot go on.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), CoordinatorError> {
        let Self { coordinator, reconcile, writer, listener, address, tls, server_identity, metrics, _lock } =
            self;
        let served = CancellationToken::new();
        let undecided = CancellationToken::new();
        let decider = decide_on_a_thread(reconcile, served.clone(), undecided.clone())?;
        let journal_stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(journal_stop.clone()));
        let tasks = background::start(&coordinator, metrics, &served);
        let rotation = tokio::spawn(keep_server_certificate(
            Arc::clone(&coordinator.authority),
            tls.clone(),
            server_identity,
            |error| {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot renew the server's certificate; it is tried again"
                );
            },
        ));
        let (router, health) = router(&coordinator).await?;
        tracing::info!(%address, cluster = coordinator.cluster, "serving");
        let silence = stop.child_token();
        let told = tokio::spawn(systemd::keep(Arc::clone(&coordinator), address, undecided, silence.clone()));

        let result = serve_until(router, incoming(listener, tls), &health, &coordinator, &stop).await;

        silence.cancel();
        settle(told.await, "systemd");
        rotation.abort();
        served.cancel();
        for task in tasks {
            settle(task.await, "background");
        }
        settle(
            tokio::task::spawn_blocking(move || decider.join()).await.map(|joined| {
                if joined.is_err() {
                    tracing::error!("the deciding thread panicked");
                }
            }),
            "reconcile",
        );
        background::mark(&coordinator).await;
        background::save_trials(&coordinator).await;
        journal_stop.cancel();
        settle(writing.await, "journal");
        tracing::info!("stopped");
        result
    }
}

/// Serves until told to stop; calls that run then have [`DRAIN`] to end.
async fn serve_until(
    router: Router,
    connections: baton_proto::identity::Incoming,
    health: &HealthReporter,
    coordinator: &Coordinator,
    stop: &CancellationToken,
) -> Result<(), CoordinatorError> {
    let server = router.serve_with_incoming_shutdown(connections, stop.cancelled());
    tokio::pin!(server);
    let failed = |error: tonic::transport::Error| CoordinatorError::Serve { source: error.into() };
    tokio::select! {
        result = &mut server => return result.map_err(failed),
        () = stop.cancelled() => {}
    }
    // Told first: whoever watches the health turns away before its calls are cut.
    health.set_not_serving::<OperatorServiceServer<OperatorApi>>().await;
    health.set_not_serving::<AgentServiceServer<AgentApi>>().await;
    health.set_not_serving::<GatewayServiceServer<GatewayApi>>().await;
    coordinator.stop.cancel();
    coordinator.sessions.end_all();
    coordinator.gateways.end_all();
    match tokio::time::timeout(DRAIN, server).await {
        Ok(result) => result.map_err(failed),
        Err(_) => {
            tracing::warn!(seconds = DRAIN.as_secs(), "some calls did not end in time; they are cut");
            Ok(())
        }
    }
}

async fn router(coordinator: &Arc<Coordinator>) -> Result<(Router, HealthReporter), CoordinatorError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<OperatorServiceServer<OperatorApi>>().await;
    health.set_serving::<AgentServiceServer<AgentApi>>().await;
    health.set_serving::<GatewayServiceServer<GatewayApi>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(baton_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| CoordinatorError::Serve { source: error.into() })?;
    let operator = OperatorServiceServer::new(OperatorApi(Arc::clone(coordinator)));
    let agent = AgentServiceServer::new(AgentApi(Arc::clone(coordinator)));
    let gateway = GatewayServiceServer::new(GatewayApi(Arc::clone(coordinator)));
    let enrollment = EnrollmentServer::new(EnrollmentApi(Arc::clone(coordinator)));
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(
            operator
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            agent.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            gateway.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(enrollment.max_decoding_message_size(MESSAGE_BYTES_MAX));
    Ok((router, health))
}

/// Decisions over a large fleet take longer than sessions may wait, so they have a thread.
fn decide_on_a_thread(
    reconcile: Reconcile,
    stop: CancellationToken,
    ended: CancellationToken,
) -> Result<std::thread::JoinHandle<()>, CoordinatorError> {
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("reconcile".to_owned())
        .spawn(move || {
            // However it ends.
            let _ended = ended.drop_guard();
            reconcile.run_on_this_thread(&runtime, &stop);
        })
        .map_err(|source| CoordinatorError::Serve { source: source.into() })
}

fn settle<T>(ended: Result<T, tokio::task::JoinError>, part: &'static str) {
    if let Err(error) = ended {
        tracing::error!(part, %error, "a part of the coordinator failed");
    }
}
