//! What the tests talk to a real coordinator with: an operator's client, and an agent that speaks the wire types but
//! runs nothing. It says that every instance of its plan is ready.

#![allow(dead_code, unreachable_pub)] // each test file is a crate of its own and uses a part of it

use baton_coordinator::{CoordinatorConfig, CoordinatorError, InitOptions, bind, init};
use baton_proto::identity::{Identity, JoinAs, connect, join};
use baton_proto::v1::agent_message::Message as Say;
use baton_proto::v1::agent_service_client::AgentServiceClient;
use baton_proto::v1::coordinator_message::Message as Told;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use baton_proto::v1::{self, upload_artifact_request::Part};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

/// Room for a slow machine; nothing here takes a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A session says that it lives this often, as an agent does: the coordinator ends one that says nothing for 3 s.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// What those beats are told from the test's own by.
const BEAT: u64 = u64::MAX;
/// Of the beat that asks whether what was said before it is heard.
const HEARD: u64 = BEAT - 1;

pub type Operator = OperatorServiceClient<Channel>;

/// A cluster whose coordinator runs in this process.
pub struct Cluster {
    pub home: TempDir,
    pub operator_identity: Identity,
    pub address: SocketAddr,
    running: Option<(CancellationToken, JoinHandle<Result<(), CoordinatorError>>)>,
}

/// Makes a cluster's folder, and says where it is and who its operator is.
pub async fn found() -> (TempDir, PathBuf, Identity) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("coordinator");
    let options = InitOptions {
        dir: dir.clone(),
        cluster: "test".to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        operator: "ann".to_owned(),
        operator_dir: Some(home.path().join("operator")),
    };
    let done = init(options).await.unwrap();
    (home, dir, done.operator.unwrap())
}

impl Cluster {
    pub async fn start() -> Self {
        let (home, _, operator_identity) = found().await;
        let mut cluster =
            Self { home, operator_identity, address: "127.0.0.1:0".parse().unwrap(), running: None };
        cluster.run().await;
        cluster
    }

    pub fn dir(&self) -> PathBuf {
        self.home.path().join("coordinator")
    }

    /// Runs the coordinator; at the address it had before, once it has one.
    pub async fn run(&mut self) {
        let mut config = CoordinatorConfig::new(self.dir());
        config.listen = Some(self.address);
        let bound = bind(config).await.unwrap();
        self.address = bound.address();
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), tokio::spawn(bound.serve(stop))));
    }

    pub async fn stop(&mut self) {
        let (stop, serving) = self.running.take().expect("it runs");
        stop.cancel();
        tokio::time::timeout(PATIENCE, serving).await.expect("ends in time").unwrap().unwrap();
    }

    pub async fn operator(&self) -> Operator {
        operator(self.address, &self.operator_identity).await
    }

    pub async fn node(&self, name: &str) -> Identity {
        join_node(self.address, &self.operator_identity, name).await
    }
}

pub async fn operator(address: SocketAddr, identity: &Identity) -> Operator {
    OperatorServiceClient::new(connect(&address.to_string(), identity).await.unwrap())
}

pub async fn join_node(address: SocketAddr, operator_identity: &Identity, name: &str) -> Identity {
    let request = v1::CreateTokenRequest { role: "node".to_owned(), name: None, ttl_s: 0 };
    let token =
        operator(address, operator_identity).await.create_token(request).await.unwrap().into_inner().token;
    let joiner = JoinAs { name: name.to_owned(), address: "127.0.0.1".to_owned(), labels: BTreeMap::new() };
    join(&address.to_string(), &token.parse().unwrap(), joiner).await.unwrap()
}

/// Both ends of a session that has begun.
pub struct Session {
    pub say: mpsc::Sender<v1::AgentMessage>,
    pub told: Streaming<v1::CoordinatorMessage>,
    /// What came before the session was handed out.
    before: VecDeque<Told>,
    pub welcome: v1::Welcome,
    beats: Option<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(beats) = &self.beats {
            beats.abort();
        }
    }
}

