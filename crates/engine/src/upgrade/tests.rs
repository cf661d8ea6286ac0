//! Stories of an upgrade over three nodes: what each of them says, and who is asked then.

use super::*;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::id::{Digest, Generation, ReleaseNumber, RunNumber};
use baton_model::observed::{InstanceObserved, LogDrops, NodeFacts};
use baton_model::spec::Amount;
use baton_model::upgrade::UpgradeFailure;

const OLD: Digest = Digest([1; 32]);
const NEW: Digest = Digest([2; 32]);

/// The upgrade, the nodes, and the time.
struct Story {
    upgrade: AgentUpgrade,
    nodes: BTreeMap<NodeName, Node>,
    observed: Observed,
    now: UnixMs,
    /// The kinds of the events so far.
    told: Vec<&'static str>,
}

impl Story {
    /// Three nodes with a ready instance each, all of which run the old program.
    fn begin(batch: Amount) -> Self {
        let now = UnixMs(1_000_000);
        let names: Vec<NodeName> = ["a", "b", "c"].iter().map(|name| name.parse().unwrap()).collect();
        let artifact = Artifact {
            digest: NEW,
            size_bytes: 1,
            format: ArtifactFormat::File { name: "baton".to_owned() },
            unpacked_bytes: 1,
        };
        let upgrade = AgentUpgrade {
            request: 1,
            version: "2.0".parse().unwrap(),
            artifact,
            batch,
            requested_at: now,
            requested_by: "alice".to_owned(),
            nodes: names.iter().map(|name| (name.clone(), NodeUpgrade::Waiting)).collect(),
            paused: None,
            cancelled: false,
        };
        let node = |name: &NodeName| Node {
            name: name.clone(),
            address: "127.0.0.1".to_owned(),
            labels: BTreeMap::new(),
            cordoned: false,
            draining: false,
            joined_at: UnixMs(0),
        };
        let nodes = names.iter().map(|name| (name.clone(), node(name))).collect();
        let seen = |name: &NodeName| NodeObserved {
            last_heard: now,
            generation: Generation(1),
            instances: BTreeMap::from([(format!("web.{}", place(name)).parse().unwrap(), instance())]),
            facts: NodeFacts { program: Some(OLD), ..NodeFacts::default() },
        };
        let observed = Observed {
            nodes: names.iter().map(|n| (n.clone(), seen(n))).collect(),
            listening_since: UnixMs(0),
            ..Observed::default()
        };
        Self { upgrade, nodes, observed, now, told: Vec::new() }
    }

    fn seen(&mut self, name: &str) -> &mut NodeObserved {
        self.observed.nodes.get_mut(&name.parse().unwrap()).unwrap()
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(&name.parse().unwrap()).unwrap()
    }

    /// The agent of this node runs the new program.
    fn runs_new(&mut self, name: &str) {
        self.seen(name).facts.program = Some(NEW);
    }

    /// Time passes; every node but the silent ones is heard at its end. One letter per node tells how it stands:
    /// `w`aiting, `a`sked, `d`one, `f`ailed.
    fn after(&mut self, length: Millis, silent: &[&str]) -> String {
        self.now = self.now.plus(length);
        for (name, seen) in &mut self.observed.nodes {
            if !silent.contains(&name.as_str()) {
                seen.last_heard = self.now;
            }
        }
        let decided = decide(&self.upgrade, &self.nodes, &self.observed, self.now);
        self.upgrade = decided.upgrade.clone();
        self.told.extend(decided.events.iter().map(|event| event.kind));
        let again = decide(&self.upgrade, &self.nodes, &self.observed, self.now);
        assert_eq!(again.upgrade, decided.upgrade, "deciding again changes nothing");
        assert_eq!(again.events, [], "deciding again tells nothing");
        self.stand()
    }

    fn stand(&self) -> String {
        let letter = |node: &NodeUpgrade| match node {
            NodeUpgrade::Waiting => 'w',
            NodeUpgrade::Asked(_) => 'a',
            NodeUpgrade::Done { .. } => 'd',
            NodeUpgrade::Failed { .. } => 'f',
        };
        self.upgrade.nodes.values().map(letter).collect()
    }

    fn paused(&self) -> &str {
        self.upgrade.paused.as_deref().unwrap_or_default()
    }
}

fn place(name: &NodeName) -> u8 {
    name.as_str().as_bytes()[0] - b'a' + 1
}

fn instance() -> InstanceObserved {
    InstanceObserved {
        release: ReleaseNumber(1),
        state: InstanceState::Ready,
        ready_since: Some(UnixMs(1)),
        run: RunNumber(1),
        pid: None,
        ports: BTreeMap::new(),
        restarts: 0,
        crash_loop: false,
        last_exit: None,
        reason: String::new(),
        swap: None,
        status: String::new(),
        reload: None,
        log_drops: LogDrops::default(),
    }
}

const SECOND: Millis = Millis::secs(1);

