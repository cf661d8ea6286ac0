//! A line of a workload, as the journal takes it.

/// Importance of an entry, as in syslog(3).
#[derive(Clone, Copy)]
pub(super) enum Priority {
    Warning = 4,
    /// Standard error. Not `err`: most programs write their whole log there.
    Notice = 5,
    /// Standard output.
    Info = 6,
}

/// One line.
pub(super) struct Entry<'a> {
    pub(super) priority: Priority,
    /// `stdout` or `stderr`.
    pub(super) stream: &'a [u8],
    /// The process that wrote it; 0: not known.
    pub(super) pid: u32,
    /// The text goes on in the next entry of the stream.
    pub(super) partial: bool,
    /// Whose it is, where it is not the workload's; and the text, without a newline.
    pub(super) text: [&'a [u8]; 2],
}

impl Priority {
    /// The one with this number.
    pub(super) fn of(number: u8) -> Self {
        [Self::Warning, Self::Notice].into_iter().find(|one| *one as u8 == number).unwrap_or(Self::Info)
    }
}
