//! What the machine must do, story by story.

use super::{FIXED, NEVER, ON_FAILURE, SOCKET, UNCHECKED, UP, check};

#[test]
fn a_first_release_is_fetched_started_and_checked() {
    check(
        SOCKET,
        "plan 1    -> stage 1 | fetching 1
         staged 1  -> start 1=1 | starting 1
         started 1 -> check 1 | starting 1
         ready 1   -> | ready 1
         plan 1    -> | ready 1
         unready 1 -> | starting 1
         ready 1   -> | ready 1",
    );
    check(
        UNCHECKED,
        "plan 1 -> stage 1 | fetching 1\n staged 1 -> start 1=1 | starting 1\n started 1 -> check 1 | ready 1",
    );
}

#[test]
fn a_first_release_never_gives_up_while_trying_may_help() {
    check(
        SOCKET,
        "plan 1            -> stage 1 | fetching 1
         stage-failed 1    -> | fetching 1
         timer             -> | fetching 1
         +1 timer          -> stage 1 | fetching 1
         stage-failed 1    -> | fetching 1
         +1 timer          -> | fetching 1
         +1 timer          -> stage 1 | fetching 1
         staged 1          -> start 1=1 | starting 1
         start-failed 1    -> forget 1 | failed 1
         +3 timer          -> | failed 1
         +1 timer          -> stage 1 | fetching 1
         staged 1          -> start 2=1 | starting 1
         start-failed 2    -> forget 2 | failed 1
         +7 timer          -> | failed 1
         +1 timer          -> stage 1 | fetching 1
         staged 1          -> start 3=1 | starting 1",
    );
}

#[test]
fn what_cannot_be_fetched_waits_for_another_plan() {
    check(
        SOCKET,
        "plan 1           -> stage 1 | fetching 1
         stage-failed! 1  -> | failed 1, failed 1
         +60 timer        -> | failed 1, failed 1
         plan 1           -> | failed 1, failed 1
         plan 1 1         -> stage 1 | fetching 1
         stage-failed! 1  -> | failed 1, failed 1
         plan 2           -> stage 2 | fetching 2
         staged 1         -> | fetching 2
         staged 2         -> start 1=2 | starting 2",
    );
}

#[test]
fn what_needs_somebody_to_act_is_told_at_once_and_tried_again() {
    check(
        SOCKET,
        "plan 1      -> stage 1 | fetching 1
         no-space 1  -> | fetching 1, failed 1
         +1 timer    -> stage 1 | fetching 1, failed 1
         no-space 1  -> | fetching 1, failed 1
         plan 1 1    -> stage 1 | fetching 1
         staged 1    -> start 1=1 | starting 1
         started 1   -> check 1 | starting 1
         ready 1     -> | ready 1
         plan 2      -> stage 2 | ready 1, staging 2
         no-space 2  -> | ready 1, failed 2
         +60 timer   -> | ready 1, failed 2",
    );
}

#[test]
fn ends_are_the_shims_to_restart() {
    check(
        SOCKET,
        "plan 1       -> stage 1 | fetching 1
         staged 1     -> start 1=1 | starting 1
         started 1    -> check 1 | starting 1
         ready 1      -> | ready 1
         crashed 1    -> | starting 1
         ready 1      -> | starting 1
         started 1    -> check 1 | starting 1
         crash-loop 1 -> mend 1 | failed 1
         found-good 1 -> | failed 1
         crash-loop 1 -> | failed 1
         plan 1 1     -> stop 1, start 2=1 | starting 1
         stopped 1    -> forget 1 | starting 1",
    );
    let up = "plan 1 -> stage 1 | fetching 1
              staged 1 -> start 1=1 | starting 1
              started 1 -> check 1 | starting 1";
    check(NEVER, &format!("{up}\n ended 1 0 -> | failed 1\n plan 1 1 -> stop 1, start 2=1 | starting 1"));
    check(ON_FAILURE, &format!("{up}\n ended 1 0 -> | stopped 1"));
    check(ON_FAILURE, &format!("{up}\n not-live 1 -> restart 1 | starting 1"));
}

#[test]
fn a_candidate_that_cannot_get_the_connections_is_given_up() {
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2         -> stage 2 | ready 1, staging 2
             staged 2       -> start 2=2 beside 1 | ready 1, confirming 2
             started 2      -> check 2 | ready 1, confirming 2
             ready 2        -> steer 2 from 1 | ready 1, confirming 2
             steer-failed 1 -> | ready 1, confirming 2
             steer-failed 2 -> steer 1 from 2, stop 2 | ready 1, reverting 2
             steered 1      -> | ready 1, reverting 2
             stopped 2      -> forget 2 | ready 1, failed 2"
        ),
    );
}

