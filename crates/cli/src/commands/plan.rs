//! `baton plan`: says what a deploy would do, and does nothing.

use crate::exit::Exit;
use crate::global::Global;
use crate::release::{self, Source};
use crate::show;
use anyhow::{Context as _, Result};
use baton_model::artifact::Artifact;
use baton_model::configuration::OnChange;
use baton_model::id::Version;
use baton_model::report::{StageReport, Subject, Waiting};
use baton_model::status::{ConfigurationChange, DeployPlan, PlannedChange};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Say what a deploy would do, and do nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton plan web.toml --version 2.0
  baton plan web.toml --version 2.0 --json

The artifact is packed and its digest compared, but not sent.")]
pub(crate) struct Args {
    /// The service file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name that the release would have.
    #[arg(long, value_name = "VERSION")]
    version: Version,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct PlanData<'p> {
    service: &'p str,
    version: &'p Version,
    artifact: &'p Artifact,
    warnings: &'p [String],
    plan: &'p DeployPlan,
}

/// Asks the coordinator what a deploy would do.
///
/// # Errors
/// When the file or its artifact is wrong, or the coordinator cannot be reached or refuses.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let source = Source::load(global, &args.file)?;
    let packed = source.pack(global)?;
    let mut client = global.client().await?;
    let answer = client.plan_deploy(release::request(&source, &packed, &args.version)).await?.into_inner();
    let plan = DeployPlan::try_from(answer)
        .context("the coordinator's answer is not understood; is it of another version?")?;
    let service = source.file.spec.name.as_str();
    if global.json {
        let (version, artifact, warnings) = (&args.version, &packed.artifact, &packed.warnings[..]);
        global.print_json(&PlanData { service, version, artifact, warnings, plan: &plan })?;
        return Ok(Exit::Done);
    }
    release::say_warnings(&packed);
    let text = describe(service, &args.version, &packed.artifact, &plan);
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

/// The plan for people.
fn describe(service: &str, version: &Version, artifact: &Artifact, plan: &DeployPlan) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{words}");
    };
    let what = if plan.unchanged {
        "is there already; a deploy would change nothing"
    } else if plan.first {
        "would be its first release"
    } else {
        "would be a new release"
    };
    line(format_args!("{service} {version} {what}"));
    line(format_args!("artifact {} ({})", artifact.digest.short(), show::bytes(artifact.size_bytes)));
    if !plan.changes.is_empty() {
        line(format_args!("\nchanges:"));
        plan.changes.iter().for_each(|change| line(format_args!("  {change}")));
    }
    if !plan.configuration.is_empty() {
        line(format_args!("\nfiles and secrets:"));
        plan.configuration.iter().for_each(|change| configuration_lines(change, &mut line));
    }
    match plan.change {
        Some(PlannedChange::Refresh) => line(format_args!(
            "\nno process is restarted: the files are written anew, and each process is told as above"
        )),
        Some(PlannedChange::Swap) if !plan.unchanged => {
            line(format_args!("\neach instance gets a new process"));
        }
        Some(PlannedChange::Swap) | None => {}
    }
    if !plan.new_instances.is_empty() {
        line(format_args!("\nnew instances:"));
        plan.new_instances
            .iter()
            .for_each(|new| line(format_args!("  {:<20} on {}", new.instance, new.node)));
    }
    if !plan.stages.is_empty() {
        line(format_args!("\nstages:"));
        plan.stages.iter().for_each(|stage| line(format_args!("  {}", stage_line(stage))));
    }
    if !plan.waiting.is_empty() {
        line(format_args!("\nwould wait:"));
        plan.waiting.iter().for_each(|waiting| line(format_args!("  {}", waiting_line(waiting))));
    }
    text
}

