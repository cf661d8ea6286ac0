//! A block of loopback addresses for one cluster: 127.77.N.0/24, so that several clusters run side by side.
//!
//! The whole of 127.0.0.0/8 is this host (RFC 1122, 3.2.1.3); Linux needs no set-up to use it.

use crate::fault::Fault;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Port of coordinators in local clusters.
const COORDINATOR_PORT: u16 = 7443;
/// Host part of the address that a cluster listens on only to say that the block is taken.
const CLAIM_HOST: u8 = 254;
/// Host part of the first node's address.
const FIRST_NODE_HOST: u8 = 11;
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
                Ok(block) => return Ok(block),
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

    const fn host(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 77, self.number, host))
    }
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
}
