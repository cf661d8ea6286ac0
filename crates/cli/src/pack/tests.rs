//! Real files on a real disk: what is packed, and what is refused with which words.

use super::*;
use flate2::Compression as GzipLevel;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const SCRIPT: &[u8] = b"#!/bin/sh\nexec sleep 1\n";

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// One entry of an archive made by hand, so that it may hold what no tool would write.
struct Entry {
    path: &'static str,
    kind: EntryType,
    mode: u32,
    content: &'static [u8],
    link: &'static str,
}

fn file(path: &'static str, content: &'static [u8]) -> Entry {
    Entry { path, kind: EntryType::Regular, mode: 0o755, content, link: "" }
}

fn link(path: &'static str, kind: EntryType, link: &'static str) -> Entry {
    Entry { path, kind, mode: 0o777, content: b"", link }
}

/// The bytes of a tar archive with these entries, names written as they are.
fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.content.len() as u64);
        let bytes = header.as_mut_bytes();
        bytes[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        bytes[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_cksum();
        builder.append(&header, entry.content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), GzipLevel::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Packs one file of these bytes.
fn pack_bytes(name: &str, bytes: &[u8], program: &str) -> Result<Packed, PackError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    write(&path, bytes, 0o755);
    pack(&path, program, &[])
}

/// The parts of an ELF header that are judged; the rest is zero.
fn elf(kind: u16, machine: u16, segment_length: u64) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16..18].copy_from_slice(&kind.to_le_bytes());
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
    bytes[64 + 32..64 + 40].copy_from_slice(&segment_length.to_le_bytes());
    bytes
}

#[track_caller]
fn refuses(packed: Result<Packed, PackError>, what: &str, help: &str) {
    let error = packed.expect_err(what);
    assert!(error.what.contains(what), "{error:?} does not say `{what}`");
    assert!(error.help.contains(help), "{error:?} does not help with `{help}`");
}

#[test]
fn a_single_file_is_sent_as_it_is() {
    let packed = pack_bytes("web", SCRIPT, "./web").unwrap();
    assert_eq!(packed.artifact.format, ArtifactFormat::File { name: "web".to_owned() });
    assert_eq!(packed.artifact.size_bytes, SCRIPT.len() as u64);
    let expect: [u8; 32] = Sha256::digest(SCRIPT).into();
    assert_eq!(packed.artifact.digest, Digest(expect));
    assert_eq!(packed.warnings, Vec::<String>::new());
}

#[test]
fn a_single_file_that_is_not_executable_is_a_warning() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("web"), SCRIPT, 0o644);
    let packed = pack(&dir.path().join("web"), "web", &[]).unwrap();
    assert!(
        packed.warnings[0].contains("is not executable here; the node makes it so"),
        "{:?}",
        packed.warnings
    );
}

#[test]
fn a_real_program_is_taken_without_a_warning() {
    let packed = pack(Path::new("/bin/sh"), "sh", &[]).unwrap();
    assert_eq!(packed.warnings, Vec::<String>::new());
}

#[test]
fn programs_that_linux_cannot_run_are_refused() {
    let here: u16 = if cfg!(target_arch = "x86_64") { 0x3e } else { 0xb7 };
    let elsewhere: u16 = if cfg!(target_arch = "x86_64") { 0xb7 } else { 0x3e };
    assert_eq!(pack_bytes("web", &elf(2, here, 120), "web").unwrap().warnings.len(), 0);
    let warned = pack_bytes("web", &elf(3, elsewhere, 120), "web").unwrap().warnings;
    assert!(warned[0].contains("is made for"), "{warned:?}");
    for (bytes, what) in [
        (elf(2, here, 121), "is cut off"),
        (elf(2, here, u64::MAX), "is cut off"),
        (elf(2, here, 120)[..30].to_vec(), "is cut off"),
        (elf(2, 0xffff, 120), "unknown machine"),
        (elf(1, here, 120), "not a program"),
        (b"MZ\x90\x00".to_vec(), "a Windows program"),
        (b"\xcf\xfa\xed\xfe".to_vec(), "a macOS program"),
        (b"echo hello\n".to_vec(), "neither an ELF program nor a script"),
        (b"#!python3\n".to_vec(), "no interpreter by an absolute path"),
        (b"#!/bin/sh\r\necho\r\n".to_vec(), "as Windows does"),
        (b"".to_vec(), "is empty"),
    ] {
        refuses(pack_bytes("web", &bytes, "web"), what, "");
    }
    refuses(pack_bytes("web", SCRIPT, "server"), "the artifact is the single file `web`", "exec = [\"web\"");
    assert!(pack_bytes("data.txt", b"hello", "/usr/bin/cat").is_ok());
}

