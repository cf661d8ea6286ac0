//! Sessions of agents with a real coordinator: who may speak, for whom, and who is heard.

mod peer;

use baton_proto::identity::connect;
use baton_proto::v1::agent_message::Message as Say;
use baton_proto::v1::agent_service_client::AgentServiceClient;
use baton_proto::v1::coordinator_message::Message as Told;
use baton_proto::v1::{self};
use peer::*;
use std::time::Instant;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_takes_the_place_of_the_older() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let mut old = Session::open(cluster.address, &node, 0).await.unwrap();
    let mut new = Session::open(cluster.address, &node, 0).await.unwrap();
    assert!(new.welcome.session > old.welcome.session);
    assert_eq!(
        old.next().await.unwrap(),
        Some(Told::Replaced(v1::Replaced { by_session: new.welcome.session }))
    );
    assert_eq!(old.next().await.unwrap(), None, "the older one ends");
    new.say(Say::Heartbeat(v1::Heartbeat { sequence: 7 })).await;
    assert_eq!(new.next().await.unwrap(), Some(Told::Heartbeat(v1::Heartbeat { sequence: 7 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_with_one_identity_are_told_and_recorded() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(Session::open(cluster.address, &node, 0).await.unwrap());
    }
    let refused =
        Session::open(cluster.address, &node, 0).await.err().expect("the third replacement is one too many");
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    assert!(refused.message().contains("two agents"), "{refused}");
    for session in &mut sessions {
        assert!(matches!(session.next().await.unwrap(), Some(Told::Replaced(_))));
    }
    let told = event(&mut cluster.operator().await, |event| event.kind == "identity-flapping").await;
    assert_eq!(told.node.as_deref(), Some("n1"));
    Session::open(cluster.address, &node, 0).await.expect("one of them may go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_not_operate_and_an_operator_is_no_node() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let mut as_node = operator(cluster.address, &node).await;
    let refusals = [
        as_node.list_services(v1::ListServicesRequest {}).await.unwrap_err(),
        as_node.deploy(request("1.0", b"one", "")).await.unwrap_err(),
        as_node
            .create_token(v1::CreateTokenRequest { role: "operator".to_owned(), ..Default::default() })
            .await
            .unwrap_err(),
        as_node.watch_service(web()).await.unwrap_err(),
        as_node.upload_artifact(tokio_stream::iter(Vec::new())).await.unwrap_err(),
        Session::open(cluster.address, &cluster.operator_identity, 0).await.err().unwrap(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_only_of_its_own_instances() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let (one, two) = (cluster.node("n1").await, cluster.node("n2").await);
    let mut one = Session::open(cluster.address, &one, 0).await.unwrap();
    let two = Session::open(cluster.address, &two, 0).await.unwrap();
    deploy(&mut operator, "1.0", b"one").await;
    let plan = one.plan().await;
    assert_eq!(plan.node, "n1");
    // The second node claims what is placed on the first.
    two.say(Say::Observed(v1::Observed { generation: 1, ..all_ready(&plan, Instant::now()) })).await;
    let told = event(&mut operator, |event| event.kind == "foreign-instances").await;
    assert_eq!(told.node.as_deref(), Some("n2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_out_at_once() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let node = cluster.node("n1").await;
    let name = || v1::NodeRef { name: "n1".to_owned() };
    let mut session = Session::open(cluster.address, &node, 0).await.unwrap();
    let refused = operator.remove_node(name()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "it is connected: {refused}");
    let drain =
        v1::SetNodeRequest { name: "n1".to_owned(), draining: Some(true), ..v1::SetNodeRequest::default() };
    assert!(operator.set_node(drain).await.unwrap().into_inner().node.unwrap().draining);
    operator.remove_node(name()).await.unwrap();
    assert!(!matches!(session.next().await, Ok(Some(_))), "its session ends");
    let refused = Session::open(cluster.address, &node, 0).await.err().expect("it is no member");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(operator.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes.is_empty());
    cluster.node("n1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_of_a_session_ends_it() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let mut client = AgentServiceClient::new(connect(&cluster.address.to_string(), &node).await.unwrap());
    let first = v1::AgentMessage { message: Some(Say::Heartbeat(v1::Heartbeat { sequence: 1 })) };
    let mut told = client.session(tokio_stream::iter(vec![first])).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap_err().code(), Code::InvalidArgument, "no hello");

    let mut session = Session::open(cluster.address, &node, 0).await.unwrap();
    session.say(Say::Hello(v1::Hello::default())).await;
    assert_eq!(session.next().await.unwrap_err().code(), Code::InvalidArgument, "two hellos");

    let mut session = Session::open(cluster.address, &node, 0).await.unwrap();
    let instance = v1::Instance { id: "../etc".to_owned(), ..v1::Instance::default() };
    session.say(Say::Observed(v1::Observed { generation: 0, instances: vec![instance] })).await;
    assert_eq!(session.next().await.unwrap_err().code(), Code::InvalidArgument, "no instance is called so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_nothing_is_silent() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let node = cluster.node("n1").await;
    let mut session = Session::open_mute(cluster.address, &node, 0).await.unwrap();
    let name = || v1::NodeRef { name: "n1".to_owned() };
    assert!(operator.get_node(name()).await.unwrap().into_inner().connected);
    let silent = event(&mut operator, |event| event.kind == "node-silent").await;
    assert_eq!(silent.node.as_deref(), Some("n1"));
    let status = operator.get_node(name()).await.unwrap().into_inner();
    assert!(!status.connected);
    assert!(status.silent_for_ms.unwrap() >= 3000);
    while matches!(session.next().await, Ok(Some(_))) {}
    let _back = Session::open(cluster.address, &node, 0).await.unwrap();
    event(&mut operator, |event| event.kind == "node-back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_sent_again_to_a_node_that_lost_it_and_not_to_one_that_has_it() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let node = cluster.node("n1").await;
    let mut session = Session::open(cluster.address, &node, 0).await.unwrap();
    deploy(&mut operator, "1.0", b"one").await;
    let plan = session.plan().await;
    let mut lost = Session::open(cluster.address, &node, 0).await.unwrap();
    assert_eq!(lost.plan().await, plan);
    let mut kept = Session::open(cluster.address, &node, plan.generation).await.unwrap();
    for sequence in 0..20 {
        kept.say(Say::Heartbeat(v1::Heartbeat { sequence })).await;
        assert_eq!(kept.next().await.unwrap(), Some(Told::Heartbeat(v1::Heartbeat { sequence })));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
