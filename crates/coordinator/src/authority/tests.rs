//! Tokens, names and certificates; [`sockets`] asks the same over real connections.

mod sockets;

use super::{Authority, AuthorityError, Issued, JoinAsk, Lifetimes, keep_server_certificate, member, token};
use crate::store::{MemoryStore, Store};
use baton_model::id::NodeName;
use baton_proto::identity::{Identity, Peer, Role, Subject, Token, request_certificate, server_tls};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
/// A fixed time, on a whole second as certificates count them.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct World {
    authority: Arc<Authority>,
    store: Arc<MemoryStore>,
    dir: TempDir,
}

fn world_at(now: SystemTime, lifetimes: Lifetimes) -> World {
    let dir = tempfile::tempdir().unwrap();
    Authority::init(dir.path(), "home", now).unwrap();
    let store = Arc::new(MemoryStore::new());
    let authority = Authority::open(dir.path(), Arc::clone(&store) as Arc<dyn Store>, lifetimes).unwrap();
    World { authority: Arc::new(authority), store, dir }
}

fn world() -> World {
    world_at(noon(), Lifetimes::default())
}

impl World {
    async fn token(&self, role: Role, name: Option<&str>) -> Token {
        self.authority.create_token(role, name, HOUR, noon()).await.unwrap().0
    }

    async fn join(&self, token: &Token, name: &str, now: SystemTime) -> Result<Issued, AuthorityError> {
        let (_, csr_pem) = request_certificate().unwrap();
        self.authority.join(JoinAsk { token: &token.to_string(), name, csr_pem: &csr_pem }, now).await
    }
}

fn peer(name: &str) -> Peer {
    Peer::Node(NodeName::new(name).unwrap())
}

#[tokio::test]
async fn a_token_gives_one_certificate_of_the_name_asked_for() {
    let world = world();
    let token = world.token(Role::Node, None).await;
    let issued = world.join(&token, "n1", noon()).await.unwrap();
    assert_eq!(issued.subject.uri("home"), "spiffe://home/node/n1");
    assert_eq!(issued.not_after, noon() + Lifetimes::default().member);
    world.authority.admit(&peer("n1")).await.unwrap();

    let error = world.join(&token, "n2", noon() + Duration::from_secs(180)).await.unwrap_err();
    assert!(matches!(error, AuthorityError::TokenUsed { .. }) && !error.retryable());
    let text = error.to_string();
    assert!(text.contains("3 minutes ago by node n1") && text.contains("baton node token"), "{text}");
    assert!(matches!(world.authority.admit(&peer("n2")).await, Err(AuthorityError::NotAMember { .. })));
}

#[tokio::test]
async fn what_is_wrong_with_a_token_names_the_command_that_makes_such_a_one() {
    let world = world();
    for (role, command) in [
        (Role::Node, "`baton node token`"),
        (Role::Gateway, "`baton gateway token`"),
        (Role::Operator, "`baton node token --operator`"),
    ] {
        let token = world.token(role, None).await;
        let late = world.join(&token, "a", noon() + 2 * HOUR).await.unwrap_err();
        world.join(&token, "a", noon()).await.unwrap();
        let used = world.join(&token, "b", noon()).await.unwrap_err();
        let unknown = world.join(&Token { secret: [9; 32], ..token.clone() }, "b", noon()).await.unwrap_err();
        for error in [late, used, unknown] {
            assert!(error.to_string().ends_with(command), "{role}: {error}");
        }
    }
}

