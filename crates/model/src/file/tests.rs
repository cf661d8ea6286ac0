//! The mistakes that people make, each with what they are told (golden file `mistakes.txt` beside this one), and
//! what is always true of a service file.

use super::*;
use crate::configuration::{OnChange, SecretKey};
use crate::lifecycle::{Near, Reload, RunKind};
use crate::route::{Balance, Entry, HttpProtocol, Key, Weight};
use crate::spec::{Amount, Count, PortKind, RestartMode, StopSignal};
use crate::time::Millis;
use mistakes::MISTAKES;
use proptest::prelude::*;

/// A service file that is right, followed by what the test is about.
macro_rules! web {
    ($rest:expr) => {
        concat!("name = \"web\"\nartifact = \"./web\"\nexec = [\"web\"]\n", $rest)
    };
}

/// The same with a port that checks can ask.
macro_rules! http {
    ($rest:expr) => {
        web!(concat!("[ports.http]\nkind = \"socket\"\nport = 8080\n", $rest))
    };
}

/// The same behind a gateway.
macro_rules! routed {
    ($rest:expr) => {
        http!(concat!("[placement]\nreplicas = 3\n[route]\n", $rest))
    };
}

mod documentation;
mod mistakes;
mod traffic_mistakes;

/// The problem as the test shows it: where, what, the line with a caret under it, and the help.
fn show(source: &str, problem: &Problem) -> String {
    let (line, column) = problem.line_and_column(source);
    let text = source.lines().nth(line - 1).unwrap_or("");
    let end = problem.span.end.min(problem.span.start + text.len()).min(source.len());
    let width = source
        .get(problem.span.start..end)
        .map_or(1, |s| s.lines().next().unwrap_or("").chars().count().max(1));
    format!(
        "{line}:{column} {}\n    {text}\n    {}{}\n  help: {}\n",
        problem.message,
        " ".repeat(column - 1),
        "^".repeat(width),
        problem.help
    )
}

#[test]
fn every_mistake_is_told_with_its_place_and_its_remedy() {
    assert!(MISTAKES.len() >= 60);
    let mut told = String::new();
    for (title, source) in MISTAKES.iter() {
        let problems = parse(source).expect_err(title);
        assert!(!problems.is_empty(), "{title}");
        told += &format!("## {title}\n");
        for problem in &problems {
            assert!(!problem.help.is_empty(), "{title}: no help");
            told += &show(source, problem);
        }
        told.push('\n');
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "." }, {
        insta::assert_snapshot!("mistakes", told);
    });
}

#[test]
fn a_whole_file_is_read() {
    let source = web!(
        r#"
        env = { LOG = "info", ADDRESS = "${NODE_ADDRESS}:${PORT_HTTP}" }
        [ports]
        http = { kind = "socket", port = 8080 }
        admin = { kind = "dynamic" }
        [checks.readiness]
        kind = "http"
        port = "http"
        path = "/health?deep=1"
        interval = "500ms"
        timeout = "250ms"
        [stop]
        signal = "SIGINT"
        [placement]
        replicas = 6
        require = { region = "eu" }
        spread = "zone"
        min_available = "80%"
        [rollout]
        batch = "50%"
        zone_at_a_time = true
        approve_before = [2, 1]
        "#
    );
    let ServiceFile { spec, artifact, templates: _ } =
        parse(source).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(&source[artifact.span.clone()], "\"./web\"");
    assert_eq!(spec.ports[&"http".parse().unwrap()].kind, PortKind::Socket { port: 8080 });
    assert_eq!(spec.stop.signal, StopSignal::Sigint);
    assert_eq!(spec.placement.count, Count::Replicas(6));
    assert_eq!(spec.min_available, Amount::Percent(80));
    assert_eq!(spec.rollout.max_unavailable, Amount::Number(3));
    assert_eq!(spec.rollout.approve_before, [1, 2]);
    assert_eq!(spec.checks.readiness.as_ref().unwrap().timeout, Millis(250));
    assert_eq!(check_spec(&spec), Vec::<String>::new());
}

