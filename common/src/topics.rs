//! Names that the houses agree on: topics, record headers.

/// Where the readings are.
pub const INPUT: &str = "iot";
/// Rows that came after every window they belong to had closed, whole.
pub const LATE: &str = "iot.late";
/// Rows that nobody could read or use, whole.
pub const DEAD: &str = "iot.dead";

/// Where the results of a query go unless its file says otherwise.
pub fn aggregate(query: &str) -> String {
    format!("{INPUT}.agg.{query}")
}

/// The journal of a query: offsets, state, watermarks, ledger; one partition per input partition.
pub fn journal(query: &str) -> String {
    format!("{INPUT}.state.{query}")
}

/// Headers of a result row. Values are text.
pub mod result_header {
    /// The query's name.
    pub const QUERY: &str = "tidemark-query";
    /// The input offset up to which the row's state has seen its partition; a larger revision replaces a smaller one.
    pub const REVISION: &str = "tidemark-revision";
    /// `true` when the row's window has closed and the row will not change any more, else `false`.
    pub const FINAL: &str = "tidemark-final";
    /// Start of the row's window, milliseconds since 1970-01-01T00:00:00Z.
    pub const WINDOW_START: &str = "tidemark-window-start";
    /// End (exclusive) of the row's window, in the same unit.
    pub const WINDOW_END: &str = "tidemark-window-end";
    /// The names of the group's columns other than the window, as a JSON array; the sink makes tags of them.
    pub const KEY_COLUMNS: &str = "tidemark-key-columns";
    /// The row's place (from 0) in a whole result that the query orders.
    pub const RANK: &str = "tidemark-rank";
    /// Of a record without a value, which takes the row out of the whole result: the key columns as a JSON object.
    pub const KEY: &str = "tidemark-key";
    /// Of a row of a query without windows: its event time, milliseconds since 1970-01-01T00:00:00Z.
    pub const TIME: &str = "tidemark-time";
    /// Of a row of a query without a grouping: the record that it is made of, `topic-partition@offset`.
    pub const ROW: &str = "tidemark-row";
    /// `true` when the row corrects one that was final.
    pub const RESTATED: &str = "tidemark-restated";
}

/// Headers of a record in the late or dead lane. The record's key and value are the original's.
pub mod lane_header {
    pub const TOPIC: &str = "tidemark-topic";
    pub const PARTITION: &str = "tidemark-partition";
    pub const OFFSET: &str = "tidemark-offset";
    /// The original record's timestamp, milliseconds since 1970-01-01T00:00:00Z; -1 when it had none.
    pub const TIMESTAMP: &str = "tidemark-timestamp";
    /// One word for counting: `late`, `not_json`, `no_event_time`, `wrong_type`, `future`, ...
    pub const REASON: &str = "tidemark-reason";
    /// One sentence for people.
    pub const DETAIL: &str = "tidemark-detail";
    /// Who put it there: a query's name, `producer` or `sink`.
    pub const STAGE: &str = "tidemark-stage";
    /// One sentence, when the lane did not take the row whole: how much of its value is there.
    pub const CUT: &str = "tidemark-cut";
}

/// A topic name as Kafka takes it: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
pub fn check_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(format!("'{name}' is not a topic name; use up to 249 letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        assert!(check_name(&aggregate("iot-10s")).is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
