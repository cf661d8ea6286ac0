//! The store against a real gRPC server that can misbehave.

use super::*;
use baton_engine::instance::Trouble;
use baton_model::artifact::ArtifactFormat;
use baton_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use baton_proto::v1::{AgentMessage, ArtifactChunk, CoordinatorMessage, FetchArtifactRequest};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::PermissionsExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Serves artifacts; its faults are set by the tests.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<Faults>>);

#[derive(Default)]
struct Faults {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Offsets that were asked for.
    asked: Vec<u64>,
    /// End after this many bytes, once.
    cut_after: Option<usize>,
    /// Flip one bit of this byte, once.
    flip: Option<usize>,
}

impl Source {
    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.0.lock().unwrap()
    }

    /// An artifact that is one file, and is known here.
    fn file(&self, content: &[u8]) -> Artifact {
        self.named(content, "web")
    }

    /// The same under this name.
    fn named(&self, content: &[u8], name: &str) -> Artifact {
        self.artifact(content, ArtifactFormat::File { name: name.to_owned() }, content.len() as u64)
    }

    fn artifact(&self, content: &[u8], format: ArtifactFormat, unpacked_bytes: u64) -> Artifact {
        let digest = Digest(Sha256::digest(content).into());
        self.faults().blobs.insert(digest.to_string(), content.to_vec());
        Artifact { digest, size_bytes: content.len() as u64, format, unpacked_bytes }
    }
}

#[tonic::async_trait]
impl AgentService for Source {
    type SessionStream = ReceiverStream<Result<CoordinatorMessage, Status>>;
    type FetchArtifactStream = ReceiverStream<Result<ArtifactChunk, Status>>;

    async fn session(
        &self,
        _: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("artifacts only"))
    }

    async fn fetch_artifact(
        &self,
        request: Request<FetchArtifactRequest>,
    ) -> Result<Response<Self::FetchArtifactStream>, Status> {
        let request = request.into_inner();
        let mut faults = self.faults();
        faults.asked.push(request.offset);
        let blob = faults.blobs.get(&request.digest).ok_or_else(|| Status::not_found("no such artifact"))?;
        let mut rest = blob[usize::try_from(request.offset).unwrap()..].to_vec();
        if let Some(length) = faults.cut_after.take() {
            rest.truncate(length);
        }
        if let Some(byte) = faults.flip.take() {
            rest[byte] ^= 1;
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            for data in rest.chunks(1000) {
                let chunk = ArtifactChunk { data: data.to_vec().into() };
                if sender.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    source: Source,
    store: ArtifactStore,
    journal: Journal,
    link: watch::Sender<Option<Channel>>,
    web: ServiceName,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AgentServiceServer::new(source.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let link = watch::Sender::new(Some(channel));
        let journal = Journal::open(&folder.path().join("events.jsonl"), "boot").unwrap();
        let store =
            ArtifactStore::open(&folder.path().join("artifacts"), link.subscribe(), journal.clone()).unwrap();
        Self { folder, source, store, journal, link, web: "web".parse().unwrap() }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("artifacts")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "uses.json");
        names.sort();
        names
    }

    fn events(&self) -> Vec<String> {
        self.journal.after(0, usize::MAX).into_iter().map(|entry| entry.kind).collect()
    }
}

/// What a program prints. One that another test is starting may hold the fresh file open for a moment (`ETXTBSY`,
/// execve(2)).
async fn said(program: &Path) -> Vec<u8> {
    loop {
        match std::process::Command::new(program).output() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            ran => return ran.unwrap().stdout,
        }
    }
}

#[tokio::test]
async fn an_artifact_is_fetched_once_and_executable() {
    let f = Fixture::new().await;
    let artifact = f.source.file(b"#!/bin/sh\necho hello\n");
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    f.store.verify(&f.web, &artifact).await.unwrap();
    assert_eq!(f.source.faults().asked, [0]);
    assert_eq!(f.names(), [f.store.key(&artifact).to_string()]);
    assert_eq!(said(&f.store.tree(&artifact).join("web")).await, b"hello\n");
}

#[tokio::test]
async fn a_broken_fetch_goes_on_where_it_stopped() {
    let f = Fixture::new().await;
    let artifact = f.source.file(&vec![7; 10_000]);
    f.source.faults().cut_after = Some(4_000);
    let error = f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Passing);
    assert!(error.to_string().contains("4000 of 10000 bytes"), "{error}");
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    assert_eq!(f.source.faults().asked, [0, 4_000]);
}

#[tokio::test]
async fn a_flipped_bit_on_the_way_is_noticed_and_fetched_anew() {
    let f = Fixture::new().await;
    let artifact = f.source.file(&vec![7; 10_000]);
    f.source.faults().flip = Some(5_000);
    let error = f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Damaged { .. }), "{error}");
    assert_eq!(f.names(), Vec::<String>::new());
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    assert_eq!(f.source.faults().asked, [0, 0]);
}

