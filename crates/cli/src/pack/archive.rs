//! Reads a tar archive to its end: its form, its entries, what they take, and the program among them.
//!
//! Links are judged without a file system. A link may only climb with leading `..` from a folder of the archive
//! and then descend, and no entry may lie below a link; so whatever a link leads to is inside, however links chain.

use super::program::{self, HEAD_BYTES};
use super::{Content, ENTRIES_MAX, ENTRY_OVERHEAD, Helper, PackError, UNPACKED_MAX};
use baton_model::artifact::ArtifactFormat;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use tar::EntryType;

/// How a tar archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(super) const fn format(self) -> ArtifactFormat {
        match self {
            Self::None => ArtifactFormat::Tar,
            Self::Gzip => ArtifactFormat::TarGzip,
            Self::Zstd => ArtifactFormat::TarZstd,
        }
    }
}

/// Links followed to a file; Linux follows as many (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// A tar archive is made of blocks, and ends with two of zeros.
const BLOCK_BYTES: u64 = 512;
const END_MARK_BYTES: u64 = 2 * BLOCK_BYTES;

/// Tells an archive by its bytes; `None` is a single file.
///
/// # Errors
/// When it is named like an archive but is none, or is one of a kind that nodes do not unpack.
pub(super) fn detect(source: &Path) -> Result<Option<Compression>, PackError> {
    let mut head = Vec::new();
    let file = File::open(source).map_err(|e| PackError::io("read", source, &e))?;
    file.take(512).read_to_end(&mut head).map_err(|e| PackError::io("read", source, &e))?;
    let by_bytes = match head.as_slice() {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        head if head.get(257..262) == Some(b"ustar") => Some(Compression::None),
        _ => None,
    };
    let name = source.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if by_bytes.is_none() && ends(&[".zip", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".7z", ".deb", ".rpm"]) {
        return Err(PackError::new(
            format!("{} is an archive of a kind that is not unpacked on nodes", source.display()),
            "unpack it and name the folder, or pack it as .tar, .tar.gz or .tar.zst",
        ));
    }
    if by_bytes.is_none() && ends(&[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"]) {
        return Err(PackError::new(
            format!("{} is named like a tar archive, but its bytes are none", source.display()),
            "make it again with `tar -czf`, or name the file or folder itself",
        ));
    }
    Ok(by_bytes)
}

/// An archive on this machine.
pub(super) struct Source<'p> {
    /// Where its bytes are.
    pub(super) blob: &'p Path,
    pub(super) compression: Compression,
    /// How the person knows it, for messages.
    pub(super) name: &'p Path,
}

impl Source<'_> {
    fn open(&self) -> Result<tar::Archive<Bounded<Box<dyn Read>>>, PackError> {
        let file = File::open(self.blob).map_err(|e| PackError::io("read", self.name, &e))?;
        let plain: Box<dyn Read> = match self.compression {
            Compression::None => Box::new(BufReader::new(file)),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
            Compression::Zstd => Box::new(
                zstd::stream::read::Decoder::new(file).map_err(|e| PackError::io("read", self.name, &e))?,
            ),
        };
        Ok(tar::Archive::new(Bounded { inner: plain, read: 0, zeros: 0 }))
    }

    /// Reads the archive to its end, and finds `program` and its helpers in it.
    ///
    /// # Errors
    /// When it is damaged, unsafe to unpack, too large, or does not hold a program.
    pub(super) fn inspect(&self, program: &str, helpers: &[Helper]) -> Result<Content, PackError> {
        let mut survey = Survey::default();
        let mut archive = self.open()?;
        survey.read(&mut archive, self.name)?;
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(|e| damaged(self.name, &e))?;
        if rest.zeros < END_MARK_BYTES || rest.read % BLOCK_BYTES != 0 {
            return Err(damaged(self.name, &io::Error::other("its end is missing")));
        }
        if !survey.entries.values().any(|known| matches!(known, Known::File { .. })) {
            return Err(PackError::new(
                format!("{} holds no file", self.name.display()),
                "pack the program into it",
            ));
        }
        survey.links_end(self.name)?;
        let mut warnings = Vec::new();
        if let Some(wanted) = program::inside(program) {
            let (path, size) = survey.program(&wanted, "exec", self.name)?;
            warnings = program::judge(&wanted, &self.head_of(&path)?, size)?;
        }
        for Helper { field, program } in helpers {
            if let Some(wanted) = program::inside(program) {
                survey.program(&wanted, field, self.name)?;
            }
        }
        Ok(Content { unpacked_bytes: survey.unpacked_bytes, warnings })
    }

    /// The beginning of the file at `path`; a second reading, since only the end of the first tells which file
    /// is the program.
    fn head_of(&self, path: &str) -> Result<Vec<u8>, PackError> {
        let mut head = Vec::new();
        for entry in self.open()?.entries().map_err(|e| damaged(self.name, &e))? {
            let entry = entry.map_err(|e| damaged(self.name, &e))?;
            if plain_path(&String::from_utf8_lossy(&entry.path_bytes())).as_deref() == Ok(path) {
                entry.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|e| damaged(self.name, &e))?;
                break;
            }
        }
        Ok(head)
    }
}