#[test]
fn lifecycles_are_read() {
    let source = web!(
        r#"
        [after]
        db = "anywhere"
        proxy = "same-node"
        [notify]
        ready = true
        watchdog = "10s"
        [reload]
        command = ["bin/reload", "${VERSION}"]
        [hooks]
        before_start = { command = ["bin/migrate"], timeout = "5m" }
        after_stop = { command = ["/bin/rm", "-f", "x"] }
        "#
    );
    let lifecycle = parse(source).unwrap_or_else(|problems| panic!("{problems:#?}")).spec.lifecycle;
    assert_eq!(lifecycle.kind, RunKind::Service);
    let after: Vec<_> = lifecycle.after.iter().map(|(name, near)| (name.as_str(), *near)).collect();
    assert_eq!(after, [("db", Near::Anywhere), ("proxy", Near::SameNode)]);
    assert_eq!(lifecycle.notify.ready_within, Some(Millis::secs(90)));
    assert_eq!(lifecycle.notify.watchdog, Some(Millis::secs(10)));
    let command = vec!["bin/reload".to_owned(), "${VERSION}".to_owned()];
    assert_eq!(lifecycle.reload, Some(Reload::Command { command, timeout: Millis::secs(30) }));
    let timeouts = lifecycle.hooks.named().map(|(_, hook)| hook.map(|hook| hook.timeout.0));
    assert_eq!(timeouts, [Some(300_000), None, None, Some(30_000)]);

    let job = "name = \"job\"\ntype = \"one-shot\"\nartifact = \"./job\"\nexec = [\"job\"]\n";
    let spec = parse(job).unwrap_or_else(|problems| panic!("{problems:#?}")).spec;
    assert_eq!((spec.lifecycle.kind, spec.restart.mode), (RunKind::OneShot, RestartMode::Never));
}

#[test]
fn files_and_secrets_are_read() {
    let source = "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"${CONFIG_DIR}/app.conf\", \"${SECRETS_DIR}\"]\n".to_owned()
        + r#"
        [files."app.conf"]
        template = "./app.conf.tmpl"
        on_change = "SIGHUP"
        [files."boot.conf"]
        content = "{{ node.labels.zone }} {% for peer in peers %}{{ peer.address }}{% endfor %}"
        [secrets.db-password]
        on_change = "nothing"
        [secrets.key]
        secret = "tls.key"
        "#;
    let mut file = parse(&source).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let [template] = &file.templates.clone()[..] else { panic!("{:?}", file.templates) };
    assert_eq!((template.file.as_str(), &source[template.span.clone()]), ("app.conf", "\"./app.conf.tmpl\""));
    let wrong = file.fill(template, "a\n{{ oops }}\n".to_owned()).unwrap_err();
    assert_eq!((wrong.span, wrong.message.contains("oops")), (5..9, true));
    file.fill(template, "{{ version }}".to_owned()).unwrap();
    let configuration = &file.spec.configuration;
    assert_eq!(configuration.files["app.conf"].template, "{{ version }}");
    assert_eq!(configuration.files["app.conf"].on_change, OnChange::Signal(StopSignal::Sighup));
    assert_eq!(configuration.files["boot.conf"].on_change, OnChange::Restart);
    assert_eq!(configuration.secrets["db-password"].secret.as_str(), "db-password");
    assert_eq!(configuration.secrets["db-password"].on_change, OnChange::Nothing);
    assert_eq!(
        configuration.secrets["key"].key(),
        SecretKey { name: "tls.key".parse().unwrap(), revision: 0 }
    );
    assert_eq!(check_spec(&file.spec), Vec::<String>::new());
}

