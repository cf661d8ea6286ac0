//! Whether a program can be the agent at all, asked before the old one gives way.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// A program that cannot say its version within this time is none of ours.
const VERSION_WITHIN: Duration = Duration::from_secs(5);
/// A shim that is being started may hold the freshly written file open for a moment (`ETXTBSY`, execve(2)).
const BUSY_ATTEMPTS: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// The part of an ELF header that says for which machine it is: class, byte order, `e_machine`; see elf(5).
const HEAD_BYTES: usize = 20;

/// Refuses a program that is made for another machine, or cannot say its version. The text says why.
pub(super) async fn check(program: &Path) -> Result<(), String> {
    let theirs = head(program).map_err(|error| format!("it cannot be read: {error}"))?;
    let ours = head(Path::new("/proc/self/exe")).map_err(|error| format!("no /proc/self/exe: {error}"))?;
    compare(&theirs, &ours)?;
    let mut attempt = 1;
    let status = loop {
        match tokio::time::timeout(VERSION_WITHIN, say_version(program)).await {
            Err(_) => {
                return Err(format!(
                    "`baton version` of it does not end within {} s",
                    VERSION_WITHIN.as_secs()
                ));
            }
            Ok(Ok(status)) => break status,
            Ok(Err(error))
                if error.kind() == io::ErrorKind::ExecutableFileBusy && attempt < BUSY_ATTEMPTS =>
            {
                attempt += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Ok(Err(error)) => return Err(format!("it cannot be executed: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "`baton version` of it fails ({status}): is it a baton program, and made for this host's system?"
    ))
}

async fn say_version(program: &Path) -> io::Result<ExitStatus> {
    Command::new(program)
        .arg("version")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
}

fn head(program: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(program)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn compare(theirs: &[u8], ours: &[u8]) -> Result<(), String> {
    if theirs.len() < HEAD_BYTES || !theirs.starts_with(b"\x7fELF") {
        return Err(
            "it is not a program for Linux (no ELF header): give the `baton` binary itself".to_owned()
        );
    }
    let machine = |head: &[u8]| (head[4], head[5], head[18], head[19]);
    if machine(theirs) != machine(ours) {
        return Err(format!(
            "it is made for another machine than this {}: give a program per kind of machine, with --node",
            rustix::system::uname().machine().to_string_lossy()
        ));
    }
    Ok(())
}

/// Makes a fetched file a program: executable, and on the disk.
pub(super) fn install(part: &Path, program: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = program.parent().ok_or_else(|| io::Error::other("a program without a folder"))?;
    fs::create_dir_all(folder)?;
    fs::set_permissions(part, fs::Permissions::from_mode(0o755))?;
    File::open(part)?.sync_all()?;
    fs::rename(part, program)?;
    crate::durable::sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_program_of_this_machine_that_says_its_version_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let refused = async |bytes: &[u8]| {
            let path = folder.path().join("program");
            let part = folder.path().join("part");
            fs::write(&part, bytes).unwrap();
            install(&part, &path).unwrap();
            check(&path).await.unwrap_err()
        };
        assert!(refused(b"#!/bin/sh\nexit 0\n").await.contains("no ELF header"));
        assert!(refused(b"").await.contains("no ELF header"));
        let mut own = fs::read("/bin/false").unwrap();
        assert!(refused(&own).await.contains("fails (exit status: 1)"));
        own[18] ^= 0x40;
        assert!(refused(&own).await.contains("another machine"));
        check(Path::new("/bin/true")).await.unwrap();
    }
}
