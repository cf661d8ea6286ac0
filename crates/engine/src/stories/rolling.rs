//! Rolling releases, good and bad.

use super::three;
use crate::fleet::spec;
use baton_model::report::Health;
use baton_model::rollout::RolloutOutcome;
use baton_model::time::Millis;

#[test]
fn a_first_release_is_placed_on_every_node() {
    let fleet = three();
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
    let web = fleet.web().unwrap();
    assert_eq!((web.health, web.wanted, web.ready, web.floor), (Health::Healthy, 3, 3, 2));
    assert!(web.waiting.is_empty(), "{:?}", web.waiting);
}

#[test]
fn a_good_release_goes_out_batch_by_batch() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).until(RolloutOutcome::Succeeded, Millis::secs(30));
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2");
    let kinds: Vec<&str> = fleet.events.iter().map(|(_, event)| event.kind).collect();
    let stage = ["stage-started", "stage-done"];
    let expect: Vec<&str> =
        [&["rollout-started"][..], &stage, &stage, &stage, &["rollout-succeeded"]].concat();
    assert_eq!(kinds, expect, "{}", fleet.journal());
}

#[test]
fn a_bad_release_is_rolled_back_after_one_instance() {
    let mut fleet = three();
    fleet.bad(2).deploy(spec("web", 3)).until(RolloutOutcome::RolledBack, Millis::secs(30));
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
    assert_eq!((fleet.count("instance-failed"), fleet.count("rolled-back")), (1, 1), "{}", fleet.journal());
    assert_eq!(fleet.progress[&crate::fleet::service_name("web")].value.stable.unwrap().0, 1);
}
