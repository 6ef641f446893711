use std::collections::BTreeMap;

use common::topics::result_header;
use serde_json::Value;

use super::log::Log;
use super::oracle::{Cell, CellKey, millis};
use super::query::Query;
use super::topic::{self, Record};

/// What the result topic says of each (window, sensor): the row of the largest revision, the last one of those.
pub(crate) struct Results {
    pub(crate) last: BTreeMap<CellKey, Row>,
    /// All rows, those that were replaced included.
    pub(crate) rows: usize,
    /// Rows that came after one of a larger revision: a processor that had lost its partition wrote them, and no reader uses them.
    pub(crate) stale: usize,
    /// Rows that say something else than one of the same revision before them.
    pub(crate) contradictions: usize,
}

pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) last: bool,
    pub(crate) revision: i64,
    pub(crate) record: Record,
}

/// Reads the query's result topic and checks what every row must fulfil: a final row never changes, the headers say what the columns say.
pub(crate) fn read(log: &Log, query: &Query) -> Results {
    let mut results = Results { last: BTreeMap::new(), rows: 0, stale: 0, contradictions: 0 };
    for record in topic::read(log, &query.topic()) {
        results.rows += 1;
        let (key, row) = parse(record, query);
        if let Some(old) = results.last.get(&key) {
            if row.revision < old.revision {
                results.stale += 1;
                continue;
            }
            results.contradictions += usize::from(row.revision == old.revision && row.cell != old.cell);
            assert!(row.cell == old.cell || !old.last, "a final row changed: {:?} after {:?}", row.record, old.record);
            assert!(row.last || !old.last, "a window opened again: {:?} after {:?}", row.record, old.record);
            assert_eq!(row.record.partition, old.record.partition, "a group stays in one partition: {:?}", row.record);
        }
        results.last.insert(key, row);
    }
    results
}

fn parse(record: Record, query: &Query) -> (CellKey, Row) {
    let columns: Value = serde_json::from_slice(&record.value).unwrap_or_else(|error| panic!("{error} in {}", record.text()));
    let column = |name: &str| columns.get(name).unwrap_or_else(|| panic!("no column {name} in {}", record.text()));
    let number = |name: &str| column(name).as_f64().unwrap_or_else(|| panic!("{name} in {}", record.text()));
    let start = millis(column("window_start").as_str().unwrap());
    let end = millis(column("window_end").as_str().unwrap());
    let sensor = column(&query.key).as_str().unwrap().to_owned();
    let cell = Cell { n: column("n").as_u64().unwrap(), avg: number("avg"), min: number("min"), max: number("max") };

    assert_eq!(record.header(result_header::QUERY), query.name);
    assert_eq!(record.header(result_header::WINDOW_START), start.to_string());
    assert_eq!(record.header(result_header::WINDOW_END), end.to_string());
    assert_eq!(record.header(result_header::KEY_COLUMNS), format!("[\"{}\"]", query.key));
    let last = record.header(result_header::FINAL).parse().unwrap();
    let revision = record.header(result_header::REVISION).parse().unwrap();
    (CellKey { start, sensor }, Row { cell, last, revision, record })
}

impl Results {
    pub(crate) fn cells(&self) -> BTreeMap<CellKey, Cell> {
        self.last.iter().map(|(key, row)| (key.clone(), row.cell)).collect()
    }

    /// The rows as they were written.
    pub(crate) fn values(&self) -> BTreeMap<CellKey, String> {
        self.last.iter().map(|(key, row)| (key.clone(), String::from_utf8_lossy(&row.record.value).into_owned())).collect()
    }

    pub(crate) fn finals(&self) -> usize {
        self.last.values().filter(|row| row.last).count()
    }
}
