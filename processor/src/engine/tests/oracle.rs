//! The second opinion: lateness by a loop that a child could follow, and the aggregates by plain DataFusion over all rows at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use datafusion_functions_aggregate::{average, count, min_max, sum};
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::col;
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion_physical_plan::memory::MemoryStream;
use datafusion_physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion_physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt as _;

/// A reading as the generator made it.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) partition: i32,
    pub(super) sensor: String,
    pub(super) ts: i64,
    pub(super) value: f64,
}

/// The readings that are not late, by the definition: every window of the row had ended at the watermark of the rows before it in its
/// partition.
pub(super) fn in_time(readings: &[Reading], size: i64, delay: i64) -> Vec<Reading> {
    let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
    let mut kept = Vec::new();
    for reading in readings {
        let window_end = (reading.ts.div_euclid(size) + 1) * size;
        if newest.get(&reading.partition).is_none_or(|newest| window_end > newest - delay) {
            kept.push(reading.clone());
        }
        let newest = newest.entry(reading.partition).or_insert(i64::MIN);
        *newest = reading.ts.max(*newest);
    }
    kept
}

/// All rows at once, for plain DataFusion.
#[derive(Debug)]
pub(crate) struct OneBatch(pub(crate) RecordBatch, pub(crate) SchemaRef);

impl PartitionStream for OneBatch {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }

    fn execute(&self, _context: Arc<datafusion_execution::TaskContext>) -> SendableRecordBatchStream {
        Box::pin(MemoryStream::try_new(vec![self.0.clone()], Arc::clone(&self.1), None).unwrap())
    }
}

/// count, sum, avg, min, max of each window and sensor, by one `AggregateExec` over one batch.
pub(super) fn aggregate(readings: &[Reading], size: i64) -> BTreeMap<(i64, String), (i64, [f64; 4])> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("start", DataType::Int64, false),
        Field::new("sensor", DataType::Utf8, false),
        Field::new("value", DataType::Float64, false),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(readings.iter().map(|reading| reading.ts.div_euclid(size) * size))),
        Arc::new(StringArray::from_iter_values(readings.iter().map(|reading| &reading.sensor))),
        Arc::new(Float64Array::from_iter_values(readings.iter().map(|reading| reading.value))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let stream = Arc::new(OneBatch(batch, Arc::clone(&schema)));
    let input: Arc<dyn ExecutionPlan> =
        Arc::new(StreamingTableExec::try_new(Arc::clone(&schema), vec![stream], None, None, false, None).unwrap());
    let group = PhysicalGroupBy::new_single(["start", "sensor"].map(|name| (col(name, &schema).unwrap(), name.to_owned())).to_vec());
    let calls = [count::count_udaf(), sum::sum_udaf(), average::avg_udaf(), min_max::min_udaf(), min_max::max_udaf()]
        .into_iter()
        .map(|function| {
            let name = function.name().to_owned();
            let call = AggregateExprBuilder::new(function, vec![col("value", &schema).unwrap()]).schema(Arc::clone(&schema)).alias(name);
            Arc::new(call.build().unwrap())
        })
        .collect::<Vec<_>>();
    let filters = vec![None; calls.len()];
    let plan = AggregateExec::try_new(AggregateMode::Single, group, calls, filters, input, Arc::clone(&schema)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches: Vec<RecordBatch> = runtime.block_on(async {
        let stream = plan.execute(0, Arc::new(datafusion_execution::TaskContext::default())).unwrap();
        stream.map(Result::unwrap).collect().await
    });
    let mut cells = BTreeMap::new();
    for batch in &batches {
        let float = |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
        for row in 0..batch.num_rows() {
            let key = (batch.column(0).as_primitive::<Int64Type>().value(row), batch.column(1).as_string::<i32>().value(row).to_owned());
            let count = batch.column(2).as_primitive::<Int64Type>().value(row);
            cells.insert(key, (count, [float(3, row), float(4, row), float(5, row), float(6, row)]));
        }
    }
    cells
}
