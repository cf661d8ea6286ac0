//! The gateway's life: open or take over the sockets, start the workers, take tables in, hand over, drain. [`ports`] has
//! those of TCP routes, which come and go with tables.

mod ports;

pub(crate) use ports::keep_open;

use crate::access::AccessLog;
use crate::config::GatewayConfig;
use crate::crew::{Handle, Order};
use crate::descriptors::{self, DescriptorError};
use crate::evidence::prometheus;
use crate::listen::{self, CertificateError, Certificates, Inherited, Listener, Place, Purpose};
use crate::mirror;
use crate::table::{Served, Table, TableError};
use crate::worker::Shared;
use baton_model::id::ServiceName;
use baton_model::route::RouteTable;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It cannot listen where it should.
    #[error("cannot listen on {address}: is another program there already?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A certificate is no good.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The access log cannot be written.
    #[error("cannot write the access log {path}")]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What answers on the handover socket is no gateway.
    #[error("cannot take over from the gateway at {path}")]
    Handover {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It may not have as many open files as it needs.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// The system gives no thread.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// What was left when a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections of clients that were cut.
    pub cut: usize,
}

/// A gateway that serves.
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Arc<Vec<Handle>>,
    /// The thread that makes copies.
    copying: std::thread::JoinHandle<()>,
    listening: Arc<Mutex<Listening>>,
    /// Held while a table is taken in, so that two do not open and close ports at a time.
    installing: tokio::sync::Mutex<()>,
    /// Handed over at the end of the start; the old program goes on until then.
    old: Mutex<Option<listen::Old>>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
    /// Services whose TCP port could not be opened, each with why.
    unserved: watch::Sender<BTreeMap<ServiceName, String>>,
    metrics: Option<SocketAddr>,
    /// Dropped without a drain, the workers end, and with them all that they have.
    _ends: DropGuard,
}

/// The sockets by where they listen, and those that were taken over and are not yet asked for.
#[derive(Debug, Default)]
struct Listening {
    open: BTreeMap<Place, Vec<Listener>>,
    inherited: BTreeMap<Place, Vec<Listener>>,
}

impl Gateway {
    /// Opens what `config` names and serves by the table in `served`. Sockets of a gateway that offers them at
    /// `config.handover` are taken over; it goes on until [`Self::relieve`].
    ///
    /// # Errors
    /// [`GatewayError`] says what cannot be had.
    pub async fn start(mut config: GatewayConfig, served: Arc<Served>) -> Result<Self, GatewayError> {
        config.limits.connections = descriptors::make_room(config.limits.connections)?;
        let certificates = match config.certificates.as_slice() {
            [] => None,
            files => Some(Certificates::load(files)?),
        };
        let access = config.access_log.as_ref().map(|path| {
            AccessLog::open(path).map_err(|source| GatewayError::AccessLog { path: path.clone(), source })
        });
        let inherited = take_over(&config).await?;
        let cut = CancellationToken::new();
        let (copies, copying) = mirror::start(cut.clone()).map_err(GatewayError::Worker)?;
        let shared = Arc::new(Shared {
            served,
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            access: access.transpose()?,
            tls: certificates.as_ref().map(|it| listen::acceptor(Arc::clone(it))).transpose()?,
            leaving: CancellationToken::new(),
            relieved: CancellationToken::new(),
            copies,
            cut,
            config,
        });
        let workers: io::Result<Vec<Handle>> = (0..shared.config.worker_count())
            .map(|number| Handle::start(Arc::clone(&shared), number))
            .collect();
        let mut gateway = Self {
            workers: Arc::new(workers.map_err(GatewayError::Worker)?),
            copying,
            listening: Arc::default(),
            installing: tokio::sync::Mutex::default(),
            old: Mutex::new(None),
            tasks: Mutex::default(),
            unserved: watch::Sender::default(),
            metrics: None,
            _ends: shared.cut.clone().drop_guard(),
            shared,
        };
        gateway.adopt(inherited);
        gateway.listen_as_configured().await?;
        gateway.metrics = gateway.open_metrics()?;
        let table = gateway.shared.served.load().clone();
        gateway.open_tcp(&table).await;
        if let Some(certificates) = certificates {
            let files = gateway.shared.config.certificates.clone();
            gateway.spawn(listen::watch(certificates, files));
        }
        Ok(gateway)
    }

    /// Whether a gateway could begin with `config`, as far as can be told without beginning.
    ///
    /// # Errors
    /// A certificate that is no good.
    pub fn check(config: &GatewayConfig) -> Result<(), GatewayError> {
        Certificates::load(&config.certificates)?;
        Ok(())
    }

    /// Takes sockets over: those of the process that it follows, else those that were kept of one that died.
    fn adopt(&self, inherited: Option<Inherited>) {
        let kept = listen::kept();
        let (listeners, old) = match inherited {
            Some(Inherited { listeners, old }) => (listeners, Some(old)),
            None => (kept, None),
        };
        let mut listening = locked(&self.listening);
        for listener in listeners {
            listening.inherited.entry(listener.place).or_default().push(listener);
        }
        *locked(&self.old) = old;
    }

    async fn listen_as_configured(&self) -> Result<(), GatewayError> {
        let config = &self.shared.config;
        let http = config.http.iter().map(|address| (Purpose::Http, *address));
        let https = config.https.iter().map(|address| (Purpose::Https, *address));
        for (purpose, address) in http.chain(https) {
            self.listen(Place { purpose, address })
                .await
                .map_err(|source| GatewayError::Listen { address, source })?;
        }
        Ok(())
    }

