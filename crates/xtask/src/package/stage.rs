//! One package in the making: a folder that looks as the host will, and what dpkg wants to know.

use super::contents::Part;
use super::{Options, changelog};
use crate::run;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package's folder, and what was learnt while filling it.
pub(super) struct Stage<'a> {
    root: PathBuf,
    options: &'a Options,
    architecture: &'a str,
    control: String,
    configuration: String,
}

impl<'a> Stage<'a> {
    /// An empty package.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(super) fn new(root: PathBuf, options: &'a Options, architecture: &'a str) -> Result<Self> {
        make_folders(&root.join("DEBIAN"))?;
        Ok(Self { root, options, architecture, control: String::new(), configuration: String::new() })
    }

    /// Adds a part.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the program refuses.
    pub(super) fn add(&mut self, part: &Part) -> Result<()> {
        match part {
            Part::Program { to } => self.copy(&self.options.program, to, 0o755),
            Part::Printed { args, to } => {
                let text = run::output(Command::new(&self.options.program).args(*args))?;
                self.write(to, &text, 0o644)
            }
            Part::Manual { to } => self.manual(to),
            Part::Changelog { to } => self.changelog(to),
            Part::File { from, to } => self.copy(&run::root().join(from), to, 0o644),
            Part::Configuration { from, to } => {
                self.configuration.push_str(&format!("/{to}\n"));
                self.copy(&run::root().join(from), to, 0o644)
            }
            Part::Control { from } => {
                self.control = read(&run::root().join(from))?;
                Ok(())
            }
            Part::ForDpkg { from, name } => {
                let mode = if *name == "triggers" { 0o644 } else { 0o755 };
                self.copy(&run::root().join(from), &format!("DEBIAN/{name}"), mode)
            }
        }
    }

    /// Builds the package and returns its file.
    ///
    /// # Errors
    /// When `dpkg-deb` refuses.
    pub(super) fn seal(self, name: &str) -> Result<PathBuf> {
        if !self.configuration.is_empty() {
            self.write("DEBIAN/conffiles", self.configuration.as_bytes(), 0o644)?;
        }
        let files = files_below(&self.root)?;
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let sums = files.iter().map(|(path, _)| path);
        let sums = run::output(
            Command::new("sh").args(["-c", "cd \"$0\" && md5sum -- \"$@\""]).arg(&self.root).args(sums),
        )?;
        self.write("DEBIAN/md5sums", &sums, 0o644)?;
        let control = self.filled_in(bytes.div_ceil(1024))?;
        let architecture = field(&control, "Architecture")?;
        self.write("DEBIAN/control", control.as_bytes(), 0o644)?;
        let to = self.options.out.join(format!("{name}_{}_{architecture}.deb", self.options.version));
        let mut dpkg_deb = Command::new("dpkg-deb");
        let level = format!("-z{}", self.options.compression);
        dpkg_deb.args(["--root-owner-group", "-Zxz", &level, "--build"]).arg(&self.root).arg(&to);
        // The same source gives the same bytes, whenever it is packaged.
        dpkg_deb.env("SOURCE_DATE_EPOCH", &self.options.epoch);
        run::output(&mut dpkg_deb)?;
        Ok(to)
    }

    /// The control file with its `${...}` filled in.
    fn filled_in(&self, installed_kib: u64) -> Result<String> {
        let mut text = self.control.replace("${version}", &self.options.version);
        text = text
            .replace("${arch}", self.architecture)
            .replace("${maintainer}", &self.options.maintainer)
            .replace("${installed-size}", &installed_kib.to_string());
        if text.contains("${glibc}") {
            text = text.replace("${glibc}", &glibc_needed(&self.options.program)?);
        }
        if let Some(at) = text.find("${") {
            bail!("the control file has an unknown {}", text[at..].lines().next().unwrap_or_default());
        }
        Ok(text)
    }

    fn manual(&self, to: &str) -> Result<()> {
        let folder = self.root.join(to);
        make_folders(&folder)?;
        run::output(Command::new(&self.options.program).args(["man", "--dir"]).arg(&folder))?;
        let pages = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        run::output(Command::new("gzip").arg("-9n").args(&pages))?;
        Ok(())
    }

    fn changelog(&self, to: &str) -> Result<()> {
        let Options { version, maintainer, epoch, .. } = self.options;
        let changes = read(&run::root().join("CHANGELOG.md"))?;
        let text =
            changelog::debian(&changes, &field(&self.control, "Package")?, version, maintainer, epoch)?;
        let plain = to.strip_suffix(".gz").with_context(|| format!("{to} is to be packed"))?;
        self.write(plain, text.as_bytes(), 0o644)?;
        run::output(Command::new("gzip").arg("-9n").arg(self.root.join(plain)))?;
        Ok(())
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.write(to, &bytes, mode)
    }

    fn write(&self, to: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.root.join(to);
        make_folders(path.parent().unwrap_or(&self.root))?;
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(())
    }
}

/// Makes a folder with those above it, for everyone to pass, whatever the umask.
fn make_folders(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folders(above)?;
    }
    fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The package's files with their sizes, in order, without dpkg's own.
fn files_below(root: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(root)?.to_owned();
                found.push((inside, path.metadata()?.len()));
            }
        }
    }
    found.retain(|(path, _)| !path.starts_with("DEBIAN"));
    found.sort();
    Ok(found)
}

/// The oldest glibc that the program runs with: the newest of the symbol versions (`GLIBC_2.34`) that it names.
fn glibc_needed(program: &Path) -> Result<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let minor = |at: usize| {
        let digits: String =
            bytes[at..].iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
        digits.parse::<u32>().ok()
    };
    let marks = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let newest = marks.filter_map(|(at, _)| minor(at + MARK.len())).max();
    let newest = newest.with_context(|| format!("{} names no glibc: is it a program?", program.display()))?;
    Ok(format!("2.{newest}"))
}

fn field(control: &str, name: &str) -> Result<String> {
    let line = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Ok(line.with_context(|| format!("the control file has no {name}"))?.to_owned())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
