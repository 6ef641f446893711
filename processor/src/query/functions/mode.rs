//! `mode(x)`: the value that occurs most often. Of several such values it is the smallest, where Spark's choice is open: a result must not
//! depend on luck.

use std::{collections::HashMap, mem::size_of_val, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Field, FieldRef, Int64Type},
};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
    function::{AccumulatorArgs, StateFieldsArgs},
    utils::{AggregateOrderSensitivity, format_state_name},
};

use super::common::expect_arguments;

/// The aggregate of this module.
pub(super) fn mode() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Mode { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mode {
    signature: Signature,
}

impl AggregateUDFImpl for Mode {
    fn name(&self) -> &str {
        "mode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments("mode", types.len(), 1..=1)?;
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |part, kind: &DataType| {
            Arc::new(Field::new_list(format_state_name(args.name, part), Field::new_list_field(kind.clone(), true), true))
        };
        Ok(vec![list("values", args.input_fields[0].data_type()), list("counts", &DataType::Int64)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("mode takes no DISTINCT: every value would occur once");
        }
        Ok(Box::new(Counts { kind: args.return_type().clone(), counts: HashMap::new() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Counts {
    kind: DataType,
    counts: HashMap<ScalarValue, i64>,
}

impl Counts {
    fn add(&mut self, values: &ArrayRef, times: impl Fn(usize) -> i64) -> Result<()> {
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            *self.counts.entry(canonical(ScalarValue::try_from_array(values, row)?)).or_default() += times(row);
        }
        Ok(())
    }

    /// In the order of the values, so that a state is the same bytes whatever the map's own order.
    fn sorted(&self) -> Vec<(&ScalarValue, i64)> {
        let mut sorted: Vec<_> = self.counts.iter().map(|(value, count)| (value, *count)).collect();
        sorted.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or_else(|| a.to_string().cmp(&b.to_string())));
        sorted
    }
}

/// One value for both zeros.
fn canonical(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(0.0)) => ScalarValue::Float64(Some(0.0)),
        ScalarValue::Float64(Some(number)) if number.is_nan() => ScalarValue::Float64(Some(f64::NAN)),
        ScalarValue::Float32(Some(0.0)) => ScalarValue::Float32(Some(0.0)),
        ScalarValue::Float32(Some(number)) if number.is_nan() => ScalarValue::Float32(Some(f32::NAN)),
        other => other,
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], |_| 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // `max_by_key` takes the last of equals: so from the largest value to the smallest.
        let most = self.sorted().into_iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| value.clone());
        most.map_or_else(|| ScalarValue::try_from(&self.kind), Ok)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.keys().map(|value| value.size() + size_of::<i64>()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<_>, Vec<_>) =
            self.sorted().into_iter().map(|(value, count)| (value.clone(), ScalarValue::from(count))).unzip();
        let list = |values: &[ScalarValue], kind: &DataType| ScalarValue::List(ScalarValue::new_list(values, kind, true));
        Ok(vec![list(&values, &self.kind), list(&counts, &DataType::Int64)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (values, counts) in values.iter().zip(counts.iter()) {
            if let (Some(values), Some(counts)) = (values, counts) {
                let counts = counts.as_primitive::<Int64Type>().clone();
                self.add(&values, |row| counts.value(row))?;
            }
        }
        Ok(())
    }
}
