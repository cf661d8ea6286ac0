//! What can be wrong with what is run and how it is kept.

use super::Findings;
use crate::file::problem::name_of;
use crate::file::suggest::{closest, one_of};
use crate::file::template::{TemplateError, expand};
use crate::file::value::shorten;
use crate::spec::{Check, Probe, RestartMode, ServiceSpec};
use crate::time::Millis;

/// Most arguments of a command, and most variables of an environment.
const WORDS_MAX: usize = 256;
/// Longest single argument or `NAME=value`: `MAX_ARG_STRLEN` of Linux (execve(2)), less its ending NUL.
const WORD_BYTES_MAX: usize = 128 * 1024 - 1;
/// Most answers in a row that a check may ask for.
const ANSWERS_MAX: u32 = 1000;
/// More often than this, checking costs more than it tells.
const CHECK_INTERVAL_MIN: Millis = Millis(100);
const CHECK_TIMEOUT_MIN: Millis = Millis(10);
/// Longest interval, backoff, stop or drain.
const PAUSE_MAX: Millis = Millis::secs(3600);
const RESET_AFTER_MAX: Millis = Millis::secs(24 * 3600);
const CRASHES_MAX: u32 = 1000;
const LOG_BYTES_MIN: u64 = 64 * 1024;
const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const LOG_KEEP_MAX: u32 = 100;

/// What `${...}` can name besides the ports.
const NAMES: [&str; 4] = ["NODE_NAME", "NODE_ADDRESS", "INSTANCE", "VERSION"];

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    command("exec", &spec.exec, spec, findings);
    program(spec, findings);
    env(spec, findings);
    super::ports::check(spec, findings);
    let checks = [
        ("startup", &spec.checks.startup),
        ("readiness", &spec.checks.readiness),
        ("liveness", &spec.checks.liveness),
    ];
    for (name, check) in checks {
        if let Some(check) = check {
            one_check(name, check, spec, findings);
        }
    }
    restart(spec, findings);
    findings.duration("stop.timeout", spec.stop.timeout, Millis::ZERO, PAUSE_MAX);
    findings.duration("stop.drain", spec.stop.drain, Millis::ZERO, PAUSE_MAX);
    logs(spec, findings);
}

/// A program and its arguments, in `exec` or in a check.
pub(super) fn command(field: &str, words: &[String], spec: &ServiceSpec, findings: &mut Findings) {
    if words.is_empty() {
        findings.add(
            &[field],
            format!("`{field}` names no program"),
            format!("write `{field} = [\"web\"]` with the program and its arguments"),
        );
    }
    if words.len() > WORDS_MAX {
        findings.add(
            &[field],
            format!("`{field}` has {} words", words.len()),
            format!("write at most {WORDS_MAX}; put the rest into a file of the artifact"),
        );
        return;
    }
    for (index, word) in words.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if index == 0 && word.is_empty() {
            findings.add(
                &[&field],
                format!("`{field}` is empty, and names no program"),
                "write the path of the program inside the artifact",
            );
        }
        word_of(&field, word, spec, findings);
    }
    if let [line] = words
        && is_command_line(line)
    {
        let split = line.split_whitespace().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        findings.add(
            &[&format!("{field}[0]"), field],
            format!("`{field}` is one word with spaces in it, and no shell splits it"),
            format!("write `{field} = [{split}]`; a path with spaces in its names begins with `./` or `/`"),
        );
    }
}

/// Whether a program's only word is a command line that was left whole. A path may have spaces in its names, but a
/// part of it that looks like an option is none.
fn is_command_line(word: &str) -> bool {
    let is_path = word.starts_with('/') || word.starts_with("./");
    let mut parts = word.split_whitespace().skip(1).peekable();
    parts.peek().is_some() && (!is_path || parts.any(|part| part.starts_with('-')))
}

