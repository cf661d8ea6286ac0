//! What any gRPC client may expect: health, reflection, and a bound on what it may send, all behind mutual TLS.

mod peer;

use baton_proto::identity::connect;
use baton_proto::v1;
use peer::*;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const OPERATOR: &str = "baton.v1.OperatorService";
const AGENT: &str = "baton.v1.AgentService";

async fn channel(cluster: &Cluster) -> Channel {
    connect(&cluster.address.to_string(), &cluster.operator_identity).await.unwrap()
}

#[tokio::test]
async fn health_is_told_by_service_and_followed_to_the_end() {
    let mut cluster = Cluster::start().await;
    let mut health = HealthClient::new(channel(&cluster).await);
    for service in ["", OPERATOR, AGENT] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "`{service}`");
    }
    let unknown = HealthCheckRequest { service: "no.such.Service".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);

    let request = HealthCheckRequest { service: OPERATOR.to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let first: HealthCheckResponse = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    cluster.stop().await;
    let last = tokio::time::timeout(PATIENCE, watch.message()).await.expect("told in time").unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing, "whoever watches is told before the end");
}

/// Asks the reflection service one question.
async fn reflect(channel: Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = answers.message().await.unwrap().expect("one answer");
    answer.message_response.expect("it says something")
}

#[tokio::test]
async fn reflection_names_the_services_and_gives_their_descriptors() {
    let cluster = Cluster::start().await;
    let listed = reflect(channel(&cluster).await, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    for wanted in [OPERATOR, AGENT, "baton.v1.Enrollment"] {
        assert!(names.contains(&wanted), "{wanted} is not among {names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol(OPERATOR.to_owned());
    let found = reflect(channel(&cluster).await, symbol).await;
    let MessageResponse::FileDescriptorResponse(files) = found else { panic!("{found:?}") };
    let bytes = files.file_descriptor_proto.concat();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("OperatorService") && text.contains("PlanDeploy"),
        "the descriptor is of that file"
    );
}

#[tokio::test]
async fn a_message_of_a_hundred_megabytes_is_refused_in_bounded_time_and_hurts_nobody() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let huge = v1::DeployRequest { version: "x".repeat(100 << 20), ..request("1.0", b"one", "") };
    let begun = Instant::now();
    let refused = operator.deploy(huge).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(60), "refused only after {:?}", begun.elapsed());
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert!(refused.message().contains("4194304"), "it names the limit: {refused:?}");
    // The same connection, and the coordinator, go on.
    assert_eq!(operator.get_cluster(v1::GetClusterRequest {}).await.unwrap().into_inner().name, "test");
    let mut other = cluster.operator().await;
    deploy(&mut other, "1.0", b"one").await;
}
