//! Every kind of archive that must be refused, and those that must not.

use super::*;
use crate::artifacts::manifest::Checked;

/// Headers are written by hand, since the tar crate rightly refuses to build most of what is tried here.
fn entry(name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(name, EntryType::Regular, 0o755, "", content)
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(name, EntryType::Symlink, 0o777, target, b"")
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn try_unpack(
    bytes: &[u8],
    format: ArtifactFormat,
    unpacked_bytes: u64,
) -> (tempfile::TempDir, Result<Manifest>) {
    let folder = tempfile::tempdir().unwrap();
    let blob = folder.path().join("blob");
    let tree = folder.path().join("tree");
    fs::write(&blob, bytes).unwrap();
    fs::create_dir(&tree).unwrap();
    let artifact = Artifact {
        digest: Digest(Sha256::digest(bytes).into()),
        size_bytes: bytes.len() as u64,
        format,
        unpacked_bytes,
    };
    let result = unpack(&artifact, &blob, &tree);
    (folder, result)
}

#[track_caller]
fn refused(entries: &[Vec<u8>], expect: &str) {
    let (folder, result) = try_unpack(&archive(entries), ArtifactFormat::Tar, 1_000);
    match result {
        Err(UnpackError::Refused(why)) => assert!(why.contains(expect), "{why:?} does not say {expect:?}"),
        other => panic!("expected a refusal that says {expect:?}, got {other:?}"),
    }
    let outside: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "something was written outside of the tree: {outside:?}");
}

#[test]
fn whatever_reaches_out_of_the_folder_is_refused() {
    refused(&[file("../evil", b"x")], "leaves the artifact's folder");
    refused(&[file("a/../../evil", b"x")], "leaves the artifact's folder");
    refused(&[file("/etc/evil", b"x")], "absolute path");
    refused(&[file("a", b"x"), link("out", "../x")], "leaves the artifact's folder");
    refused(&[file("a", b"x"), link("out", "/etc/passwd")], "it is absolute");
    refused(
        &[file("a", b"x"), link("d/up", ".."), link("out", "d/up/../..")],
        "leaves the artifact's folder",
    );
    refused(&[link("d", "."), file("d/a", b"x")], "not a folder");
    refused(&[link("d", "/tmp"), file("d/a", b"x")], "not a folder");
    refused(&[file("a", b"x"), link("loop", "loop")], "circle");
    refused(&[file("a", b"x"), entry("b", EntryType::Link, 0o644, "a", b"")], "hard link");
    refused(&[file("a", b"x"), entry("b", EntryType::Link, 0o644, "/etc/passwd", b"")], "hard link");
}

#[test]
fn odd_kinds_and_doubles_are_refused() {
    refused(&[entry("dev", EntryType::Char, 0o666, "", b"")], "device or a pipe");
    refused(&[entry("dev", EntryType::Block, 0o666, "", b"")], "device or a pipe");
    refused(&[entry("pipe", EntryType::Fifo, 0o666, "", b"")], "device or a pipe");
    refused(&[file("a", b"x"), file("a", b"y")], "twice");
    refused(&[file("a", b"x"), file("./a", b"y")], "twice");
    refused(&[file("d/a", b"x"), file("d", b"y")], "twice");
    refused(&[file("a", b"x"), file("a/b", b"y")], "not a folder");
    refused(&[], "no file in it");
    refused(&[entry("d/", EntryType::Directory, 0o755, "", b"")], "no file in it");
}

#[test]
fn more_than_announced_is_refused_in_every_packing() {
    let bomb = archive(&[file("a", &[0; 900]), file("b", &[0; 900])]);
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&bomb).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&bomb[..], 3).unwrap();
    for (bytes, format) in
        [(bomb, ArtifactFormat::Tar), (gzip, ArtifactFormat::TarGzip), (zstd, ArtifactFormat::TarZstd)]
    {
        let (_folder, result) = try_unpack(&bytes, format.clone(), 1_799);
        assert!(
            matches!(&result, Err(UnpackError::Refused(why)) if why.contains("more bytes than were announced")),
            "{format:?}: {result:?}"
        );
        let (_folder, result) = try_unpack(&bytes, format.clone(), 1_800);
        assert_eq!(result.unwrap().entries.len(), 2, "{format:?}");
    }
}

#[test]
fn archives_that_are_cut_off_or_are_none_are_refused() {
    let whole = archive(&[file("a", &[7; 600])]);
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&whole).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&whole[..], 3).unwrap();
    for (bytes, format) in [
        (&whole[..700], ArtifactFormat::Tar),
        (&gzip[..gzip.len() - 9], ArtifactFormat::TarGzip),
        (&zstd[..zstd.len() - 5], ArtifactFormat::TarZstd),
        (&[b'x'; 2_000][..], ArtifactFormat::Tar),
        (b"not gzip at all", ArtifactFormat::TarGzip),
        (b"not zstd at all", ArtifactFormat::TarZstd),
    ] {
        let (_folder, result) = try_unpack(bytes, format.clone(), 10_000);
        assert!(
            matches!(&result, Err(UnpackError::Refused(why)) if why.contains("pack it again")),
            "{format:?}: {result:?}"
        );
    }
}

