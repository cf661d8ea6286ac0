//! Contexts: named coordinators, each with its own certificate, in the operator's config folder.
//!
//! `$BATON_CONFIG_DIR`, else `$XDG_CONFIG_HOME/baton`, else `~/.config/baton`, holds `current` (a name) and
//! `contexts/NAME/` with `coordinator` (HOST:PORT) beside the identity's files.

use crate::fault::Fault;
use anyhow::Result;
use baton_proto::identity::{Identity, IdentityError, JoinAs, Token};
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tonic::transport::Channel;

/// A command waits no longer than this for a fresh certificate: the next one tries again.
const RENEW_WITHIN: Duration = Duration::from_secs(2);

/// The contexts of this operator.
#[derive(Clone, Debug)]
pub(crate) struct Contexts {
    dir: PathBuf,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// What the operator calls it.
    pub(crate) name: String,
    /// HOST:PORT of the coordinator.
    pub(crate) coordinator: String,
    /// Where its certificate is.
    pub(crate) dir: PathBuf,
}

/// How a context is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinContext<'a> {
    /// HOST:PORT.
    pub(crate) coordinator: &'a str,
    /// A one-time token for an operator.
    pub(crate) token: &'a Token,
    /// The name that the coordinator knows this operator by.
    pub(crate) operator: &'a str,
    /// Replace a context of the same name.
    pub(crate) replace: bool,
}

impl Contexts {
    /// Finds the config folder; nothing is made yet.
    ///
    /// # Errors
    /// When the environment names neither a config folder nor a home.
    pub(crate) fn open() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("BATON_CONFIG_DIR")
            .or_else(|| set("XDG_CONFIG_HOME").map(|dir| dir.join("baton")))
            .or_else(|| set("HOME").map(|dir| dir.join(".config/baton")))
            .ok_or_else(|| Fault::new("there is no folder for contexts", "set BATON_CONFIG_DIR or HOME"))?;
        Ok(Self::at(dir))
    }

    /// The contexts in `dir`.
    pub(crate) fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder of the context `name`, whether it exists or not.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.dir.join("contexts").join(name)
    }

    /// The context `name`, or the current one.
    ///
    /// # Errors
    /// When it does not exist, or none is current.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<Context> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => self.current()?.ok_or_else(|| {
                Fault::new(
                    "no coordinator is chosen",
                    "run `baton context add NAME --coordinator HOST:PORT --token TOKEN`, or `baton dev` for a local cluster",
                )
            })?,
        };
        check_name(&name)?;
        let dir = self.folder(&name);
        let coordinator = read(&dir.join("coordinator"))?.ok_or_else(|| {
            Fault::new(
                format!("there is no context `{name}` in {}", self.dir.display()),
                "`baton context ls` shows those there are; `baton context add` makes one",
            )
        })?;
        Ok(Context { name, coordinator, dir })
    }

    /// All contexts, by name.
    ///
    /// # Errors
    /// When the config folder cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<Context>> {
        let entries = match std::fs::read_dir(self.dir.join("contexts")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unusable(&self.dir, &error).into()),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_ok() && self.folder(&name).join("coordinator").exists() {
                found.push(self.get(Some(&name))?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The name of the current context.
    ///
    /// # Errors
    /// When the config folder cannot be read.
    pub(crate) fn current(&self) -> Result<Option<String>> {
        read(&self.dir.join("current"))
    }

    /// Makes `name` the current context.
    ///
    /// # Errors
    /// When it does not exist or the config folder cannot be written.
    pub(crate) fn choose(&self, name: &str) -> Result<()> {
        self.get(Some(name))?;
        write(&self.dir.join("current"), name)
    }

    /// Makes the context `name`: joins the coordinator as the operator `operator` with a one-time token.
    ///
    /// # Errors
    /// When the context exists and is not to be replaced, the coordinator refuses, or a file cannot be written.
    pub(crate) async fn join(&self, name: &str, join: &JoinContext<'_>) -> Result<()> {
        check_name(name)?;
        let folder = self.folder(name);
        if folder.join("coordinator").exists() && !join.replace {
            let what = format!("there is a context `{name}` already");
            return Err(Fault::usage(what, "choose another name, or add --force to replace it").into());
        }
        let joiner = JoinAs { name: join.operator.to_owned(), ..JoinAs::default() };
        let identity = baton_proto::identity::join(join.coordinator, join.token, joiner).await?;
        identity.save(&folder)?;
        self.put(name, join.coordinator)
    }

    /// Records where the coordinator of `name` is; its identity is in [`Self::folder`] already.
    ///
    /// # Errors
    /// When the config folder cannot be written.
    pub(crate) fn put(&self, name: &str, coordinator: &str) -> Result<()> {
        check_name(name)?;
        write(&self.folder(name).join("coordinator"), coordinator)
    }

    /// Forgets `name` and its certificate.
    ///
    /// # Errors
    /// When it does not exist or the config folder cannot be written.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let context = self.get(Some(name))?;
        std::fs::remove_dir_all(&context.dir).map_err(|error| unusable(&context.dir, &error))?;
        if self.current()?.as_deref() == Some(name) {
            let current = self.dir.join("current");
            std::fs::remove_file(&current).map_err(|error| unusable(&current, &error))?;
        }
        Ok(())
    }
}

impl Context {
    /// A connected client with this context's certificate, which is renewed when a third of its life is left.
    ///
    /// # Errors
    /// When the certificate cannot be read or has ended, or the coordinator does not answer in time.
    pub(crate) async fn connect(&self) -> Result<OperatorServiceClient<Channel>> {
        let identity = self.identity()?;
        let channel = baton_proto::identity::connect(&self.coordinator, &identity).await?;
        if identity.renew_at().is_ok_and(|due| SystemTime::now() >= due)
            && let Err(error) = self.renew(&channel, &identity).await
        {
            // The present one still serves, and the next command tries again.
            eprintln!("the certificate of context `{}` could not be renewed yet: {error}", self.name);
        }
        Ok(OperatorServiceClient::new(channel))
    }

    async fn renew(&self, channel: &Channel, identity: &Identity) -> Result<(), IdentityError> {
        let renewed = baton_proto::identity::renew(channel.clone(), identity);
        match tokio::time::timeout(RENEW_WITHIN, renewed).await {
            Ok(fresh) => fresh?.save(&self.dir),
            Err(_) => Ok(()),
        }
    }

    /// The operator's certificate in this context.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(Identity::load(&self.dir)?)
    }
}

fn check_name(name: &str) -> Result<()> {
    baton_model::id::NodeName::new(name).map_err(|_| {
        Fault::usage(format!("`{name}` is not a context name"), "use lower-case letters, digits and dashes")
    })?;
    Ok(())
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path, &error).into()),
    }
}

/// Replaces the file as a whole, so that a crash leaves the old or the new text.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().expect("paths here are inside the config folder");
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&fresh, format!("{text}\n")).map_err(|error| unusable(&fresh, &error))?;
    std::fs::rename(&fresh, path).map_err(|error| unusable(path, &error))?;
    Ok(())
}

fn unusable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        format!("{}: {error}", path.display()),
        "make it readable and writable for this user, or set BATON_CONFIG_DIR",
    )
}
