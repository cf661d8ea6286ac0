//! All memory of a shim, mapped once at its start: nothing is allocated afterwards, so a machine out of memory does
//! not stop a restart. Mapped pages cost nothing until they are written.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::{io, ptr, slice};

/// Maps `len` zero bytes for the life of the process.
///
/// # Errors
/// The system has no memory.
pub(super) fn map(len: usize) -> io::Result<&'static mut [u8]> {
    // SAFETY: a fresh private mapping overlaps nothing.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), len.max(1), ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
    // SAFETY: the mapping is `len` bytes long, zeroed, never unmapped, and this is the only reference to it.
    Ok(unsafe { slice::from_raw_parts_mut(start.cast(), len) })
}

/// Maps a table of `len` null pointers for the life of the process.
///
/// # Errors
/// The system has no memory.
pub(super) fn map_pointers(len: usize) -> io::Result<&'static mut [*const libc::c_char]> {
    let bytes = map(len * size_of::<*const libc::c_char>())?;
    // SAFETY: the mapping is page-aligned and zeroed, and null is a valid pointer value.
    Ok(unsafe { slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) })
}
