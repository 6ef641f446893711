//! Which queries can be shared by several processors although their groups lie in all input partitions.

use super::file::{OutputMode, QueryFile, Trigger};
use super::grouping::Grouping;
use super::shape::Scope;

/// Most shards that merge: each of them reads the journals of all input partitions.
const MOST: u32 = 64;

/// Whether `query.repartition` fits the query.
///
/// # Errors
/// One sentence that says why not.
pub(super) fn check(file: &QueryFile, scope: Scope, groupings: &[&Grouping]) -> Result<(), String> {
    let query = &file.query;
    if query.repartition > MOST {
        return Err(format!("query.repartition is {}; it can be {MOST} at most", query.repartition));
    }
    let why = match groupings {
        _ if query.repartition == 0 => return Ok(()),
        _ if !file.has_journal_topic() => "it needs Kafka for source, sink and journal",
        _ if query.output_mode == OutputMode::Complete => "a whole result (output_mode \"complete\") has one owner",
        _ if query.trigger.is_bounded() || matches!(query.trigger, Trigger::Continuous(_)) => {
            "it does not go with the triggers once, available_now and continuous"
        }
        [] => "a query without a grouping has nothing to merge",
        [_, _, ..] => "an aggregate over an aggregate has one owner",
        _ if scope == Scope::Partition => "GROUP BY contains the partition key, so each input partition has an owner of its own as it is",
        [grouping] if grouping.session_gap().is_some() => "sessions that lie in several partitions have one owner",
        [grouping] if grouping.panes().is_none() || grouping.distinct => "it is for aggregates over windows",
        [_] => return Ok(()),
    };
    Err(format!("query.repartition: {why}; leave it out"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::query::StreamQuery;

    const ROOMS: &str = "SELECT window.start AS s, kind, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), kind";

    fn compile(sql: &str, query: &str) -> Result<StreamQuery, String> {
        let text = format!(
            "name = 'q'\n[source]\ntopic = 'iot'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING'\n\
             event_time = 'ts'\nwatermark = '5 seconds'\n[query]\n{query}\nsql = '''{sql}'''\n"
        );
        StreamQuery::compile(QueryFile::parse(&text, Path::new("q.toml")).unwrap()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn without_the_setting_a_query_is_what_it_was_and_with_it_another() {
        let (plain, zero, two) =
            (compile(ROOMS, "").unwrap(), compile(ROOMS, "repartition = 0").unwrap(), compile(ROOMS, "repartition = 2"));
        let two = two.unwrap();
        assert_eq!((plain.fingerprint, &plain.description), (zero.fingerprint, &zero.description));
        assert_ne!(plain.fingerprint, two.fingerprint);
        assert_eq!((plain.merges(), two.merges()), (0, 2));
        assert!(two.to_string().contains("2 that merge"), "{two}");
    }

    #[test]
    fn what_cannot_be_shared_so_is_refused() {
        let keyed = "SELECT window.start AS s, sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id";
        let over = "SELECT window.start AS s, sum(n) AS n FROM (SELECT window(ts, '5 seconds') AS w, kind, count(*) AS n FROM iot \
                    GROUP BY window(ts, '5 seconds'), kind) GROUP BY window(w, '20 seconds')";
        let sessions = "SELECT session_window.start AS s, count(*) AS n FROM iot GROUP BY session_window(ts, '4 seconds'), kind";
        for (sql, query, part) in [
            (ROOMS, "repartition = 65", "64 at most"),
            (ROOMS, "repartition = 2\ncheckpoint = 'state'", "needs Kafka"),
            (ROOMS, "repartition = 2\noutput_mode = 'complete'", "complete"),
            (ROOMS, "repartition = 2\ntrigger = 'once'", "available_now"),
            (ROOMS, "repartition = 2\ntrigger = { continuous = '1s' }", "continuous"),
            ("SELECT sensor_id FROM iot", "repartition = 2", "without a grouping"),
            (over, "repartition = 2\noutput_mode = 'append'", "over an aggregate"),
            (keyed, "repartition = 2", "contains the partition key"),
            (sessions, "repartition = 2\noutput_mode = 'append'", "sessions"),
            ("SELECT kind, count(*) AS n FROM iot GROUP BY kind", "repartition = 2", "over windows"),
            ("SELECT DISTINCT kind FROM iot", "repartition = 2\noutput_mode = 'append'", "over windows"),
        ] {
            let fault = compile(sql, query).err().unwrap_or_else(|| panic!("{query}: {sql}"));
            assert!(fault.contains(part) && fault.contains("query.repartition"), "'{part}' is not in: {fault}");
        }
    }
}
