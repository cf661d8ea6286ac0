//! Artifacts, logs, events and messages that are too large, against a real coordinator.

mod peer;

use baton_proto::identity::connect;
use baton_proto::v1::agent_message::Message as Say;
use baton_proto::v1::agent_service_client::AgentServiceClient;
use baton_proto::v1::coordinator_message::Message as Told;
use baton_proto::v1::{self};
use peer::*;
use tonic::Code;

fn start(data: &[u8], offset: u64) -> v1::UploadStart {
    v1::UploadStart { digest: digest(data), size_bytes: data.len() as u64, offset }
}

async fn fetch(cluster: &Cluster, node: &str, digest: String, offset: u64) -> Result<Vec<u8>, tonic::Status> {
    let node = cluster.node(node).await;
    let mut client = AgentServiceClient::new(connect(&cluster.address.to_string(), &node).await.unwrap());
    let mut chunks = client.fetch_artifact(v1::FetchArtifactRequest { digest, offset }).await?.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        assert!(chunk.data.len() <= 256 * 1024);
        all.extend_from_slice(&chunk.data);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_broke_off_even_over_a_restart() {
    let mut cluster = Cluster::start().await;
    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let stat = || v1::StatArtifactRequest { digest: digest(&data) };
    let mut operator = cluster.operator().await;
    let half = operator
        .upload_artifact(tokio_stream::iter(upload(start(&data, 0), &data[..400_000])))
        .await
        .unwrap();
    assert_eq!(half.into_inner(), v1::StatArtifactResponse { complete: false, offset: 400_000 });
    cluster.stop().await;
    cluster.run().await;
    let mut operator = cluster.operator().await;
    let here = operator.stat_artifact(stat()).await.unwrap().into_inner();
    assert_eq!(here, v1::StatArtifactResponse { complete: false, offset: 400_000 });
    let rest = tokio_stream::iter(upload(start(&data, 400_000), &data[400_000..]));
    assert!(operator.upload_artifact(rest).await.unwrap().into_inner().complete);
    assert!(operator.stat_artifact(stat()).await.unwrap().into_inner().complete);
    assert_eq!(fetch(&cluster, "n1", digest(&data), 0).await.unwrap(), data);
    assert_eq!(fetch(&cluster, "n2", digest(&data), 999_990).await.unwrap(), data[999_990..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_other_bytes_is_refused_and_forgotten() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let wrong =
        operator.upload_artifact(tokio_stream::iter(upload(start(b"right", 0), b"wrong"))).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong}");
    assert!(wrong.message().contains("digest"), "{wrong}");
    let longer = operator
        .upload_artifact(tokio_stream::iter(upload(start(b"right", 0), b"right and more")))
        .await
        .unwrap_err();
    assert_eq!(longer.code(), Code::InvalidArgument, "{longer}");
    let stat = operator
        .stat_artifact(v1::StatArtifactRequest { digest: digest(b"right") })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stat, v1::StatArtifactResponse::default());
    let huge = v1::UploadStart { digest: digest(b"huge"), size_bytes: 3 << 30, offset: 0 };
    let refused = operator.upload_artifact(tokio_stream::iter(upload(huge, b"h"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_flipped_on_the_coordinators_disk_is_never_served() {
    let mut cluster = Cluster::start().await;
    let data = vec![9; 300_000];
    upload_all(&mut cluster.operator().await, &data).await;
    cluster.stop().await;
    let path = cluster.dir().join("artifacts").join(digest(&data));
    let mut flipped = std::fs::read(&path).unwrap();
    flipped[150_000] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    cluster.run().await;
    let refused = fetch(&cluster, "n1", digest(&data), 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    let mut operator = cluster.operator().await;
    event(&mut operator, |event| event.kind == "artifact-corrupt").await;
    upload_all(&mut operator, &data).await;
    assert_eq!(fetch(&cluster, "n2", digest(&data), 0).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_100_mb_is_refused_and_the_coordinator_goes_on() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let mut huge = request("1.0", b"one", "");
    huge.spec.as_mut().unwrap().env.insert("HUGE".to_owned(), "x".repeat(100 * 1024 * 1024));
    let refused = operator.deploy(huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("4194304"), "it names the limit: {refused}");
    assert!(!deploy(&mut cluster.operator().await, "1.0", b"one").await.unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_tells_is_kept_once_and_over_restarts() {
    let mut cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    let tell = |sequence| {
        Say::Event(v1::AgentEvent {
            sequence,
            ago_ms: 300_000,
            severity: v1::Severity::Warning.into(),
            kind: "instance-exited".to_owned(),
            message: format!("exit {sequence}"),
            instance: Some("web.1".to_owned()),
            ..v1::AgentEvent::default()
        })
    };
    for round in 0..2 {
        let mut session = Session::open(cluster.address, &node, 0).await.unwrap();
        // The second time all are told again, as by an agent that never heard the answer, and one more.
        for sequence in 1..=(3 + round) {
            session.say(tell(sequence)).await;
        }
        while session.next().await.unwrap()
            != Some(Told::EventsStored(v1::EventsStored { through: 3 + round }))
        {}
        cluster.stop().await;
        cluster.run().await;
    }
    let told = events(&mut cluster.operator().await).await;
    let exits: Vec<&v1::Event> = told.iter().filter(|event| event.kind == "instance-exited").collect();
    assert_eq!(
        exits.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(),
        ["exit 1", "exit 2", "exit 3", "exit 4"]
    );
    assert!(told.windows(2).all(|pair| pair[0].seq < pair[1].seq), "numbers only grow");
    let joined = told.iter().find(|event| event.kind == "joined").unwrap();
    assert!(exits[0].at_ms < joined.at_ms, "it happened five minutes before it was told");
    let of_service = v1::ListEventsRequest {
        service: Some("web".to_owned()),
        last: 2,
        ..v1::ListEventsRequest::default()
    };
    let mut last = cluster.operator().await.list_events(of_service).await.unwrap().into_inner();
    assert_eq!(last.message().await.unwrap().unwrap().message, "exit 3");
    assert_eq!(last.message().await.unwrap().unwrap().message, "exit 4");
    assert_eq!(last.message().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_all_nodes_as_one_stream() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let mut sessions = Vec::new();
    for name in ["n1", "n2"] {
        sessions.push(Session::open(cluster.address, &cluster.node(name).await, 0).await.unwrap());
    }
    deploy(&mut operator, "1.0", b"one").await;
    let mut nodes = Vec::new();
    for (index, mut session) in sessions.into_iter().enumerate() {
        nodes.push(tokio::spawn(async move {
            let instance = session.plan().await.instances[0].id.clone();
            loop {
                let Told::LogRequest(request) = session.next().await.unwrap().unwrap() else { continue };
                let at = |place: u64| 1000 * place + 10 * index as u64;
                let line = |place| v1::LogLine {
                    instance: instance.clone(),
                    at_ms: at(place),
                    text: "hello".into(),
                    stderr: false,
                };
                let lines = vec![line(1), line(2)];
                session
                    .say(Say::LogLines(v1::LogLines {
                        request: request.request,
                        lines,
                        end: true,
                        ..v1::LogLines::default()
                    }))
                    .await;
                return session;
            }
        }));
    }
    until(&mut operator, |status| (status.instances.len() == 2).then_some(())).await;
    let asked = v1::LogRequest { service: "web".to_owned(), tail_lines: 10, ..v1::LogRequest::default() };
    let mut stream = operator.logs(asked).await.unwrap().into_inner();
    let mut times = Vec::new();
    while let Some(message) =
        tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").unwrap()
    {
        assert_eq!(message.error, "");
        times.extend(message.lines.iter().map(|line| line.at_ms));
    }
    assert_eq!(times, [1000, 1010, 2000, 2010], "in the order of their time");
    let unknown = v1::LogRequest { service: "nothing".to_owned(), ..v1::LogRequest::default() };
    assert_eq!(operator.logs(unknown).await.unwrap_err().code(), Code::NotFound);
    for node in nodes {
        node.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_logs_cancels_them_on_the_node() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let mut session = Session::open(cluster.address, &cluster.node("n1").await, 0).await.unwrap();
    deploy(&mut operator, "1.0", b"one").await;
    session.plan().await;
    until(&mut operator, |status| (status.instances.len() == 2).then_some(())).await;
    let asked = v1::LogRequest { service: "web".to_owned(), follow: true, ..v1::LogRequest::default() };
    let stream = operator.logs(asked).await.unwrap().into_inner();
    let Told::LogRequest(request) = session.next().await.unwrap().unwrap() else {
        panic!("the node is asked")
    };
    drop(stream);
    assert_eq!(
        session.next().await.unwrap(),
        Some(Told::LogCancel(v1::LogCancel { request: request.request }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_logs_goes_on_where_a_node_stood_when_it_comes_back() {
    let cluster = Cluster::start().await;
    let mut operator = cluster.operator().await;
    let identity = cluster.node("n1").await;
    let mut session = Session::open(cluster.address, &identity, 0).await.unwrap();
    deploy(&mut operator, "1.0", b"one").await;
    let instance = session.plan().await.instances[0].id.clone();
    until(&mut operator, |status| (status.instances.len() == 2).then_some(())).await;
    let asked = v1::LogRequest {
        service: "web".to_owned(),
        follow: true,
        tail_lines: 5,
        ..v1::LogRequest::default()
    };
    let mut stream = operator.logs(asked).await.unwrap().into_inner();
    let mark = v1::LogMark { instance: instance.clone(), run: 1, file: 77, offset: 120, begun: 120 };
    for told in 0..2_u64 {
        let request = loop {
            match session.next().await.unwrap().unwrap() {
                Told::LogRequest(request) => break request,
                Told::Plan(_)
                | Told::Welcome(_)
                | Told::Heartbeat(_)
                | Told::EventsStored(_)
                | Told::Provision(_) => {}
                other @ (Told::LogCancel(_) | Told::Replaced(_) | Told::UpgradeAgent(_)) => {
                    panic!("{other:?}")
                }
            }
        };
        let after = if told == 0 { vec![] } else { vec![mark.clone()] };
        assert_eq!((request.follow, request.after), (true, after), "request {told}");
        let line = v1::LogLine { instance: instance.clone(), at_ms: told, text: "x".into(), stderr: false };
        let lines = v1::LogLines {
            request: request.request,
            lines: vec![line],
            marks: vec![mark.clone()],
            ..v1::LogLines::default()
        };
        session.say(Say::LogLines(lines)).await;
        let passed = loop {
            let message = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
            if !message.lines.is_empty() {
                break message;
            }
            assert!(message.error.contains("when it is back"), "{}", message.error);
        };
        assert_eq!((passed.lines[0].at_ms, &passed.marks), (told, &vec![mark.clone()]));
        // Its agent is killed and comes back: a new session takes the place of the old one.
        session = Session::open(cluster.address, &identity, 1).await.unwrap();
    }
}
