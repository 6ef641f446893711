//! What `--version` says of programs that run queries.

use common::version::TLS;

/// The long form of `processor` and `tidemark`: the version, and what this build can do that another may not.
pub const VERSION: &str = match (TLS, cfg!(feature = "kinesis")) {
    (_, false) => common::version::VERSION,
    (false, true) => concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: kinesis"),
    (true, true) => concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: tls kinesis"),
};
