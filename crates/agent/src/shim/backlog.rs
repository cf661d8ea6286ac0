//! Lines on their way to the journal, in the order in which they came: a ring in memory that was mapped at the start.
//! It costs nothing until it is needed, and what it took is given back when it is empty.
//!
//! ```text
//!  not wrapped:   ........head====tail......        wrapped:   ====tail.......head====end..
//! ```
//! An entry is never divided: one that does not fit in front of the end begins at the front of the memory.

use super::entry::{Entry, Priority};
use super::memory;
use std::io;

/// Lines that may wait: what is sent in twenty seconds at the pace that an instance may keep up. Older news are no help to
/// whoever reads a journal, and Baton's own files have every line.
pub(super) const LINES_MAX: usize = 20_000;
/// Bytes that may wait: lines of two hundred, as logs have them.
const BYTES_MAX: usize = 4 << 20;
/// More than this is given back.
const KEPT_BYTES: usize = 64 << 10;

/// Length of the text, process, priority, stream, whether it goes on.
const HEAD_BYTES: usize = 4 + 4 + 1 + 1 + 1;

/// The lines that wait.
pub(super) struct Backlog {
    memory: &'static mut [u8],
    lines: usize,
    head: usize,
    tail: usize,
    /// Where the part before the wrap ends; only where it is wrapped.
    end: Option<usize>,
    /// How far the memory was written since it was last given back.
    used: usize,
}

impl Backlog {
    /// An empty one.
    ///
    /// # Errors
    /// The system has no memory.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { memory: memory::map(BYTES_MAX)?, lines: 0, head: 0, tail: 0, end: None, used: 0 })
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Takes a line in behind all others. `false`: there is no room.
    pub(super) fn push(&mut self, entry: &Entry<'_>) -> bool {
        let text_len = entry.text[0].len() + entry.text[1].len();
        let Some(at) = self.room(HEAD_BYTES + text_len) else { return false };
        let Ok(text_len) = u32::try_from(text_len) else { return false };
        let mut rest = &mut self.memory[at..];
        let head = [entry.priority as u8, u8::from(entry.stream == b"stderr"), u8::from(entry.partial)];
        for part in
            [&text_len.to_le_bytes()[..], &entry.pid.to_le_bytes(), &head, entry.text[0], entry.text[1]]
        {
            rest[..part.len()].copy_from_slice(part);
            rest = &mut rest[part.len()..];
        }
        self.tail = at + HEAD_BYTES + text_len as usize;
        self.used = self.used.max(self.tail);
        self.lines += 1;
        true
    }

    /// A place for so many bytes; where that is the front, it is wrapped from now on.
    fn room(&mut self, len: usize) -> Option<usize> {
        if self.lines >= LINES_MAX {
            return None;
        }
        match self.end {
            Some(_) => (self.head - self.tail >= len).then_some(self.tail),
            None if self.memory.len() - self.tail >= len => Some(self.tail),
            None if self.head >= len => {
                self.end = Some(self.tail);
                Some(0)
            }
            None => None,
        }
    }

    /// The line that has waited longest.
    pub(super) fn front(&self) -> Option<Entry<'_>> {
        if self.is_empty() {
            return None;
        }
        let (head, rest) = self.memory.get(self.head..)?.split_at_checked(HEAD_BYTES)?;
        let (len, head) = head.split_first_chunk()?;
        let (pid, head) = head.split_first_chunk()?;
        let text = rest.get(..u32::from_le_bytes(*len) as usize)?;
        Some(Entry {
            priority: Priority::of(head[0]),
            stream: if head[1] == 1 { b"stderr" } else { b"stdout" },
            pid: u32::from_le_bytes(*pid),
            partial: head[2] == 1,
            text: [b"", text],
        })
    }

    /// Forgets the line that has waited longest.
    pub(super) fn pop(&mut self) {
        let Some(text_len) = self.front().map(|entry| entry.text[1].len()) else { return };
        self.head += HEAD_BYTES + text_len;
        self.lines -= 1;
        if self.end == Some(self.head) {
            (self.head, self.end) = (0, None);
        }
        if self.is_empty() {
            (self.head, self.tail, self.end) = (0, 0, None);
            if self.used > KEPT_BYTES {
                memory::give_back(self.memory);
                self.used = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn entry(text: &[u8], number: u32) -> Entry<'_> {
        let priority = if number.is_multiple_of(2) { Priority::Info } else { Priority::Notice };
        let stream: &[u8] = if number.is_multiple_of(2) { b"stdout" } else { b"stderr" };
        Entry { priority, stream, pid: number, partial: number.is_multiple_of(3), text: [b"[x] ", text] }
    }

    /// What can be told apart of an entry.
    fn seen(entry: &Entry<'_>) -> (u8, Vec<u8>, u32, bool, Vec<u8>) {
        (entry.priority as u8, entry.stream.to_vec(), entry.pid, entry.partial, entry.text.concat())
    }

    #[test]
    fn it_is_a_queue_whatever_the_lengths_and_wherever_it_wraps() {
        let mut backlog = Backlog::new().unwrap();
        let mut model = VecDeque::new();
        let mut refused = 0;
        // Lengths of no common factor with anything, so that every kind of seam comes up; pushed faster than taken.
        for number in 0..60_000_u32 {
            let text = vec![number as u8; (number as usize * 7_919) % 1_500];
            let entry = entry(&text, number);
            if backlog.push(&entry) {
                model.push_back(seen(&entry));
            } else {
                refused += 1;
            }
            if number % 4 != 0 {
                assert_eq!(backlog.front().map(|entry| seen(&entry)), model.pop_front());
                backlog.pop();
            }
        }
        assert!(refused > 0, "it was full at times");
        while let Some(entry) = model.pop_front() {
            assert_eq!(backlog.front().map(|entry| seen(&entry)), Some(entry));
            backlog.pop();
        }
        assert!(backlog.is_empty() && backlog.front().is_none());
        assert_eq!((backlog.head, backlog.tail, backlog.used), (0, 0, 0), "and its memory is given back");
        backlog.pop();
    }

    #[test]
    fn it_takes_so_many_lines_and_no_more() {
        let mut backlog = Backlog::new().unwrap();
        let taken = (0..).take_while(|number| backlog.push(&entry(b"x", *number))).count();
        assert_eq!(taken, LINES_MAX);
    }
}
