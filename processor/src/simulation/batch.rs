//! The rows of a query by plain DataFusion: one `AggregateExec` over one batch of the rows that count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion_functions_aggregate::all_default_aggregate_functions;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_expr::expressions::col;
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion_physical_plan::streaming::StreamingTableExec;
use futures::StreamExt as _;
use serde_json::{Map, Value};

use super::definition::{Cell, value};
use super::query::{Call, Exact, Mode, Query, Window};
use super::sink::{Identity, Row, key};
use super::world::{Delivery, Reading};
use crate::engine::tests::oracle::OneBatch;
use crate::format::encode::write_value;

/// A result row: whether it is final, and the fields that can be compared, with how far.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) is_final: bool,
    fields: Vec<(String, Value, Exact)>,
}

/// The result rows that must be there.
pub(super) fn rows(query: &Query, cells: &[Cell], logs: &BTreeMap<i32, Vec<&Delivery>>, exact: bool) -> BTreeMap<Identity, Wanted> {
    let readings: Vec<(usize, &Reading)> = cells
        .iter()
        .enumerate()
        .flat_map(|(cell, rows)| rows.rows.iter().map(move |(number, row)| (cell, logs[number][*row].reading.as_ref().unwrap())))
        .collect();
    let mut wanted = BTreeMap::new();
    for batch in aggregate(query, cells, &readings) {
        let number = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
        let (keys, calls) = (2 + query.keys.len(), query.calls.len());
        for row in 0..batch.num_rows() {
            let (start, end, count) = (number(0, row), number(1, row), number(keys + calls, row));
            let cell = cells.iter().find(|cell| (cell.start, cell.end) == (start, end)).unwrap();
            // Devices with a time of their own close the same window at different times.
            let is_final = if query.silence.is_some() { is_final_of(query, cells, &readings, &batch, row) } else { cell.is_final };
            if query.having.is_some_and(|least| count <= least) || (query.mode == Mode::Append && !is_final) {
                continue;
            }
            let mut fields = Vec::new();
            if query.window != Window::None {
                fields.extend([("s".to_owned(), start.into(), Exact::Always), ("e".to_owned(), end.into(), Exact::Always)]);
            }
            fields.extend((0..query.keys.len()).map(|place| (format!("k{place}"), json(batch.column(2 + place), row), Exact::Always)));
            for (place, call) in query.calls.iter().enumerate() {
                fields.push((format!("a{place}"), json(batch.column(keys + place), row), comparable(query, *call, exact)));
            }
            wanted.insert((start, key(&batch.columns()[2..keys], row)), Wanted { is_final, fields });
        }
    }
    wanted
}

fn is_final_of(query: &Query, cells: &[Cell], readings: &[(usize, &Reading)], batch: &RecordBatch, row: usize) -> bool {
    let place = 2 + query.keys.iter().position(|key| *key == "sensor_id").unwrap();
    let sensor = batch.column(place).as_string::<i32>();
    let sensor = (!arrow::array::Array::is_null(sensor, row)).then(|| sensor.value(row));
    let bounds = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>().value(row));
    let own =
        |(cell, reading): &&(usize, &Reading)| [cells[*cell].start, cells[*cell].end] == bounds && reading.sensor.as_deref() == sensor;
    let finals: BTreeSet<bool> = readings.iter().filter(own).map(|(cell, _)| cells[*cell].is_final).collect();
    assert_eq!(finals.len(), 1, "a window of one device is both final and open");
    finals.contains(&true)
}

fn json(column: &ArrayRef, row: usize) -> Value {
    let mut text = Vec::new();
    write_value(column, row, &mut text);
    serde_json::from_slice(&text).unwrap()
}

/// How far a call's result can be compared in this query and with these values.
fn comparable(query: &Query, call: Call, exact: bool) -> Exact {
    let tumbling = match query.window {
        Window::None => true,
        Window::Panes(size, slide, _) => size == slide,
        Window::Days(_, days) => days == 1,
        Window::Session(_) | Window::Calendar(..) => false,
    };
    // The rows of a group are folded in the order of one log.
    let in_order = query.is_keyed() && tumbling;
    match call.exact {
        Exact::Always if !["value", "one_zero"].contains(&call.column) || exact || in_order => Exact::Always,
        Exact::InOrder if in_order || (exact && call.column == "value" && ["sum", "avg"].contains(&call.name)) => Exact::Always,
        Exact::Nearly if in_order && exact => Exact::Nearly,
        _ => Exact::Never,
    }
}

impl Wanted {
    pub(super) fn check(&self, identity: &Identity, found: &Row, context: &str) {
        assert_eq!(found.is_final, self.is_final, "the final flag of {identity:?} {found:?}\n{context}");
        let row: Map<String, Value> = serde_json::from_str(&found.value).unwrap();
        for (name, wanted, exact) in &self.fields {
            let same = match exact {
                Exact::Never => continue,
                Exact::Nearly => is_near(&row[name], wanted),
                Exact::Always | Exact::InOrder => row[name] == *wanted,
            };
            assert!(same, "{name} of {identity:?} is not {wanted}, as by a batch computation: {}\n{context}", found.value);
        }
    }
}

