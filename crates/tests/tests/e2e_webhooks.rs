//! Webhooks of analysis on a real cluster: a server that fails first, that hangs, that says no; and a coordinator that is
//! killed in between.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(90);

/// What a server does with the requests that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Answers with this status.
    Answers(u16),
    /// Keeps the connection, and says nothing.
    Hangs,
}

/// A server of webhooks: what came, and what it does with what comes.
struct Hooks {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    came: Arc<Mutex<Vec<Came>>>,
}

/// One request.
#[derive(Clone, Debug)]
struct Came {
    key: String,
    body: Value,
    mood: Mood,
}

impl Hooks {
    fn new(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let hooks = Self { address, mood: Arc::new(Mutex::new(mood)), came: Arc::default() };
        let (mood, came) = (Arc::clone(&hooks.mood), Arc::clone(&hooks.came));
        // Ends with the process of the test.
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().flatten() {
                let now = *mood.lock().expect("whole");
                // A coordinator that was killed says nothing.
                let Some((key, body)) = read(&stream) else { continue };
                came.lock().expect("whole").push(Came { key, body, mood: now });
                match now {
                    Mood::Answers(status) => {
                        let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nlocation: /\r\n\r\n");
                        // It may be gone by then.
                        let _ = (&stream).write_all(text.as_bytes());
                    }
                    Mood::Hangs => kept.push(stream),
                }
            }
        });
        hooks
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().expect("whole") = mood;
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().expect("whole").clone()
    }

    fn wait_for(&self, what: &str, enough: impl Fn(&[Came]) -> bool) -> Vec<Came> {
        wait::until(what, ROOM, || {
            let came = self.came();
            if enough(&came) { Ok(came) } else { Err(format!("{came:?}")) }
        })
    }
}

fn read(mut stream: &TcpStream) -> Option<(String, Value)> {
    stream.set_read_timeout(Some(ROOM)).ok()?;
    let mut text = String::new();
    let mut part = [0; 8192];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        text.push_str(std::str::from_utf8(&part[..read]).ok()?);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let found = head.lines().filter_map(|line| line.split_once(": ")).find(|(it, _)| *it == name);
            found.map(|(_, value)| value.to_owned())
        };
        if body.len() == header("content-length")?.parse::<usize>().ok()? {
            assert!(head.starts_with("POST /verdict?team=a HTTP/1.1\r\n"), "{head}");
            return Some((header("idempotency-key")?, serde_json::from_str(body).ok()?));
        }
    }
}

fn cluster() -> Cluster {
    let extra = vec!["--gateways".to_owned(), "1".to_owned()];
    Cluster::start_with(&ClusterOptions { nodes: 1, extra, ..ClusterOptions::default() })
}

/// A service that nobody asks, and its next release: which breaks a bound that nobody's requests can hold.
fn deployed(cluster: &Cluster, hooks: &Hooks) {
    let file = ServiceFile::web("web", 1)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("route", "path = \"/\"\n")
        .with_section("placement", "replicas = 2\n")
        .with_section(
            "rollout",
            "batch = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"10m\"\nprogress_deadline = \"20m\"\n",
        );
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let analysis = format!(
        "metric = \"request-rate\"\nmin = 1000000\nwindow = \"5s\"\naction = \"webhook\"\nwebhook = \
         \"http://{}/verdict?team=a\"\n",
        hooks.address
    );
    let next = file.with_section("rollout.analysis.busy", &analysis);
    let path = cluster.write("next.toml", &next.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "2.0"]).expect(0);
}

/// The journal's events of this kind.
fn events(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let text = cluster.baton(&["events", "--json", "--last", "1000"]).stdout;
    let each = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let all: Vec<Value> = each.flat_map(|it| it.as_array().cloned().unwrap_or_else(|| vec![it])).collect();
    all.into_iter().filter(|event| event["kind"] == kind).collect()
}

fn wait_for_event(cluster: &Cluster, kind: &str) -> Value {
    wait::until(kind, ROOM, || events(cluster, kind).pop().ok_or_else(|| "none yet".to_owned()))
}