fn damaged(source: &Path, error: &io::Error) -> PackError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return PackError::new(
            format!("{} unpacks to more than an artifact may have ({UNPACKED_MAX} bytes)", source.display()),
            "leave data out of the artifact; a release is program and configuration",
        );
    }
    PackError::new(
        format!("the archive {} is cut off or damaged: {error}", source.display()),
        "make or download it again; `tar -tf` should list it without an error",
    )
}

/// Stops an archive that swells beyond all bounds, and knows with how many zeros it ended.
struct Bounded<R> {
    inner: R,
    read: u64,
    zeros: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = &buffer[..count];
        self.read += count as u64;
        if self.read > UNPACKED_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match bytes.iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros = (count - last - 1) as u64,
            None => self.zeros += count as u64,
        }
        Ok(count)
    }
}

/// What is known of one entry.
enum Known {
    Folder,
    File {
        executable: bool,
        size: u64,
    },
    /// A symbolic link, with its target as a path in the archive.
    Link {
        target: String,
    },
}

#[derive(Default)]
struct Survey {
    entries: BTreeMap<String, Known>,
    unpacked_bytes: u64,
}

impl Survey {
    fn read(&mut self, archive: &mut tar::Archive<impl Read>, source: &Path) -> Result<(), PackError> {
        for entry in archive.entries().map_err(|e| damaged(source, &e))? {
            let entry = entry.map_err(|e| damaged(source, &e))?;
            if entry.header().entry_type() == EntryType::XGlobalHeader {
                continue; // `git archive` writes its commit there.
            }
            self.add(&entry, source)?;
            if self.unpacked_bytes > UNPACKED_MAX {
                return Err(damaged(source, &io::ErrorKind::FileTooLarge.into()));
            }
            if self.entries.len() > ENTRIES_MAX {
                return Err(PackError::new(
                    format!("{} holds more than {ENTRIES_MAX} files", source.display()),
                    "leave data out of the artifact; a release is program and configuration",
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: &tar::Entry<'_, impl Read>, source: &Path) -> Result<(), PackError> {
        let written = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |why: String| {
            PackError::new(
                format!("{}: the entry `{written}` {why}", source.display()),
                "a node would refuse to unpack it; make the archive again without it",
            )
        };
        if std::str::from_utf8(&entry.path_bytes()).is_err() {
            return Err(refuse("has a name that is not UTF-8".to_owned()));
        }
        let path = plain_path(&written).map_err(refuse)?;
        self.nothing_but_folders_above(&path).map_err(refuse)?;
        let target = entry
            .link_name_bytes()
            .map(|target| String::from_utf8_lossy(&target).into_owned())
            .unwrap_or_default();
        let known = match entry.header().entry_type() {
            EntryType::Directory => Known::Folder,
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().map_err(|e| damaged(source, &e))?;
                self.unpacked_bytes = self.unpacked_bytes.saturating_add(entry.size());
                Known::File { executable: mode & 0o111 != 0, size: entry.size() }
            }
            EntryType::Symlink => Known::Link { target: link_target(&path, &target).map_err(refuse)? },
            EntryType::Link => return Err(refuse(format!("is a hard link, to `{target}`"))),
            EntryType::Char | EntryType::Block => return Err(refuse("is a device".to_owned())),
            EntryType::Fifo => return Err(refuse("is a named pipe".to_owned())),
            EntryType::GNUSparse => {
                return Err(refuse("is a sparse file, which is not unpacked on nodes".to_owned()));
            }
            // Not our enum: whatever else a tar archive may hold is no file of a release.
            _ => return Err(refuse("is neither a file, a folder nor a link".to_owned())),
        };
        if path.is_empty() {
            return Ok(()); // `./`, the folder itself.
        }
        self.unpacked_bytes = self.unpacked_bytes.saturating_add(ENTRY_OVERHEAD);
        let below = format!("{path}/");
        let holds_entries =
            self.entries.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below));
        let is_folder = matches!(known, Known::Folder);
        if self.entries.insert(path, known).is_some() || (holds_entries && !is_folder) {
            return Err(refuse("is in it twice".to_owned()));
        }
        Ok(())
    }

    fn nothing_but_folders_above(&self, path: &str) -> Result<(), String> {
        for (slash, _) in path.match_indices('/') {
            match self.entries.get(&path[..slash]) {
                Some(Known::Link { .. }) => return Err(format!("lies below the link `{}`", &path[..slash])),
                Some(Known::File { .. }) => return Err(format!("lies below the file `{}`", &path[..slash])),
                Some(Known::Folder) | None => {}
            }
        }
        Ok(())
    }

    /// Every link must end somewhere, as a node asks of it too; it may end at nothing.
    fn links_end(&self, source: &Path) -> Result<(), PackError> {
        let turning = self
            .entries
            .iter()
            .find(|(path, known)| matches!(known, Known::Link { .. }) && self.resolve(path).is_none());
        match turning {
            None => Ok(()),
            Some((path, _)) => Err(PackError::new(
                format!("{}: the link `{path}` leads to itself", source.display()),
                "a node would refuse to unpack it; take it out, or let it lead to a file",
            )),
        }
    }

    /// Finds the program: where it is, and its size.
    fn program(&self, wanted: &str, field: &str, source: &Path) -> Result<(String, u64), PackError> {
        let path = self.resolve(wanted).unwrap_or_default();
        match self.entries.get(&path) {
            Some(Known::File { executable: true, size }) => Ok((path, *size)),
            Some(Known::File { executable: false, .. }) => Err(PackError::new(
                format!("the program `{path}` in {} is not executable", source.display()),
                format!("`chmod +x {path}` and pack it again"),
            )),
            Some(Known::Folder) => Err(PackError::new(
                format!("`{field}` names `{wanted}`, which is a folder in {}", source.display()),
                "write the path of the program in it",
            )),
            Some(Known::Link { .. }) | None => Err(PackError::new(
                format!("`{field}` names `{wanted}`, which is not in {}", source.display()),
                self.nearest(wanted),
            )),
        }
    }

    /// Follows links until there are none on the way; `None` when there is no end to them.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for _ in 0..=LINKS_MAX {
            let ends = path.match_indices('/').map(|(slash, _)| slash).chain([path.len()]);
            let link = ends.into_iter().find_map(|end| match self.entries.get(&path[..end]) {
                Some(Known::Link { target }) => Some((target, end)),
                Some(Known::Folder | Known::File { .. }) | None => None,
            });
            let Some((target, end)) = link else { return Some(path) };
            path = format!("{target}{}", &path[end..]).trim_start_matches('/').to_owned();
        }
        None
    }

    /// What to write instead of a program that is not there: one of the same name elsewhere, or any executable.
    fn nearest(&self, wanted: &str) -> String {
        fn file_name(path: &str) -> &str {
            path.rsplit('/').next().unwrap_or(path)
        }
        let programs =
            || self.entries.iter().filter(|(_, known)| matches!(known, Known::File { executable: true, .. }));
        let same_name = programs().find(|(path, _)| file_name(path) == file_name(wanted));
        match (same_name, programs().next()) {
            (Some((path, _)), _) => format!("did you mean `{path}`?"),
            (None, Some((path, _))) => {
                format!(
                    "write the path of a program inside it, such as `{path}`, or an absolute path on the node: \"/usr/bin/{}\"",
                    file_name(wanted)
                )
            }
            (None, None) => {
                format!(
                    "it holds no executable file at all; for a program on the node write an absolute path: \"/usr/bin/{}\"",
                    file_name(wanted)
                )
            }
        }
    }
}

/// The path of an entry without `./` and doubled slashes; empty for the folder itself.
pub(super) fn plain_path(written: &str) -> Result<String, String> {
    if written.starts_with('/') {
        return Err("has an absolute path".to_owned());
    }
    if written.contains('\0') {
        return Err("has a NUL in its name".to_owned());
    }
    let parts: Vec<&str> = written.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("has `..` in its path".to_owned());
    }
    Ok(parts.join("/"))
}

/// Where the link at `path` leads, as a path in the archive.
pub(super) fn link_target(path: &str, target: &str) -> Result<String, String> {
    let leaves = || format!("is a link to `{target}`, outside of the artifact");
    if target.starts_with('/') || target.is_empty() {
        return Err(leaves());
    }
    let mut folder: Vec<&str> = path.split('/').collect();
    folder.pop();
    let mut descended = false;
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            descended = true;
            folder.push(part);
        } else if descended {
            // `a/..` is not where it seems to be when `a` is itself a link.
            return Err(format!("is a link to `{target}`, with `..` after a name"));
        } else if folder.pop().is_none() {
            return Err(leaves());
        }
    }
    Ok(folder.join("/"))
}
