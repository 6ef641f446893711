//! `count_if`, which Spark has and DataFusion has not.

use std::{mem::size_of_val, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array},
    datatypes::{DataType, Field, FieldRef, Int64Type},
};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
    function::{AccumulatorArgs, StateFieldsArgs},
    utils::{AggregateOrderSensitivity, format_state_name},
};

/// The aggregate of this module.
pub(super) fn count_if() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(CountIf::new()))
}

/// `count_if(condition)`: the rows for which the condition is true.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CountIf {
    signature: Signature,
}

impl CountIf {
    fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Boolean], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for CountIf {
    fn name(&self) -> &str {
        "count_if"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "count"), DataType::Int64, false))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("count_if takes no DISTINCT: write count(DISTINCT x) FILTER (WHERE condition)");
        }
        Ok(Box::new(CountIfOne::default()))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(CountIfGroups::default()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }
}

/// `filter` too must be true, not null.
fn counts(condition: &BooleanArray, filter: Option<&BooleanArray>, row: usize) -> bool {
    let is_true = |array: &BooleanArray| array.is_valid(row) && array.value(row);
    is_true(condition) && filter.is_none_or(is_true)
}

#[derive(Debug, Default)]
struct CountIfGroups(Vec<i64>);

impl CountIfGroups {
    fn grow(&mut self, total: usize) {
        if self.0.len() < total {
            self.0.resize(total, 0);
        }
    }
}

impl GroupsAccumulator for CountIfGroups {
    fn update_batch(&mut self, values: &[ArrayRef], ids: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        self.grow(total);
        let condition = values[0].as_boolean();
        for (row, id) in ids.iter().enumerate() {
            self.0[*id] += i64::from(counts(condition, filter, row));
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(emit_to.take_needed(&mut self.0))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], ids: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let states = values[0].as_primitive::<Int64Type>();
        for (row, id) in ids.iter().enumerate() {
            self.0[*id] += states.value(row);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let condition = values[0].as_boolean();
        let rows = (0..condition.len()).map(|row| i64::from(counts(condition, filter, row)));
        Ok(vec![Arc::new(Int64Array::from_iter_values(rows))])
    }

    fn size(&self) -> usize {
        self.0.capacity() * size_of::<i64>()
    }
}

#[derive(Debug, Default)]
struct CountIfOne(i64);

impl Accumulator for CountIfOne {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0 += i64::try_from(values[0].as_boolean().true_count()).unwrap_or(i64::MAX);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(Some(self.0))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0 += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }
}