#[test]
fn a_verdict_is_delivered_in_the_end_though_its_server_fails_and_the_coordinator_is_killed() {
    let (cluster, hooks) = (cluster(), Hooks::new(Mood::Answers(503)));
    deployed(&cluster, &hooks);
    let first = hooks.wait_for("a third attempt", |came| came.len() >= 3);
    let body = &first[0].body;
    assert_eq!((&first[0].key, &first[0].body), (&first[1].key, &first[1].body), "the same, told again");
    assert_eq!(body["id"], first[0].key.as_str());
    assert_eq!((&body["kind"], &body["service"]), (&"analysis-failed".into(), &"web".into()), "{body}");
    assert_eq!((&body["cluster"], &body["stage"]), (&"dev".into(), &1.into()), "{body}");
    assert_eq!((&body["from"]["version"], &body["to"]["version"]), (&"1.0".into(), &"2.0".into()), "{body}");
    assert_eq!(
        (&body["verdict"]["name"], &body["verdict"]["answer"]),
        (&"busy".into(), &"fail".into()),
        "{body}"
    );
    assert_eq!(body["verdict"]["measured"]["unit"], "milli-rate", "{body}");

    // Told once, however often it is tried; until then it is shown.
    wait_for_event(&cluster, "webhook-failed");
    let mut failed = events(&cluster, "webhook-failed");
    failed.retain(|event| event["fields"]["id"] == first[0].key.as_str());
    assert_eq!(failed.len(), 1, "{failed:?}");
    let message = failed[0]["message"].as_str().expect("a message");
    let target = format!("http://{}", hooks.address);
    let why =
        format!("{target} was not told of the verdict of busy yet: it answered 503; the next try comes in ");
    assert!(message.contains(&why), "{message}");
    for view in [&["explain", "web"][..], &["rollout", "status", "web"], &["service", "show", "web"]] {
        let shown = cluster.baton(view).expect(0).stdout;
        let why = format!("! {target} was not told of the verdict of busy: it answered 503; try ");
        assert!(shown.contains(&why), "{view:?}: {shown}");
    }

    // What comes from now on comes from another.
    cluster.replace("coordinator");
    hooks.becomes(Mood::Answers(200));
    let key = first[0].key.clone();
    hooks.wait_for("the delivery", |came| {
        came.iter().any(|it| it.key == key && it.mood == Mood::Answers(200))
    });
    let delivered = wait_for_event(&cluster, "webhook-delivered");
    assert_eq!((&delivered["service"], &delivered["fields"]["threshold"]), (&"web".into(), &"busy".into()));
    assert!(!delivered.to_string().contains("team=a"), "an address may be secret: {delivered}");
    wait::until("no webhook that waits", ROOM, || {
        let service = cluster.json(&["service", "show", "web"]);
        if service["webhooks"] == serde_json::json!([]) {
            Ok(())
        } else {
            Err(service["webhooks"].to_string())
        }
    });
    // What was delivered is not posted after a further kill.
    let after = hooks.came().len();
    cluster.kill(cluster.role_pid("coordinator"));
    wait::until("a coordinator that answers", ROOM, || {
        if cluster.baton(&["explain", "web"]).code == 0 { Ok(()) } else { Err("none yet".to_owned()) }
    });
    let again = hooks.came();
    assert!(again[after..].iter().all(|it| it.key != key), "{again:?}");
    let told = events(&cluster, "webhook-delivered");
    assert_eq!(told.iter().filter(|event| event["fields"]["id"] == key.as_str()).count(), 1, "{told:?}");
}

#[test]
fn a_server_that_hangs_holds_nothing_up_and_one_that_says_no_is_given_up() {
    let (cluster, hooks) = (cluster(), Hooks::new(Mood::Hangs));
    deployed(&cluster, &hooks);
    hooks.wait_for("a post", |came| !came.is_empty());
    // While it hangs, an operator decides, and the cluster follows.
    let _ = cluster.baton(&["rollout", "abort", "web"]).expect(0);
    wait::until("the return", ROOM, || {
        let outcome = cluster.json(&["service", "show", "web"])["report"]["rollout"]["outcome"].to_string();
        if outcome.contains("rolled-back") { Ok(()) } else { Err(outcome) }
    });
    assert!(events(&cluster, "webhook-delivered").is_empty());
    hooks.becomes(Mood::Answers(302));
    let given_up = wait_for_event(&cluster, "webhook-given-up");
    let message = given_up["message"].as_str().expect("a message");
    assert!(message.contains("302") && message.contains("redirects are not followed"), "{message}");
    let key = given_up["fields"]["id"].as_str().expect("an id").to_owned();
    let asked = hooks.came().iter().filter(|it| it.key == key && it.mood == Mood::Answers(302)).count();
    assert_eq!(asked, 1, "a final answer is final");
}
