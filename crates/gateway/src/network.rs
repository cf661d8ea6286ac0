//! Networks, as `trusted_proxies` names them: `10.0.0.0/8`, or a single address.

use serde::{Deserialize, Deserializer};
use std::net::IpAddr;

/// All addresses that begin alike. An IPv4 address that came mapped into IPv6 is an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Without what is not in the prefix.
    begins: u128,
    prefix_bits: u32,
    is_v4: bool,
}

impl Network {
    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, all, is_v4) = bits_of(address.to_canonical());
        is_v4 == self.is_v4 && prefix(bits, all, self.prefix_bits) == self.begins
    }

    /// Parses `10.0.0.0/8`, `2001:db8::/32` or a single address; what is beyond the prefix does not count.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no network: write `10.0.0.0/8`, `2001:db8::/32` or a single address");
        let (address, length) = text.split_once('/').map_or((text, None), |(it, length)| (it, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (bits, all, is_v4) = bits_of(address);
        let prefix_bits = match length {
            None => all,
            Some(length) => length.parse().ok().filter(|length| *length <= all).ok_or_else(wrong)?,
        };
        Ok(Self { begins: prefix(bits, all, prefix_bits), prefix_bits, is_v4 })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An address as a number, of how many bits, and whether it is of IPv4.
fn bits_of(address: IpAddr) -> (u128, u32, bool) {
    match address {
        IpAddr::V4(v4) => (v4.to_bits().into(), 32, true),
        IpAddr::V6(v6) => (v6.to_bits(), 128, false),
    }
}

/// The first `length` of `all` bits.
fn prefix(bits: u128, all: u32, length: u32) -> u128 {
    bits.checked_shr(all - length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_addresses_and_no_other() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0", "9.255.255.255"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.6/31", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
        ] {
            let parsed = Network::parse(network).expect(network);
            assert!(parsed.contains(inside.parse().expect(inside)), "{network} has {inside}");
            assert!(!parsed.contains(outside.parse().expect(outside)), "{network} has not {outside}");
        }
        for wrong in
            ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "10.0.0.0/", "lan", "10.0.0.0/8/8"]
        {
            let error = Network::parse(wrong).expect_err(wrong);
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }
}
