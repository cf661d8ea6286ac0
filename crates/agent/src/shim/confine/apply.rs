//! The system calls of each step.

use super::GROUPS_MAX;
use super::step::{Step, Steps};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::{io, ptr};

/// `_LINUX_CAPABILITY_VERSION_3` (capset(2)): two words for each set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// Capabilities that a 64-bit set can hold; the kernel says EINVAL to those it does not have.
const CAPABILITIES_MAX: u8 = 63;

/// A step that could not be done; the process must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Which, as [`Step::number`] counts.
    pub(crate) step: u8,
    /// Why.
    pub(crate) errno: i32,
}

/// Does every step of `program` to the calling process.
///
/// # Errors
/// The first step that failed; those before it are done.
///
/// # Safety
/// Only in a child between fork and exec: it changes who the process is. It makes only async-signal-safe calls and
/// allocates nothing.
pub(crate) unsafe fn apply(program: &[u8]) -> Result<(), Failed> {
    let mut steps = Steps::of(program);
    while let Some(step) = steps.next() {
        // SAFETY: as the caller promises.
        if !unsafe { take(&step) } {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
            return Err(Failed { step: step.number(), errno });
        }
    }
    if steps.is_at_end() { Ok(()) } else { Err(Failed { step: 0, errno: libc::EBADMSG }) }
}

/// One step; false leaves the reason in errno.
unsafe fn take(step: &Step<'_>) -> bool {
    // SAFETY: texts are NUL-terminated and live in the program; every other argument is a number or on this stack.
    unsafe {
        match *step {
            Step::Nice(value) => libc::setpriority(libc::PRIO_PROCESS, 0, value) == 0,
            Step::Limit { resource, value } => {
                let limit = libc::rlimit64 { rlim_cur: value, rlim_max: value };
                libc::prlimit64(0, resource as _, &raw const limit, ptr::null_mut()) == 0
            }
            Step::OwnMounts => {
                libc::unshare(libc::CLONE_NEWNS) == 0 && mount(None, c"/", libc::MS_REC | libc::MS_SLAVE)
            }
            Step::Bind { from, to } => mount(Some(from), to, libc::MS_BIND | libc::MS_REC),
            Step::Attributes { at, set, clear, recursive } => {
                let attributes =
                    libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
                let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
                libc::syscall(
                    libc::SYS_mount_setattr,
                    libc::AT_FDCWD,
                    at.as_ptr(),
                    flags,
                    &raw const attributes,
                    size_of::<libc::mount_attr>(),
                ) == 0
            }
            Step::OwnOutput { user, group } => [1, 2].into_iter().all(|fd| own_pipe(fd, user, group)),
            Step::Bounding(kept) => (0..=CAPABILITIES_MAX).filter(|n| kept >> n & 1 == 0).all(drop_bounding),
            Step::Account { user, group, groups, keep } => change_account(user, group, groups, keep),
            Step::Capabilities(kept) => keep_capabilities(kept),
            Step::Umask(mask) => {
                libc::umask(mask);
                true
            }
            Step::NoNewPrivileges => libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
        }
    }
}

unsafe fn mount(from: Option<&CStr>, to: &CStr, flags: libc::c_ulong) -> bool {
    let from = from.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: NUL-terminated texts, or null where mount(2) takes none.
    unsafe { libc::mount(from, to.as_ptr(), ptr::null(), flags, ptr::null()) == 0 }
}

/// Only a pipe of ours: standard output may as well be `/dev/null`, which stays whose it is.
fn own_pipe(fd: libc::c_int, user: u32, group: u32) -> bool {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills `stat` in where it says so; everything else is a number.
    unsafe {
        libc::fstat(fd, stat.as_mut_ptr()) == 0
            && (stat.assume_init().st_mode & libc::S_IFMT != libc::S_IFIFO
                || libc::fchown(fd, user, group) == 0)
    }
}

/// A capability that this kernel does not have is as good as dropped.
fn drop_bounding(number: u8) -> bool {
    // SAFETY: plain numbers.
    let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    dropped == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

/// Groups first, while it is still allowed to; each with raw calls, since libc's would signal every thread of the
/// process the fork was made from.
unsafe fn change_account(user: u32, group: u32, groups: &[u8], keep: bool) -> bool {
    let mut list = [0_u32; GROUPS_MAX];
    let len = groups.len() / 4;
    for (place, bytes) in list.iter_mut().zip(groups.chunks_exact(4)) {
        *place = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    // SAFETY: `list` has `len` numbers; everything else is a number.
    unsafe {
        (!keep || libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0)
            && libc::syscall(libc::SYS_setgroups, len, list.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, group, group, group) == 0
            && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
    }
}

/// The sets of capset(2), each in two words, low first.
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

unsafe fn keep_capabilities(kept: u64) -> bool {
    let words = |word: u32| Sets { effective: word, permitted: word, inheritable: word };
    let sets = [words(kept as u32), words((kept >> 32) as u32)];
    let header = [CAPABILITY_VERSION_3, 0];
    // SAFETY: header and sets are laid out as capset(2) has them; everything else is a number.
    unsafe {
        if libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) != 0
            || libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0
        {
            return false;
        }
        (0..=CAPABILITIES_MAX).filter(|n| kept >> n & 1 == 1).all(|number| {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(number), 0, 0)
                == 0
        })
    }
}
