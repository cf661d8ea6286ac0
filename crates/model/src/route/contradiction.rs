//! What makes a route table contradict itself. A gateway refuses such a table whole and keeps the one before; a
//! coordinator asks the same questions before a service is accepted, so that it never comes so far.
//!
//! A release without upstreams is no contradiction, in the split or in a rule: its last instance may just have died, and
//! a gateway that refused the table then would go on sending requests to the dead one.

use super::{
    Balance, Between, Condition, Entry, Key, Route, RouteTable, Rule, UpstreamId, Weight, is_host, is_path,
};
use crate::id::ServiceName;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A service has at most so many rules: each request may ask all of them.
pub const RULES_MAX: usize = 256;
/// A rule has at most so many conditions.
pub const CONDITIONS_MAX: usize = 32;
/// A route names at most so many hosts.
pub const HOSTS_MAX: usize = 256;

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Two services want the same requests.
    #[error("{one} and {other} both take {what}: change the `[route]` of one of them")]
    Overlap {
        /// One service.
        one: ServiceName,
        /// The other.
        other: ServiceName,
        /// Host and path, or the port.
        what: String,
    },
    /// One service's route is wrong in itself.
    #[error("{service}: {what}")]
    Route {
        /// The service.
        service: ServiceName,
        /// What is wrong, and what is accepted.
        what: String,
    },
}

impl RouteTable {
    /// Checks all routes, each in itself and against the others.
    ///
    /// # Errors
    /// The first [`Contradiction`], in the order of the services' names.
    pub fn check(&self) -> Result<(), Contradiction> {
        let mut taken: BTreeMap<String, &ServiceName> = BTreeMap::new();
        for (service, route) in &self.routes {
            route.check(service)?;
            for what in claims(&route.spec.entry) {
                if let Some(one) = taken.insert(what.clone(), service) {
                    let (one, other) = (one.clone(), service.clone());
                    return Err(Contradiction::Overlap { one, other, what });
                }
            }
        }
        Ok(())
    }
}

/// What an entry takes for itself: each host with the path, or the port. Two entries overlap when they share one.
#[must_use]
pub fn claims(entry: &Entry) -> Vec<String> {
    match entry {
        Entry::Tcp { listen } => vec![format!("TCP port {listen}")],
        Entry::Http { hosts, path, .. } => {
            let path = match path.trim_end_matches('/') {
                "" => "/",
                path => path,
            };
            let mut names: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
            names.sort();
            names.dedup();
            if names.is_empty() {
                names.push("every other host".to_owned());
            }
            names.into_iter().map(|name| format!("{name} {path}")).collect()
        }
    }
}

impl Route {
    /// Checks one route in itself.
    ///
    /// # Errors
    /// The first [`Contradiction`].
    pub fn check(&self, service: &ServiceName) -> Result<(), Contradiction> {
        let checks = [
            check_entry(&self.spec.entry),
            self.check_spec(),
            self.check_split(),
            self.check_rules(),
            self.check_mirror(),
            self.check_trial(),
            self.check_upstreams(service),
        ];
        let wrong = checks.into_iter().find_map(Result::err);
        wrong.map_or(Ok(()), |what| Err(Contradiction::Route { service: service.clone(), what }))
    }

    fn is_tcp(&self) -> bool {
        matches!(self.spec.entry, Entry::Tcp { .. })
    }

