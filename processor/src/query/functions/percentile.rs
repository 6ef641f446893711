//! Exact percentiles: all values of a group are kept. `percentile_cont` goes between two values by the share that is asked for, as Spark's
//! `percentile` does; DataFusion's rounds that share to a millionth, and its results show it. `percentile_disc` gives a value that is there.

use std::{mem::size_of_val, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, FieldRef, Float64Type, Schema},
};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature, Volatility,
    function::{AccumulatorArgs, StateFieldsArgs},
    utils::{AggregateOrderSensitivity, format_state_name},
};
use datafusion_physical_expr::PhysicalExpr;

use super::{common::expect_arguments, plain::as_double};

/// The aggregates of this module.
pub(super) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let of = |name, aliases: &[&str], between| {
        let aliases = aliases.iter().map(ToString::to_string).collect();
        Arc::new(AggregateUDF::from(Percentile { name, aliases, between, signature: Signature::user_defined(Volatility::Immutable) }))
    };
    vec![of("percentile_cont", &["quantile_cont"], true), of("percentile_disc", &["quantile_disc"], false)]
}

/// `percentile_cont(share) WITHIN GROUP (ORDER BY x)`: the planner puts `x` before the share.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    name: &'static str,
    aliases: Vec<String>,
    /// Whether the result may lie between two values.
    between: bool,
    signature: Signature,
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name, types.len(), 2..=2)?;
        types.iter().map(|given| as_double(self.name, given)).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(DataType::Float64, true);
        Ok(vec![Arc::new(Field::new_list(format_state_name(args.name, "values"), item, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let mut share = share(self.name, &args.exprs[1])?;
        if args.order_bys.first().is_some_and(|order| order.options.descending) {
            share = Share { down: !share.down, ..share };
        }
        Ok(Box::new(Values { share, between: self.between, distinct: args.is_distinct, values: Vec::new() }))
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// How much of the values is to lie before the result, counted from the smallest, or `down` from the largest.
#[derive(Debug, Clone, Copy)]
struct Share {
    of: f64,
    down: bool,
}

fn share(function: &str, expr: &Arc<dyn PhysicalExpr>) -> Result<Share> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    let value = match expr.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(ScalarValue::Float64(value))) => value,
        Ok(ColumnarValue::Array(column)) => column.as_primitive_opt::<Float64Type>().and_then(|column| column.iter().next().flatten()),
        _ => None,
    };
    match value {
        Some(of) if (0.0..=1.0).contains(&of) => Ok(Share { of, down: false }),
        _ => plan_err!("the share of {function} must be a constant between 0 and 1, such as 0.95"),
    }
}

#[derive(Debug)]
struct Values {
    share: Share,
    between: bool,
    distinct: bool,
    values: Vec<f64>,
}

impl Values {
    fn at_share(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        if self.distinct {
            sorted.dedup();
        }
        if self.share.down {
            sorted.reverse();
        }
        let last = sorted.len().checked_sub(1)?;
        if !self.between {
            // The first value up to which there is at least that share of all.
            let rank = (self.share.of * sorted.len() as f64).ceil() as usize;
            return Some(sorted[rank.saturating_sub(1).min(last)]);
        }
        let place = last as f64 * self.share.of;
        let (low, high) = (place.floor(), place.ceil());
        let (from, to) = (sorted[low as usize], sorted[(high as usize).min(last)]);
        // Spark's own formula, so that the last bits are the same.
        Some(if from == to { from } else { (high - place) * from + (place - low) * to })
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(values[0].as_primitive::<Float64Type>().iter().flatten());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.at_share()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.iter().copied().map(ScalarValue::from).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list(&values, &DataType::Float64, true))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(values: &[f64], of: f64, between: bool, down: bool) -> Option<f64> {
        Values { share: Share { of, down }, between, distinct: false, values: values.to_vec() }.at_share()
    }

    #[test]
    fn shares_of_values() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(at(&values, 0.5, true, false), Some(2.5));
        assert_eq!(at(&values, 0.5, false, false), Some(2.0));
        assert_eq!(at(&values, 0.75, true, false), Some(3.25));
        assert_eq!(at(&values, 0.75, true, true), Some(1.75));
        assert_eq!(at(&values, 0.0, false, false), Some(1.0));
        assert_eq!(at(&values, 1.0, false, true), Some(1.0));
        assert_eq!(at(&[], 0.5, true, false), None);
        assert_eq!(at(&[7.0], 0.9, true, false), Some(7.0));
    }
}
