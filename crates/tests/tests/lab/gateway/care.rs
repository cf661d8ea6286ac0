//! What an operator does to a gateway under load: another certificate, another configuration, another program, a stop; and
//! what systemd does when its process is killed.

use super::{line, none_failed, routed};
use crate::fleet::{Fleet, ROOM, install, measured};
use crate::hosts::repository;
use baton_tests::harness::wait;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The name that the certificates are for.
const NAME: &str = "lab.test";
/// What is added to the packaged configuration.
const HTTPS: &str = "https = [\"0.0.0.0:443\"]\n[[certificate]]\nchain = \"/etc/baton/tls/lab.pem\"\nkey = \"/etc/baton/tls/lab.key\"\n";

#[test]
fn a_gateway_is_renewed_upgraded_killed_and_restarted_under_load() {
    let fleet = Fleet::start_behind(2, 2, false);
    fleet.deploy(&routed(), "1.0").ok();
    fleet.await_tables();
    it_stands_as_a_unit(&fleet);
    a_reload_of_an_idle_gateway_is_no_restart(&fleet);
    a_new_certificate_comes_by_a_reload(&fleet);
    a_bad_configuration_is_refused(&fleet);
    packages_are_upgraded(&fleet);
    it_is_killed(&fleet);
    it_is_restarted(&fleet);
}

fn it_stands_as_a_unit(fleet: &Fleet) {
    let status = fleet.hosts.ask("g1", "systemctl status --no-pager baton-gateway");
    assert!(status.contains("active (running)") && status.contains("gateway g1 serves"), "{status}");
    let user = fleet.hosts.ask("g1", "stat -c %U:%a /var/lib/baton-gateway /proc/$(systemctl show --value -p MainPID baton-gateway)/status /var/lib/baton-gateway/gateway.json");
    assert_eq!(
        user.lines().collect::<Vec<_>>(),
        ["baton-gateway:700", "baton-gateway:444", "baton-gateway:600"]
    );
}

/// Something is done to a gateway that must disturb nobody: under load through both, its unit goes on as another process, and
/// no request fails.
#[track_caller]
fn followed(fleet: &Fleet, what: &str, host: &str, act: impl FnOnce()) {
    let before = fleet.gateway(host);
    let load = fleet.through(&["g1", "g2"]);
    let begun = Instant::now();
    act();
    let new = fleet.await_another(host, &before);
    let took = begun.elapsed();
    fleet.await_end(host, &before);
    fleet.await_tables();
    let counted = fleet.after_more(load);
    none_failed(&format!("{what} ({before} -> {new} in {:.1} s)", took.as_secs_f64()), &counted);
    assert_eq!(fleet.hosts.property(host, "baton-gateway", "NRestarts"), "0", "it was no restart");
}

/// With nothing in flight the process before ends at once, and must not be the unit's any more by then.
fn a_reload_of_an_idle_gateway_is_no_restart(fleet: &Fleet) {
    for _ in 0..5 {
        let before = fleet.gateway("g1");
        fleet.hosts.ask("g1", "systemctl reload baton-gateway");
        fleet.await_another("g1", &before);
        fleet.await_end("g1", &before);
    }
    fleet.await_tables();
    assert_eq!(fleet.hosts.property("g1", "baton-gateway", "NRestarts"), "0");
}

/// Makes a certificate for [`NAME`] and returns its file; the key is beside it.
fn certificate(fleet: &Fleet, name: &str) -> PathBuf {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    let made = parameters.self_signed(&key).expect("signed");
    let path = fleet.folder().join(format!("{name}.pem"));
    std::fs::write(&path, made.pem()).expect("written");
    std::fs::write(path.with_extension("key"), key.serialize_pem()).expect("written");
    path
}