#[test]
fn archives_are_told_by_their_bytes() {
    let tar = tar_of(&[file("bin/web", SCRIPT)]);
    let cases = [
        ("web.tar", tar.clone(), ArtifactFormat::Tar),
        ("web", gzip(&tar), ArtifactFormat::TarGzip),
        ("web.tar.gz", zstd::encode_all(&tar[..], 3).unwrap(), ArtifactFormat::TarZstd),
    ];
    for (name, bytes, format) in cases {
        let packed = pack_bytes(name, &bytes, "bin/web").unwrap();
        assert_eq!(packed.artifact.format, format);
        assert_eq!(packed.artifact.unpacked_bytes, ENTRY_OVERHEAD + SCRIPT.len() as u64);
        assert_eq!(packed.artifact.size_bytes, bytes.len() as u64);
    }
    refuses(pack_bytes("web.tgz", SCRIPT, "web"), "named like a tar archive", "tar -czf");
    refuses(pack_bytes("web.zip", b"PK\x03\x04", "web"), "not unpacked on nodes", ".tar.zst");
}

#[test]
fn damaged_archives_are_refused_wherever_they_are_cut() {
    let tar = tar_of(&[file("web", SCRIPT), file("more", &[7; 5000])]);
    let gz = gzip(&tar);
    let zst = zstd::encode_all(&tar[..], 3).unwrap();
    for (name, whole) in [("web.tar", &tar), ("web.tar.gz", &gz), ("web.tar.zst", &zst)] {
        for cut in (300..whole.len()).step_by(61).chain([whole.len() - 1]) {
            let packed = pack_bytes(name, &whole[..cut], "web");
            assert!(packed.is_err(), "{name} cut to {cut} of {} bytes was taken", whole.len());
        }
    }
    let mut flipped = gz.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    refuses(pack_bytes("web.tar.gz", &flipped, "web"), "cut off or damaged", "tar -tf");
    refuses(pack_bytes("web.tar.gz", &gz[..gz.len() - 3], "web"), "cut off or damaged", "again");
    refuses(pack_bytes("web.gz", &gzip(SCRIPT), "web"), "", "");
}

#[test]
fn entries_that_leave_the_artifact_are_named_and_refused() {
    let cases = [
        (file("../web", SCRIPT), "the entry `../web` has `..` in its path"),
        (file("a/../../web", SCRIPT), "has `..` in its path"),
        (file("/etc/passwd", SCRIPT), "the entry `/etc/passwd` has an absolute path"),
        (link("l", EntryType::Symlink, "/etc/passwd"), "is a link to `/etc/passwd`, outside"),
        (link("l", EntryType::Symlink, "../x"), "is a link to `../x`, outside"),
        (link("a/l", EntryType::Symlink, "../../x"), "outside of the artifact"),
        (link("a/l", EntryType::Symlink, "b/../../x"), "with `..` after a name"),
        (link("h", EntryType::Link, "web"), "is a hard link, to `web`"),
        (link("d", EntryType::Char, ""), "is a device"),
        (link("p", EntryType::Fifo, ""), "is a named pipe"),
        (file("web", SCRIPT), "is in it twice"),
        (file("web/sub", SCRIPT), "lies below the file `web`"),
    ];
    for (entry, what) in cases {
        let tar = tar_of(&[file("web", SCRIPT), entry]);
        refuses(pack_bytes("web.tar", &tar, "web"), what, "a node would refuse");
    }
    let before = [file("web", SCRIPT), file("d/web", SCRIPT), file("d", SCRIPT)];
    refuses(pack_bytes("web.tar", &tar_of(&before), "web"), "the entry `d` is in it twice", "");
    let below = [link("l", EntryType::Symlink, "d"), file("l/web", SCRIPT)];
    refuses(pack_bytes("web.tar", &tar_of(&below), "web"), "lies below the link `l`", "");
}

#[test]
fn the_program_is_found_through_links_inside() {
    let entries = [
        file("releases/1/bin/web-1.0", SCRIPT),
        link("releases/1/bin/web", EntryType::Symlink, "web-1.0"),
        link("current", EntryType::Symlink, "releases/1"),
        link("dangling", EntryType::Symlink, "nowhere"),
    ];
    let tar = tar_of(&entries);
    for program in ["current/bin/web", "releases/1/bin/web", "/bin/true", "bin/${VERSION}"] {
        assert!(pack_bytes("web.tar", &tar, program).is_ok(), "{program}");
    }
    refuses(pack_bytes("web.tar", &tar, "dangling"), "`dangling`, which is not in", "");
    let turning =
        [file("web", SCRIPT), link("a", EntryType::Symlink, "b"), link("b", EntryType::Symlink, "a")];
    refuses(pack_bytes("web.tar", &tar_of(&turning), "web"), "the link `a` leads to itself", "");
}

