//! The two blobs, written in place: an array map may be mapped into memory (`BPF_F_MMAPABLE`, since Linux 5.5).

#![expect(unsafe_code, reason = "memory that the kernel maps has no safe type")]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::slice;

use caregate_ebpf_common::switch::blob::BLOB_WORDS;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A page, of which a mapping is a multiple.
const PAGE_BYTES: usize = 4096;
const BYTES: usize = (2 * BLOB_WORDS * size_of::<u64>()).next_multiple_of(PAGE_BYTES);

/// The mapped map.
#[derive(Debug)]
pub struct Blobs {
    memory: NonNull<u64>,
}

// SAFETY: the memory belongs to this value alone in this process; what else sees it are the programs in the kernel.
unsafe impl Send for Blobs {}

impl Blobs {
    /// Maps the array that the descriptor is of.
    ///
    /// # Errors
    /// The operating system's.
    pub fn map(descriptor: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; nothing else of this process is there.
        let memory = unsafe {
            mmap(ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, descriptor, 0)
        }?;
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory })
    }

    /// A copy, by the lowest bit of its epoch.
    #[must_use]
    pub fn copy(&self, epoch: u64) -> &[u64] {
        let at = if epoch & 1 == 0 { 0 } else { BLOB_WORDS };
        // SAFETY: the mapping has two copies of so many words, whoever holds the map; only this value writes them, by `&mut`.
        unsafe { slice::from_raw_parts(self.memory.add(at).as_ptr(), BLOB_WORDS) }
    }

    /// The copy, to be written while it is out of force.
    pub fn copy_mut(&mut self, epoch: u64) -> &mut [u64] {
        let at = if epoch & 1 == 0 { 0 } else { BLOB_WORDS };
        // SAFETY: as in `copy`; programs read a copy that is out of force no more, and any words are words.
        unsafe { slice::from_raw_parts_mut(self.memory.add(at).as_ptr(), BLOB_WORDS) }
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; no slice of it outlives this value.
        let unmapped = unsafe { munmap(self.memory.as_ptr().cast(), BYTES) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "the blobs' memory stays mapped");
        }
    }
}
