//! A block of loopback addresses for one cluster: 127.77.N.0/24, so that several clusters run side by side.
//!
//! The whole of 127.0.0.0/8 is this host (RFC 1122, 3.2.1.3); Linux needs no set-up to use it.

use crate::fault::Fault;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// `TCP_LISTEN` in the fourth column of proc_net_tcp(5).
const LISTENS: &str = "0A";

/// Port of coordinators in local clusters.
const COORDINATOR_PORT: u16 = 7443;
/// Host part of the address that a cluster listens on only to say that the block is taken.
const CLAIM_HOST: u8 = 254;
/// Host part of the first node's address.
const FIRST_NODE_HOST: u8 = 11;
/// Host part of the first gateway's address.
const FIRST_GATEWAY_HOST: u8 = 231;
/// Port of gateways in local clusters.
const GATEWAY_PORT: u16 = 8080;
/// Port of every role's metrics, on the address of the role.
const METRICS_PORT: u16 = 9464;
/// Gateways that fit in a block.
pub(crate) const GATEWAYS_MAX: u8 = 20;
/// Nodes that fit in a block.
pub(crate) const NODES_MAX: u8 = 200;

/// A claimed block; free again when this is dropped, however the process ends.
#[derive(Debug)]
pub(crate) struct AddressBlock {
    number: u8,
    _claim: TcpListener,
}

impl AddressBlock {
    /// Claims the first free block.
    ///
    /// # Errors
    /// When all are taken, or loopback addresses cannot be bound at all.
    pub(crate) fn take() -> Result<Self, Fault> {
        let mut last = None;
        for number in 0..=u8::MAX {
            match claim(number) {
                Ok(block) if listeners(number).is_empty() => return Ok(block),
                Ok(_) => last = Some(io::ErrorKind::AddrInUse.into()),
                Err(error) => last = Some(error),
            }
        }
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        Err(Fault::new(
            format!("no block of loopback addresses 127.77.N.0/24 is free: {why}"),
            "stop a cluster that is no longer needed",
        ))
    }

    /// Claims the block that a kept cluster has its addresses in.
    ///
    /// # Errors
    /// When another cluster has it now.
    pub(crate) fn retake(number: u8) -> Result<Self, Fault> {
        claim(number).map_err(|error| {
            Fault::new(
                format!("the addresses of this cluster, 127.77.{number}.0/24, are taken: {error}"),
                "stop the other cluster, or use another --dir",
            )
        })
    }

    /// Which block it is.
    pub(crate) const fn number(&self) -> u8 {
        self.number
    }

    /// Where the coordinator listens.
    pub(crate) const fn coordinator(&self) -> SocketAddr {
        SocketAddr::new(self.host(1), COORDINATOR_PORT)
    }

    /// The address of a node, counted from 0.
    pub(crate) const fn node(&self, index: u8) -> IpAddr {
        self.host(FIRST_NODE_HOST + index)
    }

    /// Where a gateway, counted from 0, listens for HTTP.
    pub(crate) const fn gateway(&self, index: u8) -> SocketAddr {
        SocketAddr::new(self.host(FIRST_GATEWAY_HOST + index), GATEWAY_PORT)
    }

    /// Where a role that has this address shows its metrics.
    pub(crate) const fn metrics(ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, METRICS_PORT)
    }

    const fn host(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 77, self.number, host))
    }
}

/// Hosts of a block on which somebody else listens: workloads of a cluster whose owner was killed, for one. Its own
/// claim is not among them. None where /proc cannot be read.
fn listeners(number: u8) -> Vec<Ipv4Addr> {
    let text = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let listening = text.lines().filter_map(listening_address);
    listening
        .filter(|ip| matches!(ip.octets(), [127, 77, n, host] if n == number && host != CLAIM_HOST))
        .collect()
}

/// The local address in a row of proc_net_tcp(5), if it is one that listens.
fn listening_address(row: &str) -> Option<Ipv4Addr> {
    let mut words = row.split_ascii_whitespace().skip(1);
    let (ip, _port) = words.next()?.split_once(':')?;
    // An address is printed as a word of the machine's byte order.
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    (words.nth(1)? == LISTENS).then_some(ip)
}

fn claim(number: u8) -> io::Result<AddressBlock> {
    let address = |host| SocketAddr::from(([127, 77, number, host], COORDINATOR_PORT));
    // A coordinator whose cluster's owner was killed holds its port though nobody claims the block.
    drop(TcpListener::bind(address(1))?);
    Ok(AddressBlock { number, _claim: TcpListener::bind(address(CLAIM_HOST))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_never_share_a_block() {
        let first = AddressBlock::take().unwrap();
        let second = AddressBlock::take().unwrap();
        assert_ne!(first.number(), second.number());
        assert!(AddressBlock::retake(first.number()).is_err());
        let number = first.number();
        drop(first);
        assert!(AddressBlock::retake(number).is_ok());
    }

    #[test]
    fn a_block_where_somebody_listens_is_not_taken() {
        let mut blocks = (0..=u8::MAX).rev();
        let number = blocks.find(|number| listeners(*number).is_empty()).unwrap();
        let workload = TcpListener::bind((Ipv4Addr::new(127, 77, number, 11), 0)).unwrap();
        assert_eq!(listeners(number), [Ipv4Addr::new(127, 77, number, 11)]);
        drop(workload);
        assert!(listeners(number).is_empty());
    }
}
