//! TCP routes: ports come and go with tables, connections go on.

use crate::fleet::{Fleet, Instance, ROOM, eventually, local, nowhere, own_port, route};
use baton_gateway::PlacePurpose;
use baton_model::route::{Entry, Route};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn over_tcp(instances: &[&Instance], listen: u16) -> Route {
    let mut route = route(instances);
    route.spec.entry = Entry::Tcp { listen };
    route
}

async fn parrot() -> Instance {
    Instance::new(|_, mut stream| async move {
        let (mut reads, mut writes) = stream.split();
        let _ = tokio::io::copy(&mut reads, &mut writes).await;
    })
    .await
}

async fn says_back(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the port is open");
    stream.write_all(b"hello").await.expect("room");
    let mut back = [0; 5];
    tokio::time::timeout(ROOM, stream.read_exact(&mut back)).await.expect("in time").expect("an echo");
    assert_eq!(&back, b"hello");
    stream
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_end_is_passed_on() {
    let parrot = parrot().await;
    let fleet = Fleet::start(over_tcp(&[&parrot], own_port())).await;
    let mut stream = says_back(fleet.address(PlacePurpose::Tcp)).await;
    stream.write_all(b"bye").await.expect("room");
    stream.shutdown().await.expect("open");
    let mut end = String::new();
    stream.read_to_string(&mut end).await.expect("its end");
    assert_eq!(end, "bye");
    let in_flight = || fleet.served.load().upstreams().map(|it| it.in_flight()).sum::<u64>();
    eventually("its end", async || (in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn an_instance_that_is_not_there_is_passed_over() {
    let parrot = parrot().await;
    let mut gone = Instance::says("").await;
    gone.address = nowhere();
    let fleet = Fleet::start(over_tcp(&[&gone, &parrot], own_port())).await;
    for _ in 0..4 {
        says_back(fleet.address(PlacePurpose::Tcp)).await;
    }
}

#[tokio::test]
async fn ports_come_and_go_with_tables_and_connections_stay() {
    let parrot = parrot().await;
    let (first, second) = (own_port(), own_port());
    let mut fleet = Fleet::start(over_tcp(&[&parrot], first)).await;
    let mut kept = says_back(local(first)).await;
    fleet.install(over_tcp(&[&parrot], second)).await;
    says_back(local(second)).await;
    eventually("the old port closed", async || TcpStream::connect(local(first)).await.is_err().then_some(()))
        .await;
    kept.write_all(b"again").await.expect("it goes on");
    let mut back = [0; 5];
    kept.read_exact(&mut back).await.expect("an echo");
    assert_eq!(&back, b"again");
}

/// The kernel would give a part of its connections to each.
#[tokio::test]
async fn a_port_of_the_gateway_itself_is_not_shared_with_a_route() {
    let parrot = parrot().await;
    let mut fleet = Fleet::with(route(&[&parrot]), |config| config.metrics = Some(local(own_port()))).await;
    let metrics = fleet.gateway.metrics().expect("it tells metrics");
    for taken in [fleet.http(), metrics] {
        fleet.install(over_tcp(&[&parrot], taken.port())).await;
        let tcp = fleet.gateway.places().into_iter().find(|it| it.purpose == PlacePurpose::Tcp);
        assert_eq!(tcp.map(|it| it.address), None);
    }
}
