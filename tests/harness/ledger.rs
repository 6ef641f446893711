use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::http;
use super::process::Process;
use super::query::Query;
use super::wait::wait_for;

/// What became of the rows that a query has read, summed over its partitions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    pub(crate) used: u64,
    pub(crate) late: u64,
    pub(crate) dead: u64,
    pub(crate) filtered: u64,
}

/// Where a binary serves its status: it prints the address.
#[track_caller]
pub(crate) fn address(process: &mut Process) -> SocketAddr {
    process.wait_line("its HTTP address", Duration::from_secs(60), http::address_in)
}

/// Waits until the query has read just `rows` rows.
#[track_caller]
pub(crate) fn wait_read(process: &mut Process, query: &Query, rows: u64, limit: Duration) -> Counts {
    let counts = wait_some(process, query, rows, limit);
    assert_eq!(counts.read, rows, "rows were counted twice: {counts:?}");
    counts
}

/// Waits until the query has read `rows` rows or more. At every look the ledger must balance.
#[track_caller]
pub(crate) fn wait_some(process: &mut Process, query: &Query, rows: u64, limit: Duration) -> Counts {
    let address = address(process);
    let mut seen = Counts::default();
    let what = format!("query {} to have read {rows} rows", query.name);
    wait_for(&what, limit, || {
        assert!(process.try_wait().is_none(), "the processor ended:\n{}", process.output());
        if let Some(counts) = counts(address, query) {
            assert_eq!(counts.read, counts.used + counts.late + counts.dead + counts.filtered, "the ledger does not balance: {counts:?}");
            seen = counts;
        }
        (seen.read >= rows).then_some(seen)
    })
}

/// Waits until the processor owns so many partitions of the query's input.
#[track_caller]
pub(crate) fn wait_partitions(process: &mut Process, query: &Query, number: usize, limit: Duration) {
    let address = address(process);
    wait_for(&format!("{number} partitions of query {}", query.name), limit, || {
        assert!(process.try_wait().is_none(), "the processor ended:\n{}", process.output());
        let partitions = partitions(address, query)?;
        // A partition is listed with an offset when its state is restored.
        (partitions.iter().filter(|partition| partition["offset"].is_i64()).count() == number).then_some(())
    });
}

/// Waits until all shards that merge have what the processor has read; it owns the whole query.
#[track_caller]
pub(crate) fn wait_merged(process: &mut Process, query: &Query, limit: Duration) {
    let address = address(process);
    wait_for(&format!("the shards of query {} that merge", query.name), limit, || {
        assert!(process.try_wait().is_none(), "the processor ended:\n{}", process.output());
        let status = status(address, query)?;
        let merges = status["merges"].as_array()?;
        let partitions = status["partitions"].as_array()?;
        let has_all = |merges: &Value| {
            let has = |partition: &Value| merges["offsets"][partition["partition"].to_string()] == partition["offset"];
            partitions.iter().all(has)
        };
        (merges.len() == query.repartition as usize && merges.iter().all(has_all)).then_some(())
    });
}

/// What the processor says of the query.
fn status(address: SocketAddr, query: &Query) -> Option<Value> {
    let status = http::get_json(address, "/status")?;
    let queries = status.get("parts")?.get("processor")?.get("status")?.get("queries")?.as_array()?;
    queries.iter().find(|found| found["name"] == query.name).cloned()
}

fn partitions(address: SocketAddr, query: &Query) -> Option<Vec<Value>> {
    status(address, query)?.get("partitions")?.as_array().cloned()
}

/// The counts as they are now; `None` while nobody knows them.
pub(crate) fn counts(address: SocketAddr, query: &Query) -> Option<Counts> {
    let partitions = partitions(address, query)?;
    let sum = |name: &str| partitions.iter().map(|partition| partition.get(name)?.as_u64()).sum::<Option<u64>>();
    Some(Counts { read: sum("read")?, used: sum("used")?, late: sum("late")?, dead: sum("dead")?, filtered: sum("filtered")? })
}
