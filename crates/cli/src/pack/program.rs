//! Whether the program of a release can run at all: it is there, executable, and in a form that Linux executes.

use super::{Helper, PackError};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// As much of a program's beginning as is needed to judge it: ELF headers lie within the first few KiB.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// Machines that ELF programs are made for, by `e_machine` (elf(5)), as `uname -m` calls them.
const MACHINES: [(u16, &str); 8] = [
    (0x3e, "x86_64"),
    (0xb7, "aarch64"),
    (0xf3, "riscv64"),
    (0x28, "arm"),
    (0x03, "x86"),
    (0x15, "powerpc64"),
    (0x16, "s390x"),
    (0x102, "loongarch64"),
];

/// The path of the program inside the artifact, in plain form; `None` where it lies elsewhere (an absolute path
/// on the node) or is known only on the node (`${...}` in it).
pub(super) fn inside(program: &str) -> Option<String> {
    if program.starts_with('/') || program.contains("${") {
        return None;
    }
    let parts: Vec<&str> = program.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Some(parts.join("/"))
}

/// Judges an artifact that is one file; gives warnings.
pub(super) fn of_single_file(
    source: &Path,
    name: &str,
    program: &str,
    helpers: &[Helper],
) -> Result<Vec<String>, PackError> {
    for Helper { field, program } in helpers {
        if let Some(wanted) = inside(program).filter(|wanted| wanted != name) {
            return Err(PackError::new(
                format!("`{field}` names `{program}`, but the artifact is the single file `{name}`"),
                format!(
                    "pack a folder that holds both, or write an absolute path for a program that is on the node: \"/usr/bin/{wanted}\""
                ),
            ));
        }
    }
    let Some(wanted) = inside(program) else { return Ok(Vec::new()) };
    if wanted != name {
        return Err(PackError::new(
            format!("`exec` names `{program}`, but the artifact is the single file `{name}`"),
            format!(
                "write `exec = [\"{name}\", ...]`, or an absolute path for a program that is on the node: \"/usr/bin/{wanted}\""
            ),
        ));
    }
    let file = File::open(source).map_err(|e| PackError::io("read", source, &e))?;
    let metadata = file.metadata().map_err(|e| PackError::io("read", source, &e))?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|e| PackError::io("read", source, &e))?;
    let mut warnings = judge(name, &head, metadata.len())?;
    if metadata.permissions().mode() & 0o111 == 0 {
        warnings.push(format!("{} is not executable here; the node makes it so", source.display()));
    }
    Ok(warnings)
}

/// Judges a program by the first [`HEAD_BYTES`] of it and its whole size; gives warnings.
pub(super) fn judge(name: &str, head: &[u8], size: u64) -> Result<Vec<String>, PackError> {
    let rebuild = "build it for Linux, or name another program in `exec`";
    if head.starts_with(b"#!") {
        return script(name, head);
    }
    if head.starts_with(b"\x7fELF") {
        return elf(name, head, size);
    }
    let foreign = match head {
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
            Some("a macOS program or Java class")
        }
        [b'M', b'Z', ..] => Some("a Windows program"),
        [] => Some("empty"),
        _ => None,
    };
    match foreign {
        Some(kind) => {
            Err(PackError::new(format!("the program `{name}` is {kind}, which Linux does not run"), rebuild))
        }
        None => Err(PackError::new(
            format!("the program `{name}` is neither an ELF program nor a script that begins with `#!`"),
            "begin a script with its interpreter, as in `#!/bin/sh`, or name another program in `exec`",
        )),
    }
}

fn script(name: &str, head: &[u8]) -> Result<Vec<String>, PackError> {
    let line = head[2..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_whitespace().next().unwrap_or_default();
    if line.ends_with('\r') {
        return Err(PackError::new(
            format!("the script `{name}` ends its lines as Windows does, so its interpreter is not found"),
            format!("convert it: `sed -i 's/\\r$//' {name}`"),
        ));
    }
    if !interpreter.starts_with('/') {
        return Err(PackError::new(
            format!("the script `{name}` names no interpreter by an absolute path"),
            "begin it with `#!/bin/sh`, or `#!/usr/bin/env python3`",
        ));
    }
    Ok(Vec::new())
}

/// The ELF header as far as it is needed (elf(5)); both classes, both byte orders.
fn elf(name: &str, head: &[u8], size: u64) -> Result<Vec<String>, PackError> {
    let cut = || {
        PackError::new(
            format!("the program `{name}` is cut off: it is shorter than its own ELF header says"),
            "build or copy it again",
        )
    };
    let header = Header::read(head).ok_or_else(cut)?;
    let Some((_, machine)) = MACHINES.iter().find(|(number, _)| *number == header.machine) else {
        return Err(PackError::new(
            format!("the program `{name}` is made for an unknown machine (ELF machine {})", header.machine),
            "build it for the machine of your nodes, as `uname -m` shows it there",
        ));
    };
    // ET_EXEC and ET_DYN; ET_REL is an object file, ET_CORE a memory dump.
    if !matches!(header.kind, 2 | 3) {
        return Err(PackError::new(
            format!("`{name}` is an ELF file, but not a program (an object file or a core dump)"),
            "link it into a program, or name another program in `exec`",
        ));
    }
    if header.end_of_segments(head).ok_or_else(cut)? > size {
        return Err(cut());
    }
    let here = std::env::consts::ARCH;
    if *machine != here {
        return Ok(vec![format!(
            "the program `{name}` is made for {machine}, and this machine is {here}; a node of another machine refuses it"
        )]);
    }
    Ok(Vec::new())
}

struct Header {
    kind: u16,
    machine: u16,
    wide: bool,
    big_endian: bool,
    segments_at: u64,
    segment_size: u16,
    segments: u16,
}

impl Header {
    fn read(head: &[u8]) -> Option<Self> {
        let wide = *head.get(4)? == 2;
        let big_endian = *head.get(5)? == 2;
        let int = |at: usize, len: usize| number(head, at, len, big_endian);
        let short = |at: usize| int(at, 2).and_then(|n| u16::try_from(n).ok());
        let (segments_at, segment_size, segments) =
            if wide { (int(32, 8)?, short(54)?, short(56)?) } else { (int(28, 4)?, short(42)?, short(44)?) };
        Some(Self {
            kind: short(16)?,
            machine: short(18)?,
            wide,
            big_endian,
            segments_at,
            segment_size,
            segments,
        })
    }

    /// The byte after the last one that any segment takes from the file; `None` when the table itself is cut off.
    fn end_of_segments(&self, head: &[u8]) -> Option<u64> {
        let mut end = 0;
        for index in 0..u64::from(self.segments) {
            let entry = self.segments_at.checked_add(index * u64::from(self.segment_size))?;
            let entry = usize::try_from(entry).ok()?;
            if entry >= HEAD_BYTES {
                break; // A table far from the beginning is legal, and rare; it is left unjudged.
            }
            let int = |at: usize, len: usize| number(head, entry.checked_add(at)?, len, self.big_endian);
            let (offset, length) =
                if self.wide { (int(8, 8)?, int(32, 8)?) } else { (int(4, 4)?, int(16, 4)?) };
            end = end.max(offset.checked_add(length)?);
        }
        Some(end)
    }
}

fn number(bytes: &[u8], at: usize, len: usize, big_endian: bool) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
}
