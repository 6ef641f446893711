//! A join with a lookup table, as it runs.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{filter, filter_record_batch, is_not_null, is_null, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion_common::{DataFusionError, JoinType, Result};
use datafusion_expr::logical_plan::builder::build_join_schema;
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Join, LogicalPlan};
use datafusion_physical_expr::PhysicalExpr;
use hashbrown::HashMap;

use super::accept::{Condition, table_side};
use super::table::LookupTable;
use crate::query::compile::steps;
use crate::query::grouping::{nullable, physical};
use crate::query::keys::normalize;
use crate::query::shape::{Step, boolean};

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Gets the table's columns, or goes.
    Inner,
    /// Gets the table's columns, or nulls.
    Left,
    /// Stays as it is if there is a match.
    Semi,
    /// Stays as it is if there is none.
    Anti,
}

/// A join with a lookup table, ready for batches. Each row of a batch finds one row of the table or none.
#[derive(Debug)]
pub(crate) struct LookupJoin {
    kind: Kind,
    /// Of the stream's rows, one for each key column of the table.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    converter: RowConverter,
    /// Rows of `columns` by the row bytes of their keys.
    index: HashMap<Box<[u8]>, u32>,
    columns: Vec<ArrayRef>,
    /// What else ON asks of a pair, over the columns of `both`.
    rest: Option<Arc<dyn PhysicalExpr>>,
    /// The stream's columns, then the table's.
    both: SchemaRef,
}

impl LookupJoin {
    /// Reads the table's side and indexes it.
    ///
    /// # Errors
    /// When a key is twice in the table, or its side of the join cannot be computed.
    pub(crate) fn compile(join: &Join) -> Result<Self> {
        let (table, nodes) = table_side(&join.right).map_err(DataFusionError::Plan)?;
        let condition = Condition::of(join)?;
        let both = build_join_schema(join.left.schema(), join.right.schema(), &JoinType::Inner)?;
        let (rows, places) = rows_of(table, &nodes, &condition, &join.right).map_err(|error| broken(table, None, &error))?;
        let (mut keys, mut columns, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for (left, right) in &condition.keys {
            let key = physical(left, join.left.schema())?;
            let column = key_column(&physical(right, join.right.schema())?, &rows, table, &places)?;
            let found = key.data_type(join.left.schema().as_arrow())?;
            if found != *column.data_type() {
                let fault = format!("{left} is {found} and {right} is {}; CAST one of them to the other's type", column.data_type());
                return Err(DataFusionError::Plan(format!("the two sides of a join's equality have different types: {fault}")));
            }
            types.push(SortField::new(found));
            keys.push(key);
            columns.push(column);
        }
        let converter = RowConverter::new(types)?;
        let index = index(&converter, &columns, table, &places, &condition)?;
        let rest = conjunction(condition.rest).map(|rest| physical(&rest, &both)).transpose()?;
        let kind = match join.join_type {
            JoinType::Left => Kind::Left,
            JoinType::LeftSemi => Kind::Semi,
            JoinType::LeftAnti => Kind::Anti,
            _ => Kind::Inner,
        };
        Ok(Self { kind, keys, converter, index, columns: rows.columns().to_vec(), rest, both: nullable(both.as_arrow()) })
    }

    /// The columns behind the join; `None` when they are those before it.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        matches!(self.kind, Kind::Inner | Kind::Left).then_some(&self.both)
    }

    /// Joins the rows of `batch`; `rows` goes with them.
    pub(crate) fn apply(&self, batch: RecordBatch, rows: UInt32Array) -> Result<(RecordBatch, UInt32Array)> {
        let mut found = self.find(&batch)?;
        if let Some(rest) = &self.rest {
            found = self.hold(rest, &batch, &found)?;
        }
        let keep = match self.kind {
            Kind::Left => return Ok((self.pairs(&batch, &found)?, rows)),
            Kind::Anti => is_null(&found)?,
            Kind::Inner | Kind::Semi => is_not_null(&found)?,
        };
        let (mut batch, mut rows) = (batch, rows);
        if keep.true_count() < batch.num_rows() {
            batch = filter_record_batch(&batch, &keep)?;
            rows = kept(&rows, &keep)?;
            found = kept(&found, &keep)?;
        }
        let batch = if self.kind == Kind::Inner { self.pairs(&batch, &found)? } else { batch };
        Ok((batch, rows))
    }