impl Session {
    /// As [`Session::open_mute`], and lives on however slow the test is.
    pub async fn open(
        address: SocketAddr,
        identity: &Identity,
        generation: u64,
    ) -> Result<Self, tonic::Status> {
        let mut session = Self::open_mute(address, identity, generation).await?;
        let say = session.say.clone();
        session.beats = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT_EVERY).await;
                let beat = Say::Heartbeat(v1::Heartbeat { sequence: BEAT });
                if say.send(v1::AgentMessage { message: Some(beat) }).await.is_err() {
                    return;
                }
            }
        }));
        Ok(session)
    }

    /// Says hello with the plan generation it has, and waits to be welcomed.
    pub async fn open_mute(
        address: SocketAddr,
        identity: &Identity,
        generation: u64,
    ) -> Result<Self, tonic::Status> {
        let channel = connect(&address.to_string(), identity).await;
        // The coordinator may be killed at any moment: for the caller that is a session that did not begin.
        let channel = channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut client = AgentServiceClient::new(channel);
        let (say, said) = mpsc::channel(64);
        let hello =
            v1::Hello { facts: Some(v1::NodeFacts::default()), generation, address: "127.0.0.1".to_owned() };
        say.send(v1::AgentMessage { message: Some(Say::Hello(hello)) }).await.unwrap();
        let mut told = client.session(ReceiverStream::new(said)).await?.into_inner();
        let first = tokio::time::timeout(PATIENCE, told.message()).await.expect("an answer in time")?;
        let Some(Told::Welcome(welcome)) = first.and_then(|first| first.message) else {
            panic!("a welcome comes first")
        };
        // An agent then says what runs on its node: of one that never had a plan, nothing.
        let mut before = VecDeque::new();
        if generation == 0 {
            for message in
                [Say::Observed(v1::Observed::default()), Say::Heartbeat(v1::Heartbeat { sequence: HEARD })]
            {
                say.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
            }
            // Messages are taken in their order: once the beat is answered, the node is heard.
            loop {
                let next =
                    tokio::time::timeout(PATIENCE, told.message()).await.expect("an answer in time")?;
                match next.and_then(|next| next.message) {
                    Some(Told::Heartbeat(v1::Heartbeat { sequence: HEARD })) => break,
                    Some(other) => before.push_back(other),
                    None => return Err(tonic::Status::unavailable("the session ended")),
                }
            }
        }
        Ok(Self { say, told, before, welcome, beats: None })
    }

    pub async fn say(&self, message: Say) {
        self.say.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message but the answers to its beats; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Told>, tonic::Status> {
        if let Some(told) = self.before.pop_front() {
            return Ok(Some(told));
        }
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.told.message()).await.expect("a message in time")?;
            let told = message.map(|message| message.message.expect("it says something"));
            if told != Some(Told::Heartbeat(v1::Heartbeat { sequence: BEAT })) {
                return Ok(told);
            }
        }
    }

    /// The next plan.
    pub async fn plan(&mut self) -> v1::NodePlan {
        loop {
            match self.next().await.unwrap().expect("the session goes on") {
                Told::Plan(plan) => return plan,
                Told::Welcome(_)
                | Told::Heartbeat(_)
                | Told::EventsStored(_)
                | Told::Provision(_)
                | Told::LogRequest(_)
                | Told::LogCancel(_)
                | Told::UpgradeAgent(_) => {}
                Told::Replaced(replaced) => panic!("replaced by session {}", replaced.by_session),
            }
        }
    }
}

/// What an agent says of a plan that it carries out in no time.
pub fn all_ready(plan: &v1::NodePlan, since: Instant) -> v1::Observed {
    let ready_for_ms = Some(u64::try_from(since.elapsed().as_millis()).unwrap());
    let instance = |planned: &v1::InstancePlan| v1::Instance {
        id: planned.id.clone(),
        release: plan.releases[planned.release_index as usize].number,
        state: v1::InstanceState::Ready.into(),
        ready_for_ms,
        run: 1,
        ..v1::Instance::default()
    };
    v1::Observed { generation: plan.generation, instances: plan.instances.iter().map(instance).collect() }
}

/// An agent that carries out every plan at once and goes on over restarts of the coordinator. It keeps the
/// generation it has, and panics when it is sent an older plan.
pub struct FakeAgent {
    pub task: JoinHandle<()>,
}

