//! Which artifacts stay on the node: the current release of each service, two before it, and whatever is in use.

use super::TreeKey;
use baton_model::id::ServiceName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Releases kept per service: the current one and two to go back to without fetching.
pub(crate) const RELEASES_KEPT: usize = 3;

/// What each service has used here, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uses {
    services: BTreeMap<ServiceName, Vec<TreeKey>>,
}

impl Uses {
    /// A service uses this artifact now. Returns whether that is news.
    pub(crate) fn used(&mut self, service: &ServiceName, key: TreeKey) -> bool {
        let keys = self.services.entry(service.clone()).or_default();
        if keys.first() == Some(&key) {
            return false;
        }
        keys.retain(|other| *other != key);
        keys.insert(0, key);
        keys.truncate(RELEASES_KEPT);
        true
    }

    /// Only these services are left on the node. Returns whether that is news.
    pub(crate) fn keep_services(&mut self, services: &BTreeSet<ServiceName>) -> bool {
        let before = self.services.len();
        self.services.retain(|service, _| services.contains(service));
        self.services.len() != before
    }

    /// Whether the artifact is to stay.
    pub(crate) fn keeps(&self, key: &TreeKey, in_use: &BTreeSet<TreeKey>) -> bool {
        in_use.contains(key) || self.services.values().any(|keys| keys.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::id::Digest;

    #[test]
    fn three_releases_of_each_service_stay_and_those_in_use() {
        let [web, api]: [ServiceName; 2] = ["web".parse().unwrap(), "api".parse().unwrap()];
        let key = |n: u8| TreeKey(Digest([n; 32]));
        let mut uses = Uses::default();
        for n in 1..=4 {
            assert!(uses.used(&web, key(n)));
        }
        assert!(uses.used(&web, key(3)), "going back is a use too");
        assert!(!uses.used(&web, key(3)));
        assert!(uses.used(&api, key(9)));
        let kept = |uses: &Uses, in_use: &[u8]| -> Vec<u8> {
            let in_use = in_use.iter().map(|n| key(*n)).collect();
            (1..=9).filter(|n| uses.keeps(&key(*n), &in_use)).collect()
        };
        assert_eq!(kept(&uses, &[]), [2, 3, 4, 9]);
        assert_eq!(kept(&uses, &[1]), [1, 2, 3, 4, 9]);
        assert!(uses.keep_services(&[api].into()));
        assert_eq!(kept(&uses, &[]), [9]);
    }
}
