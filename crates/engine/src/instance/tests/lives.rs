//! Jobs, order and reloads, story by story.

use super::{Kind, Life, SOCKET, check};
use baton_model::spec::RestartMode;

const JOB: Kind = Kind { checks: false, restart: RestartMode::Never, life: Life::Job, ..SOCKET };
const AFTER: Kind = Kind { life: Life::After, ..SOCKET };
const RELOADS: Kind = Kind { life: Life::Reloads, ..SOCKET };

#[test]
fn a_job_is_ready_when_it_is_done_and_stays_so() {
    check(
        JOB,
        "plan 1     -> stage 1 | fetching 1
         staged 1   -> start 1=1 | starting 1
         started 1  -> | starting 1
         ended 1 0  -> stop 1 | ready 1
         stopped 1  -> forget 1 | ready 1
         plan 1     -> | ready 1
         resumed    -> | ready 1
         timer      -> | ready 1",
    );
}

#[test]
fn a_new_release_of_a_job_runs_beside_nothing_and_a_failed_one_leaves_the_old() {
    check(
        JOB,
        "plan 1     -> stage 1 | fetching 1
         staged 1   -> start 1=1 | starting 1
         started 1  -> | starting 1
         ended 1 0  -> stop 1 | ready 1
         stopped 1  -> forget 1 | ready 1
         plan 2     -> stage 2 | ready 1, staging 2
         staged 2   -> start 2=2 | ready 1, confirming 2
         started 2  -> | ready 1, confirming 2
         ended 2 3  -> stop 2 | ready 1, reverting 2
         stopped 2  -> forget 2 | ready 1, failed 2
         plan 2 1   -> stage 2 | ready 1, staging 2
         staged 2   -> start 3=2 | ready 1, confirming 2
         started 3  -> | ready 1, confirming 2
         resumed    -> forget 3, stage 2 | ready 1, staging 2
         staged 2   -> start 4=2 | ready 1, confirming 2
         started 4  -> | ready 1, confirming 2
         ended 4 0  -> stop 4 | ready 2
         stopped 4  -> forget 4 | ready 2",
    );
}

#[test]
fn a_job_that_fails_at_first_has_failed_at_once_and_can_be_tried_again() {
    check(
        JOB,
        "plan 1     -> stage 1 | fetching 1
         staged 1   -> start 1=1 | starting 1
         started 1  -> | starting 1
         ended 1 3  -> | failed 1, failed 1
         plan 1 1   -> stop 1, start 2=1 | starting 1
         started 2  -> | starting 1
         stopped 1  -> forget 1 | starting 1
         ended 2 0  -> stop 2 | ready 1",
    );
}

#[test]
fn the_first_start_waits_for_what_it_comes_after_and_a_restart_does_not() {
    check(
        AFTER,
        "plan 1        -> stage 1 | fetching 1
         staged 1      -> | staged 1
         unready-deps  -> | staged 1
         timer         -> | staged 1
         ready-deps    -> start 1=1 | starting 1
         started 1     -> check 1 | starting 1
         ready 1       -> | ready 1
         lost 1        -> forget 1, start 2=1 | starting 1
         started 2     -> check 2 | starting 1
         resumed       -> forget 2 | failed 1
         +1 timer      -> | failed 1
         +30 timer     -> stage 1 | fetching 1
         staged 1      -> | staged 1
         ready-deps    -> start 3=1 | starting 1",
    );
}

#[test]
fn a_reload_is_asked_once_of_what_is_ready_and_a_start_needs_none() {
    check(
        RELOADS,
        "plan 1            -> stage 1 | fetching 1
         staged 1          -> start 1=1 | starting 1
         plan-reload 1 1   -> | starting 1
         started 1         -> check 1 | starting 1
         ready 1           -> tell-ready 1 | ready 1
         plan-reload 1 1   -> | ready 1
         plan-reload 1 2   -> reload 1 #2 | ready 1
         plan-reload 1 3   -> | ready 1
         resumed 1=1       -> reload 1 #2, check 1, tell-ready 1 | ready 1
         reloaded 1 2      -> reload 1 #3 | ready 1
         reloaded 1 2      -> | ready 1
         reload-failed 1 3 -> | ready 1
         timer             -> | ready 1",
    );
}
