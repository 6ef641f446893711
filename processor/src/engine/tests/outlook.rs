//! What the engine says of the next window to close.

use std::sync::Arc;

use super::harness::{Record, input, readings_query};
use crate::engine::Engine;

#[test]
fn the_window_that_closes_next() {
    let query = readings_query("SELECT count(*) AS n FROM iot GROUP BY window(ts, '10 seconds', '5 seconds')");
    let mut engine = Engine::new(Arc::clone(&query), [0]);
    assert_eq!(engine.next_close(), None);
    let record = |ts: i64| Record { partition: 0, received: ts, value: Some(format!(r#"{{"sensor_id":"a","ts":{ts}}}"#).into_bytes()) };
    // The delay is 5 s: at 21,000 the window [5,000, 15,000) has closed, at 26,000 the one to 20,000 too.
    for (offset, (ts, next)) in [(12_000, 15_000), (19_000, 15_000), (21_000, 20_000), (26_000, 25_000)].into_iter().enumerate() {
        let prepared = engine.prepare(vec![input(&query, 0, offset, &[&record(ts)])]).unwrap();
        engine.apply(&prepared.entry).unwrap();
        assert_eq!(engine.next_close().map(|next| next.end), Some(next), "after {ts}");
    }
}