#[test]
fn batch_follows_batch_when_the_one_before_is_done() {
    let mut story = Story::begin(Amount::Percent(50));
    assert_eq!(story.after(SECOND, &[]), "aaw");
    story.runs_new("a");
    assert_eq!(story.after(SECOND, &[]), "aaw");
    assert_eq!(story.after(SETTLED_AFTER, &[]), "daw", "half a batch is not a batch");
    story.runs_new("b");
    story.after(SECOND, &[]);
    assert_eq!(story.after(SETTLED_AFTER, &[]), "dda");
    story.runs_new("c");
    story.after(SECOND, &[]);
    assert_eq!(story.after(SETTLED_AFTER, &[]), "ddd");
    assert_eq!(story.told, ["agent-upgraded", "agent-upgraded", "agent-upgraded", "agents-upgraded"]);
}

#[test]
fn a_node_that_runs_it_already_is_done_unasked() {
    let mut story = Story::begin(Amount::Number(1));
    story.runs_new("a");
    assert_eq!(story.after(SECOND, &[]), "daw");
}

#[test]
fn a_node_that_says_no_pauses_the_rest() {
    let mut story = Story::begin(Amount::Number(1));
    story.after(SECOND, &[]);
    story.seen("a").facts.upgrade_failure =
        Some(UpgradeFailure { request: 1, reason: "it does not start".to_owned() });
    assert_eq!(story.after(SECOND, &[]), "fww");
    assert!(story.paused().contains("a: it does not start"), "{}", story.paused());
    assert_eq!(story.after(Millis::secs(1000), &[]), "fww");
    assert_eq!(story.told, ["agent-upgrade-failed"]);
}

#[test]
fn what_it_said_of_an_earlier_request_is_no_answer_to_this_one() {
    let mut story = Story::begin(Amount::Number(1));
    story.upgrade.request = 2;
    story.seen("a").facts.upgrade_failure =
        Some(UpgradeFailure { request: 1, reason: "it does not start".to_owned() });
    story.after(SECOND, &[]);
    assert_eq!(story.after(SECOND, &[]), "aww");
}

#[test]
fn a_node_that_falls_silent_fails_and_one_that_is_fetching_does_not() {
    let mut story = Story::begin(Amount::Number(2));
    story.after(SECOND, &[]);
    assert_eq!(story.after(Millis(SILENT_FAILS_AFTER.0 - 1), &["a"]), "aaw");
    assert_eq!(story.after(Millis(1), &["a"]), "faw");
    assert!(story.paused().contains("nothing was heard"), "{}", story.paused());
    assert_eq!(story.after(TAKEN_WITHIN, &["a"]), "ffw");
}

#[test]
fn what_was_ready_before_must_be_ready_again() {
    let mut story = Story::begin(Amount::Number(1));
    story.after(SECOND, &[]);
    story.runs_new("a");
    story.seen("a").instances.values_mut().for_each(|it| it.state = InstanceState::Starting);
    story.after(SECOND, &[]);
    assert_eq!(story.after(Millis(READY_WITHIN.0 - 1), &[]), "aww");
    assert_eq!(story.after(Millis(1), &[]), "fww");
    assert!(story.paused().contains("web.1, which was ready before, is not"), "{}", story.paused());
}

#[test]
fn a_program_that_is_back_and_gone_again_settles_anew() {
    let mut story = Story::begin(Amount::Number(1));
    story.after(SECOND, &[]);
    story.runs_new("a");
    story.after(SECOND, &[]);
    story.seen("a").facts.program = Some(OLD);
    assert_eq!(story.after(SETTLED_AFTER, &[]), "aww");
    story.runs_new("a");
    assert_eq!(story.after(SECOND, &[]), "aww");
    assert_eq!(story.after(SETTLED_AFTER, &[]), "daw");
}

#[test]
fn nodes_that_are_set_aside_or_away_are_left_until_they_are_back() {
    let mut story = Story::begin(Amount::Number(3));
    story.node("a").cordoned = true;
    assert_eq!(story.after(Millis::secs(10), &["b"]), "wwa");
    story.runs_new("c");
    story.after(SECOND, &["b"]);
    assert_eq!(story.after(SETTLED_AFTER, &["b"]), "wwd");
    assert_eq!(story.after(SECOND, &[]), "wad", "b is back");
    story.node("a").cordoned = false;
    story.runs_new("b");
    story.after(SECOND, &[]);
    assert_eq!(story.after(SETTLED_AFTER, &[]), "add");
}

#[test]
fn an_agent_that_cannot_upgrade_itself_says_so_at_once() {
    let mut story = Story::begin(Amount::Number(1));
    story.seen("a").facts.program = None;
    assert_eq!(story.after(SECOND, &[]), "fww");
    assert!(story.paused().contains("too old"), "{}", story.paused());
}

#[test]
fn a_cancelled_upgrade_asks_nobody_and_a_removed_node_is_nobodys_to_wait_for() {
    let mut story = Story::begin(Amount::Number(1));
    story.after(SECOND, &[]);
    story.upgrade.cancelled = true;
    story.runs_new("a");
    story.after(SECOND, &[]);
    assert_eq!(story.after(SETTLED_AFTER, &[]), "dww");
    story.nodes.remove(&"b".parse().unwrap());
    assert_eq!(story.after(SECOND, &[]), "dw");
}