#[test]
fn a_swap_serves_from_the_old_release_until_the_new_one_is_ready() {
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2    -> stage 2 | ready 1, staging 2
             staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
             started 2 -> check 2 | ready 1, confirming 2
             crashed 2 -> | ready 1, confirming 2
             started 2 -> check 2 | ready 1, confirming 2
             ready 2   -> steer 2 from 1 | ready 1, confirming 2
             steered 1 -> | ready 1, confirming 2
             steered 2 -> drain 1 30s | ready 2, draining-old 2
             drained 1 -> stop 1 | ready 2, draining-old 2
             drained 1 -> | ready 2, draining-old 2
             stopped 1 -> forget 1 | ready 2"
        ),
    );
}

#[test]
fn a_candidate_that_fails_is_removed_and_not_tried_again() {
    let swap = format!(
        "{UP}
         plan 2    -> stage 2 | ready 1, staging 2
         staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
         started 2 -> check 2 | ready 1, confirming 2"
    );
    let after = "stopped 2 -> forget 2 | ready 1, failed 2
                 plan 2    -> | ready 1, failed 2
                 plan 2 1  -> stage 2 | ready 1, staging 2
                 plan 1 1  -> | ready 1";
    for fault in ["crash-loop 2", "ended 2 1", "+60 timer"] {
        check(SOCKET, &format!("{swap}\n {fault} -> stop 2 | ready 1, reverting 2\n {after}"));
    }
    check(SOCKET, &format!("{swap}\n start-failed 2 -> forget 2 | ready 1, failed 2"));
    check(SOCKET, &format!("{swap}\n lost 2 -> forget 2 | ready 1, failed 2"));
}

#[test]
fn a_swap_whose_release_cannot_be_fetched_fails() {
    let swap = format!("{UP}\n plan 2 -> stage 2 | ready 1, staging 2");
    check(SOCKET, &format!("{swap}\n stage-failed! 2 -> | ready 1, failed 2\n plan 1 -> | ready 1"));
    check(
        SOCKET,
        &format!(
            "{swap}
             stage-failed 2 -> | ready 1, staging 2
             +1 timer       -> stage 2 | ready 1, staging 2
             +59 timer      -> | ready 1, failed 2
             staged 2       -> | ready 1, failed 2"
        ),
    );
}

#[test]
fn a_fixed_port_is_freed_first_and_given_back() {
    let swap = format!(
        "{UP}
         plan 2    -> stage 2 | ready 1, staging 2
         staged 2  -> stop 1 | draining 1, stopping-old 2
         stopped 1 -> forget 1, start 2=2 | stopped 1, confirming 2
         started 2 -> check 2 | stopped 1, confirming 2"
    );
    check(FIXED, &format!("{swap}\n ready 2 -> | ready 2"));
    check(
        FIXED,
        &format!(
            "{swap}
             ended 2 1 -> stop 2 | staged 1, reverting 2
             stopped 2 -> forget 2, start 3=1 | starting 1, failed 2
             started 3 -> check 3 | starting 1, failed 2
             ready 3   -> | ready 1, failed 2"
        ),
    );
    check(
        FIXED,
        &format!(
            "{swap}
             plan 1    -> stop 2 | staged 1, reverting 2
             stopped 2 -> forget 2, start 3=1 | starting 1"
        ),
    );
}

#[test]
fn a_plan_that_changes_in_the_middle_never_makes_two_candidates() {
    check(
        SOCKET,
        &format!("{UP}\n plan 2 -> stage 2 | ready 1, staging 2\n plan 3 -> stage 3 | ready 1, staging 3"),
    );
    let confirming = format!(
        "{UP}
         plan 2    -> stage 2 | ready 1, staging 2
         staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
         started 2 -> check 2 | ready 1, confirming 2"
    );
    check(
        SOCKET,
        &format!("{confirming}\n plan 1 -> stop 2 | ready 1, reverting 2\n stopped 2 -> forget 2 | ready 1"),
    );
    check(
        SOCKET,
        &format!(
            "{confirming}
             plan 3    -> stop 2 | ready 1, reverting 2
             ready 2   -> | ready 1, reverting 2
             stopped 2 -> forget 2, stage 3 | ready 1, staging 3"
        ),
    );
    check(
        SOCKET,
        &format!(
            "{confirming}
             ready 2   -> steer 2 from 1 | ready 1, confirming 2
             plan 1    -> | ready 1, confirming 2
             steered 2 -> drain 1 30s | ready 2, draining-old 2
             drained 1 -> stop 1 | ready 2, draining-old 2
             stopped 1 -> forget 1, stage 1 | ready 2, staging 1"
        ),
    );
}

