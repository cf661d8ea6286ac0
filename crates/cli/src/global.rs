//! What every command is given: which coordinator, how to print, and what the terminal can do.

use crate::api::Api;
use crate::contexts::Contexts;
use anyhow::Result;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use std::io::{IsTerminal as _, Write as _};
use tonic::transport::Channel;

/// Columns and rows assumed where there is no terminal to ask.
pub(crate) const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Options that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct GlobalOptions {
    /// The context to use instead of the current one (see `baton context ls`).
    #[arg(long, global = true, env = "BATON_CONTEXT", value_name = "NAME", help_heading = "Global options")]
    pub(crate) context: Option<String>,
    /// Print data as JSON: one document, or one object per line where the command streams.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// No colours, as with NO_COLOR=1.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_color: bool,
}

/// The options and facts common to all commands.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    /// The context asked for with `--context` or `BATON_CONTEXT`; the current one where `None`.
    pub(crate) context: Option<String>,
    /// Data as JSON.
    pub(crate) json: bool,
    /// Colours on stdout: it is a terminal, and neither `--no-color` nor `NO_COLOR` says otherwise.
    pub(crate) color: bool,
    /// Colours on stderr, by the same rule.
    pub(crate) stderr_color: bool,
    /// stdout is a terminal: live views may redraw.
    pub(crate) terminal: bool,
}

impl Global {
    /// Reads the terminal and the environment once.
    pub(crate) fn new(options: &GlobalOptions) -> Self {
        let plain = options.no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal() && !dumb;
        Self {
            context: options.context.clone(),
            json: options.json,
            color: terminal && !plain,
            stderr_color: std::io::stderr().is_terminal() && !plain && !dumb,
            terminal,
        }
    }

    /// For a part that speaks to nobody: no colours, no terminal, no context.
    pub(crate) const fn quiet() -> Self {
        Self { context: None, json: false, color: false, stderr_color: false, terminal: false }
    }

    /// Columns and rows of the terminal now; it may have been resized.
    pub(crate) fn size(&self) -> (u16, u16) {
        if !self.terminal {
            return DEFAULT_SIZE;
        }
        crossterm::terminal::size().map_or(DEFAULT_SIZE, |(columns, rows)| (columns.max(20), rows.max(6)))
    }

    /// The operator API of the coordinator of the chosen context, connected.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) async fn api(&self) -> Result<Api> {
        Ok(Api::new(self.client().await?))
    }

    /// A client of the coordinator of the chosen context, connected, with the context's certificate.
    ///
    /// # Errors
    /// When there is no context, its files cannot be read, or the coordinator does not answer within five seconds.
    pub(crate) async fn client(&self) -> Result<OperatorServiceClient<Channel>> {
        let contexts = Contexts::open()?;
        contexts.get(self.context.as_deref())?.connect().await
    }

    /// Prints `value` as one JSON document on stdout: indented on a terminal, one line otherwise.
    ///
    /// # Errors
    /// When stdout is gone.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> Result<()> {
        let text =
            if self.terminal { serde_json::to_string_pretty(value)? } else { serde_json::to_string(value)? };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        Ok(())
    }

    /// Prints `value` as one line of JSON on stdout: for streams.
    ///
    /// # Errors
    /// When stdout is gone.
    pub(crate) fn print_json_line(&self, value: &impl serde::Serialize) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(value)?)?;
        out.flush()?;
        Ok(())
    }
}