fn is_near(found: &Value, wanted: &Value) -> bool {
    match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0),
        _ => found == wanted,
    }
}

fn batch(query: &Query, cells: &[Cell], rows: &[(usize, &Reading)]) -> RecordBatch {
    let ints = |of: &dyn Fn(&(usize, &Reading)) -> Option<i64>| Arc::new(rows.iter().map(of).collect::<Int64Array>()) as ArrayRef;
    let texts =
        |of: &dyn Fn(&Reading) -> Option<String>| Arc::new(rows.iter().map(|(_, row)| of(row)).collect::<StringArray>()) as ArrayRef;
    let floats = |of: &dyn Fn(&Reading) -> Option<f64>| Arc::new(rows.iter().map(|(_, row)| of(row)).collect::<Float64Array>()) as ArrayRef;
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("start".to_owned(), ints(&|(cell, _)| Some(cells[*cell].start))),
        ("end".to_owned(), ints(&|(cell, _)| Some(cells[*cell].end))),
    ];
    for (place, name) in query.keys.iter().enumerate() {
        let column = match *name {
            "seq % 2" => ints(&|(_, row)| row.seq.map(|seq| seq % 2)),
            name => texts(&|row| value(row, name)),
        };
        columns.push((format!("k{place}"), column));
    }
    let above = rows.iter().map(|(_, row)| row.value.map(|value| value > 0.0)).collect::<BooleanArray>();
    columns.extend([
        ("one".to_owned(), ints(&|_| Some(1))),
        ("value".to_owned(), floats(&|row| row.value)),
        // Both zeros are one value of a DISTINCT.
        ("one_zero".to_owned(), floats(&|row| row.value.map(|value| value + 0.0))),
        ("root".to_owned(), floats(&|row| row.value.map(f64::sqrt))),
        ("seq".to_owned(), ints(&|(_, row)| row.seq)),
        ("kind".to_owned(), texts(&|row| row.kind.clone())),
        ("sensor".to_owned(), texts(&|row| row.sensor.clone())),
        ("above".to_owned(), Arc::new(above)),
    ]);
    let field = |(name, column): &(String, ArrayRef)| Field::new(name, column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

/// A call as DataFusion has it; for ours a count stands in.
fn function(call: Call, place: usize, schema: &SchemaRef) -> Arc<AggregateFunctionExpr> {
    let (name, column) = if call.exact == Exact::Never { ("count", "one") } else { (call.name, call.column) };
    let function = all_default_aggregate_functions()
        .into_iter()
        .find(|function| function.name() == name || function.aliases().iter().any(|alias| alias == name))
        .unwrap_or_else(|| panic!("DataFusion has no {name}"));
    let column = col(column, schema).unwrap();
    // What the analyzer does for SQL.
    let column = if ["avg", "median"].contains(&name) && *column.data_type(schema).as_ref().unwrap() == DataType::Int64 {
        datafusion_physical_expr::expressions::cast(column, schema, DataType::Float64).unwrap()
    } else {
        column
    };
    let built = AggregateExprBuilder::new(function, vec![column]).schema(Arc::clone(schema)).alias(format!("a{place}"));
    Arc::new(built.with_distinct(call.distinct).build().unwrap())
}

fn aggregate(query: &Query, cells: &[Cell], rows: &[(usize, &Reading)]) -> Vec<RecordBatch> {
    if rows.is_empty() {
        return Vec::new();
    }
    let batch = batch(query, cells, rows);
    let schema = batch.schema();
    let stream = Arc::new(OneBatch(batch, Arc::clone(&schema)));
    let input: Arc<dyn ExecutionPlan> =
        Arc::new(StreamingTableExec::try_new(Arc::clone(&schema), vec![stream], None, None, false, None).unwrap());
    let names = (0..2 + query.keys.len()).map(|column| schema.field(column).name().clone());
    let group = PhysicalGroupBy::new_single(names.map(|name| (col(&name, &schema).unwrap(), name)).collect());
    let count = Call { sql: "count(*)", name: "count", column: "one", distinct: false, exact: Exact::Always };
    let calls: Vec<_> = query.calls.iter().chain([&count]).enumerate().map(|(place, call)| function(*call, place, &schema)).collect();
    let filters = vec![None; calls.len()];
    let plan = AggregateExec::try_new(AggregateMode::Single, group, calls, filters, input, Arc::clone(&schema)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let stream = plan.execute(0, Arc::new(datafusion_execution::TaskContext::default())).unwrap();
        stream.map(Result::unwrap).collect().await
    })
}