/// Both have looked at the token before either uses it.
#[tokio::test]
async fn the_slower_of_two_is_told_who_was_faster() {
    let world = world();
    let token = world.token(Role::Node, None).await;
    let (n1, n2) = (Subject::new(Role::Node, "n1").unwrap(), Subject::new(Role::Node, "n2").unwrap());
    let first = token::check(&*world.store, &token, "n1", noon()).await.unwrap();
    let second = token::check(&*world.store, &token, "n2", noon()).await.unwrap();
    first.use_up(&*world.store, &n1, noon()).await.unwrap();
    let error = second.use_up(&*world.store, &n2, noon()).await.unwrap_err();
    assert!(matches!(&error, AuthorityError::TokenUsed { by, .. } if by == "node n1"), "{error}");

    // The same with two tokens and one name.
    let first = member::seat(&*world.store, &n1, false, noon()).await.unwrap();
    let second = member::seat(&*world.store, &n1, false, noon()).await.unwrap();
    first.take(&*world.store, "t1", noon()).await.unwrap();
    let error = second.take(&*world.store, "t2", noon()).await.unwrap_err();
    assert!(matches!(error, AuthorityError::NameTaken { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_use_a_token_once() {
    let world = Arc::new(world());
    let token = world.token(Role::Node, None).await;
    let joining = (0..8).map(|n| {
        let (world, token) = (Arc::clone(&world), token.clone());
        tokio::spawn(async move { world.join(&token, &format!("n{n}"), noon()).await.is_ok() })
    });
    let mut joined = 0;
    for task in joining.collect::<Vec<_>>() {
        joined += u32::from(task.await.unwrap());
    }
    assert_eq!(joined, 1);
}

/// Each refusal says why and leaves the token usable.
#[tokio::test]
async fn what_is_wrong_with_a_token_is_told_and_changes_nothing() {
    let world = world();
    let (other, open) = (self::world(), world.token(Role::Node, None).await);
    let bound = world.token(Role::Node, Some("n7")).await;
    let guessed = Token { secret: [1; 32], ..open.clone() };
    let raised = Token { role: Role::Operator, ..open.clone() };
    let unknown = Token { id: [1; 8], ..open.clone() };
    let foreign = other.token(Role::Node, None).await;
    let cases = [
        (&guessed, "n1", noon(), "is not known here"),
        (&raised, "n1", noon(), "is not known here"),
        (&unknown, "n1", noon(), "is not known here"),
        (&foreign, "n1", noon(), "another authority"),
        (&open, "n1", noon() + HOUR, "expired 0 seconds ago"),
        (&open, "n1", noon() + 26 * HOUR, "expired 1 day ago"),
        (&open, "N1", noon(), "`N1`"),
        (&open, "../n1", noon(), "`../n1`"),
        (&bound, "n1", noon(), "made for `n7`"),
    ];
    for (token, name, now, expect) in cases {
        let error = world.join(token, name, now).await.unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
        assert!(!error.retryable(), "{error}");
    }
    let (_, good) = request_certificate().unwrap();
    let damaged = good.replace('A', "B");
    for csr_pem in ["", "x", &damaged, &good.repeat(40)] {
        let ask = JoinAsk { token: &open.to_string(), name: "n1", csr_pem };
        let error = world.authority.join(ask, noon()).await.unwrap_err();
        assert!(matches!(error, AuthorityError::BadRequest(_)), "{error}");
    }
    world.join(&open, "n1", noon()).await.expect("still unused");
    world.join(&bound, "n7", noon()).await.expect("still unused");
}

#[tokio::test]
async fn a_name_is_taken_until_it_is_removed_or_a_token_names_it() {
    let world = world();
    world.join(&world.token(Role::Node, None).await, "n1", noon()).await.unwrap();
    let second = world.token(Role::Node, None).await;
    let error = world.join(&second, "n1", noon() + 2 * HOUR / 4).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("node n1 has joined already (30 minutes ago)") && text.contains("--name"),
        "{text}"
    );
    // An operator's name is another name.
    let operator = world.token(Role::Operator, None).await;
    world.join(&operator, "n1", noon()).await.unwrap();
    // The refused token is still good: for another name, or for this one once it is free.
    world.authority.forget(&peer("n1")).await.unwrap();
    assert!(world.authority.admit(&peer("n1")).await.is_err());
    world.join(&second, "n1", noon()).await.unwrap();
    // A token that names it lets a host take its place.
    world.join(&world.token(Role::Node, Some("n1")).await, "n1", noon()).await.unwrap();
}

#[tokio::test]
async fn a_member_renews_and_a_removed_one_does_not() {
    let world = world();
    world.join(&world.token(Role::Node, None).await, "n1", noon()).await.unwrap();
    let (_, csr_pem) = request_certificate().unwrap();
    let later = noon() + 24 * HOUR;
    let renewed = world.authority.renew(&peer("n1"), &csr_pem, later).await.unwrap();
    assert_eq!(renewed.not_after, later + Lifetimes::default().member);
    assert_eq!(renewed.subject.uri("home"), "spiffe://home/node/n1");
    world.authority.forget(&peer("n1")).await.unwrap();
    let error = world.authority.renew(&peer("n1"), &csr_pem, later).await.unwrap_err();
    assert!(matches!(error, AuthorityError::NotAMember { .. }), "{error}");
}

/// The request may claim what it wants: another name, to be an authority, a longer life.
#[tokio::test]
async fn nothing_of_the_request_but_its_key_gets_into_the_certificate() {
    let world = world();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut claims = rcgen::CertificateParams::default();
    claims.subject_alt_names = vec![
        rcgen::SanType::URI("spiffe://home/operator/root".try_into().unwrap()),
        rcgen::SanType::DnsName("baton-coordinator".try_into().unwrap()),
    ];
    claims.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let csr_pem = claims.serialize_request(&key).unwrap().pem().unwrap();
    let token = world.token(Role::Node, None).await;
    let ask = JoinAsk { token: &token.to_string(), name: "n1", csr_pem: &csr_pem };
    let issued = world.authority.join(ask, noon()).await.unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate_pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        names.value.general_names,
        [x509_parser::extensions::GeneralName::URI("spiffe://home/node/n1")]
    );
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !certificate.is_ca());
    assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
}

#[tokio::test]
async fn no_secret_is_kept_and_old_tokens_are_forgotten() {
    let world = world();
    let token = world.token(Role::Node, None).await;
    let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("authority/token/{}", token.id_text());
    let record = world.store.get(&key).await.unwrap().unwrap();
    assert!(!String::from_utf8(record.value.to_vec()).unwrap().contains(&secret));
    let month = 24 * HOUR * 30;
    world.authority.create_token(Role::Node, None, HOUR, noon() + month).await.unwrap();
    assert!(world.store.get(&key).await.unwrap().is_some(), "remembered for 30 days after it expired");
    world.authority.create_token(Role::Node, None, HOUR, noon() + month + 2 * HOUR).await.unwrap();
    assert!(world.store.get(&key).await.unwrap().is_none());
}

#[test]
fn an_authority_is_made_once_private_and_whole_or_not_used() {
    let world = world();
    let path = world.dir.path().join(super::FILE_NAME);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    let error = Authority::init(world.dir.path(), "home", noon()).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(Authority::init(tempfile::tempdir().unwrap().path(), "My Home", noon()).is_err());

    let open = || Authority::open(world.dir.path(), Arc::new(MemoryStore::new()), Lifetimes::default());
    assert_eq!(open().unwrap().fingerprint(), world.authority.fingerprint());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(open().unwrap_err(), AuthorityError::File { .. }));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&path, &before[..before.len() / 2]).unwrap();
    let error = open().unwrap_err();
    assert!(
        matches!(error, AuthorityError::Damaged { .. }) && error.to_string().contains("authority.pem"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(open().unwrap_err().to_string().contains("baton coordinator init"));
}

#[tokio::test]
async fn an_identity_is_kept_whole_and_private() {
    let world = world_at(SystemTime::now(), Lifetimes::default());
    let identity = world.authority.enroll_operator("ann", SystemTime::now()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deep/er");
    identity.save(&folder).unwrap();
    assert_eq!(Identity::load(&folder).unwrap().subject().unwrap(), identity.subject().unwrap());
    let path = folder.join(baton_proto::identity::FILE_NAME);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");

    let text = std::fs::read_to_string(&path).unwrap();
    let cut = &text[..text.len() - 40];
    let keyless = &text[text.find("-----BEGIN CERT").unwrap()..];
    let alone = &text[..text.rfind("-----BEGIN CERT").unwrap()];
    for (bad, expect) in
        [("", "no private key"), (cut, "cut short"), (keyless, "no private key"), (alone, "only one")]
    {
        std::fs::write(&path, bad).unwrap();
        let error = Identity::load(&folder).unwrap_err().to_string();
        assert!(
            error.contains(expect) && error.contains("identity.pem") && error.contains("--force"),
            "{error}"
        );
    }
    std::fs::write(&path, &text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).unwrap();
    assert!(Identity::load(&folder).unwrap_err().to_string().contains("chmod 600"));
    assert!(Identity::load(dir.path()).unwrap_err().to_string().contains("baton agent join"));
}

#[tokio::test]
async fn the_servers_certificate_is_replaced_before_it_ends() {
    let short = Lifetimes { server: Duration::from_secs(4), ..Lifetimes::default() };
    let world = world_at(SystemTime::now(), short);
    let first = world.authority.server_identity(SystemTime::now()).unwrap();
    let tls = server_tls(&first).unwrap();
    let (mut client, address) = sockets::listening(tls.clone()).await;
    let before = client.served_certificate(&address).await;
    let keeping =
        tokio::spawn(keep_server_certificate(Arc::clone(&world.authority), tls, first.clone(), |error| {
            panic!("{error}");
        }));
    // Two thirds of its life are over after some 1.3 s.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while client.served_certificate(&address).await == before {
        assert!(tokio::time::Instant::now() < deadline, "the certificate was not replaced");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    keeping.abort();
}
