//! Guards broken one at a time: the simulation must find each within [`SEEDS_MAX`] seeds. What it does not find, it
//! does not guard.

use baton_tests::world::{Mutation, Options, run};

/// Within so many seeds each broken guard must be found.
const SEEDS_MAX: u64 = 2000;

/// The first seed that finds each, and the invariant that breaks. When a change of the code moves one, the test
/// searches for it anew and prints where it went.
const FOUND_BY: [(Mutation, u64, &str); 21] = [
    (Mutation::CompareAndSetSkipped, 397, "generation-grows"),
    (Mutation::SentBeforeCommit, 2, "acked-is-durable"),
    (Mutation::GenerationIgnored, 9, "generation-grows"),
    (Mutation::FloorOffByOne, 57, "capacity-floor"),
    (Mutation::SilenceIsHealth, 0, "gate-holds"),
    (Mutation::DrainSkipped, 4, "acked-drain"),
    (Mutation::PersistedLate, 127, "acked-drain"),
    (Mutation::RollbackStopsEarly, 14, "acked-is-durable"),
    (Mutation::SlotReused, 8, "generation-grows"),
    (Mutation::BatchIgnored, 4, "blast-radius"),
    (Mutation::ZonesIgnored, 15, "blast-radius"),
    (Mutation::VerifySkipped, 1, "verified-bytes"),
    (Mutation::IdentityUnproven, 434, "no-foreign-kill"),
    (Mutation::ToldBeforeDurable, 5, "acked-is-durable"),
    (Mutation::AcksIgnored, 39, "acked-drain"),
    (Mutation::InFlightIgnored, 5, "acked-drain"),
    (Mutation::LeaseCutShort, 60, "acked-drain"),
    (Mutation::ReleaseIgnored, 16, "acked-drain"),
    (Mutation::OldTableTaken, 36, "acked-drain"),
    (Mutation::UnservedIgnored, 219, "gate-holds"),
    (Mutation::EvidenceInvented, 56, "gate-holds"),
];

fn breaks(mutation: Option<Mutation>, seed: u64) -> Option<&'static str> {
    run(Options { seed, trace: false, mutation }).violation.map(|violation| violation.invariant)
}

fn finds(index: usize) {
    let (mutation, seed, invariant) = FOUND_BY[index];
    if breaks(Some(mutation), seed) != Some(invariant) {
        let found = (0..SEEDS_MAX).find_map(|seed| Some((seed, breaks(Some(mutation), seed)?)));
        let (seed, invariant) =
            found.unwrap_or_else(|| panic!("{mutation} is not found within {SEEDS_MAX} seeds"));
        println!("{mutation} is now found by seed {seed}: {invariant}");
    }
    assert_eq!(breaks(None, seed), None, "the same seed holds when nothing is broken");
}

macro_rules! found {
    ($($name:ident: $index:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            finds($index);
        })*
    };
}

found! {
    a_skipped_compare_and_set_is_found: 0,
    sending_before_the_commit_is_found: 1,
    an_ignored_generation_is_found: 2,
    a_floor_off_by_one_is_found: 3,
    silence_taken_for_health_is_found: 4,
    a_skipped_drain_is_found: 5,
    persisting_late_is_found: 6,
    a_rollback_that_stops_early_is_found: 7,
    a_reused_slot_is_found: 8,
    an_ignored_batch_is_found: 9,
    ignored_zones_are_found: 10,
    a_skipped_verification_is_found: 11,
    an_unproven_identity_is_found: 12,
    telling_before_it_is_durable_is_found: 13,
    ignored_acknowledgements_are_found: 14,
    ignored_requests_in_flight_are_found: 15,
    a_lease_cut_short_is_found: 16,
    stopping_before_the_release_is_found: 17,
    taking_an_older_table_is_found: 18,
    what_is_not_served_taken_for_served_is_found: 19,
    evidence_that_nobody_counted_is_found: 20,
}

#[test]
fn every_mutation_is_listed() {
    assert!(Mutation::ALL.iter().all(|mutation| FOUND_BY.iter().any(|(listed, _, _)| listed == mutation)));
}
