use super::*;
use baton_model::rollout::RolloutOutcome;
use serde_json::json;

fn rollout(outcome: RolloutOutcome) -> RolloutReport {
    let stage = |number: u32, share: &str| {
        json!({
            "number": number, "title": "", "state": "pending", "instances": {}, "started_at": null,
            "ended_at": null, "step": number, "weight": share.parse::<Weight>().unwrap(),
        })
    };
    let report = json!({
        "id": 3, "from": 1, "to": 2, "from_version": "1", "to_version": "2", "outcome": outcome, "reason": "",
        "started_at": 0, "ended_at": null, "stages": [stage(1, "10%"), stage(2, "100%")],
    });
    serde_json::from_value(report).unwrap()
}

#[test]
fn a_share_names_a_step_of_the_rollout_under_way() {
    let web: ServiceName = "web".parse().unwrap();
    let number = |share: &str, rollout: Option<&RolloutReport>| {
        let step: StepName = share.parse().unwrap();
        step.number(&web, rollout)
            .map_err(|fault| (fault.to_string(), crate::fault::report(&fault.into(), false)))
    };
    let (running, ended) = (rollout(RolloutOutcome::Running), rollout(RolloutOutcome::Succeeded));
    assert_eq!(number("100%", Some(&running)), Ok(2));
    let (what, exit) = number("30%", Some(&running)).unwrap_err();
    assert!(what.contains("gives the new release 30%"), "{what}");
    assert_eq!(exit, Exit::BadUsage, "as of an unknown number");
    for none in [None, Some(&ended)] {
        let (what, exit) = number("10%", none).unwrap_err();
        assert_eq!((what.as_str(), exit), ("no rollout of `web` is under way", Exit::Error));
    }
}

#[test]
fn a_route_that_leads_nowhere_yet_is_not_called_none() {
    let text = |route: &str| {
        let file = format!(
            "name = \"web\"\nartifact = \"web\"\nexec = [\"web\"]\n[ports.http]\nkind = \"dynamic\"\n{route}"
        );
        let release = json!({
            "number": 1, "version": "1", "created_at": 0, "created_by": "alice",
            "artifact": {
                "digest": "0".repeat(64), "size_bytes": 1, "format": { "kind": "tar" }, "unpacked_bytes": 1,
            },
            "spec": baton_model::file::parse(&file).unwrap().spec,
        });
        let status = json!({
            "name": "web", "instances": [], "releases": [release], "now": 0, "removed": false,
            "report": {
                "health": "changing", "stable": null, "wanted": 1, "ready": 0, "floor": 0, "rollout": null,
                "waiting": [],
            },
        });
        why_no_traffic(&serde_json::from_value(status).unwrap())
    };
    assert!(text("").contains("give its file a `[route]`"), "{}", text(""));
    let routed = text("[route]\nhosts = [\"web.example.com\"]\n");
    assert!(routed.contains("has a route and no instance"), "{routed}");
}
