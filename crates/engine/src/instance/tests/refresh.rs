//! Changes of release that need no new process, and peers that move.

use super::{CONFIGURED, Millis, SOCKET, check, event, instance};
use crate::instance::{Event, Instance};
use baton_model::time::BootMs;

/// Release 1 serves as run 1.
const SERVING: &str = "plan 1    -> stage 1 | fetching 1
         staged 1  -> start 1=1 | starting 1
         started 1 -> check 1 | starting 1
         ready 1   -> | ready 1
";

fn after_serving(story: &str) {
    check(CONFIGURED, &format!("{SERVING}{story}"));
}

#[test]
fn files_alone_are_written_and_told_and_the_run_stays() {
    after_serving(
        "plan 2      -> stage 2 | ready 1, staging 2
         staged 2    -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         refreshed 1 -> | ready 1, refreshing 2
         +4 timer    -> check 1 | ready 2
         plan 1      -> stage 1 | ready 2, staging 1
         staged 1    -> refresh 1=1 SIGHUP | ready 2, refreshing 1
         refreshed 1 -> | ready 2, refreshing 1
         +4 timer    -> check 1 | ready 1",
    );
}

#[test]
fn one_file_that_asks_for_a_restart_is_a_swap() {
    after_serving(
        "plan 5    -> stage 5 | ready 1, staging 5
         staged 5  -> start 2=5 beside 1 | ready 1, confirming 5",
    );
}

#[test]
fn a_crash_while_files_are_written_takes_nothing_away() {
    after_serving(
        "plan 2       -> stage 2 | ready 1, staging 2
         staged 2     -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         crashed 1    -> | starting 1, refreshing 2
         started 1    -> check 1 | starting 1, refreshing 2
         refreshed 1  -> | starting 1, refreshing 2
         +4 timer     -> | starting 1, refreshing 2
         ready 1      -> check 1 | ready 2",
    );
}

#[test]
fn what_is_not_well_gets_a_new_process() {
    let swapped = |end: &str, state: &str| {
        after_serving(&format!(
            "plan 2   -> stage 2 | ready 1, staging 2
             {end}    -> | {state} 1, staging 2
             staged 2 -> start 2=2 beside 1 | {state} 1, confirming 2"
        ));
    };
    swapped("ended 1 1", "failed");
    swapped("crashed 1", "starting");
    swapped("unready 1", "starting");
}

#[test]
fn a_crash_loop_is_over_once_it_has_held() {
    let looping = "plan 2       -> stage 2 | ready 1, staging 2
         crash-loop 1 -> mend 1 | failed 1, staging 2
         started 1    -> check 1 | starting 1, staging 2
         ready 1      -> | ready 1, staging 2";
    after_serving(&format!("{looping}\nstaged 2 -> start 2=2 beside 1 | ready 1, confirming 2"));
    check(
        CONFIGURED,
        &format!(
            "{SERVING}crash-loop 1 -> mend 1 | failed 1
             started 1    -> check 1 | starting 1
             ready 1      -> | ready 1
             +61 timer    -> | ready 1
             plan 2       -> stage 2 | ready 1, staging 2
             staged 2     -> refresh 1=2 SIGHUP | ready 1, refreshing 2"
        ),
    );
}

#[test]
fn the_end_of_a_crash_loop_is_told_when_it_comes() {
    let mut instance = instance();
    for said in ["plan 1", "staged 1", "started 1", "crash-loop 1", "started 1", "ready 1"] {
        let _ = instance.step(event(SOCKET, said), BootMs(1_000));
    }
    let loops = |instance: &Instance, now| instance.observe(BootMs(now)).expect("it is there").0.crash_loop;
    assert!(loops(&instance, 60_999));
    assert_eq!(instance.wake_at(), Some(BootMs(61_000)), "it is over after `restart.reset_after`");
    let _ = instance.step(Event::Timer, BootMs(61_000));
    assert!(!loops(&instance, 61_000));
    assert_eq!(instance.wake_at(), None);
}

#[test]
fn a_lost_shim_begins_the_change_again() {
    after_serving(
        "plan 2    -> stage 2 | ready 1, staging 2
         staged 2  -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         lost 1    -> forget 1, start 2=1, stage 2 | starting 1, staging 2
         refreshed 1 -> | starting 1, staging 2",
    );
}

#[test]
fn what_an_earlier_agent_may_have_written_is_written_back() {
    for (told, stands) in [("", "refreshing 2"), ("refreshed 1 -> | ready 1, refreshing 2\n", "refreshing 2")]
    {
        after_serving(&format!(
            "plan 2           -> stage 2 | ready 1, staging 2
             staged 2         -> refresh 1=2 SIGHUP | ready 1, refreshing 2
             {told}resumed 1=1 -> check 1, refresh 1=2 SIGHUP | ready 1, {stands}
             refresh-failed 1 -> refresh 1=1 SIGHUP | ready 1, failed 2
             refreshed 1      -> | ready 1, failed 2"
        ));
    }
}

