//! The allocator of every program that has the processor in it.
//!
//! States come by the hundred thousand and go by the window, and messages are made by one thread and freed by another: of all the time that a
//! backlog of many groups takes, the C library's allocator took a third.
// The name of a symbol is a promise to the linker, so telling the allocator its settings counts as unsafe.
#![allow(unsafe_code)]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas: each keeps what it has freed for a while, and we have many threads that do little. That while is half a second instead of ten: a
/// step needs again what the one before has freed, and no step takes so long. `MALLOC_CONF` in the environment wins.
// SAFETY: the allocator's own name for its settings; nothing else has it. It is a pointer to text that ends with a null.
#[used]
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: &[u8; 29] = b"narenas:2,dirty_decay_ms:500\0";
