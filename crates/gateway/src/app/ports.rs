//! Ports of TCP routes: opened and closed with tables. One that cannot be had is tried again until it can; meanwhile the
//! coordinator is told that its service is not served here, and counts on nothing that would come over it.

use super::{Gateway, locked};
use crate::control::Running;
use crate::crew::Order;
use crate::listen::{self, Place, Purpose};
use crate::table::Table;
use baton_model::id::ServiceName;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A port that cannot be had is tried again this often.
const AGAIN: Duration = Duration::from_secs(1);

impl Gateway {
    /// Services whose route is in force and cannot be served, each with why.
    pub(crate) fn unserved(&self) -> watch::Receiver<BTreeMap<ServiceName, String>> {
        self.unserved.subscribe()
    }

    /// Opens the ports that the table wants, and closes the others.
    pub(super) async fn open_tcp(&self, table: &Table) {
        let address = self.shared.config.tcp;
        let place = |port| Place { purpose: Purpose::Tcp, address: SocketAddr::new(address, port) };
        let open: Vec<Place> = self.places().into_iter().filter(|it| it.purpose == Purpose::Tcp).collect();
        for old in open.iter().filter(|it| !table.tcp().contains_key(&it.address.port())) {
            for worker in self.workers.iter() {
                worker.tell(Order::Ignore(*old)).await;
            }
            listen::forget(*old);
            locked(&self.listening).open.remove(old);
        }
        let mut unserved = BTreeMap::new();
        for (port, route) in table.tcp().iter().filter(|(port, _)| !open.contains(&place(**port))) {
            let place = place(*port);
            let opened = match self.own_listener(place.address) {
                // The kernel would share the port out among both.
                Some(own) => Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("the gateway itself listens on {own}"),
                )),
                None => self.listen(place).await,
            };
            if let Err(error) = opened {
                unserved.insert(route.name().clone(), format!("cannot listen on {}: {error}", place.address));
            }
        }
        self.unserved.send_if_modified(|before| {
            if *before == unserved {
                return false;
            }
            for (service, why) in unserved.iter().filter(|(service, why)| before.get(*service) != Some(*why))
            {
                tracing::error!(%service, why, "a route is not served; it is tried again");
            }
            for service in before.keys().filter(|service| !unserved.contains_key(*service)) {
                tracing::info!(%service, "a route that could not be served no longer waits for its port");
            }
            *before = unserved;
            true
        });
    }

    /// What the gateway itself listens on that this address would meet.
    fn own_listener(&self, wanted: SocketAddr) -> Option<SocketAddr> {
        let others = self.places().into_iter().filter(|it| it.purpose != Purpose::Tcp).map(|it| it.address);
        let meets = |own: &SocketAddr| {
            let same = own.ip() == wanted.ip() || own.ip().is_unspecified() || wanted.ip().is_unspecified();
            own.port() == wanted.port() && same
        };
        others.chain(self.metrics).find(meets)
    }

    async fn open_missing(&self) {
        if self.unserved.borrow().is_empty() {
            return;
        }
        let _turn = self.installing.lock().await;
        let table = Arc::clone(&self.shared.served.load());
        self.open_tcp(&table).await;
    }
}

/// Tries the ports that are missing again and again, for as long as the gateway runs.
pub(crate) async fn keep_open(running: Arc<Running>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
        if let Some(gateway) = &*running.read().await {
            gateway.open_missing().await;
        }
    }
}