#[test]
fn limits_and_sandbox_are_read() {
    let source = web!(
        r#"
        [limits]
        memory_high = "400MiB"
        memory_max = "512MiB"
        cpu = "150%"
        cpu_weight = 200
        pids_max = 256
        io_weight = 50
        open_files = 65536
        core = "0"
        [sandbox]
        user = "www-data"
        group = 33
        capabilities = ["CAP_NET_BIND_SERVICE", "CAP_NET_BIND_SERVICE"]
        no_new_privileges = true
        private_tmp = true
        read_only = ["/etc", "/"]
        hidden = ["/root"]
        umask = "027"
        working_directory = "data"
        nice = -5
        "#
    );
    let spec = parse(source).unwrap_or_else(|problems| panic!("{problems:#?}")).spec;
    assert_eq!(spec.limits.memory_high, Some(400 << 20));
    assert_eq!((spec.limits.cpu_percent, spec.limits.cpu_weight), (Some(150), Some(200)));
    assert_eq!((spec.limits.open_files, spec.limits.core_bytes), (Some(65536), Some(0)));
    assert_eq!((spec.sandbox.user.as_deref(), spec.sandbox.group.as_deref()), (Some("www-data"), Some("33")));
    let kept: Vec<_> = spec.sandbox.capabilities.iter().flatten().map(|it| it.number()).collect();
    assert_eq!(kept, [10]);
    assert_eq!((spec.sandbox.umask, spec.sandbox.nice), (Some(0o27), Some(-5)));
    assert!(spec.sandbox.no_new_privileges && spec.sandbox.private_tmp);
    assert_eq!(spec.sandbox.read_only.len(), 2);
    // `capabilities = []` keeps none; without the field all are kept.
    let none = parse(web!("[sandbox]\ncapabilities = []\n")).unwrap().spec.sandbox.capabilities;
    assert_eq!(none, Some(Default::default()));
}

#[test]
fn sockets_of_all_kinds_are_read() {
    let source = web!(
        r#"
        env = { WEB = "${PORT_WEB}", BEACON = "${PORT_BEACON}", LOCAL = "${SOCKET_LOCAL}" }
        [ports]
        web = { kind = "socket", port = 53 }
        beacon = { kind = "socket", port = 53, protocol = "udp" }
        other = { kind = "socket", port = 54, protocol = "tcp" }
        local = { kind = "socket", path = "/run/web/web.sock" }
        public = { kind = "socket", path = "/run/web/public.sock", mode = "0666" }
        [checks.readiness]
        kind = "http"
        port = "local"
        "#
    );
    let spec = parse(source).unwrap_or_else(|problems| panic!("{problems:#?}")).spec;
    let unix = |path: &str, mode| PortKind::Unix { path: path.to_owned(), mode };
    for (name, kind) in [
        ("web", PortKind::Socket { port: 53 }),
        ("beacon", PortKind::Udp { port: 53 }),
        ("other", PortKind::Socket { port: 54 }),
        ("local", unix("/run/web/web.sock", 0o660)),
        ("public", unix("/run/web/public.sock", 0o666)),
    ] {
        assert_eq!(spec.ports[&name.parse().unwrap()].kind, kind, "{name}");
    }
}

#[test]
fn routes_are_read() {
    let source = http!(
        r#"
        [checks.readiness]
        kind = "http"
        port = "http"
        path = "/health"
        [route]
        hosts = ["shop.example.com", "*.shop.example.com"]
        path = "/api"
        protocol = "http"
        balance = "hash"
        hash_by = "cookie:session"
        split_by = "header:X-User"
        zone_spill_below = "62.5%"
        [route.retries]
        attempts = 0
        hedge_after = "0s"
        "#
    );
    let route = |source: &str| parse(source).unwrap_or_else(|it| panic!("{it:#?}")).spec.route.unwrap();
    let spec = route(source);
    let Entry::Http { hosts, path, protocol } = &spec.entry else { panic!("{:?}", spec.entry) };
    assert_eq!((hosts.len(), path.as_str(), *protocol), (2, "/api", HttpProtocol::Http1));
    assert_eq!(spec.port.as_str(), "http");
    assert_eq!(spec.balance, Balance::Hash(Key::Cookie("session".to_owned())));
    assert_eq!(spec.split_by, Key::Header("x-user".to_owned()));
    assert_eq!((spec.zone_spill_below, spec.retries.hedge_after), (Weight(6_250), Millis::ZERO));
    // The gateways ask what the readiness check asks, where it asks the same port for HTTP.
    assert_eq!(spec.check.map(|check| check.path).as_deref(), Some("/health"));
    assert_eq!(route(http!("[route]\n")).check, None);
    assert_eq!(route(http!("[route.check]\n")).check.map(|check| check.path).as_deref(), Some("/"));
    let tcp = route(http!("[route]\nprotocol = \"tcp\"\nlisten = 5432\n"));
    assert_eq!((tcp.entry, tcp.retries.hedge_after), (Entry::Tcp { listen: 5432 }, Millis::ZERO));
}