    /// For each row of `batch`, the table's row with its key, or null.
    fn find(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let key = |key: &Arc<dyn PhysicalExpr>| Ok(normalize(key.evaluate(batch)?.into_array(batch.num_rows())?));
        let columns = self.keys.iter().map(key).collect::<Result<Vec<_>>>()?;
        let (rows, nulls) = (self.converter.convert_columns(&columns)?, nulls(&columns));
        let row = |row: usize| match &nulls {
            Some(nulls) if nulls.is_null(row) => None,
            _ => self.index.get(rows.row(row).data()).copied(),
        };
        Ok((0..batch.num_rows()).map(row).collect())
    }

    /// `found` without the rows of which `rest` is not true.
    fn hold(&self, rest: &Arc<dyn PhysicalExpr>, batch: &RecordBatch, found: &UInt32Array) -> Result<UInt32Array> {
        let matched = is_not_null(found)?;
        let pairs = self.pairs(&filter_record_batch(batch, &matched)?, &kept(found, &matched)?)?;
        let held = boolean(rest, &pairs)?;
        let mut held = held.values().iter();
        Ok(found.iter().map(|row| row.filter(|_| held.next().unwrap_or_default())).collect())
    }

    /// Rows of `batch` with the rows of the table that they found.
    fn pairs(&self, batch: &RecordBatch, found: &UInt32Array) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        for column in &self.columns {
            columns.push(take(column, found, None)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.both), columns)?)
    }
}

fn kept(numbers: &UInt32Array, keep: &BooleanArray) -> Result<UInt32Array> {
    Ok(filter(numbers, keep)?.as_primitive().clone())
}

/// The rows that the table's side of the join has, and where they stand in the table.
fn rows_of(table: &LookupTable, nodes: &[&LogicalPlan], condition: &Condition, side: &LogicalPlan) -> Result<(RecordBatch, UInt32Array)> {
    let all = UInt32Array::from_iter_values(0..u32::try_from(table.rows.num_rows()).unwrap_or(u32::MAX));
    let (rows, places) = Step::apply_all(&steps(nodes)?, table.rows.clone(), all)?;
    let filters = condition.table.iter().map(|part| Ok(Step::Filter(physical(part, side.schema())?)));
    Step::apply_all(&filters.collect::<Result<Vec<_>>>()?, rows, places)
}

/// The values of a key in the table's rows.
fn key_column(key: &Arc<dyn PhysicalExpr>, rows: &RecordBatch, table: &LookupTable, places: &UInt32Array) -> Result<ArrayRef> {
    let values = |rows: &RecordBatch| key.evaluate(rows)?.into_array(rows.num_rows());
    let fault = |error| {
        let row = (0..rows.num_rows()).find(|row| values(&rows.slice(*row, 1)).is_err());
        broken(table, row.map(|row| places.value(row)), &error)
    };
    Ok(normalize(values(rows).map_err(fault)?))
}

fn broken(table: &LookupTable, row: Option<u32>, error: &DataFusionError) -> DataFusionError {
    let place = row.map(|row| format!(", {}", table.place(row))).unwrap_or_default();
    DataFusionError::Plan(format!("lookup '{}': {}{place}: {}", table.name, table.path.display(), error.strip_backtrace()))
}

/// Rows that have a null among their keys: no key is equal to null.
fn nulls(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref()))
}

fn index(
    converter: &RowConverter,
    columns: &[ArrayRef],
    table: &LookupTable,
    places: &UInt32Array,
    condition: &Condition,
) -> Result<HashMap<Box<[u8]>, u32>> {
    let (rows, nulls) = (converter.convert_columns(columns)?, nulls(columns));
    let mut index: HashMap<Box<[u8]>, u32> = HashMap::with_capacity(rows.num_rows());
    for (row, number) in (0..rows.num_rows()).zip(0_u32..) {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            continue;
        }
        if let Some(first) = index.insert(rows.row(row).data().into(), number) {
            return Err(DataFusionError::Plan(twice(columns, row, table, places.value(first as usize), places.value(row), condition)));
        }
    }
    Ok(index)
}

fn twice(columns: &[ArrayRef], row: usize, table: &LookupTable, first: u32, second: u32, condition: &Condition) -> String {
    let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap_or_default();
    let key = condition.keys.iter().zip(columns).map(|((_, key), column)| format!("{key} = {}", value(column))).collect::<Vec<_>>();
    format!(
        "lookup '{}': {} has the key {} twice, in {} and {}; a reading must find one row at most, so leave one of them out",
        table.name,
        table.path.display(),
        key.join(", "),
        table.place(first),
        table.place(second)
    )
}