/// Puts a certificate where the gateway's configuration has it, readable by the gateway.
fn put(fleet: &Fleet, certificate: &Path) {
    fleet.hosts.ask("g1", "install -d -m 750 -g baton-gateway /etc/baton/tls");
    fleet.hosts.push("g1", certificate, "/etc/baton/tls/lab.pem");
    fleet.hosts.push("g1", &certificate.with_extension("key"), "/etc/baton/tls/lab.key");
    fleet.hosts.ask("g1", "cd /etc/baton/tls && chgrp baton-gateway lab.key && chmod 640 lab.key");
}

/// `curl` from beside the hosts.
fn curl(args: &[&str]) -> Command {
    let mut command = Command::new(repository().join("tests/lab/hosts.sh"));
    command.args(["client", "curl", "-sS", "-m", "60"]).args(args).stdin(Stdio::null());
    command
}

/// `curl` of a page by TLS, for which this certificate must be the gateway's.
fn by_tls(fleet: &Fleet, certificate: &Path, path: &str, args: &[&str]) -> Command {
    let (at, url) = (format!("{NAME}:443:{}", fleet.hosts.address("g1")), format!("https://{NAME}{path}"));
    let mut command = curl(&["--http1.1", "--resolve", &at, &url]);
    command.arg("--cacert").arg(certificate).args(args);
    command
}

/// Waits until the gateway shows this certificate.
#[track_caller]
fn await_shown(fleet: &Fleet, certificate: &Path) {
    wait::until("the certificate", ROOM, || {
        let output = by_tls(fleet, certificate, "/", &[]).output().expect("curl runs");
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
}

/// Starts a request that takes a while, and waits until the gateway has it: by TLS, so that its connection has been accepted once
/// it is sent.
fn begin(mut curl: Command) -> Child {
    let mut child =
        curl.arg("-v").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl starts");
    let mut said = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("> GET") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut said, &mut line).expect("text");
        assert!(read > 0, "curl ended before it asked");
    }
    // What it says later fits into the pipe.
    child.stderr = Some(said.into_inner());
    // It has been written; the gateway, the instance and back take milliseconds.
    std::thread::sleep(Duration::from_millis(500));
    child
}

/// The request that was begun is answered.
#[track_caller]
fn answered(child: Child) {
    let output = child.wait_with_output().expect("curl ends");
    let (answer, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && answer.contains("web."), "{answer}\n{said}");
}

fn a_new_certificate_comes_by_a_reload(fleet: &Fleet) {
    let [first, second] = ["first", "second"].map(|name| certificate(fleet, name));
    put(fleet, &first);
    followed(fleet, "systemctl reload with a port and a certificate more", "g1", || {
        fleet.hosts.ask(
            "g1",
            &format!("printf '{HTTPS}' >>/etc/baton/gateway.toml && systemctl reload baton-gateway"),
        );
    });
    await_shown(fleet, &first);
    let open = begin(by_tls(fleet, &first, "/wait/3000", &[]));
    put(fleet, &second);
    followed(fleet, "systemctl reload with another certificate", "g1", || {
        fleet.hosts.ask("g1", "systemctl reload baton-gateway");
    });
    await_shown(fleet, &second);
    let refused = by_tls(fleet, &first, "/", &[]).output().expect("curl runs");
    assert_eq!(refused.status.code(), Some(60), "the one before is shown no longer");
    answered(open);
}

fn a_bad_configuration_is_refused(fleet: &Fleet) {
    let before = fleet.gateway("g1");
    fleet
        .hosts
        .ask("g1", "cp -p /etc/baton/gateway.toml /root && echo 'colour = 1' >>/etc/baton/gateway.toml");
    let refused = fleet.hosts.run("g1", "systemctl reload baton-gateway");
    assert_ne!(refused.code, 0, "a reload that changes nothing says so");
    let journal =
        fleet.hosts.ask("g1", "journalctl --sync && journalctl -q --no-pager -u baton-gateway -n 20");
    assert!(journal.contains("colour"), "{journal}");
    assert_eq!(fleet.gateway("g1"), before);
    fleet.hosts.ask("g1", "mv /root/gateway.toml /etc/baton/gateway.toml");
}

