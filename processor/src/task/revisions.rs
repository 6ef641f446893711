//! Which row counts when two have the same identity: the one of the larger revision.
//!
//! ```text
//! 0 ........ offsets ........ RESTATED ..... corrections ..... REBUILT ..... offsets of the state that was begun anew ...
//! ```
//! A revision is the sum of the offsets that a state has seen, which stays far below these distances.

/// A corrected row is above every row that the running query can write.
pub(crate) const RESTATED: i64 = 1 << 41;
/// A state that is begun anew is above everything before it, corrections included.
pub(crate) const REBUILT: i64 = 1 << 42;