#[test]
fn what_cannot_be_written_fails_and_leaves_the_release_before() {
    after_serving(
        "plan 2           -> stage 2 | ready 1, staging 2
         staged 2         -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         refresh-failed 1 -> | ready 1, failed 2
         plan 2           -> | ready 1, failed 2
         plan 2 1         -> stage 2 | ready 1, staging 2",
    );
}

#[test]
fn what_does_not_stand_gets_the_files_before_back() {
    let told = "plan 2      -> stage 2 | ready 1, staging 2
         staged 2    -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         refreshed 1 -> | ready 1, refreshing 2";
    after_serving(&format!(
        "{told}
         unready 1   -> | starting 1, refreshing 2
         +59 timer   -> | starting 1, refreshing 2
         +1 timer    -> refresh 1=1 SIGHUP | starting 1, failed 2
         refreshed 1 -> | starting 1, failed 2
         ready 1     -> | ready 1, failed 2
         plan 1      -> | ready 1"
    ));
    after_serving(&format!(
        "{told}
         crash-loop 1 -> mend 1, refresh 1=1 SIGHUP | failed 1, failed 2
         refreshed 1  -> | failed 1, failed 2"
    ));
}

#[test]
fn from_the_writing_on_there_is_no_way_back_but_another_change() {
    after_serving(
        "plan 2      -> stage 2 | ready 1, staging 2
         staged 2    -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         plan 1      -> | ready 1, refreshing 2
         refreshed 1 -> refresh 1=1 SIGHUP | ready 1
         refreshed 1 -> | ready 1",
    );
    after_serving(
        "plan 2      -> stage 2 | ready 1, staging 2
         plan 1      -> | ready 1
         staged 2    -> | ready 1",
    );
}

#[test]
fn an_agent_that_was_away_writes_and_tells_again() {
    after_serving(
        "plan 2      -> stage 2 | ready 1, staging 2
         staged 2    -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         resumed 1=1 -> check 1, refresh 1=2 SIGHUP | ready 1, refreshing 2
         refreshed 1 -> | ready 1, refreshing 2
         +4 timer    -> check 1 | ready 2
         resumed 1=1 -> check 1 | ready 2",
    );
    after_serving(
        "rerendered 1 -> refresh 1=1 SIGUSR1 | ready 1
         resumed 1=1  -> check 1, refresh 1=1 SIGUSR1 | ready 1
         refreshed 1  -> | ready 1
         resumed 1=1  -> check 1 | ready 1",
    );
}

#[test]
fn peers_that_move_while_a_release_changes_are_written_with_it() {
    after_serving(
        "plan 2       -> stage 2 | ready 1, staging 2
         staged 2     -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         rerendered 1 -> | ready 1, refreshing 2
         refreshed 1  -> | ready 1, refreshing 2
         +4 timer     -> check 1 | ready 2
         rerendered 7 -> | ready 2",
    );
    // One at a time, in this order: an answer must be about what was said last.
    after_serving(
        "rerendered 1 -> refresh 1=1 SIGUSR1 | ready 1
         rerendered 1 -> | ready 1
         plan 2       -> stage 2 | ready 1, staging 2
         staged 2     -> | ready 1, refreshing 2
         refreshed 1  -> refresh 1=2 SIGHUP | ready 1, refreshing 2
         refreshed 1  -> | ready 1, refreshing 2
         +4 timer     -> check 1 | ready 2",
    );
}

#[test]
fn what_waited_for_a_secret_goes_on_when_it_comes() {
    check(
        CONFIGURED,
        "plan 1         -> stage 1 | fetching 1
         stage-failed 1 -> | fetching 1
         provisioned    -> stage 1 | fetching 1
         staged 1       -> start 1=1 | starting 1
         started 1      -> check 1 | starting 1
         ready 1        -> | ready 1
         plan 2         -> stage 2 | ready 1, staging 2
         stage-failed 2 -> | ready 1, staging 2
         provisioned    -> stage 2 | ready 1, staging 2",
    );
}

#[test]
fn readiness_begins_anew_with_the_release() {
    let mut instance = instance();
    let story = ["plan 1", "staged 1", "started 1", "ready 1", "plan 2", "staged 2", "refreshed 1", "timer"];
    for (at, line) in [0, 1, 2, 3, 4, 5, 6, 10].into_iter().zip(story) {
        instance.step(event(CONFIGURED, line), BootMs(1000 * at));
    }
    let (_, ready_for) = instance.observe(BootMs(10_500)).expect("it is reported");
    assert_eq!(ready_for, Some(Millis(4500)));
}
