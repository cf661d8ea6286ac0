//! A service behind gateways: the run that was replaced serves until they have let go of it.

use super::{FIXED, Kind, Life, ROUTED, UP, check};

const SWAPPED: &str = "plan 2    -> stage 2 | ready 1, staging 2
                       staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
                       started 2 -> check 2 | ready 1, confirming 2
                       ready 2   -> steer 2 from 1 | ready 1, confirming 2
                       steered 2 -> | ready 2, draining-old 2";

#[test]
fn the_old_run_is_drained_when_the_gateways_have_let_go_of_it() {
    check(
        ROUTED,
        &format!(
            "{UP}
             {SWAPPED}
             +1 timer          -> | ready 2, draining-old 2
             plan-released 2 0 -> | ready 2, draining-old 2
             drained 2         -> | ready 2, draining-old 2
             +4 plan-released 2 1 -> drain 1 25s | ready 2, draining-old 2
             plan-released 2 1 -> | ready 2, draining-old 2
             drained 1         -> stop 1 | ready 2, draining-old 2
             stopped 1         -> forget 1 | ready 2"
        ),
    );
}

#[test]
fn it_is_waited_for_until_the_end_of_the_drain_and_no_longer() {
    check(
        ROUTED,
        &format!(
            "{UP}
             {SWAPPED}
             +29 timer -> | ready 2, draining-old 2
             +1 timer  -> drain 1 0s | ready 2, draining-old 2
             drained 1 -> stop 1 | ready 2, draining-old 2"
        ),
    );
}

#[test]
fn an_agent_that_was_away_goes_on_waiting() {
    check(
        ROUTED,
        &format!(
            "{UP}
             {SWAPPED}
             resumed 1=1 2=2   -> check 2 | ready 2, draining-old 2
             plan-released 2 1 -> drain 1 30s | ready 2, draining-old 2
             resumed 1=1 2=2   -> drain 1 30s, check 2 | ready 2, draining-old 2
             +30 timer         -> | ready 2, draining-old 2
             +5 timer          -> stop 1 | ready 2, draining-old 2"
        ),
    );
}

#[test]
fn a_run_that_ended_or_is_not_wanted_is_not_waited_for() {
    check(ROUTED, &format!("{UP}\n {SWAPPED}\n crashed 1 -> stop 1 | ready 2, draining-old 2"));
    check(ROUTED, &format!("{UP}\n {SWAPPED}\n plan none -> stop 2, stop 1 | draining 2, draining-old 2"));
}

#[test]
fn a_fixed_port_was_let_go_of_before_the_plan_came() {
    check(
        Kind { life: Life::Routed, ..FIXED },
        &format!(
            "{UP}
             plan 2   -> stage 2 | ready 1, staging 2
             staged 2 -> stop 1 | draining 1, stopping-old 2"
        ),
    );
}