#[test]
fn a_removal_stops_everything_at_once() {
    check(SOCKET, &format!("{UP}\n plan none -> stop 1 | draining 1\n stopped 1 -> forget 1 | nothing"));
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2    -> stage 2 | ready 1, staging 2
             staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
             plan none -> stop 2, stop 1 | draining 2
             plan none -> | draining 2
             stopped 1 -> forget 1 | draining 2
             stopped 2 -> forget 2 | nothing"
        ),
    );
}

#[test]
fn a_drain_without_an_answer_ends() {
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2    -> stage 2 | ready 1, staging 2
             staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
             started 2 -> check 2 | ready 1, confirming 2
             ready 2   -> steer 2 from 1 | ready 1, confirming 2
             steered 2 -> drain 1 30s | ready 2, draining-old 2
             +34 timer -> | ready 2, draining-old 2
             +1 timer  -> stop 1 | ready 2, draining-old 2"
        ),
    );
}

#[test]
fn a_lost_shim_is_replaced_at_once_then_with_patience() {
    check(
        SOCKET,
        &format!(
            "{UP}
             lost 1    -> forget 1, start 2=1 | starting 1
             started 2 -> check 2 | starting 1
             lost 2    -> forget 2 | failed 1
             +1 timer  -> | failed 1
             +1 timer  -> stage 1 | fetching 1
             staged 1  -> start 3=1 | starting 1
             started 3 -> check 3 | starting 1
             ready 3   -> | ready 1
             lost 3    -> forget 3, start 4=1 | starting 1"
        ),
    );
}

#[test]
fn after_an_agent_restart_every_due_effect_is_said_again() {
    check(SOCKET, "plan 1 -> stage 1 | fetching 1\n resumed -> stage 1 | fetching 1");
    check(
        SOCKET,
        "plan 1 -> stage 1 | fetching 1\n staged 1 -> start 1=1 | starting 1\n resumed -> start 1=1 | starting 1",
    );
    check(
        SOCKET,
        &format!("{UP}\n resumed 1=1 -> check 1 | ready 1\n resumed 1=1 7=3 -> stop 7, check 1 | ready 1"),
    );
    check(
        SOCKET,
        &format!("{UP}\n resumed -> forget 1, start 2=1 | starting 1\n resumed -> start 2=1 | starting 1"),
    );
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2          -> stage 2 | ready 1, staging 2
             resumed 1=1     -> check 1, stage 2 | ready 1, staging 2
             staged 2        -> start 2=2 beside 1 | ready 1, confirming 2
             resumed 1=1     -> check 1, start 2=2 beside 1 | ready 1, confirming 2
             resumed 1=1 2=2 -> check 1, check 2 | ready 1, confirming 2
             ready 2         -> steer 2 from 1 | ready 1, confirming 2
             resumed 1=1 2=2 -> check 1, check 2, steer 2 from 1 | ready 1, confirming 2
             +5 steered 2    -> drain 1 30s | ready 2, draining-old 2
             +9 resumed 1=1 2=2 -> drain 1 21s, check 2 | ready 2, draining-old 2
             drained 1       -> stop 1 | ready 2, draining-old 2
             resumed 1=1 2=2 -> stop 1, check 2 | ready 2, draining-old 2
             resumed 2=2     -> forget 1, check 2 | ready 2"
        ),
    );
}

#[test]
fn a_deadline_survives_a_restart_as_it_was() {
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2              -> stage 2 | ready 1, staging 2
             staged 2            -> start 2=2 beside 1 | ready 1, confirming 2
             started 2           -> check 2 | ready 1, confirming 2
             +50 resumed 1=1 2=2 -> check 1, check 2 | ready 1, confirming 2
             +9 timer            -> | ready 1, confirming 2
             +1 timer            -> stop 2 | ready 1, reverting 2"
        ),
    );
}

#[test]
fn a_candidate_lost_alone_fails_and_a_host_reboot_says_nothing_about_it() {
    let confirming = format!(
        "{UP}
         plan 2    -> stage 2 | ready 1, staging 2
         staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
         started 2 -> check 2 | ready 1, confirming 2"
    );
    check(SOCKET, &format!("{confirming}\n resumed 1=1 -> check 1, forget 2 | ready 1, failed 2"));
    check(
        SOCKET,
        &format!("{confirming}\n resumed -> forget 1, forget 2, start 3=1, stage 2 | starting 1, staging 2"),
    );
}