impl FakeAgent {
    pub fn start(address: SocketAddr, identity: Identity) -> Self {
        Self { task: tokio::spawn(agent(address, identity)) }
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn agent(address: SocketAddr, identity: Identity) {
    let mut plan: Option<v1::NodePlan> = None;
    let mut since = Instant::now();
    loop {
        let generation = plan.as_ref().map_or(0, |plan| plan.generation);
        let channel = connect(&address.to_string(), &identity).await;
        let opened = match channel {
            Ok(_) => Session::open(address, &identity, generation).await.ok(),
            Err(_) => None,
        };
        let Some(mut session) = opened else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            let told = tokio::select! {
                _ = beat.tick() => {
                    let observed = plan.as_ref().map(|plan| all_ready(plan, since)).unwrap_or_default();
                    if session.say.send(v1::AgentMessage { message: Some(Say::Observed(observed)) }).await.is_err() {
                        break;
                    }
                    continue;
                }
                told = session.next() => told,
            };
            let Ok(Some(told)) = told else { break };
            if let Told::Plan(new) = told {
                let had = plan.as_ref().map_or(0, |plan| plan.generation);
                assert!(new.generation > had, "plan {} after {had}", new.generation);
                plan = Some(new);
                since = Instant::now();
            }
        }
    }
}

/// A service of two instances that is rolled out one by one.
pub fn spec(extra: &str) -> v1::ServiceSpec {
    let source = format!(
        "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\"]\n{extra}\n[placement]\nreplicas = 2\n\
         [rollout]\nbatch = 1\nmin_healthy = \"100ms\"\nfirst_zone_bake = \"0s\"\n"
    );
    baton_model::file::parse(&source).unwrap_or_else(|problems| panic!("{problems:?}")).spec.into()
}

pub fn artifact(data: &[u8]) -> v1::Artifact {
    v1::Artifact {
        digest: digest(data),
        size_bytes: data.len() as u64,
        format: Some(v1::artifact::Format::File("web".to_owned())),
        unpacked_bytes: data.len() as u64,
    }
}

pub fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The messages of an upload.
pub fn upload(start: v1::UploadStart, data: &[u8]) -> Vec<v1::UploadArtifactRequest> {
    let start = v1::UploadArtifactRequest { part: Some(Part::Start(start)) };
    let chunks = data
        .chunks(64 * 1024)
        .map(|chunk| v1::UploadArtifactRequest { part: Some(Part::Data(chunk.to_vec().into())) });
    std::iter::once(start).chain(chunks).collect()
}

pub async fn upload_all(operator: &mut Operator, data: &[u8]) {
    let start = v1::UploadStart { digest: digest(data), size_bytes: data.len() as u64, offset: 0 };
    let done = operator.upload_artifact(tokio_stream::iter(upload(start, data))).await.unwrap().into_inner();
    assert!(done.complete);
}

pub fn request(version: &str, data: &[u8], extra: &str) -> v1::DeployRequest {
    v1::DeployRequest { spec: Some(spec(extra)), version: version.to_owned(), artifact: Some(artifact(data)) }
}

/// Uploads and deploys `data` as `version`.
pub async fn deploy(operator: &mut Operator, version: &str, data: &[u8]) -> v1::RolloutRef {
    upload_all(operator, data).await;
    operator.deploy(request(version, data, "")).await.unwrap().into_inner()
}

pub fn web() -> v1::ServiceRef {
    v1::ServiceRef { service: "web".to_owned() }
}

/// Waits until a rollout of `web` has ended, and says how.
pub async fn ended(operator: &mut Operator, rollout: u64) -> v1::RolloutReport {
    until(operator, |status| {
        let report = status.report.as_ref()?.rollout.as_ref()?;
        (report.id == rollout && report.ended_at_ms.is_some()).then(|| report.clone())
    })
    .await
}

/// Watches `web` until `found` finds something.
pub async fn until<T>(operator: &mut Operator, mut found: impl FnMut(&v1::ServiceStatus) -> Option<T>) -> T {
    let mut watch = operator.watch_service(web()).await.unwrap().into_inner();
    let mut last = None;
    let search = async {
        loop {
            let status = watch.message().await.unwrap().expect("the watch goes on");
            if let Some(found) = found(&status) {
                return found;
            }
            last = Some(status);
        }
    };
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(found) => found,
        Err(_) => panic!("it did not come to that: {last:#?}"),
    }
}

/// The whole journal.
pub async fn events(operator: &mut Operator) -> Vec<v1::Event> {
    let mut stream = operator.list_events(v1::ListEventsRequest::default()).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    events
}

/// Waits until the journal has an event that `wanted` accepts.
pub async fn event(operator: &mut Operator, mut wanted: impl FnMut(&v1::Event) -> bool) -> v1::Event {
    let request = v1::ListEventsRequest { follow: true, ..v1::ListEventsRequest::default() };
    let mut stream = operator.list_events(request).await.unwrap().into_inner();
    let search = async {
        loop {
            let event = stream.message().await.unwrap().expect("the journal is followed");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.expect("the event comes in time")
}