    /// Opens the page for scrapers, where one is configured.
    fn open_metrics(&self) -> Result<Option<SocketAddr>, GatewayError> {
        let Some(address) = self.shared.config.metrics else { return Ok(None) };
        let open = || {
            let listener = tokio::net::TcpListener::from_std(listen::bind(address)?)?;
            Ok((listener.local_addr()?, listener))
        };
        let (at, listener) = open().map_err(|source| GatewayError::Listen { address, source })?;
        let served = Arc::clone(&self.shared.served);
        let page = move || prometheus::text(&served.load(), Instant::now());
        self.spawn(baton_metrics::port::serve(listener, page, self.shared.cut.clone()));
        Ok(Some(at))
    }

    /// Where scrapers are answered.
    #[must_use]
    pub const fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Listens at a place, with a socket for each worker.
    async fn listen(&self, place: Place) -> io::Result<()> {
        let mut shares = Vec::new();
        {
            let mut listening = locked(&self.listening);
            let inherited = listening.inherited.remove(&place).unwrap_or_default();
            let sockets = listen::open(place, self.workers.len(), inherited)?;
            for socket in &sockets {
                shares.push(socket.share()?);
            }
            let place = sockets.first().map_or(place, |it| it.place);
            listen::keep(&sockets);
            listening.open.insert(place, sockets);
        }
        // There may be more sockets than workers, if the program before had more of those.
        for (number, share) in shares.into_iter().enumerate() {
            self.workers[number % self.workers.len()].tell(Order::Listen(share)).await;
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        locked(&self.listening).open.keys().copied().collect()
    }

    /// Takes a table in: when this returns, every new request follows it, and its TCP ports are open, but those of the
    /// routes that [`Self::unserved`] names.
    ///
    /// # Errors
    /// The table is older than the one in force, or contradicts itself.
    pub async fn install(&self, table: &RouteTable) -> Result<Arc<Table>, TableError> {
        let _turn = self.installing.lock().await;
        let table = self.shared.served.install(table, Instant::now())?;
        self.open_tcp(&table).await;
        Ok(table)
    }

    /// It serves all that it should: a program whose sockets it took over may leave, and the next one may come.
    ///
    /// # Errors
    /// The program before cannot be told; it goes on, and so both serve.
    pub fn relieve(&self) -> io::Result<()> {
        self.close_unasked();
        let told = locked(&self.old).take().map_or(Ok(()), listen::Old::relieve);
        if let Some(path) = self.shared.config.handover.clone() {
            let (listening, relieved) = (Arc::clone(&self.listening), self.shared.relieved.clone());
            self.spawn(async move {
                let offered = listen::offer(&path, || shares(&locked(&listening))).await;
                match offered {
                    Ok(()) => relieved.cancel(),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "this gateway cannot be upgraded in place");
                    }
                }
            });
        }
        told
    }

    /// Closes what was taken over and is not asked for any more.
    fn close_unasked(&self) {
        let mut listening = locked(&self.listening);
        let unasked = std::mem::take(&mut listening.inherited);
        unasked.keys().for_each(|place| listen::forget(*place));
        if !unasked.is_empty() {
            // Another address may have the same port, and so the same name.
            listening.open.values().for_each(|sockets| listen::keep(sockets));
        }
    }

    /// It ends on purpose: from its drain on, connections are refused.
    pub fn keep_nothing(&self) {
        self.places().into_iter().for_each(listen::forget);
    }

    /// Completes when the next program has taken over: time to drain.
    pub async fn relieved(&self) {
        self.shared.relieved.cancelled().await;
    }

    /// Cancelled when the next program has taken over.
    #[must_use]
    pub fn when_relieved(&self) -> CancellationToken {
        self.shared.relieved.clone()
    }

    /// Accepts nothing more, tells clients to go, waits for them, and cuts what is left at the deadline.
    pub async fn drain(self) -> Drained {
        let Self { shared, workers, copying, listening, tasks, .. } = self;
        shared.leaving.cancel();
        drop(listening);
        locked(&tasks).clear();
        let all = u32::try_from(shared.config.limits.connections).unwrap_or(u32::MAX);
        let gone = shared.connections.acquire_many(all);
        let timeout = shared.config.drain.timeout.duration();
        let cut = match tokio::time::timeout(timeout, gone).await {
            Ok(_) => 0,
            Err(_) => shared.config.limits.connections - shared.connections.available_permits(),
        };
        if cut > 0 {
            tracing::warn!(cut, "connections were cut at the end of the drain");
        }
        shared.cut.cancel();
        if let Some(workers) = Arc::into_inner(workers) {
            let joined = tokio::task::spawn_blocking(move || {
                workers.into_iter().for_each(Handle::join);
                copying.join().is_ok()
            });
            if !joined.await.is_ok_and(|well| well) {
                tracing::error!("the threads could not be waited for");
            }
        }
        Drained { cut }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        locked(&self.tasks).push(AbortOnDropHandle::new(tokio::spawn(task)));
    }
}

async fn take_over(config: &GatewayConfig) -> Result<Option<Inherited>, GatewayError> {
    let Some(path) = config.handover.clone() else { return Ok(None) };
    let failed = |source| GatewayError::Handover { path: path.clone(), source };
    let from = path.clone();
    let taken = tokio::task::spawn_blocking(move || listen::take_over(&from)).await;
    taken.map_err(io::Error::other).map_err(failed)?.map_err(failed)
}

/// All sockets under further descriptors; one that cannot be had so is opened anew by the next program.
fn shares(listening: &Listening) -> Vec<Listener> {
    listening.open.values().flatten().filter_map(|it| it.share().ok()).collect()
}

/// A panic while one of these was held leaves it whole: each change is one call.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
