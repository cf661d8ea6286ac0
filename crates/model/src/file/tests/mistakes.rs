//! What people get wrong, each with a name: `mistakes.snap` shows what they are told.

use std::sync::LazyLock;

/// All of them.
pub(super) static MISTAKES: LazyLock<Vec<Mistake>> =
    LazyLock::new(|| [GENERAL, super::traffic_mistakes::TRAFFIC].concat());

/// Its name, and the file it is in.
pub(super) type Mistake = (&'static str, &'static str);

const GENERAL: &[Mistake] = &[
    // The text itself.
    ("empty file", ""),
    ("only a comment", "# web\n"),
    ("text without quotes", "name = web\n"),
    ("quote not closed", "name = \"web\nartifact = \"./web\"\n"),
    ("list not closed", "name = \"web\"\nexec = [\"web\"\nartifact = \"./web\"\n"),
    ("section not closed", web!("[rollout\nbatch = 1\n")),
    ("no value", "name =\n"),
    ("yaml", "name: web\n"),
    ("same field twice", "name = \"web\"\nname = \"shop\"\n"),
    ("same section twice", web!("[stop]\n[stop]\n")),
    // The top.
    ("nothing required is there", "[stop]\nsignal = \"SIGTERM\"\n"),
    ("misspelt field", "nmae = \"web\"\nartifact = \"./web\"\nexec = [\"web\"]\n"),
    ("field of another system", web!("image = \"nginx:1.22\"\n")),
    ("field of a section at the top", web!("replicas = 3\n")),
    ("field of the top in a section", "name = \"web\"\nexec = [\"web\"]\n[stop]\nartifact = \"./web\"\n"),
    ("name with capitals", "name = \"Web\"\nartifact = \"./web\"\nexec = [\"web\"]\n"),
    ("name is a number", "name = 7\nartifact = \"./web\"\nexec = [\"web\"]\n"),
    ("artifact is empty", "name = \"web\"\nartifact = \"\"\nexec = [\"web\"]\n"),
    (
        "several at once",
        "name = \"web\"\nartifact = 1\nexec = \"web\"\n[placement]\nreplicas = \"3\"\n[rollout]\nmin_healthy = 10\n",
    ),
    // exec and env.
    ("exec is a line", "name = \"web\"\nartifact = \"./web\"\nexec = \"web --port 80\"\n"),
    ("exec is one word with spaces", "name = \"web\"\nartifact = \"./web\"\nexec = [\"web --port 80\"]\n"),
    ("exec is empty", "name = \"web\"\nartifact = \"./web\"\nexec = []\n"),
    ("exec holds a number", "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"--port\", 80]\n"),
    ("exec leaves the artifact", "name = \"web\"\nartifact = \"./web\"\nexec = [\"../bin/web\"]\n"),
    ("exec names a folder", "name = \"web\"\nartifact = \"./web\"\nexec = [\"bin/\"]\n"),
    (
        "exec uses an unknown port",
        "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"${PORT_HTTP}\"]\n",
    ),
    (
        "exec misspells a port",
        "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"${PORT_HTP}\"]\n[ports.http]\nkind = \"dynamic\"\n",
    ),
    (
        "exec uses a shell variable",
        "name = \"web\"\nartifact = \"./web\"\nexec = [\"sh\", \"-c\", \"echo ${HOME}\"]\n",
    ),
    ("exec leaves a brace open", "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"${VERSION\"]\n"),
    ("exec holds a NUL", "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"a\\u0000b\"]\n"),
    ("env value is a number", web!("[env]\nTHREADS = 4\n")),
    ("env name with a dash", web!("[env]\nLOG-LEVEL = \"info\"\n")),
    ("env is ours", web!("[env]\nLISTEN_FDS = \"1\"\nBATON_NODE = \"x\"\n")),
    ("env is a port's", http!("[env]\nPORT_HTTP = \"1\"\n")),
    ("env is a list", web!("env = [\"A=1\"]\n")),
    // Ports.
    ("port without a kind", web!("[ports.http]\nport = 8080\n")),
    ("port of an unknown kind", web!("[ports.http]\nkind = \"sockets\"\nport = 8080\n")),
    ("socket without a number", web!("[ports.http]\nkind = \"socket\"\n")),
    ("dynamic with a number", web!("[ports.http]\nkind = \"dynamic\"\nport = 8080\n")),
    ("port too large", web!("[ports.http]\nkind = \"fixed\"\nport = 80800\n")),
    ("port zero", web!("[ports.http]\nkind = \"socket\"\nport = 0\n")),
    ("port in quotes", web!("[ports.http]\nkind = \"socket\"\nport = \"8080\"\n")),
    ("port name with capitals", web!("[ports.HTTP]\nkind = \"dynamic\"\n")),
    ("one number twice", http!("[ports.admin]\nkind = \"fixed\"\nport = 8080\n")),
    ("ports is a number", web!("ports = 8080\n")),
    // Checks.
    ("check of an unknown name", http!("[checks.ready]\nkind = \"tcp\"\nport = \"http\"\n")),
    ("check without a kind", http!("[checks.readiness]\nport = \"http\"\n")),
    ("check of kind https", http!("[checks.readiness]\nkind = \"https\"\nport = \"http\"\n")),
    ("check without a port", http!("[checks.readiness]\nkind = \"http\"\n")),
    ("check of a port that is not there", http!("[checks.readiness]\nkind = \"tcp\"\nport = \"grpc\"\n")),
    ("check of a number", http!("[checks.readiness]\nkind = \"tcp\"\nport = 8080\n")),
    ("check without any port", web!("[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\n")),
    (
        "check path is a URL",
        http!("[checks.readiness]\nkind = \"http\"\nport = \"http\"\npath = \"http://localhost/health\"\n"),
    ),
    (
        "check path without a slash",
        http!("[checks.readiness]\nkind = \"http\"\nport = \"http\"\npath = \"health\"\n"),
    ),
    ("check status", http!("[checks.readiness]\nkind = \"http\"\nport = \"http\"\nstatus = 99\n")),
    (
        "check command is a line",
        web!("[checks.liveness]\nkind = \"exec\"\ncommand = \"bin/check --quick\"\n"),
    ),
    (
        "check with a field of another kind",
        http!("[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\npath = \"/\"\n"),
    ),
    (
        "check timeout over interval",
        http!("[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\ninterval = \"1s\"\ntimeout = \"2s\"\n"),
    ),
    (
        "check too often",
        http!("[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\ninterval = \"1ms\"\ntimeout = \"1s\"\n"),
    ),
    ("check rise zero", http!("[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\nrise = 0\n")),
    // Durations and sizes.
    ("duration without a unit", web!("[stop]\ntimeout = 30\n")),
    ("duration in quotes without a unit", web!("[stop]\ntimeout = \"30\"\n")),
    ("duration with a space", web!("[stop]\ntimeout = \"30 s\"\n")),
    ("duration of half seconds", web!("[stop]\ntimeout = \"1.5s\"\n")),
    ("duration as a fraction", web!("[stop]\ntimeout = 2.5\n")),
    ("duration in words", web!("[stop]\ntimeout = \"2 minutes\"\n")),
    ("duration in days", web!("[rollout]\nfirst_zone_bake = \"1d\"\n")),
    ("negative duration", web!("[stop]\ntimeout = \"-5s\"\n")),
    ("duration is nonsense", web!("[stop]\ntimeout = \"soon\"\n")),
    ("duration too long", web!("[stop]\ntimeout = \"2h\"\n")),
    ("size in decimal units", web!("[logs]\nmax_size = \"10MB\"\n")),
    ("size without a unit", web!("[logs]\nmax_size = 10\n")),
    ("size too small", web!("[logs]\nmax_size = \"1KiB\"\n")),
    ("logs keep none", web!("[logs]\nkeep = 0\n")),
    // Stop and restart.
    ("signal without SIG", web!("[stop]\nsignal = \"TERM\"\n")),
    ("signal as a number", web!("[stop]\nsignal = 15\n")),
    ("signal that does not stop", web!("[stop]\nsignal = \"SIGSTOP\"\n")),
    ("restart mode", web!("[restart]\nmode = \"onfailure\"\n")),
    ("restart base over max", web!("[restart]\nbase = \"1m\"\nmax = \"30s\"\n")),
    ("restart base over the default max", web!("[restart]\nbase = \"1m\"\n")),
    ("crash loop after none", web!("[restart]\ncrash_loop_after = 0\n")),
    (
        "liveness without restarts",
        http!("[checks.liveness]\nkind = \"tcp\"\nport = \"http\"\n[restart]\nmode = \"never\"\n"),
    ),
    // Placement.
    ("replicas and per node", web!("[placement]\nreplicas = 3\nper_node = true\n")),
    ("no replicas", web!("[placement]\nreplicas = 0\n")),
    ("negative replicas", web!("[placement]\nreplicas = -1\n")),
    ("replicas as a fraction", web!("[placement]\nreplicas = 2.0\n")),
    ("replicas beyond numbers", web!("[placement]\nreplicas = 99999999999999999999\n")),
    ("per node in quotes", web!("[placement]\nper_node = \"true\"\n")),
    ("minimum above replicas", web!("[placement]\nreplicas = 3\nmin_available = 4\n")),
    ("minimum over the whole", web!("[placement]\nreplicas = 3\nmin_available = \"120%\"\n")),
    ("share without its sign", web!("[placement]\nreplicas = 3\nmin_available = \"80\"\n")),
    ("share as a fraction", web!("[placement]\nreplicas = 3\nmin_available = 0.8\n")),
    ("share of half percents", web!("[placement]\nreplicas = 3\nmin_available = \"12.5%\"\n")),
    ("label value is a number", web!("[placement]\nrequire = { rack = 4 }\n")),
    ("spread over what is pinned", web!("[placement]\nspread = \"zone\"\nrequire = { zone = \"a\" }\n")),
    ("spread over no label", web!("[placement]\nspread = \"availability zone\"\n")),
    ("lost at once", web!("[placement]\nlost_after = \"10ms\"\n")),
    // Rollout.
    ("unknown strategy", web!("[rollout]\nstrategy = \"recreate\"\n")),
    ("misspelt on_failure", web!("[rollout]\non_failure = \"rollback\"\n")),
    ("batch of none", web!("[rollout]\nbatch = 0\n")),
    ("batch of no share", web!("[rollout]\nbatch = \"0%\"\n")),
    ("batch over the whole", web!("[rollout]\nbatch = \"120%\"\n")),
    ("batch is a list", web!("[rollout]\nbatch = [1, 2]\n")),
    (
        "whole batch may fail",
        web!("[rollout]\nbatch = 2\nfailure_tolerance = 2\n[placement]\nreplicas = 4\n"),
    ),
    ("no time to be healthy", web!("[rollout]\nmin_healthy = \"5m\"\n")),
    ("progress before health", web!("[rollout]\nhealthy_deadline = \"20m\"\n")),
    (
        "check too slow for the deadline",
        http!(
            "[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\ninterval = \"1m\"\nrise = 5\n[rollout]\nhealthy_deadline = \"4m\"\n"
        ),
    ),
    ("zones without a label", web!("[rollout]\nzone_at_a_time = true\n")),
    ("approval of stage zero", web!("[placement]\nreplicas = 3\n[rollout]\napprove_before = [0, 2]\n")),
    ("approval twice", web!("[placement]\nreplicas = 3\n[rollout]\napprove_before = [2, 2]\n")),
    ("approval beyond the end", web!("[placement]\nreplicas = 3\n[rollout]\napprove_before = [9]\n")),
    (
        "approval beyond the steps",
        web!(
            "[ports.http]\nkind = \"dynamic\"\n[placement]\nreplicas = 2\n[route]\n[rollout]\nstrategy = \"blue-green\"\napprove_before = [3]\n"
        ),
    ),
    ("approval is no list", web!("[rollout]\napprove_before = 2\n")),
    (
        "fixed port and none may be missing",
        web!(
            "[ports.db]\nkind = \"fixed\"\nport = 5432\n[placement]\nreplicas = 3\n[rollout]\nmax_unavailable = 0\n"
        ),
    ),
    (
        "fixed port and a share of none",
        web!(
            "[ports.db]\nkind = \"fixed\"\nport = 5432\n[placement]\nreplicas = 3\n[rollout]\nmax_unavailable = \"10%\"\n"
        ),
    ),
    (
        "fixed port and all needed",
        web!("[ports.db]\nkind = \"fixed\"\nport = 5432\n[placement]\nreplicas = 3\nmin_available = 3\n"),
    ),
    // How processes live.
    (
        "type of another system",
        "name = \"web\"\ntype = \"oneshot\"\nartifact = \"./web\"\nexec = [\"web\"]\n",
    ),
    ("after itself", web!("[after]\nweb = \"anywhere\"\n")),
    ("after somewhere", web!("[after]\ndb = \"local\"\nCache = \"anywhere\"\n")),
    ("after as a list", web!("after = [\"db\"]\n")),
    ("notify timeout without ready", web!("[notify]\ntimeout = \"30s\"\n")),
    ("notify ready as a word", web!("[notify]\nready = \"yes\"\n")),
    ("notify later than healthy", web!("[notify]\nready = true\ntimeout = \"10m\"\n")),
    ("watchdog without a unit", web!("[notify]\nwatchdog = 10\n")),
    ("watchdog too fast", web!("[notify]\nwatchdog = \"1ms\"\n")),
    ("watchdog without restarts", web!("[notify]\nwatchdog = \"10s\"\n[restart]\nmode = \"never\"\n")),
    ("reload in two ways", web!("[reload]\nsignal = \"SIGHUP\"\ncommand = [\"bin/reload\"]\n")),
    ("reload in no way", web!("[reload]\ntimeout = \"5s\"\n")),
    ("reload that stops", web!("[reload]\nsignal = \"SIGTERM\"\n")),
    ("reload that kills", web!("[reload]\nsignal = \"SIGKILL\"\n")),
    ("reload command is a line", web!("[reload]\ncommand = \"bin/reload --now\"\n")),
    ("hook without a command", web!("[hooks.before_start]\ntimeout = \"5s\"\n")),
    ("hook of another name", web!("[hooks.pre_start]\ncommand = [\"bin/migrate\"]\n")),
    ("hook is a command", web!("[hooks]\nbefore_start = [\"bin/migrate\"]\n")),
    ("hook without an end", web!("[hooks.after_stop]\ncommand = [\"bin/tidy\"]\ntimeout = \"2h\"\n")),
    ("env of the supervisor", web!("[env]\nNOTIFY_SOCKET = \"/run/x\"\n")),
    (
        "one-shot that serves",
        "name = \"job\"\ntype = \"one-shot\"\nartifact = \"./job\"\nexec = [\"job\"]\n[ports.http]\nkind = \"socket\"\nport = 8080\n[checks.readiness]\nkind = \"tcp\"\nport = \"http\"\n[notify]\nready = true\n[reload]\nsignal = \"SIGHUP\"\n[hooks.after_ready]\ncommand = [\"bin/hello\"]\n",
    ),
    (
        "one-shot for ever",
        "name = \"job\"\ntype = \"one-shot\"\nartifact = \"./job\"\nexec = [\"job\"]\n[restart]\nmode = \"always\"\n",
    ),
    // Limits and sandbox.
    ("memory above its own maximum", web!("[limits]\nmemory_high = \"2GiB\"\nmemory_max = \"1GiB\"\n")),
    ("memory for no program", web!("[limits]\nmemory_max = \"4KiB\"\n")),
    ("memory in decimal units", web!("[limits]\nmemory_max = \"512MB\"\n")),
    ("processors as a number", web!("[limits]\ncpu = 2\n")),
    ("processors without a sign", web!("[limits]\ncpu = \"150\"\n")),
    ("no processor at all", web!("[limits]\ncpu = \"0%\"\n")),
    ("weights out of range", web!("[limits]\ncpu_weight = 0\nio_weight = 20000\n")),
    ("no process at all", web!("[limits]\npids_max = 0\n")),
    ("too few open files", web!("[limits]\nopen_files = 3\n")),
    ("core as a number", web!("[limits]\ncore = 0\n")),
    ("limit of another system", web!("[limits]\nmemory = \"1GiB\"\n")),
    ("limit at the top", web!("memory_max = \"1GiB\"\n")),
    (
        "misspelt capability",
        web!("[sandbox]\ncapabilities = [\"CAP_NET_BIND_SERVCE\", \"NET_RAW\", \"ROOT\"]\n"),
    ),
    ("one capability without a list", web!("[sandbox]\ncapabilities = \"CAP_CHOWN\"\n")),
    ("user that cannot be", web!("[sandbox]\nuser = \"www data\"\ngroup = \"\"\n")),
    ("user out of range", web!("[sandbox]\nuser = 4294967295\n")),
    ("read-only path that is relative", web!("[sandbox]\nread_only = [\"etc\"]\n")),
    ("read-only path with a slash too many", web!("[sandbox]\nread_only = [\"/etc/\"]\n")),
    ("everything hidden", web!("[sandbox]\nhidden = [\"/\"]\n")),
    ("read-only and hidden", web!("[sandbox]\nread_only = [\"/srv\"]\nhidden = [\"/srv\"]\n")),
    ("hidden and private", web!("[sandbox]\nprivate_tmp = true\nhidden = [\"/var/tmp\"]\n")),
    ("hidden as text", web!("[sandbox]\nhidden = \"/root\"\n")),
    ("umask as a number", web!("[sandbox]\numask = 27\n")),
    ("umask that is none", web!("[sandbox]\numask = \"888\"\n")),
    ("nice beyond its range", web!("[sandbox]\nnice = 20\n")),
    ("nice in quotes", web!("[sandbox]\nnice = \"5\"\n")),
    ("working directory that climbs", web!("[sandbox]\nworking_directory = \"../data\"\n")),
    (
        "working directory that is hidden",
        web!("[sandbox]\nworking_directory = \"/root/x\"\nhidden = [\"/root\"]\n"),
    ),
    (
        "fields of a socket where there is none",
        web!(
            "[ports.a]\nkind = \"dynamic\"\npath = \"/run/a.sock\"\n[ports.b]\nkind = \"fixed\"\nport = 53\nprotocol = \"udp\"\nmode = \"0660\"\n"
        ),
    ),
    (
        "a socket of two kinds",
        web!(
            "[ports.a]\nkind = \"socket\"\nport = 80\npath = \"/run/a.sock\"\nprotocol = \"tcp\"\n[ports.b]\nkind = \"socket\"\nport = 81\nmode = \"0660\"\n[ports.c]\nkind = \"socket\"\n"
        ),
    ),
    (
        "modes that are none",
        web!(
            "[ports.a]\nkind = \"socket\"\npath = \"/run/a.sock\"\nmode = 660\n[ports.b]\nkind = \"socket\"\npath = \"/run/b.sock\"\nmode = \"0980\"\n[ports.c]\nkind = \"socket\"\npath = \"/run/c.sock\"\nmode = \"7777\"\n"
        ),
    ),
    ("a protocol that is none", web!("[ports.dns]\nkind = \"socket\"\nport = 53\nprotocol = \"upd\"\n")),
    (
        "paths that are none",
        web!(
            "[ports.a]\nkind = \"socket\"\npath = \"run/a.sock\"\n[ports.b]\nkind = \"socket\"\npath = \"/run/../b.sock\"\n[ports.c]\nkind = \"socket\"\npath = \"/run/an-extremely-long-folder-name/and-another-one-in-it/and-one-more-of-them/c.sock\"\n"
        ),
    ),
    (
        "one path and one UDP port twice",
        web!(
            "[ports.a]\nkind = \"socket\"\npath = \"/run/a.sock\"\n[ports.b]\nkind = \"socket\"\npath = \"/run/a.sock\"\n[ports.c]\nkind = \"socket\"\nport = 53\nprotocol = \"udp\"\n[ports.d]\nkind = \"socket\"\nport = 53\nprotocol = \"udp\"\n"
        ),
    ),
    (
        "a check that connects to a UDP port",
        web!(
            "[ports.dns]\nkind = \"socket\"\nport = 53\nprotocol = \"udp\"\n[checks.readiness]\nkind = \"tcp\"\nport = \"dns\"\n"
        ),
    ),
    (
        "the variable of a Unix socket is not that of a port",
        web!(
            "env = { AT = \"${PORT_ADMIN}\" }\n[ports.admin]\nkind = \"socket\"\npath = \"/run/web/admin.sock\"\n"
        ),
    ),
    ("a line with wide letters", "name = \"wéb\"\nartifact = \"./web\"\nexec = [\"web\"]\n"),
    // Files and secrets.
    ("file without a text", web!("[files.\"app.conf\"]\non_change = \"SIGHUP\"\n")),
    ("file with two texts", web!("[files.\"app.conf\"]\ncontent = \"a\"\ntemplate = \"./a\"\n")),
    ("file that leaves its folder", web!("[files.\"../app.conf\"]\ncontent = \"a\"\n")),
    ("file told by SIGKILL", web!("[files.\"app.conf\"]\ncontent = \"a\"\non_change = \"SIGKILL\"\n")),
    (
        "template with an unknown name",
        web!("[files.\"app.conf\"]\ncontent = \"\"\"\na\n{{ node.adress }}\n\"\"\"\n"),
    ),
    ("template that does not end", web!("[files.\"app.conf\"]\ncontent = \"{% for peer in peers %}\"\n")),
    (
        "folder of files without files",
        "name = \"web\"\nartifact = \"./web\"\nexec = [\"web\", \"${CONFIG_DIR}/a\"]\n",
    ),
    ("secret with a value", web!("[secrets]\ndb-password = \"hunter2\"\n")),
    ("secret with a bad name", web!("[secrets.db]\nsecret = \"db password\"\n")),
];
