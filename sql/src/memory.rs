//! How much memory SQLite holds. It is the one call that `rusqlite` has no safe form of; this module holds the crate's unsafe code.
#![allow(unsafe_code)]

/// Bytes that SQLite holds in this process, those of other connections too.
pub(crate) fn used() -> u64 {
    // Takes nothing, gives a number, and may be called from any thread at any time.
    let used = unsafe { rusqlite::ffi::sqlite3_memory_used() };
    u64::try_from(used).unwrap_or(0)
}
