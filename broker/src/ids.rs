//! Identities that need to be unique, not secret.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::now_millis;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// 128 bits that nobody else has; never 0, which stands for "no id" in the protocol.
pub(crate) fn random_id() -> u128 {
    let half = || {
        // Each `RandomState` is keyed from the system's randomness.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(COUNTER.fetch_add(1, Ordering::Relaxed));
        hasher.write_i64(now_millis());
        hasher.finish()
    };
    (u128::from(half()) << 64 | u128::from(half())).max(1)
}

/// An id in the codec's own UUID type, which it does not let us name.
pub(crate) fn wire_id<T: FromStr + Default>(id: u128) -> T {
    format!("{id:032x}").parse().unwrap_or_default()
}