#[test]
fn a_good_archive_is_read_only_without_set_id_bits_and_checks() {
    let entries = [
        entry("bin/", EntryType::Directory, 0o700, "", b""),
        entry("bin/web", EntryType::Regular, 0o6755, "", b"#!/bin/sh\n"),
        entry("./conf", EntryType::Regular, 0o000, "", b"key = 1\n"),
        link("current", "bin/web"),
        link("bin/later", "../does/not/exist/yet"),
        file("deep/er/file", b"x"),
    ];
    let (folder, result) = try_unpack(&archive(&entries), ArtifactFormat::Tar, 1_000);
    let manifest = result.unwrap();
    let tree = folder.path().join("tree");
    let mode = |path: &str| fs::metadata(tree.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("bin/web"), 0o555);
    assert_eq!(mode("conf"), 0o400);
    assert_eq!(fs::read(tree.join("current")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(removed(manifest.check(&tree).unwrap()), Vec::<PathBuf>::new());
}

#[test]
fn a_tree_that_was_touched_is_damaged_and_what_was_added_goes() {
    let bytes = archive(&[file("bin/web", b"content"), file("lib/a", b"a"), link("l", "lib/a")]);
    type Touch = fn(&Path);
    let cases: [(&str, Touch); 5] = [
        ("has other content", |tree| {
            let path = tree.join("bin/web");
            set_mode(&path, 0o755).unwrap();
            fs::write(&path, b"cOntent").unwrap();
            set_mode(&path, 0o555).unwrap();
        }),
        ("bytes instead of", |tree| {
            let path = tree.join("lib/a");
            set_mode(&path, 0o755).unwrap();
            fs::write(&path, b"aa").unwrap();
            set_mode(&path, 0o555).unwrap();
        }),
        ("other permissions", |tree| set_mode(&tree.join("lib/a"), 0o4555).unwrap()),
        ("is missing", |tree| fs::remove_file(tree.join("lib/a")).unwrap()),
        ("points elsewhere", |tree| {
            fs::remove_file(tree.join("l")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", tree.join("l")).unwrap();
        }),
    ];
    for (expect, touch) in cases {
        let (folder, result) = try_unpack(&bytes, ArtifactFormat::Tar, 1_000);
        let tree = folder.path().join("tree");
        touch(&tree);
        match result.unwrap().check(&tree).unwrap() {
            Checked::Damaged(why) => assert!(why.contains(expect), "{why}"),
            Checked::Good { .. } => panic!("not noticed: {expect}"),
        }
    }
    let (folder, result) = try_unpack(&bytes, ArtifactFormat::Tar, 1_000);
    let tree = folder.path().join("tree");
    fs::create_dir(tree.join("lib/cache")).unwrap();
    fs::write(tree.join("lib/cache/evil.pyc"), b"x").unwrap();
    let checked = result.unwrap().check(&tree).unwrap();
    assert_eq!(removed(checked), [PathBuf::from("lib/cache")]);
    assert!(!tree.join("lib/cache").exists());
}

#[test]
fn a_single_file_is_placed_under_its_name() {
    let format = |name: &str| ArtifactFormat::File { name: name.to_owned() };
    let (folder, result) = try_unpack(b"#!/bin/sh\n", format("web"), 10);
    let tree = folder.path().join("tree");
    assert_eq!(removed(result.unwrap().check(&tree).unwrap()), Vec::<PathBuf>::new());
    for bad in ["../web", "/web", "a/web", "", "."] {
        let (_folder, result) = try_unpack(b"x", format(bad), 10);
        assert!(matches!(result, Err(UnpackError::Refused(_))), "{bad:?}: {result:?}");
    }
}

#[test]
fn names_without_end_are_not_held_in_memory() {
    let short: Vec<u8> = [&b"deep/"[..], &[b'b'; 200]].concat();
    let fine = entry("././@LongLink", EntryType::GNULongName, 0o644, "", &short);
    let (_folder, result) = try_unpack(&archive(&[fine, file("x", b"1")]), ArtifactFormat::Tar, 1_000);
    assert!(result.unwrap().entries.keys().any(|path| path.starts_with("deep")));
    let endless = entry("././@LongLink", EntryType::GNULongName, 0o644, "", &vec![b'a'; 1 << 20]);
    refused(&[endless, file("x", b"1")], "far too long");
}

/// What was removed from a tree that is good.
fn removed(checked: Checked) -> Vec<PathBuf> {
    match checked {
        Checked::Good { removed, .. } => removed,
        Checked::Damaged(damage) => panic!("{damage}"),
    }
}
