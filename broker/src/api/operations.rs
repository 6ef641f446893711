//! What a client may do with something, as the bit fields in which Metadata and the Describe requests tell it.

use super::Request;
use crate::auth::users::Act;

// Numbers of Kafka's operations: each is the place of its bit.
const READ: i32 = 3;
const WRITE: i32 = 4;
const CREATE: i32 = 5;
const DELETE: i32 = 6;
const ALTER: i32 = 7;
const DESCRIBE: i32 = 8;
const CLUSTER_ACTION: i32 = 9;
const DESCRIBE_CONFIGS: i32 = 10;
const ALTER_CONFIGS: i32 = 11;
const IDEMPOTENT_WRITE: i32 = 12;

/// Stands for "nobody asked".
const UNASKED: i32 = i32::MIN;

fn bits(parts: &[(bool, &[i32])]) -> i32 {
    parts.iter().filter(|(may, _)| *may).flat_map(|(_, operations)| *operations).fold(0, |all, operation| all | 1 << operation)
}

pub(super) fn on_topic(header: &Request, topic: &str, asked: bool) -> i32 {
    if !asked {
        return UNASKED;
    }
    bits(&[
        (header.may(Act::Read(topic)), &[READ]),
        (header.may(Act::Write(topic)), &[WRITE]),
        (header.may(Act::See(topic)), &[DESCRIBE, DESCRIBE_CONFIGS]),
        (header.may(Act::Manage(topic)), &[CREATE, DELETE, ALTER, ALTER_CONFIGS]),
    ])
}

pub(super) fn on_group(header: &Request, group: &str, asked: bool) -> i32 {
    if !asked {
        return UNASKED;
    }
    bits(&[(header.may(Act::Group(group)), &[READ, DELETE, DESCRIBE]), (header.may(Act::Administer), &[DESCRIBE_CONFIGS, ALTER_CONFIGS])])
}

pub(super) fn on_cluster(header: &Request, asked: bool) -> i32 {
    if !asked {
        return UNASKED;
    }
    let own = [CREATE, ALTER, CLUSTER_ACTION, DESCRIBE_CONFIGS, DESCRIBE, ALTER_CONFIGS];
    bits(&[(true, &[IDEMPOTENT_WRITE]), (header.may(Act::Administer), &own)])
}
