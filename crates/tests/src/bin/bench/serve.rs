//! The server under measurement: std only, up in a millisecond, the same one under every supervisor.
//!
//! It serves when it is called as `run` (so that runit can execute it without a shell between), or with
//! `BENCH_SERVE=1`; it takes its socket from `LISTEN_FDS`, or binds the address in `BENCH_LISTEN` or in the file `./listen`.

use anyhow::{Context as _, Result};
use baton_tests::harness::ServiceFile;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process is the server and not the bench.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os("BENCH_SERVE").is_some()
        || std::env::args_os()
            .next()
            .is_some_and(|me| std::path::Path::new(&me).file_name() == Some("run".as_ref()))
}

/// The service `web` behind gateways: this server, at a port that its node gives.
pub(crate) fn routed() -> Result<ServiceFile> {
    Ok(ServiceFile::web("web", 1)
        .with_program(std::env::current_exe()?, r#"["bench"]"#)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("BENCH_SERVE", "1")
        .with_env("BENCH_LISTEN", "${NODE_ADDRESS}:${PORT_HTTP}")
        .with_section("route", "path = \"/\"\n"))
}

/// Serves until it is killed; on SIGTERM it accepts nothing more and ends when its connections have.
pub(crate) fn serve() -> Result<()> {
    let listener = if std::env::var_os("LISTEN_FDS").is_some() {
        inherited()
    } else if let Ok(address) = std::env::var("BENCH_LISTEN") {
        TcpListener::bind(address)?
    } else {
        let address = std::fs::read_to_string("listen").context("the file ./listen")?;
        TcpListener::bind(address.trim())?
    };
    let draining = Arc::new(AtomicBool::new(false));
    drain_on_sigterm(&draining)?;
    let open = Arc::new(());
    listener.set_nonblocking(true)?;
    while !draining.load(Ordering::Relaxed) {
        let mut ready =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&listener), nix::poll::PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut ready, 20_u16);
        while let Ok((connection, _)) = listener.accept() {
            let (draining, open) = (Arc::clone(&draining), Arc::clone(&open));
            std::thread::spawn(move || {
                let _ = answer(&connection, &draining);
                drop(open);
            });
        }
    }
    drop(listener);
    for _ in 0..500 {
        if Arc::strong_count(&open) == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

#[allow(unsafe_code)]
fn inherited() -> TcpListener {
    // SAFETY: whoever set LISTEN_FDS gave us descriptor 3, and nothing else in this process uses it.
    unsafe { TcpListener::from(OwnedFd::from_raw_fd(3)) }
}

fn drain_on_sigterm(draining: &Arc<AtomicBool>) -> Result<()> {
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::SIGTERM);
    set.thread_block()?;
    let draining = Arc::clone(draining);
    std::thread::spawn(move || {
        if set.wait().is_ok() {
            draining.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Answers requests on one connection until the client closes it, or we drain.
fn answer(connection: &TcpStream, draining: &AtomicBool) -> std::io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    loop {
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
        }
        let last = draining.load(Ordering::Relaxed);
        let version = std::env::var("BATON_VERSION").unwrap_or_default();
        let body = format!("version={version} pid={}\n", std::process::id());
        let close = if last { "Connection: close\r\n" } else { "" };
        (&mut &*connection).write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}", body.len()).as_bytes(),
        )?;
        if last {
            return Ok(());
        }
    }
}
