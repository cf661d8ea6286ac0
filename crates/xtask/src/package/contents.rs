//! What is in which package.

/// A package.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [Part],
}

/// A part of a package. Paths of the package have no leading `/`; sources count from the repository.
pub(crate) enum Part {
    /// The `baton` program itself.
    Program { to: &'static str },
    /// What the program prints when asked, such as completions.
    Printed { args: &'static [&'static str], to: &'static str },
    /// The manual pages, which the program writes into this folder.
    Manual { to: &'static str },
    /// What has changed, in Debian's form, packed.
    Changelog { to: &'static str },
    /// A file of the repository.
    File { from: &'static str, to: &'static str },
    /// A file of the repository that an operator may change: an upgrade keeps the changes.
    Configuration { from: &'static str, to: &'static str },
    /// The control file, with `${...}` to be filled in. It comes first.
    Control { from: &'static str },
    /// A maintainer script, or another file of dpkg's own.
    ForDpkg { from: &'static str, name: &'static str },
}

use Part::{Changelog, Configuration, Control, File, ForDpkg, Manual, Printed, Program};

/// All packages.
pub(crate) const PACKAGES: &[Package] = &[
    Package {
        name: "baton",
        parts: &[
            Control { from: "packaging/debian/baton.control" },
            Program { to: "usr/bin/baton" },
            Printed { args: &["completions", "bash"], to: "usr/share/bash-completion/completions/baton" },
            Printed { args: &["completions", "zsh"], to: "usr/share/zsh/vendor-completions/_baton" },
            Printed { args: &["completions", "fish"], to: "usr/share/fish/vendor_completions.d/baton.fish" },
            Manual { to: "usr/share/man/man1" },
            File { from: "packaging/debian/copyright", to: "usr/share/doc/baton/copyright" },
            Changelog { to: "usr/share/doc/baton/changelog.gz" },
            File { from: "docs/service-file.md", to: "usr/share/doc/baton/service-file.md" },
            File { from: "docs/strategies/README.md", to: "usr/share/doc/baton/strategies/README.md" },
            File { from: "docs/strategies/rolling.md", to: "usr/share/doc/baton/strategies/rolling.md" },
            File { from: "docs/strategies/canary.md", to: "usr/share/doc/baton/strategies/canary.md" },
            File {
                from: "docs/strategies/blue-green.md",
                to: "usr/share/doc/baton/strategies/blue-green.md",
            },
            File { from: "docs/strategies/ab.md", to: "usr/share/doc/baton/strategies/ab.md" },
            File { from: "docs/strategies/dark.md", to: "usr/share/doc/baton/strategies/dark.md" },
        ],
    },
    Package {
        name: "baton-agent",
        parts: &[
            Control { from: "packaging/debian/baton-agent.control" },
            File {
                from: "packaging/systemd/baton-agent.service",
                to: "usr/lib/systemd/system/baton-agent.service",
            },
            File {
                from: "packaging/systemd/baton-workloads.service",
                to: "usr/lib/systemd/system/baton-workloads.service",
            },
            File { from: "packaging/tmpfiles/baton-agent.conf", to: "usr/lib/tmpfiles.d/baton-agent.conf" },
            Configuration { from: "packaging/etc/agent.env", to: "etc/baton/agent.env" },
            File { from: "packaging/debian/copyright", to: "usr/share/doc/baton-agent/copyright" },
            Changelog { to: "usr/share/doc/baton-agent/changelog.gz" },
            ForDpkg { from: "packaging/debian/baton-agent.postinst", name: "postinst" },
            ForDpkg { from: "packaging/debian/baton-agent.prerm", name: "prerm" },
            ForDpkg { from: "packaging/debian/baton-agent.postrm", name: "postrm" },
            ForDpkg { from: "packaging/debian/baton-agent.triggers", name: "triggers" },
        ],
    },
    Package {
        name: "baton-coordinator",
        parts: &[
            Control { from: "packaging/debian/baton-coordinator.control" },
            File {
                from: "packaging/systemd/baton-coordinator.service",
                to: "usr/lib/systemd/system/baton-coordinator.service",
            },
            File {
                from: "packaging/sysusers/baton-coordinator.conf",
                to: "usr/lib/sysusers.d/baton-coordinator.conf",
            },
            File {
                from: "packaging/tmpfiles/baton-coordinator.conf",
                to: "usr/lib/tmpfiles.d/baton-coordinator.conf",
            },
            Configuration { from: "packaging/etc/coordinator.env", to: "etc/baton/coordinator.env" },
            File { from: "packaging/debian/copyright", to: "usr/share/doc/baton-coordinator/copyright" },
            Changelog { to: "usr/share/doc/baton-coordinator/changelog.gz" },
            ForDpkg { from: "packaging/debian/baton-coordinator.postinst", name: "postinst" },
            ForDpkg { from: "packaging/debian/baton-coordinator.prerm", name: "prerm" },
            ForDpkg { from: "packaging/debian/baton-coordinator.postrm", name: "postrm" },
            ForDpkg { from: "packaging/debian/baton-coordinator.triggers", name: "triggers" },
        ],
    },
    Package {
        name: "baton-gateway",
        parts: &[
            Control { from: "packaging/debian/baton-gateway.control" },
            File {
                from: "packaging/systemd/baton-gateway.service",
                to: "usr/lib/systemd/system/baton-gateway.service",
            },
            File {
                from: "packaging/sysusers/baton-gateway.conf",
                to: "usr/lib/sysusers.d/baton-gateway.conf",
            },
            File {
                from: "packaging/tmpfiles/baton-gateway.conf",
                to: "usr/lib/tmpfiles.d/baton-gateway.conf",
            },
            Configuration { from: "packaging/etc/gateway.env", to: "etc/baton/gateway.env" },
            Configuration { from: "packaging/etc/gateway.toml", to: "etc/baton/gateway.toml" },
            File { from: "packaging/debian/copyright", to: "usr/share/doc/baton-gateway/copyright" },
            Changelog { to: "usr/share/doc/baton-gateway/changelog.gz" },
            File { from: "docs/gateway.md", to: "usr/share/doc/baton-gateway/gateway.md" },
            ForDpkg { from: "packaging/debian/baton-gateway.postinst", name: "postinst" },
            ForDpkg { from: "packaging/debian/baton-gateway.prerm", name: "prerm" },
            ForDpkg { from: "packaging/debian/baton-gateway.postrm", name: "postrm" },
            ForDpkg { from: "packaging/debian/baton-gateway.triggers", name: "triggers" },
        ],
    },
];
