//! ORDER BY and LIMIT over the whole result, for complete mode.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take, take_record_batch};
use datafusion_common::Result;
use datafusion_expr::{FetchType, Limit, SkipType, Sort};
use datafusion_physical_expr::PhysicalExpr;

use super::grouping::physical;
use super::keys::normalize;

/// A sort order, ready for batches.
#[derive(Debug)]
pub(crate) struct Order {
    keys: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    fetch: Option<usize>,
}

impl Order {
    pub(crate) fn compile(sort: &Sort) -> Result<Self> {
        let key = |key: &datafusion_expr::SortExpr| {
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            Ok((physical(&key.expr, sort.input.schema())?, options))
        };
        Ok(Self { keys: sort.expr.iter().map(key).collect::<Result<_>>()?, fetch: sort.fetch })
    }

    /// Rows that compare equal stay in the order in which they came: the result is the same in every run.
    pub(crate) fn apply(&self, batch: &RecordBatch, rows: &UInt32Array) -> Result<(RecordBatch, UInt32Array)> {
        let column = |(key, options): &(Arc<dyn PhysicalExpr>, SortOptions)| {
            // NaNs differ in bits that depend on how they were computed: one rank for all of them.
            let values = normalize(key.evaluate(batch)?.into_array(batch.num_rows())?);
            Ok(SortColumn { values, options: Some(*options) })
        };
        let mut columns = self.keys.iter().map(column).collect::<Result<Vec<_>>>()?;
        let places = UInt32Array::from_iter_values(0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
        columns.push(SortColumn { values: Arc::new(places) as ArrayRef, options: None });
        take_rows(batch, rows, &lexsort_to_indices(&columns, self.fetch)?)
    }
}

/// LIMIT and OFFSET.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    skip: usize,
    fetch: Option<usize>,
}

impl Cut {
    /// # Errors
    /// When a bound is not a number.
    pub(crate) fn compile(limit: &Limit) -> Result<Self> {
        let number = |what: &str| datafusion_common::plan_datafusion_err!("{what} takes a whole number");
        let SkipType::Literal(skip) = limit.get_skip_type()? else { return Err(number("OFFSET")) };
        let FetchType::Literal(fetch) = limit.get_fetch_type()? else { return Err(number("LIMIT")) };
        Ok(Self { skip, fetch })
    }

    pub(crate) fn apply(&self, batch: &RecordBatch, rows: &UInt32Array) -> (RecordBatch, UInt32Array) {
        let skip = self.skip.min(batch.num_rows());
        let length = self.fetch.unwrap_or(usize::MAX).min(batch.num_rows() - skip);
        (batch.slice(skip, length), rows.slice(skip, length))
    }
}

fn take_rows(batch: &RecordBatch, rows: &UInt32Array, order: &UInt32Array) -> Result<(RecordBatch, UInt32Array)> {
    use arrow::array::AsArray as _;
    Ok((take_record_batch(batch, order)?, take(rows, order, None)?.as_primitive().clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::Float64Array;
    use datafusion_physical_expr::expressions::Column;

    use super::*;

    #[test]
    fn every_nan_has_the_same_rank() {
        let values = vec![f64::NAN, -f64::NAN, 1.0, f64::NAN, -0.0, 0.0];
        let batch = RecordBatch::try_from_iter([("v", Arc::new(Float64Array::from(values)) as ArrayRef)]).unwrap();
        let key: Arc<dyn PhysicalExpr> = Arc::new(Column::new("v", 0));
        let order = Order { keys: vec![(key, SortOptions { descending: true, nulls_first: true })], fetch: None };
        let rows = UInt32Array::from_iter_values(0..6);
        let (_, order) = order.apply(&batch, &rows).unwrap();
        assert_eq!(order.values(), &[0, 1, 3, 2, 4, 5]);
    }
}