#[test]
fn floors_follow_from_the_count() {
    for (text, floor, out) in [
        ("", Amount::Number(0), Amount::Number(1)),
        ("[placement]\nreplicas = 5\n", Amount::Number(4), Amount::Number(1)),
        ("[placement]\nreplicas = 5\n[rollout]\nbatch = 2\n", Amount::Number(3), Amount::Number(2)),
        ("[placement]\nreplicas = 5\n[rollout]\nbatch = \"10%\"\n", Amount::Number(4), Amount::Number(1)),
        ("[placement]\nreplicas = 5\n[rollout]\nmax_unavailable = 0\n", Amount::Number(5), Amount::Number(0)),
        ("[placement]\nper_node = true\n", Amount::Number(0), Amount::Number(1)),
        (
            "[placement]\nper_node = true\n[rollout]\nbatch = \"25%\"\n",
            Amount::Percent(75),
            Amount::Percent(25),
        ),
    ] {
        let spec = parse(&format!("{}{text}", web!(""))).expect(text).spec;
        assert_eq!((spec.min_available, spec.rollout.max_unavailable), (floor, out), "{text}");
    }
}

#[test]
fn a_spec_from_elsewhere_is_asked_the_same() {
    let mut spec = parse(web!("")).unwrap().spec;
    spec.rollout.batch = Amount::Number(0);
    spec.exec.clear();
    let found = check_spec(&spec);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("`exec` names no program; write"), "{found:?}");
    assert!(found[1].starts_with("`rollout.batch` is 0"), "{found:?}");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let source = "#".repeat(SOURCE_MAX + 1);
    let problems = parse(&source).unwrap_err();
    assert!(problems[0].message.contains("more than a service file may have"), "{problems:?}");
}

#[test]
fn problems_are_bounded_and_in_order() {
    let source = (0..500).map(|n| format!("field{n} = 1\n")).collect::<String>();
    let problems = parse(&source).unwrap_err();
    assert_eq!(problems.len(), PROBLEMS_MAX);
    assert!(problems.is_sorted_by_key(|problem| problem.span.start));
}

fn spans_lie_within(source: &str) {
    let Err(problems) = parse(source) else { return };
    for problem in problems {
        assert!(problem.span.start <= problem.span.end && problem.span.end <= source.len(), "{problem:?}");
        assert!(problem.line_and_column(source).0 <= source.lines().count() + 1, "{problem:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(source in any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())) {
        spans_lie_within(&source);
    }

    #[test]
    fn no_damage_to_a_real_file_makes_it_panic(which in 0..MISTAKES.len(), at in 0..400_usize, cut in 0..20_usize, put in "[\\PC\n\"=\\[\\]]{0,6}") {
        let source = MISTAKES[which].1;
        let at = (0..=at.min(source.len())).rev().find(|i| source.is_char_boundary(*i)).unwrap_or(0);
        let end = (at..=(at + cut).min(source.len())).rev().find(|i| source.is_char_boundary(*i)).unwrap_or(at);
        spans_lie_within(&format!("{}{put}{}", &source[..at], &source[end..]));
    }

    #[test]
    fn values_of_all_kinds_are_read_or_refused(field in 0..fleet::ROLLOUT.len(), text in "\"[0-9.a-z% -]{0,12}\"|-?[0-9]{1,30}|[0-9]{1,3}\\.[0-9]{1,3}|true|\\[[0-9]{1,9}\\]|1979-05-27|inf|nan|0x[0-9a-f]{1,20}") {
        spans_lie_within(&format!("{}[rollout]\n{} = {text}\n", web!(""), fleet::ROLLOUT[field]));
    }
}

#[test]
fn a_program_may_have_spaces_in_its_path_but_is_no_command_line() {
    for (program, is_taken) in [
        ("./my prog", true),
        ("/opt/my tools/web server", true),
        ("my prog", false),
        ("./web --port 80", false),
        ("/usr/bin/web serve -v", false),
    ] {
        let source = format!("name = \"web\"\nartifact = \"./web\"\nexec = [\"{program}\"]\n");
        assert_eq!(parse(&source).is_ok(), is_taken, "{program}");
    }
}
