//! docs/service-file.md is held to the parser: its fields, its defaults and its examples.

use super::*;

const DOCUMENTATION: &str = include_str!("../../../../../docs/service-file.md");

/// The rows of the reference: field, and the default as TOML where it is a value.
fn documented_fields() -> Vec<(&'static str, Option<&'static str>)> {
    let code = |cell: &'static str| cell.trim().strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    DOCUMENTATION
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let (field, rest) = row.split_once('`').expect(row);
            let default = rest.trim_end().trim_end_matches('|').rsplit('|').next().expect(row);
            (field, code(default))
        })
        .collect()
}

/// A service with the strategy that has this section, and these lines in it.
fn of_strategy(section: &str, lines: &str) -> String {
    let word = section.trim_start_matches("rollout.").replace('_', "-");
    let required = if word == "ab" { "duration = \"1h\"\n" } else { "" };
    let service =
        web!("[ports.http]\nkind = \"dynamic\"\n[placement]\nreplicas = 2\n[route]\n[rollout]\nstrategy = ");
    format!("{service}\"{word}\"\n[{section}]\n{required}{lines}")
}

#[test]
fn documented_defaults_are_the_defaults() {
    let check = http!("[checks.readiness]\nkind = \"http\"\nport = \"http\"\n");
    let routed = http!("[checks.readiness]\nkind = \"http\"\nport = \"http\"\n[route]\n");
    let (plain, plain_route) = (parse(check).unwrap().spec, parse(routed).unwrap().spec);
    let mut compared = 0;
    for (field, default) in documented_fields() {
        let Some(default) = default else { continue };
        let (section, name) = field.rsplit_once('.').expect(field);
        let source = match section {
            "checks.readiness" => format!("{check}{name} = {default}\n"),
            "rollout.canary" | "rollout.blue_green" | "rollout.ab" | "rollout.dark" => {
                let plain = parse(&of_strategy(section, "")).unwrap().spec;
                let written = parse(&of_strategy(section, &format!("{name} = {default}\n")));
                let spec = written.unwrap_or_else(|problems| panic!("{field}: {problems:#?}")).spec;
                assert_eq!(spec, plain, "{field} is not {default} by default");
                compared += 1;
                continue;
            }
            "route" => format!("{routed}{name} = {default}\n"),
            _ if section.starts_with("route.") => format!("{routed}[{section}]\n{name} = {default}\n"),
            _ => format!("{check}[{section}]\n{name} = {default}\n"),
        };
        let spec = parse(&source).unwrap_or_else(|problems| panic!("{field}: {problems:#?}")).spec;
        let plain = if section.starts_with("route") { &plain_route } else { &plain };
        assert_eq!(&spec, plain, "{field} is not {default} by default");
        compared += 1;
    }
    assert!(compared >= 25, "only {compared} defaults were found in the documentation");
}

#[test]
fn every_field_is_documented() {
    let documented: Vec<&str> = documented_fields().into_iter().map(|(field, _)| field).collect();
    let sections = [
        ("ports.NAME.", ports::PORT),
        ("checks.readiness.", workload::CHECK),
        ("stop.", workload::STOP),
        ("restart.", workload::RESTART),
        ("after.", &["NAME"]),
        ("notify.", lifecycle::NOTIFY),
        ("reload.", lifecycle::RELOAD),
        ("hooks.", lifecycle::HOOKS),
        ("hooks.before_start.", lifecycle::HOOK),
        ("placement.", fleet::PLACEMENT),
        ("rollout.", fleet::ROLLOUT),
        ("rollout.canary.", strategy::CANARY),
        ("rollout.blue_green.", strategy::BLUE_GREEN),
        ("rollout.ab.", strategy::AB),
        ("rollout.dark.", strategy::DARK),
        ("rollout.analysis.NAME.", analysis::ANALYSIS),
        ("logs.", workload::LOGS),
        ("files.NAME.", configuration::FILE),
        ("secrets.NAME.", configuration::SECRET),
        ("limits.", confinement::LIMITS),
        ("sandbox.", confinement::SANDBOX),
        ("route.", traffic::ROUTE),
        ("route.timeouts.", traffic::TIMEOUTS),
        ("route.retries.", traffic::RETRIES),
        ("route.limits.", traffic::LIMITS),
        ("route.check.", traffic::CHECK),
        ("route.ejection.", traffic::EJECTION),
        ("", &["name", "type", "artifact", "exec"]),
    ];
    for (section, fields) in sections {
        for field in fields {
            let path = format!("{section}{field}");
            assert!(documented.contains(&path.as_str()), "{path} is not in docs/service-file.md");
        }
    }
    assert_eq!(
        documented.len(),
        sections.iter().map(|(_, fields)| fields.len()).sum::<usize>(),
        "a field is documented that is not there"
    );
}

/// The pages of the strategies, each with a service file of its own.
const STRATEGIES: [(&str, &str); 5] = [
    ("rolling", include_str!("../../../../../docs/strategies/rolling.md")),
    ("canary", include_str!("../../../../../docs/strategies/canary.md")),
    ("blue-green", include_str!("../../../../../docs/strategies/blue-green.md")),
    ("ab", include_str!("../../../../../docs/strategies/ab.md")),
    ("dark", include_str!("../../../../../docs/strategies/dark.md")),
];

#[test]
fn each_strategy_has_a_page_with_a_file_that_works_as_printed() {
    for (word, page) in STRATEGIES {
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let spec = parse(block.expect(word)).unwrap_or_else(|problems| panic!("{word}: {problems:#?}")).spec;
        assert_eq!(spec.rollout.strategy.word(), word);
    }
}

#[test]
fn documented_examples_are_right() {
    let blocks: Vec<&str> =
        DOCUMENTATION.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        let source =
            if block.starts_with("name") { block.to_owned() } else { format!("{}{block}", http!("")) };
        if let Err(problems) = parse(&source) {
            panic!("{block}\n{problems:#?}");
        }
    }
}
