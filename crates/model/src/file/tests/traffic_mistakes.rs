//! What people get wrong about routes, strategies and analysis.

use super::mistakes::Mistake;

pub(super) const TRAFFIC: &[Mistake] = &[
    // Routes.
    ("route without a port to send to", web!("[route]\n")),
    ("route of two ports", http!("[ports.admin]\nkind = \"dynamic\"\n[route]\n")),
    ("route to a number", http!("[route]\nport = 8080\n")),
    ("route to a port that is not there", http!("[route]\nport = \"htpp\"\n")),
    (
        "route to a Unix socket",
        http!("[ports.local]\nkind = \"socket\"\npath = \"/run/web/web.sock\"\n[route]\nport = \"local\"\n"),
    ),
    (
        "route to a UDP port",
        web!("[ports.dns]\nkind = \"socket\"\nport = 53\nprotocol = \"udp\"\n[route]\nport = \"dns\"\n"),
    ),
    (
        "route of a one-shot",
        "name = \"job\"\ntype = \"one-shot\"\nartifact = \"./job\"\nexec = [\"job\"]\n[ports.http]\nkind = \"dynamic\"\n[route]\n",
    ),
    ("hosts as one text", http!("[route]\nhosts = \"shop.example.com\"\n")),
    (
        "hosts that no request has",
        http!(
            "[route]\nhosts = [\"https://Shop.example.com:443/\", \"*\", \"shop.*.com\", \"a.com\", \"a.com\"]\n"
        ),
    ),
    ("path with a query", http!("[route]\npath = \"/api?v=1\"\n")),
    ("path without a slash", http!("[route]\npath = \"api\"\n")),
    ("protocol of another system", http!("[route]\nprotocol = \"grpc\"\n")),
    ("tcp without a port to listen on", http!("[route]\nprotocol = \"tcp\"\n")),
    (
        "tcp with what needs requests",
        http!(
            "[route]\nprotocol = \"tcp\"\nlisten = 5432\nhosts = [\"db\"]\nbalance = \"hash\"\nhash_by = \"cookie:user\"\nretries = { hedge_after = \"1s\" }\n"
        ),
    ),
    ("http with a port to listen on", http!("[route]\nlisten = 80\n")),
    ("key of a word", http!("[route]\nsplit_by = \"user\"\n")),
    ("key for a balance that has none", http!("[route]\nhash_by = \"cookie:user\"\n")),
    ("cookie with a space", http!("[route]\nsticky_cookie = \"my cookie\"\n")),
    ("share without a unit", http!("[route]\nzone_spill_below = 70\nejection = { share = 0.5 }\n")),
    ("share of more than all", http!("[route]\nzone_spill_below = \"170%\"\n")),
    (
        "hedge after the timeout",
        http!("[route]\ntimeouts = { response = \"400ms\" }\nretries = { hedge_after = \"400ms\" }\n"),
    ),
    ("retries without a budget", http!("[route.retries]\nbudget = \"0%\"\n")),
    ("budget of half a percent", http!("[route.retries]\nbudget = \"0.5%\"\n")),
    (
        "limits out of range",
        http!("[route.limits]\nbody = \"2048GiB\"\nin_flight = 0\nqueue_timeout = \"2h\"\n"),
    ),
    ("gateway check longer than its interval", http!("[route.check]\ntimeout = \"5s\"\n")),
    ("timeouts in the wrong section", http!("[route]\nconnect = \"1s\"\n")),
    // Strategies.
    ("canary without a route", http!("[placement]\nreplicas = 3\n[rollout]\nstrategy = \"canary\"\n")),
    ("canary of one instance", http!("[route]\n[rollout]\nstrategy = \"canary\"\n")),
    (
        "section of another strategy",
        routed!("[rollout]\nstrategy = \"canary\"\n[rollout.dark]\nshare = \"5%\"\n"),
    ),
    ("section of a strategy that was not chosen", routed!("[rollout.canary]\nbake = \"1m\"\n")),
    ("strategy with an underscore", routed!("[rollout]\nstrategy = \"blue_green\"\n")),
    (
        "steps that do not grow",
        routed!("[rollout]\nstrategy = \"canary\"\n[rollout.canary]\nsteps = [\"5%\", \"5%\", \"100%\"]\n"),
    ),
    (
        "steps that do not end",
        routed!("[rollout]\nstrategy = \"canary\"\n[rollout.canary]\nsteps = [\"5%\", \"50%\"]\n"),
    ),
    (
        "steps without a unit",
        routed!("[rollout]\nstrategy = \"canary\"\n[rollout.canary]\nsteps = [5, \"100%\"]\n"),
    ),
    (
        "step with an unknown field",
        routed!(
            "[rollout]\nstrategy = \"canary\"\n[rollout.canary]\nsteps = [{ weigth = \"5%\" }, \"100%\"]\n"
        ),
    ),
    (
        "cohort of a word",
        routed!("[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort = [\"beta\"]\n"),
    ),
    ("cohort of nothing", routed!("[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort = []\n")),
    (
        "cohort with two values of one header",
        routed!(
            "[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort = [\"header:x-beta=1\", \"cookie:a\", \"header:X-Beta=2\"]\n"
        ),
    ),
    (
        "cohort of two hosts and two paths",
        routed!(
            "[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort = [\"host:a.com\", \"path:/a\", \"path:/a/b\", \"path:/ab\", \"host:b.com\"]\n"
        ),
    ),
    (
        "cohort of requests that do not come here",
        http!(
            "[placement]\nreplicas = 3\n[route]\nhosts = [\"*.a.com\"]\npath = \"/shop\"\n[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort = [\"host:a.com\", \"path:/cart\"]\n"
        ),
    ),
    (
        "cohort of values that no request brings",
        routed!(
            "[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort = [\"header:x-beta= 1\", \"cookie:group=a;b\"]\n"
        ),
    ),
    (
        "steps of no cohort",
        routed!("[rollout]\nstrategy = \"canary\"\n[rollout.canary]\ncohort_steps = [\"5%\"]\n"),
    ),
    (
        "second set on one port",
        http!("[placement]\nreplicas = 3\n[route]\n[rollout]\nstrategy = \"blue-green\"\n"),
    ),
    (
        "preview at a host that does not come here",
        web!(
            "[ports.http]\nkind = \"dynamic\"\n[route]\nhosts = [\"a.com\"]\n[rollout]\nstrategy = \"blue-green\"\n[rollout.blue_green]\npreview_host = \"b.com\"\n"
        ),
    ),
    ("test without an end", routed!("[rollout]\nstrategy = \"ab\"\n")),
    (
        "test of everybody",
        routed!("[rollout]\nstrategy = \"ab\"\n[rollout.ab]\nduration = \"1h\"\nshare = \"100%\"\n"),
    ),
    (
        "test by the cookie of the gateway itself",
        routed!(
            "sticky_cookie = \"at\"\n[rollout]\nstrategy = \"ab\"\n[rollout.ab]\nduration = \"1h\"\nkey = \"cookie:at\"\n"
        ),
    ),
    (
        "dark launch of connections",
        web!(
            "[ports.db]\nkind = \"dynamic\"\n[route]\nprotocol = \"tcp\"\nlisten = 5432\n[rollout]\nstrategy = \"dark\"\n"
        ),
    ),
    ("threshold without a metric", routed!("[rollout.analysis.errors]\nmax = \"1%\"\n")),
    ("threshold without a bound", routed!("[rollout.analysis.errors]\nmetric = \"error-share\"\n")),
    (
        "threshold with the other bound",
        routed!("[rollout.analysis.rate]\nmetric = \"request-rate\"\nmin = 10\nmax = 20\n"),
    ),
    ("share of a latency", routed!("[rollout.analysis.slow]\nmetric = \"latency\"\nmax = \"1%\"\n")),
    (
        "differing answers of a canary",
        routed!("[rollout.analysis.same]\nmetric = \"differing\"\nmax = \"1%\"\n"),
    ),
    (
        "webhook without an address",
        routed!("[rollout.analysis.errors]\nmetric = \"error-share\"\nmax = \"1%\"\naction = \"webhook\"\n"),
    ),
    (
        "webhook without TLS",
        routed!(
            "[rollout.analysis.errors]\nmetric = \"error-share\"\nmax = \"1%\"\naction = \"webhook\"\nwebhook = \"http://hooks.example.com/\"\n"
        ),
    ),
    (
        "webhook that nobody calls",
        routed!(
            "[rollout.analysis.errors]\nmetric = \"error-share\"\nmax = \"1%\"\nwebhook = \"https://hooks.example.com/\"\n"
        ),
    ),
    (
        "errors counted by nobody",
        http!("[rollout.analysis.errors]\nmetric = \"error-share\"\nmax = \"1%\"\n"),
    ),
];
