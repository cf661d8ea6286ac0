//! Deploys against a real coordinator, over mutual TLS on loopback.

mod peer;

use baton_proto::v1::{self, RolloutAction, RolloutOutcome};
use peer::*;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_reaches_the_nodes_and_succeeds_when_they_are_ready() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let agents = [cluster.node("n1").await, cluster.node("n2").await]
        .map(|node| FakeAgent::start(cluster.address, node));

    let first = deploy(&mut operator, "1.0", b"one").await;
    assert!(!first.unchanged);
    assert_eq!(ended(&mut operator, first.rollout).await.outcome(), RolloutOutcome::Succeeded);
    let second = deploy(&mut operator, "2.0", b"two").await;
    let report = ended(&mut operator, second.rollout).await;
    assert_eq!(report.outcome(), RolloutOutcome::Succeeded);
    assert_eq!((report.from_version.as_deref(), report.to_version.as_str()), (Some("1.0"), "2.0"));

    let status = operator.get_service(web()).await.unwrap().into_inner();
    assert_eq!(status.instances.len(), 2);
    for instance in &status.instances {
        assert_eq!(instance.wanted_version, "2.0");
        assert_eq!(instance.observed.as_ref().unwrap().release, 2);
        assert!(!instance.node_silent);
    }
    let history = operator.rollout_history(web()).await.unwrap().into_inner().rollouts;
    assert_eq!(history.iter().map(|rollout| rollout.id).collect::<Vec<_>>(), [2, 1]);

    // The same again is no new rollout; going back is one.
    assert!(deploy(&mut operator, "2.0", b"two").await.unchanged);
    let undo = v1::UndoRequest { service: "web".to_owned(), version: None };
    let back = operator.undo(undo).await.unwrap().into_inner();
    let report = ended(&mut operator, back.rollout).await;
    assert_eq!((report.outcome(), report.to_version.as_str()), (RolloutOutcome::Succeeded, "1.0"));
    drop(agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_never_changes_its_content() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let first = deploy(&mut operator, "1.0", b"one").await;
    upload_all(&mut operator, b"two").await;
    for (data, extra) in [(&b"two"[..], ""), (b"one", "[env]\nCOLOR = \"red\"\n")] {
        let refused = operator.deploy(request("1.0", data, extra)).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
        assert!(refused.message().contains("--version"), "{refused}");
    }
    let again = operator.deploy(request("1.0", b"one", "")).await.unwrap().into_inner();
    assert_eq!((again.rollout, again.unchanged), (first.rollout, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_cannot_work_is_refused_and_changes_nothing() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let missing = operator.deploy(request("1.0", b"never uploaded", "")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    upload_all(&mut operator, b"one").await;
    let mut wrong = request("1.0", b"one", "");
    wrong.spec.as_mut().unwrap().exec.clear();
    let refused = operator.deploy(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let mut wrong = request("1.0", b"one", "");
    wrong.artifact.as_mut().unwrap().size_bytes += 1;
    assert_eq!(operator.deploy(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(
        operator.list_services(v1::ListServicesRequest {}).await.unwrap().into_inner().services.is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_a_deploy_would_do_and_does_nothing() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let _agent = FakeAgent::start(cluster.address, cluster.node("n1").await);
    event(&mut operator, |event| event.kind == "joined").await;
    let plan = eventually_planned(&mut operator).await;
    assert!(plan.first && !plan.unchanged);
    assert_eq!(plan.new_instances.len(), 2);
    assert!(plan.new_instances.iter().all(|new| new.node == "n1"), "{plan:#?}");
    assert!(plan.waiting.is_empty(), "what every deploy waits for is not worth telling: {:#?}", plan.waiting);
    assert!(
        operator.list_services(v1::ListServicesRequest {}).await.unwrap().into_inner().services.is_empty()
    );

    let first = deploy(&mut operator, "1.0", b"one").await;
    ended(&mut operator, first.rollout).await;
    let plan =
        operator.plan_deploy(request("2.0", b"two", "[env]\nCOLOR = \"red\"\n")).await.unwrap().into_inner();
    assert!(!plan.first && plan.new_instances.is_empty());
    assert_eq!(plan.stages.len(), 2, "{:#?}", plan.stages);
    assert!(plan.waiting.is_empty(), "{:#?}", plan.waiting);
    assert!(plan.changes.iter().any(|change| change == "version: 1.0 -> 2.0"), "{:?}", plan.changes);
    assert!(plan.changes.iter().any(|change| change == "env.COLOR: (new) \"red\""), "{:?}", plan.changes);
}

/// Plans until the node has been heard: a node that was never heard gets nothing.
async fn eventually_planned(operator: &mut Operator) -> v1::DeployPlan {
    for _ in 0..200 {
        let plan = operator.plan_deploy(request("1.0", b"one", "")).await.unwrap().into_inner();
        if !plan.new_instances.is_empty() {
            return plan;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no instance was ever planned");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_is_for_a_rollout_that_is_under_way() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let set = |action: RolloutAction, rollout| v1::ControlRolloutRequest {
        service: "web".to_owned(),
        rollout,
        action: action.into(),
        step: None,
    };
    let unknown = operator.control_rollout(set(RolloutAction::Pause, None)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // No node: the rollout waits.
    let first = deploy(&mut operator, "1.0", b"one").await;
    let other = operator.control_rollout(set(RolloutAction::Pause, Some(7))).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");
    operator.control_rollout(set(RolloutAction::Pause, Some(first.rollout))).await.unwrap();
    until(&mut operator, |status| {
        let outcome = status.report.as_ref()?.rollout.as_ref()?.outcome();
        (outcome == RolloutOutcome::Paused).then_some(())
    })
    .await;
    let promote = operator.control_rollout(set(RolloutAction::Promote, None)).await.unwrap_err();
    assert_eq!(promote.code(), Code::FailedPrecondition, "{promote}");
    operator.control_rollout(set(RolloutAction::Resume, None)).await.unwrap();
    let _agent = FakeAgent::start(cluster.address, cluster.node("n1").await);
    assert_eq!(ended(&mut operator, first.rollout).await.outcome(), RolloutOutcome::Succeeded);
    let late = operator.control_rollout(set(RolloutAction::Abort, None)).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
    assert!(late.message().contains("history"), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_service_stops_and_is_forgotten() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let _agent = FakeAgent::start(cluster.address, cluster.node("n1").await);
    let first = deploy(&mut operator, "1.0", b"one").await;
    ended(&mut operator, first.rollout).await;
    let refused = operator.remove_node(v1::NodeRef { name: "n1".to_owned() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("drain"), "{refused}");
    assert!(operator.remove_service(web()).await.unwrap().into_inner().removed);
    for _ in 0..200 {
        match operator.get_service(web()).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound);
                return;
            }
        }
    }
    panic!("the service was never forgotten: {:#?}", operator.get_service(web()).await);
}