#[test]
fn a_program_that_is_not_there_is_told_with_the_nearest() {
    let tar = tar_of(&[file("web-1.0/bin/web", SCRIPT)]);
    refuses(
        pack_bytes("web.tar", &tar, "web"),
        "`exec` names `web`, which is not in",
        "did you mean `web-1.0/bin/web`?",
    );
    refuses(pack_bytes("web.tar", &tar, "python3"), "names `python3`", "\"/usr/bin/python3\"");
    refuses(pack_bytes("web.tar", &tar, "web-1.0/bin"), "names `web-1.0/bin`", "");
    let plain = Entry { mode: 0o644, ..file("web", SCRIPT) };
    refuses(pack_bytes("web.tar", &tar_of(&[plain]), "web"), "is not executable", "chmod +x web");
}

#[test]
fn what_hooks_reloads_and_checks_run_must_be_there_too() {
    let helper = |program: &str| [Helper { field: "reload.command".to_owned(), program: program.to_owned() }];
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("web.tar");
    let plain = Entry { mode: 0o644, ..file("bin/again", SCRIPT) };
    write(&path, &tar_of(&[file("web", SCRIPT), file("bin/reload", SCRIPT), plain]), 0o644);
    for good in ["bin/reload", "./web", "/usr/bin/env", "bin/${VERSION}"] {
        assert!(pack(&path, "web", &helper(good)).is_ok(), "{good}");
    }
    refuses(pack(&path, "web", &helper("reload")), "`reload.command` names `reload`", "`bin/reload`?");
    refuses(pack(&path, "web", &helper("bin/again")), "is not executable", "chmod +x bin/again");
    let one = dir.path().join("one");
    write(&one, SCRIPT, 0o755);
    refuses(pack(&one, "one", &helper("reload")), "`reload.command` names `reload`, but", "pack a folder");
    assert!(pack(&one, "one", &helper("one")).is_ok());
}

/// A folder as a build leaves it; `salt` changes only what must not matter.
fn folder(salt: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    let names =
        if salt.is_multiple_of(2) { ["bin/web", "lib/a", "lib/b"] } else { ["lib/b", "lib/a", "bin/web"] };
    for name in names {
        let mode = if name == "bin/web" { 0o755 } else { 0o640 - 0o40 * (salt as u32 % 2) };
        write(&dir.path().join(name), SCRIPT, mode);
    }
    symlink("../lib/a", dir.path().join("bin/plugin")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + salt);
    File::open(dir.path().join("lib/a")).unwrap().set_modified(time).unwrap();
    dir
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let (one, two) = (folder(0), folder(1));
    let one = pack(one.path(), "bin/web", &[]).unwrap();
    let two = pack(two.path(), "bin/web", &[]).unwrap();
    assert_eq!(one.artifact, two.artifact);
    assert_eq!(one.artifact.format, ArtifactFormat::TarZstd);
    let changed = folder(0);
    write(&changed.path().join("lib/a"), b"other", 0o640);
    assert_ne!(pack(changed.path(), "bin/web", &[]).unwrap().artifact.digest, one.artifact.digest);
}

#[test]
fn a_packed_folder_unpacks_to_what_it_was() {
    let packed = pack(folder(0).path(), "bin/web", &[]).unwrap();
    let target = TempDir::new().unwrap();
    let bytes = zstd::stream::read::Decoder::new(open_at(packed.path(), 0).unwrap()).unwrap();
    tar::Archive::new(bytes).unpack(target.path()).unwrap();
    assert_eq!(fs::read(target.path().join("bin/plugin")).unwrap(), SCRIPT);
    assert_eq!(fs::metadata(target.path().join("bin/web")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(target.path().join("lib/a")).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(target.path().join("empty").is_dir());
    let temporary = packed.path().to_owned();
    drop(packed);
    assert!(!temporary.exists());
}

#[test]
fn folders_with_what_cannot_be_packed_are_refused() {
    let dir = folder(0);
    symlink("/etc/passwd", dir.path().join("lib/outside")).unwrap();
    refuses(pack(dir.path(), "bin/web", &[]), "lib/outside is a link to `/etc/passwd`, outside", "cp -L");

    let dir = folder(0);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("lib/socket")).unwrap();
    refuses(pack(dir.path(), "bin/web", &[]), "lib/socket is a socket", "take it out");

    let dir = folder(0);
    fs::set_permissions(dir.path().join("bin/web"), fs::Permissions::from_mode(0o644)).unwrap();
    refuses(pack(dir.path(), "bin/web", &[]), "`bin/web`", "chmod +x bin/web");

    refuses(pack(TempDir::new().unwrap().path(), "web", &[]), "holds no file", "");
    refuses(pack(Path::new("/nowhere/web"), "web", &[]), "/nowhere/web cannot be read", "relative path");
    refuses(pack(Path::new("/dev/null"), "null", &[]), "neither a file nor a folder", "");
}
