//! What a service file names on the operator's machine.

use std::ops::Range;
use std::path::PathBuf;

/// Where the artifact lies on the operator's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactSource {
    /// A file, a folder or a tar archive; a relative path is relative to the service file's folder.
    pub path: PathBuf,
    /// Where the file says so, in bytes, for errors about it.
    pub span: Range<usize>,
}

/// A template in a file of its own on the operator's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSource {
    /// The name of the file that is made of it.
    pub file: String,
    /// Where the template is; a relative path is relative to the service file's folder.
    pub path: PathBuf,
    /// Where the service file says so, in bytes, for errors about it.
    pub span: Range<usize>,
}