#[tokio::test]
async fn more_bytes_than_announced_are_not_taken() {
    let f = Fixture::new().await;
    let mut artifact = f.source.file(&vec![7; 10_000]);
    artifact.size_bytes = 5_500;
    let error = f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    assert!(error.to_string().contains("more than its 5500 bytes"), "{error}");
    assert!(!f.store.tree(&artifact).exists());
}

#[tokio::test]
async fn a_flipped_byte_at_rest_is_told_and_fetched_anew() {
    let f = Fixture::new().await;
    let artifact = f.source.file(b"#!/bin/sh\nexit 0\n");
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    let path = f.store.tree(&artifact).join("web");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&path, b"#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();

    f.store.verify(&f.web, &artifact).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"#!/bin/sh\nexit 0\n");
    assert_eq!(f.events(), ["artifact-damaged"]);
    assert_eq!(f.names(), [f.store.key(&artifact).to_string()], "nothing of the damaged one is left");
}

#[tokio::test]
async fn those_who_wait_share_a_check_and_who_comes_later_has_another() {
    let f = Fixture::new().await;
    let artifact = f.source.file(b"content");
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    let all = (0..50).map(|_| f.store.verify(&f.web, &artifact));
    let seals: Vec<Seal> =
        futures_util::future::join_all(all).await.into_iter().map(|it| it.unwrap().seal).collect();
    assert!(!seals[0].bytes().is_empty() && seals.iter().all(|seal| *seal == seals[0]));
    // A moment for each that asked, and one for each check: of the first, and of all who came while it went on.
    assert_eq!(f.store.moments.load(Ordering::Relaxed), 50 + 2);
    fs::remove_file(f.store.tree(&artifact).join("web")).unwrap();
    assert!(f.store.verify(&f.web, &artifact).await.unwrap().fetched, "what changed since is seen");
}

#[tokio::test]
async fn a_damaged_artifact_without_a_coordinator_is_not_started() {
    let f = Fixture::new().await;
    let artifact = f.source.file(b"content");
    f.store.bring_in(&f.web, &artifact).await.unwrap();
    fs::remove_file(f.store.tree(&artifact).join("web")).unwrap();
    f.link.send_replace(None);
    let error = f.store.verify(&f.web, &artifact).await.unwrap_err();
    assert!(error.to_string().contains("not connected"), "{error}");
}

#[tokio::test]
async fn a_bad_archive_leaves_nothing_and_is_not_tried_again() {
    let f = Fixture::new().await;
    let artifact = f.source.artifact(b"this is no archive", ArtifactFormat::TarZstd, 100);
    let error = f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Final);
    assert_eq!(f.names(), Vec::<String>::new());
}

#[tokio::test]
async fn an_artifact_larger_than_the_disk_is_refused_before_it_is_asked_for() {
    let f = Fixture::new().await;
    let artifact = f.source.artifact(b"small", ArtifactFormat::TarGzip, u64::MAX / 2);
    let error = f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    assert!(matches!(error, ArtifactError::NoSpace { .. }), "{error}");
    assert_eq!(f.source.faults().asked, Vec::<u64>::new());
    assert_eq!(f.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_disk_that_fails_midway_leaves_nothing_half_done() {
    let f = Fixture::new().await;
    let artifact = f.source.file(b"content");
    // A file in the way of the folder that is unpacked into.
    let beside = f.folder.path().join(format!("artifacts/{}.unpacking", f.store.key(&artifact)));
    fs::write(&beside, "").unwrap();
    let error = f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Io { .. }), "{error}");
    assert!(!f.store.tree(&artifact).exists());
    assert!(!f.names().contains(&format!("{}.part", f.store.key(&artifact))));
    fs::remove_file(&beside).unwrap();
    f.store.bring_in(&f.web, &artifact).await.unwrap();
}

#[tokio::test]
async fn what_an_agent_that_died_left_unfinished_is_removed_and_a_partial_file_is_kept() {
    let f = Fixture::new().await;
    let artifact = f.source.file(&vec![7; 10_000]);
    f.source.faults().cut_after = Some(3_000);
    f.store.bring_in(&f.web, &artifact).await.unwrap_err();
    let dir = f.folder.path().join("artifacts");
    fs::create_dir_all(dir.join(format!("{}.unpacking/tree", f.store.key(&artifact)))).unwrap();
    let again = ArtifactStore::open(&dir, f.link.subscribe(), f.journal.clone()).unwrap();
    assert_eq!(f.names(), [format!("{}.part", f.store.key(&artifact))]);
    again.bring_in(&f.web, &artifact).await.unwrap();
    assert_eq!(f.source.faults().asked, [0, 3_000]);
}

