//! docs/install.md, followed to the letter: its blocks are run where it says, with the lab's addresses for its own.

use crate::fleet::{COORDINATOR, measured, packages};
use crate::hosts::{Hosts, repository};
use std::time::Instant;

/// The page's own addresses, of the coordinator's host, of the node and of the gateway.
const ADDRESSES: [(&str, &str); 3] = [("10.0.0.5", COORDINATOR), ("10.0.0.11", "n1"), ("10.0.0.21", "g1")];
/// What the page has a person copy to a host before its commands, from the coordinator's.
const COPIED: [(&str, &str); 2] = [("n1", "node-1.token"), ("g1", "edge-1.token")];

/// Who answers the page's own requests, in their order.
const SERVED_BY: [&str; 2] = ["a node", "a gateway"];

/// The page's shell blocks in order, each with the host that it names.
fn blocks() -> Vec<(&'static str, String)> {
    let page = std::fs::read_to_string(repository().join("docs/install.md")).expect("docs/install.md");
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let host = match line {
            "```sh coordinator" => COORDINATOR,
            "```sh node" => "n1",
            "```sh gateway" => "g1",
            _ => continue,
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push((host, block.join("\n")));
    }
    blocks
}

#[test]
fn who_follows_the_installation_page_has_a_service() {
    let hosts = Hosts::boot(&[COORDINATOR, "n1", "g1"], false);
    for (host, names) in [
        (COORDINATOR, ["baton", "baton-coordinator"]),
        ("n1", ["baton", "baton-agent"]),
        ("g1", ["baton", "baton-gateway"]),
    ] {
        for package in packages("old", &names) {
            let name = package.file_name().expect("a file").to_string_lossy().into_owned();
            hosts.push(host, &package, &format!("/root/{name}"));
        }
    }
    let begun = Instant::now();
    let mut answers = Vec::new();
    for (host, block) in blocks() {
        for (_, file) in COPIED.iter().filter(|(to, _)| *to == host) {
            let token = hosts.ask(COORDINATOR, &format!("cat /root/{file}"));
            hosts.ask(host, &format!("echo '{token}' >/root/{file}"));
        }
        let of_the_lab =
            |text: String, (written, host): &(&str, &str)| text.replace(written, &hosts.address(host));
        let block = ADDRESSES.iter().rev().fold(block, of_the_lab);
        println!("{host}:\n{block}");
        let asks = block.contains("curl ");
        let said = hosts.ask(host, &format!("set -eu; cd /root\n{block}"));
        if asks {
            measured(
                &format!("docs/install.md from dpkg to a served request, by {}", SERVED_BY[answers.len()]),
                format!("{:.1} s", begun.elapsed().as_secs_f64()),
            );
            answers.push(said.lines().last().unwrap_or_default().to_owned());
        }
    }
    // By the node itself, then by the gateway.
    let [direct, by_gateway] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(direct.starts_with("1.0 ") && by_gateway.starts_with("3.0 "), "{answers:?}");
}