    fn check_spec(&self) -> Result<(), String> {
        let spec = &self.spec;
        self.check_key(&spec.split_by, "the split's key")?;
        if let Balance::Hash(key) = &spec.balance {
            self.check_key(key, "the key of the balance")?;
        }
        if let Some(name) = &spec.sticky_cookie {
            self.check_key(&Key::Cookie(name.clone()), "the sticky cookie")?;
        }
        check_share(spec.ejection.share_max, "ejection's largest share")?;
        check_share(spec.zone_spill_below, "the share below which a zone spills over")?;
        if spec.limits.in_flight_max == 0 {
            return Err(
                "0 requests in flight to an instance would let none through: allow at least 1".to_owned()
            );
        }
        let Some(check) = &spec.check else { return Ok(()) };
        if !check.path.starts_with('/') || !check.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "the check's path `{}` must begin with `/` and be printable ASCII",
                check.path
            ));
        }
        if check.interval.0 == 0 || check.timeout.0 == 0 || check.rise == 0 || check.fall == 0 {
            return Err("the check's interval, timeout, rise and fall must be more than 0".to_owned());
        }
        Ok(())
    }

    /// Of a TCP connection only the address is known.
    fn check_key(&self, key: &Key, what: &str) -> Result<(), String> {
        let (kind, name, valid): (_, _, fn(u8) -> bool) = match key {
            Key::Address => return Ok(()),
            Key::Header(name) => ("header", name, |byte| is_token(byte) && !byte.is_ascii_uppercase()),
            Key::Cookie(name) => ("cookie", name, is_token),
            Key::Query(name) => ("parameter", name, |byte| byte >= b' '),
        };
        if self.is_tcp() {
            return Err(format!("{what} is the {kind} `{name}`, but a TCP connection has only an address"));
        }
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(format!(
                "{what}: `{name}` is not a valid name of a {kind}; headers are in lower case"
            ));
        }
        Ok(())
    }

    fn check_split(&self) -> Result<(), String> {
        let weights = &self.split.weights;
        let sum: u32 = weights.values().map(|weight| u32::from(weight.0)).sum();
        if weights.is_empty() || sum == u32::from(Weight::ALL.0) {
            return Ok(());
        }
        let shares: Vec<String> =
            weights.iter().map(|(release, weight)| format!("release {release} {weight}")).collect();
        Err(format!(
            "the weights add up to {}.{:02}%, not to 100%: {}",
            sum / 100,
            sum % 100,
            shares.join(", ")
        ))
    }

    fn check_rules(&self) -> Result<(), String> {
        if self.rules.len() > RULES_MAX {
            return Err(format!("{} rules; at most {RULES_MAX} are taken", self.rules.len()));
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let number = at + 1;
            if rule.conditions.is_empty() {
                return Err(format!(
                    "rule {number} has no condition and would take every request: use a weight of 100%"
                ));
            }
            if rule.conditions.len() > CONDITIONS_MAX {
                return Err(format!(
                    "rule {number} has {} conditions; at most {CONDITIONS_MAX} are taken",
                    rule.conditions.len()
                ));
            }
            if let Some(earlier) =
                self.rules[..at].iter().position(|it| it.conditions == rule.conditions && it.to != rule.to)
            {
                return Err(format!(
                    "rule {number} sends to release {} what rule {} sends to release {}: take one of them out",
                    rule.to,
                    earlier + 1,
                    self.rules[earlier].to
                ));
            }
            self.check_conditions(number, rule)?;
        }
        Ok(())
    }

    fn check_conditions(&self, number: usize, rule: &Rule) -> Result<(), String> {
        for condition in &rule.conditions {
            let only_http = |what: &str| {
                if self.is_tcp() {
                    Err(format!("rule {number} asks for a {what}, but a TCP connection has none"))
                } else {
                    Ok(())
                }
            };
            match condition {
                Condition::Is { key, .. } => self.check_key(key, &format!("the key of rule {number}"))?,
                Condition::Path { prefix } => {
                    only_http("path")?;
                    check_path(prefix)?;
                }
                Condition::Host { name } => {
                    only_http("host")?;
                    check_host(name)?;
                }
                Condition::Share { key, share, .. } => {
                    self.check_key(key, &format!("the key of rule {number}"))?;
                    check_share(*share, &format!("the share of rule {number}"))?;
                }
            }
        }
        Ok(())
    }

    fn check_mirror(&self) -> Result<(), String> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        if self.is_tcp() {
            return Err("a TCP connection cannot be mirrored: take the mirror out".to_owned());
        }
        check_share(mirror.share, "the mirror's share")
    }

    fn check_trial(&self) -> Result<(), String> {
        let Some(trial) = &self.trial else { return Ok(()) };
        if trial.control == trial.treatment {
            return Err(format!("release {} cannot be compared with itself", trial.control));
        }
        match &trial.between {
            Between::Clients { key, share, .. } => {
                self.check_key(key, "the key of the comparison")?;
                check_share(*share, "the share of the comparison")
            }
            Between::Copies => Ok(()),
        }
    }

    fn check_upstreams(&self, service: &ServiceName) -> Result<(), String> {
        let foreign = |id: &&UpstreamId| id.instance.service != *service;
        if let Some(id) = self.upstreams.keys().find(foreign) {
            return Err(format!("{id} is an instance of another service"));
        }
        let unreachable = |address: SocketAddr| address.port() == 0 || address.ip().is_unspecified();
        match self.upstreams.iter().find(|(_, upstream)| unreachable(upstream.address)) {
            Some((id, upstream)) => {
                Err(format!("{id} cannot be reached at {}: it needs an address and a port", upstream.address))
            }
            None => Ok(()),
        }
    }
}

fn check_entry(entry: &Entry) -> Result<(), String> {
    match entry {
        Entry::Tcp { listen: 0 } => Err("port 0 cannot be listened on: name one from 1 to 65535".to_owned()),
        Entry::Tcp { .. } => Ok(()),
        Entry::Http { hosts, path, .. } => {
            if hosts.len() > HOSTS_MAX {
                return Err(format!("{} hosts; at most {HOSTS_MAX} are taken", hosts.len()));
            }
            hosts.iter().try_for_each(|host| check_host(host.strip_prefix("*.").unwrap_or(host)))?;
            check_path(path)
        }
    }
}

fn check_path(path: &str) -> Result<(), String> {
    if is_path(path) {
        return Ok(());
    }
    Err(format!("the path `{path}` must begin with `/` and have no blank, `?`, `#`, empty or dot segment"))
}

fn check_host(name: &str) -> Result<(), String> {
    if is_host(name) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not a host: write a name in lower case without a port: `www.example.org`, `*.example.org`"
    ))
}

fn check_share(share: Weight, what: &str) -> Result<(), String> {
    if share <= Weight::ALL {
        return Ok(());
    }
    Err(format!("{what} is {share}, more than everything"))
}

/// `token` of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
