//! What does not stream is refused before anything starts, with a sentence that says what to write instead.

use std::path::Path;

use super::harness::query_file;
use crate::query::{QueryFile, StreamQuery};

#[test]
fn each_says_what_to_do() {
    let cases = [
        ("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id ORDER BY n", "complete"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id LIMIT 5", "complete"),
        ("SELECT DISTINCT sensor_id FROM (SELECT sensor_id, count(*) AS n FROM iot GROUP BY sensor_id)", "DISTINCT"),
        ("SELECT sensor_id, value FROM iot ORDER BY value", "complete"),
        ("SELECT DISTINCT window(ts, '10 seconds') AS w, sensor_id FROM iot", "GROUP BY"),
        ("SELECT sensor_id, value FROM iot WHERE window(ts, '10 seconds') IS NOT NULL", "GROUP BY"),
        ("SELECT count(*) AS n FROM iot GROUP BY session_window(ts, '5 minutes'), sensor_id", "append"),
        ("SELECT count(*) AS n FROM iot GROUP BY session_window(ts, kind), sensor_id", "same for all rows"),
        (
            "SELECT max(n) AS m FROM (SELECT window(ts, '1 second') AS w, count(*) AS n FROM iot GROUP BY window(ts, '1 second')) \
             GROUP BY window(w, '1 minute')",
            "append",
        ),
        (
            "SELECT a.sensor_id, count(*) AS n FROM iot a JOIN iot b ON a.seq = b.seq GROUP BY window(a.ts, '1 second'), a.sensor_id",
            "joins",
        ),
        ("SELECT sensor_id FROM iot UNION ALL SELECT kind FROM iot", "UNION"),
        ("SELECT sensor_id, sum(value) OVER (ORDER BY ts) FROM iot", "OVER"),
        ("SELECT count(*) AS n FROM other GROUP BY window(ts, '1 second')", "FROM iot"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 parsecs')", "10 parsecs"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(ts, '5 seconds', '10 seconds')", "slide"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(kind, '10 seconds')", "TIMESTAMP"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(to_timestamp(kind), '10 seconds')", "event-time column"),
        ("SELECT count(*) AS n, now() AS t FROM iot GROUP BY window(ts, '1 second')", "now"),
        ("SELECT count(*) AS n, rand() AS t FROM iot GROUP BY window(ts, '1 second')", "rand"),
        ("SELECT valu, count(*) AS n FROM iot GROUP BY window(ts, '1 second'), valu", "valu"),
        ("SELECT count(*) AS n, sum(value) AS n FROM iot GROUP BY window(ts, '1 second')", "n"),
        ("SELECT sensor_id, count(*) AS n FROM iot GROUP BY GROUPING SETS ((sensor_id), (kind))", "GROUPING SETS"),
        ("SELECT count(*) AS n FROM iot WHERE seq IN (SELECT seq FROM iot) GROUP BY window(ts, '1 second')", "subquery"),
        ("INSERT INTO iot VALUES (1)", "SELECT"),
        ("SELECT sensor_id, seq FROM iot WHERE kind RLIKE '('", "can never be computed"),
        ("SELECT max(regexp_replace(kind, '[', '')) AS m FROM iot GROUP BY window(ts, '1 second')", "can never be computed"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(ts, '1 second'), regexp_replace(kind, '(', '')", "can never be computed"),
        ("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 seconds', '5 seconds', '-1 parsec')", "parsec"),
        ("SELECT count(*) AS n FROM iot GROUP BY", "cannot be read"),
    ];
    for (sql, part) in cases {
        check(&query_file(sql), part);
    }
}

#[test]
fn an_expression_has_a_limit_and_never_the_end_of_the_stack() {
    let sum = |terms: usize| format!("SELECT sensor_id, {} AS x FROM iot", vec!["value"; terms].join(" + "));
    check(&query_file(&sum(20_000)), "operations deep");
    let cases = (0..1_000).map(|case| format!("kind = 'k{case}'")).collect::<Vec<_>>().join(" OR ");
    check(&query_file(&format!("SELECT sensor_id FROM iot WHERE {cases}")), "IN (...)");
    let file = QueryFile::parse(&query_file(&sum(400)), Path::new("case.toml")).unwrap();
    StreamQuery::compile(file).unwrap();
}

#[test]
fn settings_that_do_not_fit_say_what_does() {
    const COUNT: &str = "SELECT sensor_id, count(*) AS n FROM iot GROUP BY window(ts, '10 seconds'), sensor_id";
    let with = |sql: &str, source: &str, mode: &str| query_file(sql).replace("[query]\n", &format!("{source}\n[query]\n{mode}\n"));
    const COMPLETE: &str = "output_mode = 'complete'";
    const APPEND: &str = "output_mode = 'append'";
    let chained = |outer: &str| {
        format!(
            "SELECT max(n) AS m FROM (SELECT window(ts, '1 second') AS w, ts, count(*) AS n FROM iot GROUP BY window(ts, '1 second'), ts) {outer}"
        )
    };
    let cases = [
        (with("SELECT value FROM iot", "", COMPLETE), "append"),
        (with("SELECT DISTINCT kind FROM iot", "", COMPLETE), "append"),
        (with("SELECT sensor_id, count(*) AS n FROM iot GROUP BY sensor_id", "", APPEND), "update"),
        (with("SELECT value FROM iot LIMIT 5", "", COMPLETE), "aggregate"),
        (with(&chained("GROUP BY sensor_id"), "", APPEND), "sensor_id"),
        (with(&chained("GROUP BY window(ts, '1 minute')"), "", APPEND), "window of the inner"),
        (with(&chained(""), "", APPEND), "window"),
        (with(COUNT, "watermark_by = 'device'", ""), "device"),
        (with(COUNT, "partition_key = 'device'", ""), "device"),
        (with(&chained("GROUP BY session_window(w, '1 minute')"), "", APPEND), "window(w"),
        (with("SELECT count(*) AS n FROM iot GROUP BY window(ts, '1 second')", "watermark_by = 'sensor_id'", ""), "GROUP BY"),
        (with(COUNT, "drop_duplicates_within_watermark = ['seq']", ""), "partition key"),
        (with(COUNT, "drop_duplicates_within_watermark = ['sensor_id', 'nr']", ""), "nr"),
    ];
    for (file, part) in cases {
        check(&file, part);
    }
}

fn check(file: &str, part: &str) {
    let file = QueryFile::parse(file, Path::new("case.toml")).unwrap();
    let sql = file.query.sql.clone();
    let message = match StreamQuery::compile(file) {
        Ok(query) => panic!("accepted: {sql}: {query}"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(part), "'{part}' is not in: {message}\n  for {sql}");
    assert!(!message.contains('\n'), "more than a sentence: {message}");
}
