use super::*;
use std::time::{Duration, SystemTime};

struct Folder {
    artifacts: Arc<Artifacts>,
    dir: tempfile::TempDir,
}

fn folder(limit_bytes: u64) -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(dir.path().join("artifacts"), limit_bytes).unwrap();
    Folder { artifacts, dir }
}

fn digest_of(data: &[u8]) -> Digest {
    Digest(Sha256::digest(data).into())
}

fn upload(folder: &Folder, digest: Digest, data: &[u8]) -> Result<(), ArtifactError> {
    let mut upload = Upload::begin(&folder.artifacts, digest, data.len() as u64, 0)?.expect("not here yet");
    upload.append(data)?;
    upload.finish()
}

fn read_all(folder: &Folder, digest: Digest, offset: u64) -> Result<Vec<u8>, ArtifactError> {
    let mut reader = folder.artifacts.read(digest, offset)?;
    let mut all = Vec::new();
    loop {
        let chunk = reader.next_chunk()?;
        if chunk.is_empty() {
            return Ok(all);
        }
        assert!(chunk.len() <= CHUNK_BYTES);
        all.extend_from_slice(&chunk);
    }
}

#[test]
fn what_was_uploaded_is_served_from_any_offset() {
    let folder = folder(1 << 20);
    let data: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
    let digest = digest_of(&data);
    upload(&folder, digest, &data).unwrap();
    assert_eq!(folder.artifacts.stat(digest), Stat { complete: true, offset: 700_000 });
    assert_eq!(read_all(&folder, digest, 0).unwrap(), data);
    assert_eq!(read_all(&folder, digest, 300_001).unwrap(), data[300_001..]);
    assert!(matches!(folder.artifacts.read(digest, 700_001), Err(ArtifactError::WrongOffset { .. })));
    assert!(Upload::begin(&folder.artifacts, digest, 700_000, 0).unwrap().is_none(), "it is here already");
}

#[test]
fn an_upload_goes_on_where_it_stopped() {
    let folder = folder(1 << 20);
    let data = b"the first half, and the second half";
    let digest = digest_of(data);
    let size = data.len() as u64;
    let mut first = Upload::begin(&folder.artifacts, digest, size, 0).unwrap().unwrap();
    first.append(&data[..16]).unwrap();
    assert!(matches!(Upload::begin(&folder.artifacts, digest, size, 0), Err(ArtifactError::Busy(_))));
    drop(first);
    assert_eq!(folder.artifacts.stat(digest), Stat { complete: false, offset: 16 });
    assert!(matches!(
        Upload::begin(&folder.artifacts, digest, size, 17),
        Err(ArtifactError::WrongOffset { have: 16, .. })
    ));
    // A little is sent twice: the later bytes take the place of the earlier.
    let mut second = Upload::begin(&folder.artifacts, digest, size, 10).unwrap().unwrap();
    second.append(&data[10..]).unwrap();
    second.finish().unwrap();
    assert_eq!(read_all(&folder, digest, 0).unwrap(), data);
}

#[test]
fn an_upload_that_broke_off_at_its_very_end_is_ended_without_a_byte_more() {
    let folder = folder(1 << 20);
    let data = b"all of it";
    let (digest, size) = (digest_of(data), data.len() as u64);
    let mut first = Upload::begin(&folder.artifacts, digest, size, 0).unwrap().unwrap();
    first.append(data).unwrap();
    drop(first);
    assert_eq!(folder.artifacts.stat(digest), Stat { complete: false, offset: size });
    let second = Upload::begin(&folder.artifacts, digest, size, size).unwrap().unwrap();
    assert!(second.is_complete());
    second.finish().unwrap();
    assert_eq!(read_all(&folder, digest, 0).unwrap(), data);
}

#[test]
fn bytes_that_are_not_the_artifact_are_refused_and_not_kept() {
    let folder = folder(1 << 20);
    let digest = digest_of(b"what was announced");
    assert!(matches!(upload(&folder, digest, b"something else"), Err(ArtifactError::WrongDigest { .. })));
    assert_eq!(folder.artifacts.stat(digest), Stat { complete: false, offset: 0 });
    let mut long = Upload::begin(&folder.artifacts, digest, 4, 0).unwrap().unwrap();
    assert!(matches!(long.append(b"12345"), Err(ArtifactError::WrongSize { .. })));
    drop(long);
    assert_eq!(folder.artifacts.stat(digest), Stat { complete: false, offset: 0 });
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_sent() {
    let folder = folder(u64::MAX);
    let digest = digest_of(b"x");
    assert!(matches!(
        Upload::begin(&folder.artifacts, digest, 1 << 60, 0),
        Err(ArtifactError::NoRoom { .. })
    ));
    let small = Artifacts::open(folder.dir.path().join("small"), 10).unwrap();
    assert!(matches!(Upload::begin(&small, digest, 11, 0), Err(ArtifactError::TooLarge { limit: 10, .. })));
    // A refusal gives the claim back.
    assert!(matches!(
        Upload::begin(&folder.artifacts, digest, 1 << 60, 0),
        Err(ArtifactError::NoRoom { .. })
    ));
}

#[test]
fn a_byte_flipped_on_the_disk_is_found_and_the_blob_taken_away() {
    let folder = folder(1 << 20);
    let data = vec![7; 1000];
    let digest = digest_of(&data);
    upload(&folder, digest, &data).unwrap();
    let mut flipped = data.clone();
    flipped[500] ^= 1;
    fs::write(folder.dir.path().join("artifacts").join(digest.to_string()), &flipped).unwrap();
    let again = Artifacts::open(folder.dir.path().join("artifacts"), 1 << 20).unwrap();
    for artifacts in [again, Arc::clone(&folder.artifacts)] {
        let error = artifacts.read(digest, 0).unwrap_err();
        assert!(matches!(error, ArtifactError::Corrupt(_) | ArtifactError::Missing(_)), "{error}");
    }
    assert!(!folder.artifacts.stat(digest).complete);
    upload(&folder, digest, &data).unwrap();
    assert_eq!(read_all(&folder, digest, 0).unwrap(), data);
}

#[test]
fn only_old_blobs_that_no_release_refers_to_are_collected() {
    let folder = folder(1 << 20);
    let (kept, gone) = (digest_of(b"kept"), digest_of(b"gone"));
    upload(&folder, kept, b"kept").unwrap();
    upload(&folder, gone, b"gone").unwrap();
    let referenced = BTreeSet::from([kept]);
    assert_eq!(collect(&folder.artifacts, &referenced, SystemTime::now()).unwrap(), 0, "both are young");
    let later = SystemTime::now() + Duration::from_secs(2 * 3600);
    assert_eq!(collect(&folder.artifacts, &referenced, later).unwrap(), 1);
    assert!(folder.artifacts.stat(kept).complete);
    assert!(!folder.artifacts.stat(gone).complete);
}
