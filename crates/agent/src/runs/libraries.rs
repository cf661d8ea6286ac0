//! Which shared libraries a program lacks on this node, asked of the one that knows: its own loader.
//!
//! `ld.so --list PROGRAM` (glibc and musl alike; it is what ldd(1) does) looks every library up as it would at the
//! start, with the workload's own search path, and executes nothing of them. The loader must be the node's: one that
//! comes with an artifact is not run by the agent.

use super::PreflightError;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A loader that has not answered by then is not asked further: the start will tell.
const WITHIN: Duration = Duration::from_secs(5);
/// What of the workload's environment says where libraries are; what preloads or audits would execute code.
const SEARCH_PATH: &str = "LD_LIBRARY_PATH";
/// How a loader begins to say that a library is not there (glibc, musl), and how glibc ends to say that it is too old.
const MISSING: [&str; 2] = ["error while loading shared libraries: ", "Error loading shared library "];
const TOO_OLD: &str = "not found (required by ";

/// That a program is complete is believed for so long: all instances of a release are staged within it.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// What a loader is asked: itself, the program, the search path, the folder.
type Question = (PathBuf, PathBuf, Vec<OsString>, PathBuf);

/// Asks loaders, each question once for many instances: two hundred of one release are one process.
#[derive(Debug, Default)]
pub struct Loaders {
    /// What was found complete, and when.
    complete: Mutex<BTreeMap<Question, Instant>>,
}

impl Loaders {
    /// As [`check`]; whoever asks while another does waits for that answer. Only a good one is kept.
    ///
    /// # Errors
    /// As [`check`].
    pub async fn check(
        &self,
        loader: &Path,
        program: &Path,
        env: &[(OsString, OsString)],
        cwd: &Path,
    ) -> Result<(), PreflightError> {
        let search = env.iter().filter(|(name, _)| name == SEARCH_PATH).map(|(_, value)| value.clone());
        let question = (loader.to_owned(), program.to_owned(), search.collect(), cwd.to_owned());
        let mut complete = self.complete.lock().await;
        complete.retain(|_, since| since.elapsed() < BELIEVED_FOR);
        if complete.contains_key(&question) {
            return Ok(());
        }
        check(loader, program, env, cwd).await?;
        complete.insert(question, Instant::now());
        Ok(())
    }
}

/// Asks `loader` whether it finds everything that `program` needs.
///
/// # Errors
/// [`PreflightError::Library`], with the library's name. Where the loader cannot be asked, nothing is said against it.
pub async fn check(
    loader: &Path,
    program: &Path,
    env: &[(OsString, OsString)],
    cwd: &Path,
) -> Result<(), PreflightError> {
    let mut command = Command::new(loader);
    command.arg("--list").arg(program).env_clear().current_dir(cwd).kill_on_drop(true);
    command.envs(env.iter().filter(|(name, _)| name == SEARCH_PATH).cloned());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    match tokio::time::timeout(WITHIN, command.output()).await {
        Ok(Ok(output)) if !output.status.success() => {
            match complaint(&String::from_utf8_lossy(&output.stderr)) {
                Some(said) => Err(PreflightError::Library { program: program.into(), said }),
                None => Ok(()),
            }
        }
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(%error, loader = %loader.display(), "a loader could not be asked");
            Ok(())
        }
        Err(_elapsed) => {
            tracing::debug!(loader = %loader.display(), "a loader did not answer");
            Ok(())
        }
    }
}

/// What it says of libraries, without the program's name in front.
fn complaint(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let missing = MISSING.iter().find_map(|begins| Some(line.split_once(begins)?.1));
        let too_old = || line.contains(TOO_OLD).then_some(line);
        Some(missing.or_else(too_old)?.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_both_c_libraries_are_understood() {
        let check = |said: &str, expect: Option<&str>| assert_eq!(complaint(said).as_deref(), expect);
        check(
            "/x/web: error while loading shared libraries: libpq.so.5: cannot open shared object file",
            Some("libpq.so.5: cannot open shared object file"),
        );
        check(
            "Error loading shared library libpq.so.5: No such file or directory (needed by /x/web)",
            Some("libpq.so.5: No such file or directory (needed by /x/web)"),
        );
        let old = "/lib/libc.so.6: version `GLIBC_2.99' not found (required by /x/web)";
        check(&format!("/x/web: {old}\n"), Some(&format!("/x/web: {old}")));
        check("something else", None);
    }

    #[tokio::test]
    async fn what_is_complete_is_asked_once_and_what_is_not_each_time() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (loader, asked) = (folder.path().join("loader"), folder.path().join("asked"));
        let script = "#!/bin/sh\necho >>asked\n[ \"$2\" = good ] || { echo 'x: error while loading shared libraries: y' >&2; exit 1; }\n";
        std::fs::write(&loader, script).unwrap();
        std::fs::set_permissions(&loader, std::fs::Permissions::from_mode(0o755)).unwrap();
        // One that another test is starting may hold the fresh file open for a moment (`ETXTBSY`, execve(2)).
        let asked_once = || std::process::Command::new(&loader).current_dir(folder.path()).output();
        while asked_once().is_err_and(|error| error.kind() == std::io::ErrorKind::ExecutableFileBusy) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::fs::remove_file(&asked).unwrap();
        let loaders = Loaders::default();
        let times = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
        let check = |program: &'static str| loaders.check(&loader, Path::new(program), &[], folder.path());
        let (one, other) = tokio::join!(check("good"), check("good"));
        one.and(other).unwrap();
        assert_eq!(times(), 1);
        assert!(check("bad").await.is_err() && check("bad").await.is_err());
        assert_eq!(times(), 3);
    }

    #[tokio::test]
    async fn a_program_that_runs_here_is_complete() {
        let program = Path::new("/proc/self/exe").canonicalize().unwrap();
        let loader = super::super::preflight(&program).unwrap().expect("tests are linked dynamically");
        check(&loader, &program, &[], Path::new("/")).await.unwrap();
        let odd = check(Path::new("/bin/false"), &program, &[], Path::new("/")).await;
        odd.expect("what says nothing of libraries is no complaint");
    }
}