/// One argument or value: what the kernel takes, and only names that are known.
fn word_of(field: &str, word: &str, spec: &ServiceSpec, findings: &mut Findings) {
    if word.contains('\0') {
        findings.add(
            &[field],
            format!("`{field}` contains a NUL character, which no program can be given"),
            "take it out",
        );
    }
    if word.len() > WORD_BYTES_MAX {
        findings.add(
            &[field],
            format!("`{field}` has {} bytes, more than Linux passes on", word.len()),
            format!("write at most {WORD_BYTES_MAX} bytes; put the rest into a file of the artifact"),
        );
    }
    let variables: Vec<String> = spec.ports.iter().map(|(name, port)| port.variable(name)).collect();
    let folders = super::configuration::folders(&spec.configuration);
    let known = || variables.iter().map(String::as_str).chain(NAMES).chain(folders.iter().copied());
    match expand(word, |name| known().any(|k| k == name).then(String::new)) {
        Ok(_) => {}
        Err(TemplateError::Unclosed) => {
            findings.add(
                &[field],
                format!("`{field}` has a `${{` without its `}}`"),
                "close it, or write `$${` for a literal `${`",
            );
        }
        Err(TemplateError::Unknown(name)) => {
            let help = match closest(&name, known()) {
                Some(meant) => format!("did you mean `${{{meant}}}`?"),
                None if name.starts_with("PORT_") && variables.is_empty() => {
                    "declare the port, as in `[ports.http]` with `kind = \"dynamic\"`".to_owned()
                }
                None if name == "CONFIG_DIR" => {
                    "give the service a file, as in `[files.\"app.conf\"]`".to_owned()
                }
                None if name == "SECRETS_DIR" => {
                    "give the service a secret, as in `[secrets.db-password]`".to_owned()
                }
                None => format!("use {}; write `$${{` for a literal `${{`", one_of(known())),
            };
            findings.add(
                &[field],
                format!("`{field}` uses `${{{}}}`, which is not known", shorten(&name)),
                help,
            );
        }
    }
}

/// The program's path, as far as it can be judged without the artifact.
fn program(spec: &ServiceSpec, findings: &mut Findings) {
    let Some(program) = spec.exec.first() else { return };
    if program.split('/').any(|part| part == "..") {
        findings.add(
            &["exec[0]", "exec"],
            format!("`exec` names `{}`, which leaves the artifact", shorten(program)),
            "write the program's path inside the artifact, without `..`, or an absolute path on the node",
        );
    }
    if program.ends_with('/') {
        findings.add(
            &["exec[0]", "exec"],
            format!("`exec` names the folder `{}`", shorten(program)),
            "write the path of the program in it",
        );
    }
}

fn env(spec: &ServiceSpec, findings: &mut Findings) {
    if spec.env.len() > WORDS_MAX {
        findings.add(
            &["env"],
            format!("`[env]` has {} variables", spec.env.len()),
            format!("write at most {WORDS_MAX}"),
        );
        return;
    }
    let port_variables: Vec<String> = spec.ports.iter().map(|(name, port)| port.variable(name)).collect();
    for (name, value) in &spec.env {
        let field = format!("env.{name}");
        let name_field = name_of(&field);
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            findings.add(
                &[&name_field],
                format!("`{}` is not a name that an environment variable can have", shorten(name)),
                "use letters, digits and `_`, starting with a letter or `_`",
            );
        }
        let listens = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].contains(&name.as_str());
        let notifies = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID"].contains(&name.as_str());
        if listens || notifies || name.starts_with("BATON_") || port_variables.contains(name) {
            findings.add(
                &[&name_field],
                format!("`{name}` is set by Baton itself"),
                if listens || port_variables.contains(name) {
                    "leave it out, and declare the port in `[ports.NAME]`"
                } else if notifies {
                    "leave it out; see `[notify]` and `[hooks]`"
                } else {
                    "choose a name that does not start with `BATON_`"
                },
            );
        }
        word_of(&field, value, spec, findings);
    }
}

