//! docs/install.md, followed to the letter: its blocks are run where it says, with the lab's addresses for its own.

use crate::fleet::{COORDINATOR, measured, packages};
use crate::hosts::{Hosts, repository};
use std::time::Instant;

/// The page's own addresses, of the coordinator's host and of the node.
const ADDRESSES: [(&str, &str); 2] = [("10.0.0.5", COORDINATOR), ("10.0.0.11", "n1")];

/// The page's shell blocks in order, each with the host that it names.
fn blocks() -> Vec<(&'static str, String)> {
    let page = std::fs::read_to_string(repository().join("docs/install.md")).expect("docs/install.md");
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let host = match line {
            "```sh coordinator" => COORDINATOR,
            "```sh node" => "n1",
            _ => continue,
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push((host, block.join("\n")));
    }
    blocks
}

#[test]
fn who_follows_the_installation_page_has_a_service() {
    let hosts = Hosts::boot(&[COORDINATOR, "n1"], false);
    for (host, names) in [(COORDINATOR, ["baton", "baton-coordinator"]), ("n1", ["baton", "baton-agent"])] {
        for package in packages("old", &names) {
            let name = package.file_name().expect("a file").to_string_lossy().into_owned();
            hosts.push(host, &package, &format!("/root/{name}"));
        }
    }
    let begun = Instant::now();
    let mut last = String::new();
    for (host, block) in blocks() {
        if host == "n1" {
            let token = hosts.ask(COORDINATOR, "cat /root/node-1.token");
            hosts.ask("n1", &format!("echo '{token}' >/root/node-1.token"));
        }
        let of_the_lab =
            |text: String, (written, host): &(&str, &str)| text.replace(written, &hosts.address(host));
        let block = ADDRESSES.iter().rev().fold(block, of_the_lab);
        println!("{host}:\n{block}");
        last = hosts.ask(host, &format!("set -eu; cd /root\n{block}"));
    }
    measured(
        "docs/install.md from dpkg to a served request",
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
    );
    let answer = last.lines().last().unwrap_or_default();
    assert!(answer.starts_with("1.0 "), "{last}");
}
