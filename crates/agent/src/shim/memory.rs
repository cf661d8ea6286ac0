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
    let start = unsafe {
        mmap_anonymous(ptr::null_mut(), len.max(1), ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
    };
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

/// Gives back the pages of a mapping of [`map`]; it stays, and reads as zeros until it is written again.
pub(super) fn give_back(mapping: &mut [u8]) {
    // SAFETY: the range is one whole private mapping without a file, which nobody else refers to meanwhile.
    unsafe { libc::madvise(mapping.as_mut_ptr().cast(), mapping.len(), libc::MADV_DONTNEED) };
}

/// Gives back the pages of the program that only the start needed: the loader and the kernel's read-ahead have mapped
/// most of a large binary by now, and a shim lives on a few dozen pages of it (an agent on a few hundred). What is used again is mapped again from
/// the page cache. Only segments that are never written, so nothing is lost; relocated data must stay.
pub(crate) fn release_program_pages() {
    unsafe extern "C" fn release(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        _data: *mut libc::c_void,
    ) -> libc::c_int {
        const PAGE_MASK: u64 = 4095;
        // SAFETY: the loader passes a valid description, whose headers live as long as the program.
        let (base, headers) = unsafe {
            ((*info).dlpi_addr, slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum)))
        };
        for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
            // Whole pages only: the last one may be shared with the next segment.
            let start = (base + header.p_vaddr + PAGE_MASK) & !PAGE_MASK;
            let end = (base + header.p_vaddr + header.p_memsz) & !PAGE_MASK;
            if end > start {
                // SAFETY: a private mapping of a file that was never written: its pages come back from the file.
                unsafe {
                    libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED)
                };
            }
        }
        0 // The next: the program itself comes first, then its libraries.
    }
    // SAFETY: the callback matches the prototype, allocates nothing and keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(release), ptr::null_mut()) };
}