fn one_check(name: &str, check: &Check, spec: &ServiceSpec, findings: &mut Findings) {
    let field = |field: &str| format!("checks.{name}.{field}");
    let timely = findings.duration(&field("interval"), check.interval, CHECK_INTERVAL_MIN, PAUSE_MAX)
        & findings.duration(&field("timeout"), check.timeout, CHECK_TIMEOUT_MIN, PAUSE_MAX);
    findings.range(&field("rise"), check.rise, 1, ANSWERS_MAX);
    findings.range(&field("fall"), check.fall, 1, ANSWERS_MAX);
    if timely && check.timeout > check.interval {
        findings.add(
            &[&field("timeout"), &field("interval")],
            format!(
                "`{}` of {} is longer than its interval of {}",
                field("timeout"),
                check.timeout,
                check.interval
            ),
            format!("write at most \"{}\", or a longer `interval`", check.interval),
        );
    }
    match &check.probe {
        Probe::Exec { command: words } => command(&field("command"), words, spec, findings),
        Probe::Http { port, path, status } => {
            super::ports::asked(name, port, spec, findings);
            if !path.starts_with('/')
                || path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')
                || !path.is_ascii()
            {
                findings.add(
                    &[&field("path")],
                    format!("`{}` is `{}`, which is not the path of a URL", field("path"), shorten(path)),
                    format!(
                        "start with `/` and leave out host, spaces and `#`: \"{}\"",
                        path_suggestion(path)
                    ),
                );
            }
            if let Some(status) = status {
                findings.range(&field("status"), *status, 100, 599);
            }
        }
        Probe::Tcp { port } => super::ports::asked(name, port, spec, findings),
        Probe::Grpc { port, service } => {
            super::ports::asked(name, port, spec, findings);
            if service.contains(|c: char| c.is_whitespace() || c.is_control()) {
                findings.add(
                    &[&field("service")],
                    format!("`{}` is not the name of a gRPC service", field("service")),
                    "write it as the .proto file has it: \"shop.v1.Orders\"",
                );
            }
        }
    }
}

/// The path that was most likely meant: of a URL its path, of a bare word the word below `/`.
fn path_suggestion(written: &str) -> String {
    let after_scheme = written.split_once("://").map_or(written, |(_, rest)| rest);
    let path = if after_scheme.len() == written.len() {
        written
    } else {
        after_scheme.find('/').map_or("/", |at| &after_scheme[at..])
    };
    let clean: String =
        path.chars().filter(|c| c.is_ascii_graphic() && *c != '#' && *c != '"').take(40).collect();
    if clean.starts_with('/') { clean } else { format!("/{clean}") }
}

fn restart(spec: &ServiceSpec, findings: &mut Findings) {
    let restart = &spec.restart;
    let in_range = findings.duration("restart.base", restart.base, Millis(1), PAUSE_MAX)
        & findings.duration("restart.max", restart.max, Millis(1), PAUSE_MAX);
    if in_range && restart.base > restart.max {
        findings.add(
            &["restart.base", "restart.max"],
            format!("`restart.base` of {} is longer than `restart.max` of {}", restart.base, restart.max),
            "the first backoff cannot be longer than the longest; lower `base` or raise `max`",
        );
    }
    findings.duration("restart.reset_after", restart.reset_after, Millis::secs(1), RESET_AFTER_MAX);
    findings.range("restart.crash_loop_after", restart.crash_loop_after, 1, CRASHES_MAX);
    if restart.mode == RestartMode::Never && spec.checks.liveness.is_some() {
        findings.add(
            &["restart.mode", "checks.liveness"],
            "`[checks.liveness]` restarts the workload when it fails, but `restart.mode` is `never`",
            "write `mode = \"always\"` or `\"on-failure\"`, or take `[checks.liveness]` out",
        );
    }
}

fn logs(spec: &ServiceSpec, findings: &mut Findings) {
    let field = "logs.max_size";
    let bytes = spec.logs.max_bytes;
    if !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&bytes) {
        let side = if bytes < LOG_BYTES_MIN { "less" } else { "more" };
        findings.add(
            &[field],
            format!("`{field}` is {bytes} bytes, {side} than it may be"),
            "write a size from \"64KiB\" to \"1GiB\"",
        );
    }
    findings.range("logs.keep", spec.logs.keep, 1, LOG_KEEP_MAX);
}