#[tokio::test]
async fn three_releases_stay_and_the_rest_is_removed() {
    let f = Fixture::new().await;
    let artifacts: Vec<_> = (0..5u8).map(|n| f.source.file(&[n; 100])).collect();
    for artifact in &artifacts {
        f.store.bring_in(&f.web, artifact).await.unwrap();
    }
    let services = BTreeSet::from([f.web.clone()]);
    f.store.collect_garbage(&services, &BTreeSet::from([f.store.key(&artifacts[0])]));
    let mut expect: Vec<_> = [0, 2, 3, 4].map(|n: usize| f.store.key(&artifacts[n]).to_string()).to_vec();
    expect.sort();
    assert_eq!(f.names(), expect);
    f.store.collect_garbage(&BTreeSet::new(), &BTreeSet::new());
    assert_eq!(f.names(), Vec::<String>::new());
}

#[tokio::test]
async fn the_same_bytes_lie_here_under_each_of_their_names() {
    let f = Fixture::new().await;
    let ca: ServiceName = "ca".parse().unwrap();
    let [web, shop] = ["web", "shop"].map(|name| f.source.named(b"#!/bin/sh\necho hello\n", name));
    // A second service, and both at a time.
    let (one, two) = tokio::join!(f.store.bring_in(&f.web, &web), f.store.bring_in(&ca, &shop));
    one.and(two).unwrap();
    f.store.verify(&f.web, &web).await.unwrap();
    f.store.verify(&ca, &shop).await.unwrap();
    assert_eq!(said(&f.store.tree(&web).join("web")).await, b"hello\n");
    assert_eq!(said(&f.store.tree(&shop).join("shop")).await, b"hello\n");

    // A release whose file was renamed, and the way back to the one before it without a coordinator.
    let renamed = f.source.named(b"#!/bin/sh\necho hello\n", "web-2");
    f.store.bring_in(&f.web, &renamed).await.unwrap();
    assert!(f.store.tree(&renamed).join("web-2").exists());
    f.link.send_replace(None);
    f.store.verify(&f.web, &web).await.unwrap();

    // Each goes when nobody needs it any more.
    f.store.collect_garbage(&BTreeSet::from([ca]), &BTreeSet::from([f.store.key(&renamed)]));
    let mut expect = [&shop, &renamed].map(|artifact| f.store.key(artifact).to_string());
    expect.sort();
    assert_eq!(f.names(), expect);
}

#[tokio::test]
async fn a_tree_of_an_earlier_agent_is_used_until_nobody_needs_it() {
    let f = Fixture::new().await;
    let [web, shop] = ["web", "shop"].map(|name| f.source.named(b"content", name));
    let dir = f.folder.path().join("artifacts");
    f.store.bring_in(&f.web, &web).await.unwrap();
    fs::rename(dir.join(f.store.key(&web).to_string()), dir.join(web.digest.to_string())).unwrap();
    fs::write(dir.join("uses.json"), format!(r#"{{"services":{{"web":["{}"]}}}}"#, web.digest)).unwrap();
    let again = ArtifactStore::open(&dir, f.link.subscribe(), f.journal.clone()).unwrap();
    assert_eq!(again.tree(&web), dir.join(web.digest.to_string()).join("tree"));
    f.link.send_replace(None);
    again.bring_in(&f.web, &web).await.unwrap();
    assert!(!again.verify(&f.web, &web).await.unwrap().fetched, "it starts without a coordinator");

    // Another name of the same bytes does not touch it.
    let ca: ServiceName = "ca".parse().unwrap();
    let error = again.bring_in(&ca, &shop).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Unavailable { .. }), "{error}");
    again.collect_garbage(&BTreeSet::from([f.web.clone()]), &BTreeSet::new());
    assert_eq!(f.names(), [web.digest.to_string()]);

    // Once it is removed, the next one is an ordinary one.
    again.collect_garbage(&BTreeSet::new(), &BTreeSet::new());
    assert_eq!(f.names(), Vec::<String>::new());
    assert_eq!(again.key(&web), f.store.key(&web));
    assert_ne!(again.key(&web), again.key(&shop));
}

#[tokio::test]
async fn a_damaged_tree_of_an_earlier_agent_is_mended_where_it_lies() {
    let f = Fixture::new().await;
    let web = f.source.file(b"content");
    let dir = f.folder.path().join("artifacts");
    f.store.bring_in(&f.web, &web).await.unwrap();
    fs::rename(dir.join(f.store.key(&web).to_string()), dir.join(web.digest.to_string())).unwrap();
    let again = ArtifactStore::open(&dir, f.link.subscribe(), f.journal.clone()).unwrap();
    fs::remove_file(again.tree(&web).join("web")).unwrap();
    assert!(again.verify(&f.web, &web).await.unwrap().fetched);
    assert_eq!(f.names(), [web.digest.to_string()]);
    assert!(again.tree(&web).join("web").exists());
}