fn packages_are_upgraded(fleet: &Fleet) {
    let of_the_package = |host: &str| {
        wait::until("the installed program", ROOM, || {
            let compared = fleet
                .hosts
                .run(host, "cmp /proc/$(systemctl show --value -p MainPID baton-gateway)/exe /usr/bin/baton");
            if compared.code == 0 { Ok(()) } else { Err(compared.stderr) }
        });
    };
    followed(fleet, "upgrade of the gateway's packages", "g1", || {
        install(&fleet.hosts, "g1", "new", &["baton", "baton-gateway"]).ok();
    });
    of_the_package("g1");
    assert!(
        fleet.hosts.ask("g1", "cat /etc/baton/gateway.toml").contains("lab.pem"),
        "an upgrade keeps the changes"
    );
    followed(fleet, "upgrade of the program alone", "g2", || {
        install(&fleet.hosts, "g2", "new", &["baton"]).ok();
    });
    of_the_package("g2");
}

/// Its process is killed while the one that it followed still has something in flight: that is answered, systemd starts the
/// gateway at once, no connection is refused meanwhile, and the other gateway notices nothing.
fn it_is_killed(fleet: &Fleet) {
    let open = begin(by_tls(fleet, &fleet.folder().join("second.pem"), "/wait/6000", &[]));
    let before = fleet.gateway("g1");
    fleet.hosts.ask("g1", "systemctl reload baton-gateway");
    let killed = fleet.await_another("g1", &before);
    let (load, other) = (fleet.through(&["g1"]), fleet.through(&["g2"]));
    let begun = Instant::now();
    fleet.hosts.ask("g1", &format!("kill -9 {killed}"));
    fleet.await_another("g1", &killed);
    let page = format!("http://{}/", fleet.hosts.address("g1"));
    wait::until("an answer", ROOM, || {
        match curl(&[&page]).stdout(Stdio::null()).status().expect("curl runs").code() {
            Some(0) => Ok(()),
            code => Err(format!("{code:?}")),
        }
    });
    let back = begun.elapsed();
    answered(open);
    let (counted, other) = (fleet.after_more(load), fleet.after_more(other));
    let refused = counted.failures.iter().filter(|it| it.contains("refused")).count();
    assert_eq!(refused, 0, "connections wait for the next process: {:#?}", counted.failures);
    measured(
        "kill -9 of a gateway, through it",
        format!("{}; it answers after {:.2} s", line(&counted), back.as_secs_f64()),
    );
    none_failed("kill -9 of a gateway, through the other", &other);
    fleet.await_tables();
}

/// A restart is another process of the unit, also where the one before has something in flight: that is answered, and nothing that
/// comes meanwhile is refused or waits for it.
fn it_is_restarted(fleet: &Fleet) {
    let before = fleet.gateway("g1");
    let (load, other) = (fleet.through(&["g1"]), fleet.through(&["g2"]));
    let open = begin(by_tls(fleet, &fleet.folder().join("second.pem"), "/wait/2000", &[]));
    let begun = Instant::now();
    fleet.hosts.ask("g1", "systemctl restart baton-gateway");
    let took = begun.elapsed();
    answered(open);
    let (counted, other) = (fleet.after_more(load), fleet.after_more(other));
    none_failed(
        &format!("systemctl restart of a gateway, through it ({:.1} s)", took.as_secs_f64()),
        &counted,
    );
    none_failed("systemctl restart of a gateway, through the other", &other);
    assert_ne!(fleet.gateway("g1"), before, "it is another process");
    fleet.await_tables();
    // A stop asks every process, also one that is only about to take over.
    fleet.hosts.ask("g1", "systemctl reload baton-gateway && systemctl stop baton-gateway");
    wait::until("the end of every process", ROOM, || {
        match fleet.hosts.run("g1", "pgrep -u baton-gateway").stdout {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        }
    });
}
