//! Service files for tests: a good one, of which a test changes two things.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A service file in the making. Every `with_*` replaces a part.
#[derive(Clone, Debug)]
pub struct ServiceFile {
    name: String,
    artifact: PathBuf,
    exec: String,
    port: String,
    env: Vec<(String, String)>,
    sections: Vec<(String, String)>,
    top: Vec<String>,
}

impl ServiceFile {
    /// The fixture web server: takes its socket from the shim, answers `/` and `/healthz`.
    #[must_use]
    pub fn web(name: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            artifact: fixture("web"),
            exec: r#"["./server.py"]"#.to_owned(),
            port: format!("[ports.http]\nkind = \"socket\"\nport = {port}\n"),
            env: Vec::new(),
            sections: vec![
                ("checks.readiness".into(), "kind = \"http\"\nport = \"http\"\npath = \"/healthz\"\ninterval = \"500ms\"\ntimeout = \"490ms\"\n".into()),
                ("stop".into(), "timeout = \"5s\"\ndrain = \"2s\"\n".into()),
                ("placement".into(), "replicas = 3\nlost_after = \"5s\"\n".into()),
                (
                    "rollout".into(),
                    "batch = 1\nmax_unavailable = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"30s\"\nprogress_deadline = \"90s\"\n".into(),
                ),
            ],
            top: Vec::new(),
        }
    }

    /// Another artifact and program.
    #[must_use]
    pub fn with_program(mut self, artifact: impl AsRef<Path>, exec: &str) -> Self {
        self.artifact = artifact.as_ref().to_owned();
        self.exec = exec.to_owned();
        self
    }

    /// Another `[ports...]` part; empty for none.
    #[must_use]
    pub fn with_ports(mut self, ports: &str) -> Self {
        self.port = ports.to_owned();
        self
    }

    /// One more variable of the environment.
    #[must_use]
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Replaces (or adds) a whole section; an empty body removes it.
    #[must_use]
    pub fn with_section(mut self, section: &str, body: &str) -> Self {
        self.sections.retain(|(name, _)| name != section);
        if !body.is_empty() {
            self.sections.push((section.to_owned(), body.to_owned()));
        }
        self
    }

    /// One more line at the top.
    #[must_use]
    pub fn with_top(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "name = \"{}\"\nartifact = \"{}\"\nexec = {}\n",
            self.name,
            self.artifact.display(),
            self.exec
        );
        for line in &self.top {
            let _ = writeln!(text, "{line}");
        }
        if !self.env.is_empty() {
            text.push_str("\n[env]\n");
            for (key, value) in &self.env {
                let _ = writeln!(text, "{key} = \"{value}\"");
            }
        }
        let _ = write!(text, "\n{}", self.port);
        for (section, body) in &self.sections {
            let _ = write!(text, "\n[{section}]\n{body}");
        }
        text
    }
}

/// A folder of this crate's fixtures.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
