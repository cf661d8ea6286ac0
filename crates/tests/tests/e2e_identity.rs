//! Who may join, and what a wrong token, name, address or certificate is told.

use baton_tests::harness::{Cluster, ClusterOptions};
use std::time::Duration;

fn cluster() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

fn token(cluster: &Cluster, extra: &[&str]) -> String {
    let mut args = vec!["node", "token"];
    args.extend(extra);
    cluster.json(&args)["token"].as_str().expect("a token").to_owned()
}

fn join(cluster: &Cluster, token: &str, name: &str) -> baton_tests::harness::Ran {
    let dir = cluster.folder().join(format!("agent-{name}-{}", token.len()));
    let coordinator = cluster.ready["coordinator"]["address"].as_str().expect("an address").to_owned();
    cluster.baton(&[
        "agent",
        "join",
        "--coordinator",
        &coordinator,
        "--token",
        token,
        "--name",
        name,
        "--address",
        "127.0.0.1",
        "--dir",
        dir.to_str().expect("text"),
    ])
}

#[test]
fn a_token_admits_once() {
    let cluster = cluster();
    let token = token(&cluster, &[]);
    let _ = join(&cluster, &token, "late-1").expect(0);
    let again = join(&cluster, &token, "late-2").expect(1);
    assert!(again.stderr.contains("used"), "{}", again.stderr);
    assert!(again.stderr.contains("baton node token"), "it says what to do: {}", again.stderr);
}

#[test]
fn a_wrong_an_expired_and_a_foreign_token_are_refused() {
    let cluster = cluster();
    let good = token(&cluster, &[]);
    let mut parts: Vec<&str> = good.split('.').collect();
    let zeros = "0".repeat(parts[3].len());
    parts[3] = &zeros;
    let wrong = join(&cluster, &parts.join("."), "n").expect(1);
    assert!(wrong.stderr.contains("token"), "{}", wrong.stderr);

    let brief = token(&cluster, &["--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(2100)); // its whole seconds are the fact that is awaited
    let expired = join(&cluster, &brief, "n").expect(1);
    assert!(expired.stderr.contains("expired"), "{}", expired.stderr);

    let other = self::cluster();
    let foreign = join(&cluster, &token(&other, &[]), "n").expect(1);
    assert!(
        foreign.stderr.contains("authority") || foreign.stderr.contains("fingerprint"),
        "{}",
        foreign.stderr
    );

    let garbage = join(&cluster, "baton1.nonsense", "n").expect(1);
    assert!(garbage.stderr.contains("token"), "{}", garbage.stderr);
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let cluster = cluster();
    let taken = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    let refused = join(&cluster, &token(&cluster, &[]), &taken).expect(1);
    assert!(refused.stderr.contains(&taken), "{}", refused.stderr);
}

#[test]
fn a_wrong_address_is_an_answer_within_bounds() {
    let cluster = cluster();
    let dir = cluster.folder().join("nowhere");
    let ran = cluster.baton(&[
        "agent",
        "join",
        "--coordinator",
        "127.0.0.1:1",
        "--token",
        &token(&cluster, &[]),
        "--name",
        "n",
        "--address",
        "127.0.0.1",
        "--dir",
        dir.to_str().expect("text"),
    ]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("127.0.0.1:1"), "{}", ran.stderr);
    assert!(ran.took < Duration::from_secs(15), "{:?}", ran.took);
    assert!(!dir.join("identity").exists(), "nothing is left half done");
}
