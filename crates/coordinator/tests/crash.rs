//! The coordinator dies by SIGKILL and comes back: nothing acknowledged is lost, and a rollout goes on where it was.

mod peer;

use baton_coordinator::{CoordinatorConfig, CoordinatorError, InitOptions, bind, init};
use baton_proto::identity::Identity;
use baton_proto::v1::RolloutOutcome;
use peer::*;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Tells the child which folder to run on, and where to listen.
const DIR: &str = "COORDINATOR_DIR";
const LISTEN: &str = "COORDINATOR_LISTEN";

/// Not a test of its own: the other tests run it as a process, to be killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is the coordinator that the other tests run and kill"]
async fn coordinator_to_be_killed() {
    let (Ok(dir), Ok(listen)) = (std::env::var(DIR), std::env::var(LISTEN)) else { return };
    let mut config = CoordinatorConfig::new(&dir);
    config.listen = Some(listen.parse().unwrap());
    let bound = bind(config).await.unwrap();
    std::fs::write(Path::new(&dir).with_extension("address"), bound.address().to_string()).unwrap();
    bound.serve(CancellationToken::new()).await.unwrap();
}

/// A coordinator in a process of its own, killed when it is dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn start(dir: &Path, listen: SocketAddr) -> Self {
        let told = dir.with_extension("address");
        let _ = std::fs::remove_file(&told);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "coordinator_to_be_killed", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(LISTEN, listen.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Owned from here on, so that it is killed also when it does not start.
        let mut process = Self { child, address: listen };
        let begun = Instant::now();
        loop {
            if let Ok(Ok(address)) = std::fs::read_to_string(&told).map(|text| text.parse()) {
                process.address = address;
                return process;
            }
            assert!(begun.elapsed() < PATIENCE, "the coordinator does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn operator_of(process: &Process, identity: &Identity) -> Operator {
    operator(process.address, identity).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_goes_on_with_the_rollout_where_it_was() {
    let (_home, dir, identity) = found().await;
    let mut process = Process::start(&dir, "127.0.0.1:0".parse().unwrap()).await;
    let address = process.address;
    let mut agents = Vec::new();
    for name in ["n1", "n2"] {
        agents.push(FakeAgent::start(address, join_node(address, &identity, name).await));
    }
    let mut operator = operator_of(&process, &identity).await;
    let first = deploy(&mut operator, "1.0", b"one").await;
    assert_eq!(ended(&mut operator, first.rollout).await.outcome(), RolloutOutcome::Succeeded);

    // Killed right after each acknowledgement, at three places of one rollout.
    let second = deploy(&mut operator, "2.0", b"two").await;
    let mut seen = events(&mut operator).await;
    for delay_ms in [0, 60, 120] {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        process.kill();
        process = Process::start(&dir, address).await;
        let mut operator = operator_of(&process, &identity).await;
        let status = operator.get_service(web()).await.unwrap().into_inner();
        assert_eq!(
            status.releases.iter().map(|release| release.version.as_str()).collect::<Vec<_>>(),
            ["1.0", "2.0"]
        );
        let now = events(&mut operator).await;
        assert_eq!(now[..seen.len()], seen[..], "what was seen of the journal stays as it was");
        seen = now;
    }
    let mut operator = operator_of(&process, &identity).await;
    let report = ended(&mut operator, second.rollout).await;
    assert_eq!((report.outcome(), report.to_version.as_str()), (RolloutOutcome::Succeeded, "2.0"));
    let rollouts = operator.rollout_history(web()).await.unwrap().into_inner().rollouts;
    assert_eq!(rollouts.len(), 2, "no rollout was begun twice: {rollouts:#?}");
    for agent in &agents {
        assert!(!agent.task.is_finished(), "an agent was sent an older plan");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_deploy_survives_a_kill() {
    let (_home, dir, identity) = found().await;
    let mut process = Process::start(&dir, "127.0.0.1:0".parse().unwrap()).await;
    let address = process.address;
    for round in 1..=3 {
        let version = format!("{round}.0");
        let asked = deploy(&mut operator_of(&process, &identity).await, &version, version.as_bytes()).await;
        process.kill();
        process = Process::start(&dir, address).await;
        let mut operator = operator_of(&process, &identity).await;
        let again = operator.deploy(request(&version, version.as_bytes(), "")).await.unwrap().into_inner();
        assert!(again.unchanged, "round {round} was lost");
        assert_eq!(again.rollout, asked.rollout);
    }
}

#[tokio::test]
async fn a_folder_has_one_cluster_and_one_coordinator() {
    let (home, dir, _) = found().await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let again = InitOptions {
        dir: dir.clone(),
        cluster: "other".to_owned(),
        listen,
        operator: "ann".to_owned(),
        operator_dir: None,
    };
    assert!(matches!(init(again).await, Err(CoordinatorError::NotEmpty { .. })));
    let first = bind(CoordinatorConfig::new(&dir)).await.unwrap();
    let second = bind(CoordinatorConfig::new(&dir)).await;
    assert!(matches!(second.err(), Some(CoordinatorError::Locked { .. })));
    drop(first);
    let none = bind(CoordinatorConfig::new(home.path().join("nothing"))).await;
    assert!(matches!(none.err(), Some(CoordinatorError::NoCluster { .. })));
    let mut taken = CoordinatorConfig::new(&dir);
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    taken.listen = Some(holder.local_addr().unwrap());
    let refused = bind(taken).await.err().unwrap();
    assert!(matches!(refused, CoordinatorError::Listen { .. }), "{refused}");
}
