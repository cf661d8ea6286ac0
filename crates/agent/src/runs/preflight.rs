//! Can this file be executed here? Asked before a run is started, so that the answer is a sentence and not an errno.
//!
//! Which shared libraries are missing only the program's loader can tell ([`super::libraries`]).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The kernel reads so much of a file to learn how to execute it (BINPRM_BUF_SIZE).
const HEAD_BYTES: usize = 256;
/// Program headers looked at; real programs have about a dozen.
const PROGRAM_HEADERS_MAX: u16 = 128;
/// Longest path of a loader.
const INTERPRETER_BYTES_MAX: u64 = 4096;

/// Why a program cannot be executed on this machine.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// It is not there.
    #[error("{0} does not exist; check `exec` and what the artifact contains")]
    Missing(PathBuf),
    /// It is a folder, a device or the like.
    #[error("{0} is not a file; `exec` must name a program")]
    NotAFile(PathBuf),
    /// Nobody may execute it.
    #[error("{0} is not executable; set its mode (`chmod +x`) before it is packed")]
    NotExecutable(PathBuf),
    /// It was built for other machines.
    #[error("{program} is built for {built_for}, and this machine is {machine}; build it for {machine}")]
    Architecture {
        /// The program.
        program: PathBuf,
        /// What it was built for.
        built_for: String,
        /// What this is.
        machine: String,
    },
    /// It needs a loader that this machine does not have.
    #[error(
        "{program} needs the loader {loader}, which is not here; link it statically, or build it for this system's C library"
    )]
    Loader {
        /// The program.
        program: PathBuf,
        /// The loader (PT_INTERP).
        loader: PathBuf,
    },
    /// Its loader says that it cannot be loaded: a shared library is missing, or is older than it needs.
    #[error(
        "{program} cannot be loaded on this node: {said}; install the package that has the library here, put it into the artifact (with LD_LIBRARY_PATH in `env`), or link the program statically"
    )]
    Library {
        /// The program.
        program: PathBuf,
        /// What the loader said.
        said: String,
    },
    /// A script whose interpreter is not there.
    #[error(
        "{program} is a script for {interpreter}, which is not here; install it, or correct the script's first line"
    )]
    Interpreter {
        /// The script.
        program: PathBuf,
        /// What `#!` names.
        interpreter: PathBuf,
    },
    /// Neither a program nor a script.
    #[error("{0} is neither a Linux program (ELF) nor a script that begins with `#!`")]
    Format(PathBuf),
    /// An ELF file that ends early.
    #[error("{0} is a damaged program: its ELF headers are cut off")]
    Damaged(PathBuf),
    /// It cannot be read.
    #[error("reading {program}")]
    Io {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Tells whether `program` can be executed here, as far as its file says. Gives its loader, where it needs one.
///
/// # Errors
/// [`PreflightError`], with what to do.
pub fn preflight(program: &Path) -> Result<Option<PathBuf>, PreflightError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PreflightError::Missing(program.into()),
        _ => PreflightError::Io { program: program.into(), source },
    };
    let metadata = std::fs::metadata(program).map_err(failed)?;
    if !metadata.is_file() {
        return Err(PreflightError::NotAFile(program.into()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(PreflightError::NotExecutable(program.into()));
    }
    let mut file = match File::open(program) {
        Ok(file) => file,
        // Executable and not readable: the kernel will say.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        return check_script(program, line).map(|()| None);
    }
    if head.starts_with(b"\x7fELF") {
        return check_elf(program, &mut file, &head);
    }
    Err(PreflightError::Format(program.into()))
}

fn check_script(program: &Path, line: &[u8]) -> Result<(), PreflightError> {
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    let name = line.split(|b| *b == b' ' || *b == b'\t').next().unwrap_or_default();
    let interpreter = PathBuf::from(OsStr::from_bytes(name));
    if name.is_empty() {
        return Err(PreflightError::Format(program.into()));
    }
    if interpreter.is_absolute() && !interpreter.exists() {
        return Err(PreflightError::Interpreter { program: program.into(), interpreter });
    }
    Ok(())
}

/// Class (32 or 64 bits), byte order and machine of an ELF file; that of this program is that of this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Architecture {
    class: u8,
    order: u8,
    machine: u16,
}

impl Architecture {
    fn of(head: &[u8]) -> Option<Self> {
        let (class, order) = (*head.get(4)?, *head.get(5)?);
        let bytes = head.get(18..20)?.try_into().ok()?;
        let machine = if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        Some(Self { class, order, machine })
    }

    fn of_this_machine() -> Option<Self> {
        let mut head = [0; 20];
        File::open("/proc/self/exe").ok()?.read_exact(&mut head).ok()?;
        Self::of(&head)
    }

