//! One step of a confinement, and how a program of them is written.
//!
//! A step is its number, then its arguments: integers little-endian, a text as its length (u32), its bytes and a NUL,
//! so that the child can point into the program.

use std::ffi::CStr;

/// Most supplementary groups of a user; the kernel would take 65,536, but the child keeps them on its stack.
pub(crate) const GROUPS_MAX: usize = 256;

/// What is done to the calling process, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// setpriority(2).
    Nice(i32),
    /// setrlimit(2), soft and hard.
    Limit { resource: u32, value: u64 },
    /// Mounts of its own from here on: what others mount still arrives, what it mounts does not leave.
    OwnMounts,
    /// Shows `from` at `to`, with all that is mounted below `from`.
    Bind { from: &'a CStr, to: &'a CStr },
    /// mount_setattr(2) on the mount at `at`, and on those below it where `recursive`.
    Attributes { at: &'a CStr, set: u64, clear: u64, recursive: bool },
    /// Standard output and error belong to this user and group, so that it may open `/dev/stdout`.
    OwnOutput { user: u32, group: u32 },
    /// PR_CAPBSET_DROP of every capability that has no bit here.
    Bounding(u64),
    /// Supplementary groups (as little-endian numbers), group and user, in this order. `keep`: capabilities survive.
    Account { user: u32, group: u32, groups: &'a [u8], keep: bool },
    /// capset(2), and the ambient set: these and no others, also after an execve(2).
    Capabilities(u64),
    /// umask(2).
    Umask(u32),
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivileges,
}

impl Step<'_> {
    /// The number by which a failure is told. Never 0.
    pub(crate) const fn number(&self) -> u8 {
        match self {
            Self::Nice(_) => 1,
            Self::Limit { .. } => 2,
            Self::OwnMounts => 3,
            Self::Bind { .. } => 4,
            Self::Attributes { .. } => 5,
            Self::OwnOutput { .. } => 6,
            Self::Bounding(_) => 7,
            Self::Account { .. } => 8,
            Self::Capabilities(_) => 9,
            Self::Umask(_) => 10,
            Self::NoNewPrivileges => 11,
        }
    }
}

/// The program's bytes.
pub(crate) fn encode(steps: &[Step<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for step in steps {
        out.push(step.number());
        match *step {
            Step::Nice(value) => out.extend(value.to_le_bytes()),
            Step::Limit { resource, value } => {
                out.extend(resource.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Step::OwnMounts | Step::NoNewPrivileges => {}
            Step::Bind { from, to } => {
                text(&mut out, from);
                text(&mut out, to);
            }
            Step::Attributes { at, set, clear, recursive } => {
                text(&mut out, at);
                out.extend(set.to_le_bytes());
                out.extend(clear.to_le_bytes());
                out.push(recursive.into());
            }
            Step::OwnOutput { user, group } => {
                out.extend(user.to_le_bytes());
                out.extend(group.to_le_bytes());
            }
            Step::Bounding(kept) | Step::Capabilities(kept) => out.extend(kept.to_le_bytes()),
            Step::Account { user, group, groups, keep } => {
                out.extend(user.to_le_bytes());
                out.extend(group.to_le_bytes());
                out.push(keep.into());
                out.extend((groups.len() as u32).to_le_bytes());
                out.extend(groups);
            }
            Step::Umask(mask) => out.extend(mask.to_le_bytes()),
        }
    }
    out
}

fn text(out: &mut Vec<u8>, text: &CStr) {
    out.extend((text.to_bytes().len() as u32).to_le_bytes());
    out.extend(text.to_bytes_with_nul());
}

/// Whether every step of a program can be read: asked once, so that the child need not ask.
pub(in crate::shim) fn check(program: &[u8]) -> bool {
    let mut steps = Steps::of(program);
    while steps.next().is_some() {}
    steps.is_at_end()
}

/// The steps of a program, one after the other.
pub(super) struct Steps<'a> {
    rest: &'a [u8],
}

impl<'a> Steps<'a> {
    pub(super) const fn of(program: &'a [u8]) -> Self {
        Self { rest: program }
    }

    /// Whether all was read; where `next` gave `None` before, the program is broken.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next step; `None` at the end, and where there is none that can be read.
    pub(super) fn next(&mut self) -> Option<Step<'a>> {
        let mut input = Input(self.rest);
        let step = match input.array::<1>()?[0] {
            1 => Step::Nice(i32::from_le_bytes(input.array()?)),
            2 => Step::Limit { resource: input.u32()?, value: input.u64()? },
            3 => Step::OwnMounts,
            4 => Step::Bind { from: input.text()?, to: input.text()? },
            5 => Step::Attributes {
                at: input.text()?,
                set: input.u64()?,
                clear: input.u64()?,
                recursive: input.flag()?,
            },
            6 => Step::OwnOutput { user: input.u32()?, group: input.u32()? },
            7 => Step::Bounding(input.u64()?),
            8 => {
                let (user, group, keep) = (input.u32()?, input.u32()?, input.flag()?);
                let len = input.u32()? as usize;
                let groups = input.take(len).filter(|_| len.is_multiple_of(4) && len / 4 <= GROUPS_MAX)?;
                Step::Account { user, group, groups, keep }
            }
            9 => Step::Capabilities(input.u64()?),
            10 => Step::Umask(input.u32()?),
            11 => Step::NoNewPrivileges,
            _ => return None,
        };
        self.rest = input.0;
        Some(step)
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }
    fn flag(&mut self) -> Option<bool> {
        Some(self.array::<1>()?[0] != 0)
    }
    fn text(&mut self) -> Option<&'a CStr> {
        let len = self.u32()? as usize;
        CStr::from_bytes_with_nul(self.take(len.checked_add(1)?)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Step<'static>; 11] = [
        Step::Nice(-5),
        Step::Limit { resource: 7, value: u64::MAX },
        Step::OwnMounts,
        Step::Bind { from: c"/a b", to: c"/tmp" },
        Step::Attributes { at: c"/", set: 1, clear: 2, recursive: true },
        Step::OwnOutput { user: 33, group: 34 },
        Step::Bounding(1 << 40),
        Step::Account { user: 33, group: 34, groups: &[33, 0, 0, 0, 7, 1, 0, 0], keep: true },
        Step::Capabilities(1 << 10),
        Step::Umask(0o027),
        Step::NoNewPrivileges,
    ];

    #[test]
    fn a_program_is_read_as_it_was_written() {
        let program = encode(&ALL);
        let mut steps = Steps::of(&program);
        let read: Vec<_> = std::iter::from_fn(|| steps.next()).collect();
        assert_eq!(read, ALL);
        assert!(check(&program) && check(&[]));
        let numbers: Vec<u8> = ALL.iter().map(Step::number).collect();
        assert_eq!(numbers, (1..=11).collect::<Vec<u8>>());
    }

    #[test]
    fn no_damage_is_taken_for_a_program() {
        let program = encode(&ALL);
        let whole: Vec<usize> = (0..=ALL.len()).map(|n| encode(&ALL[..n]).len()).collect();
        for cut in 0..program.len() {
            assert_eq!(check(&program[..cut]), whole.contains(&cut), "cut at {cut}");
        }
        assert!(!check(&[99]));
        let many = vec![0; (GROUPS_MAX + 1) * 4];
        assert!(!check(&encode(&[Step::Account { user: 1, group: 1, groups: &many, keep: false }])));
    }
}