fn configuration_lines(change: &ConfigurationChange, line: &mut impl FnMut(std::fmt::Arguments<'_>)) {
    let asks = match change.on_change {
        OnChange::Restart => "restart".to_owned(),
        OnChange::Signal(signal) => format!("signal {}", signal.name()),
        OnChange::Nothing => "nothing is done".to_owned(),
    };
    let revision = |revision: Option<u64>| revision.map_or_else(|| "none".to_owned(), |it| it.to_string());
    if change.secret {
        let (from, to) = (revision(change.from_revision), revision(change.to_revision));
        line(format_args!("  secret {}: revision {from} -> {to} ({asks})", change.name));
    } else {
        line(format_args!("  {} ({asks})", change.name));
        change.diff.lines().for_each(|changed| line(format_args!("    {changed}")));
    }
}

fn stage_line(stage: &StageReport) -> String {
    let instances: Vec<String> = stage.instances.keys().map(ToString::to_string).collect();
    format!("{:>2}. {:<24} {}", stage.number, stage.title, instances.join(" "))
}

fn waiting_line(waiting: &Waiting) -> String {
    let subject = match &waiting.subject {
        Subject::Service => "the service".to_owned(),
        Subject::Rollout => "the rollout".to_owned(),
        Subject::Stage(number) => format!("stage {number}"),
        Subject::Instance(instance) => instance.to_string(),
        Subject::Node(node) => format!("node {node}"),
    };
    format!("{subject}: {} ({})", waiting.reason, waiting.gate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::artifact::ArtifactFormat;
    use baton_model::id::Digest;
    use baton_model::report::{StageState, Step};
    use baton_model::spec::StopSignal;
    use baton_model::status::PlannedInstance;

    #[test]
    fn a_plan_says_what_where_in_which_stages_and_what_waits() {
        let artifact = Artifact {
            digest: Digest([0xab; 32]),
            size_bytes: 1536,
            format: ArtifactFormat::Tar,
            unpacked_bytes: 4096,
        };
        let stage = StageReport {
            number: 1,
            title: "batch 1 of 2".to_owned(),
            state: StageState::Pending,
            instances: [("web.1".parse().unwrap(), Step::Pending)].into(),
            started_at: None,
            ended_at: None,
            step: 0,
            weight: None,
            verdicts: Vec::new(),
            comparison: None,
        };
        let waiting = Waiting {
            subject: Subject::Stage(2),
            gate: "approval".to_owned(),
            reason: "waits for `baton rollout promote web`".to_owned(),
            until: None,
        };
        let plan = DeployPlan {
            first: false,
            unchanged: false,
            changes: vec!["exec: web -> web --fast".to_owned()],
            stages: vec![stage],
            new_instances: vec![PlannedInstance {
                instance: "web.4".parse().unwrap(),
                node: "n1".parse().unwrap(),
            }],
            waiting: vec![waiting],
            configuration: vec![
                ConfigurationChange {
                    name: "app.conf".to_owned(),
                    secret: false,
                    from_revision: None,
                    to_revision: None,
                    diff: "@@ -1 +1 @@\n-a\n+b\n".to_owned(),
                    on_change: OnChange::Signal(StopSignal::Sighup),
                },
                ConfigurationChange {
                    name: "db-password".to_owned(),
                    secret: true,
                    from_revision: Some(1),
                    to_revision: Some(2),
                    diff: String::new(),
                    on_change: OnChange::Restart,
                },
            ],
            change: Some(PlannedChange::Swap),
        };
        insta::assert_snapshot!(describe("web", &"2.0".parse().unwrap(), &artifact, &plan), @r#"
        web 2.0 would be a new release
        artifact abababababab (1.5 KiB)

        changes:
          exec: web -> web --fast

        files and secrets:
          app.conf (signal SIGHUP)
            @@ -1 +1 @@
            -a
            +b
          secret db-password: revision 1 -> 2 (restart)

        each instance gets a new process

        new instances:
          web.4                on n1

        stages:
           1. batch 1 of 2             web.1

        would wait:
          stage 2: waits for `baton rollout promote web` (approval)
        "#);
        let same = DeployPlan {
            unchanged: true,
            changes: Vec::new(),
            stages: Vec::new(),
            new_instances: Vec::new(),
            waiting: Vec::new(),
            configuration: Vec::new(),
            ..plan
        };
        assert!(describe("web", &"2.0".parse().unwrap(), &artifact, &same).contains("would change nothing"));
    }
}
