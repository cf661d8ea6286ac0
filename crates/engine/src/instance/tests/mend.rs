//! Files that changed on the node: mended, then started again.

use super::{SOCKET, UP, check};

#[test]
fn damaged_files_are_mended_as_often_as_they_are_found() {
    check(
        SOCKET,
        &format!(
            "{UP}
             damaged 1     -> mend 1 | starting 1
             mend-failed 1 -> | starting 1
             damaged 1     -> mend 1 | starting 1
             mended 1      -> restart 1 | starting 1
             mended 1      -> restart 1 | starting 1
             started 1     -> check 1 | starting 1
             mended 1      -> | starting 1
             ready 1       -> | ready 1
             damaged 1     -> mend 1 | starting 1
             found-good 1  -> restart 1 | starting 1
             damaged 9     -> | starting 1"
        ),
    );
}

#[test]
fn a_damaged_candidate_is_mended_and_goes_on() {
    check(
        SOCKET,
        &format!(
            "{UP}
             plan 2    -> stage 2 | ready 1, staging 2
             staged 2  -> start 2=2 beside 1 | ready 1, confirming 2
             damaged 2 -> mend 2 | ready 1, confirming 2
             mended 2  -> restart 2 | ready 1, confirming 2
             started 2 -> check 2 | ready 1, confirming 2
             ready 2   -> steer 2 from 1 | ready 1, confirming 2"
        ),
    );
}
