//! What does not stream is refused before anything starts, with a sentence that says what to write instead.

use std::path::Path;

use super::harness::query_file;
use crate::query::{QueryFile, StreamQuery};

fn refusal(sql: &str) -> String {
    let file = QueryFile::parse(&query_file(sql), Path::new("case.toml")).unwrap();
    match StreamQuery::compile(file) {
        Ok(query) => panic!("accepted: {sql}: {query}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_says_what_to_do() {
    const GROUP: &str = "GROUP BY window(ts, '10 seconds'), sensor_id";
    let cases = [
        ("SELECT sensor_id, value FROM iot", "append mode"),
        (&format!("SELECT sensor_id, count(*) AS n FROM iot {GROUP} ORDER BY n"), "complete mode"),
        (&format!("SELECT sensor_id, count(*) AS n FROM iot {GROUP} LIMIT 5"), "complete mode"),
        ("SELECT DISTINCT sensor_id FROM iot", "DISTINCT"),
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
        ("SELECT count(*) AS n FROM iot GROUP BY", "cannot be read"),
    ];
    for (sql, part) in cases {
        let message = refusal(sql);
        assert!(message.contains(part), "'{part}' is not in: {message}\n  for {sql}");
        assert!(!message.contains('\n'), "more than a sentence: {message}");
    }
}