    /// The kernel may run the 32-bit programs of its family, too; then execve(2) tells.
    fn may_run(self, other: Self) -> bool {
        let family = |machine| match machine {
            3 | 62 => 62,    // EM_386, EM_X86_64
            40 | 183 => 183, // EM_ARM, EM_AARCH64
            other => other,
        };
        self.order == other.order
            && family(self.machine) == family(other.machine)
            && other.class <= self.class
    }

    fn name(self) -> String {
        let name = match self.machine {
            3 => "i686",
            8 => "mips",
            20 => "powerpc",
            21 => "powerpc64",
            22 => "s390x",
            40 => "arm",
            62 => "x86_64",
            183 => "aarch64",
            243 => "riscv",
            258 => "loongarch",
            other => return format!("ELF machine {other}"),
        };
        name.to_owned()
    }
}

fn check_elf(program: &Path, file: &mut File, head: &[u8]) -> Result<Option<PathBuf>, PreflightError> {
    let damaged = || PreflightError::Damaged(program.into());
    let built = Architecture::of(head).ok_or_else(damaged)?;
    let Some(here) = Architecture::of_this_machine() else { return Ok(None) };
    if !here.may_run(built) {
        let (built_for, machine) = (built.name(), here.name());
        return Err(PreflightError::Architecture { program: program.into(), built_for, machine });
    }
    // The loader is looked up for this machine's own class and order; others are the kernel's to judge.
    if built.class != 2 || built.order != 1 {
        return Ok(None);
    }
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = head.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let headers = (|| Some((number(32, 8)?, number(54, 2)?, number(56, 2)? as u16)))();
    let (offset, size, count) = headers.ok_or_else(damaged)?;
    let loader = find_loader(file, offset, size, count.min(PROGRAM_HEADERS_MAX)).map_err(|_| damaged())?;
    match loader {
        Some(loader) if !loader.exists() => Err(PreflightError::Loader { program: program.into(), loader }),
        found => Ok(found),
    }
}

/// The path in PT_INTERP of a 64-bit little-endian program; none where it is static.
fn find_loader(file: &mut File, offset: u64, size: u64, count: u16) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: [u8; 4] = 3_u32.to_le_bytes();
    for index in 0..u64::from(count) {
        let at = index.checked_mul(size).and_then(|place| place.checked_add(offset));
        file.seek(SeekFrom::Start(at.ok_or(io::ErrorKind::InvalidData)?))?;
        let mut header = [0; 56];
        file.read_exact(&mut header)?;
        if header[..4] != PT_INTERP {
            continue;
        }
        let field =
            |at: usize| header[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let (place, len) = (field(8), field(32));
        if len > INTERPRETER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        file.seek(SeekFrom::Start(place))?;
        let mut name = vec![0; len as usize];
        file.read_exact(&mut name)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        return Ok(Some(PathBuf::from(OsStr::from_bytes(&name[..end]))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &[u8], mode: u32, expect: &str) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = preflight(&program).map_or_else(|error| error.to_string(), |_| "fine".to_owned());
        assert!(said.contains(expect), "expected `{expect}`, got `{said}`");
    }

    /// This test itself, with bytes replaced.
    fn changed(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut content = std::fs::read("/proc/self/exe").unwrap();
        change(&mut content);
        content
    }

    #[test]
    fn programs_and_scripts_pass() {
        preflight(Path::new("/bin/sh")).unwrap();
        preflight(Path::new("/proc/self/exe")).unwrap();
        check(b"#!/bin/sh -e\necho\n", 0o755, "fine");
        check(b"#! /usr/bin/env python3\n", 0o755, "fine");
    }

    #[test]
    fn what_cannot_run_is_told() {
        check(b"#!/bin/sh\n", 0o644, "chmod +x");
        check(b"#!/no/such/interpreter -x\n", 0o755, "/no/such/interpreter");
        check(b"hello\n", 0o755, "neither");
        check(b"", 0o755, "neither");
        check(b"\x7fELF", 0o755, "damaged");
        check(&changed(|elf| elf.truncate(100)), 0o755, "damaged");
        check(&changed(|elf| elf[18..20].copy_from_slice(&22_u16.to_le_bytes())), 0o755, "built for s390x");
        let missing = Path::new("/no/such/program");
        assert!(matches!(preflight(missing), Err(PreflightError::Missing(_))));
        assert!(matches!(preflight(Path::new("/tmp")), Err(PreflightError::NotAFile(_))));
    }

    #[test]
    fn a_missing_loader_is_named() {
        let other = changed(|elf| {
            let at = elf.windows(4).position(|w| w == b"/lib").unwrap();
            elf[at..at + 4].copy_from_slice(b"/nix");
        });
        check(&other, 0o755, "needs the loader /nix");
    }
}
