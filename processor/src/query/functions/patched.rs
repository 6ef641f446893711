//! DataFusion's aggregates whose results would depend on where the input was cut, each with the smallest change that mends it, and the list
//! aggregates with Spark's meaning: they leave nulls out.
//!
//! What is wrong with the originals: lists and joined strings of DISTINCT values come in the order in which a restored state happens to be
//! filled; sums of DISTINCT floats are added in the order of a hash table; `last_value(flag ORDER BY t)` breaks ties otherwise within a
//! batch than between batches; `bit_xor(DISTINCT x)` ignores its DISTINCT when folded in groups.

use std::{mem::size_of_val, sync::Arc};

use arrow::{
    array::ArrayRef,
    compute::SortOptions,
    datatypes::{DataType, FieldRef},
};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature,
    function::{AccumulatorArgs, StateFieldsArgs},
    utils::AggregateOrderSensitivity,
};
use datafusion_functions_aggregate::{
    array_agg::array_agg_udaf, average::avg_udaf, bit_and_or_xor::bit_xor_udaf, first_last::last_value_udaf, string_agg::string_agg_udaf,
    sum::sum_udaf,
};
use datafusion_physical_expr::PhysicalSortExpr;

use super::super::welford::distinct_floats;

/// The patched aggregates; they take the place of those of the same name.
pub(super) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let patched = [
        Patched::new(array_agg_udaf(), Patch::List { ignore_nulls: true, distinct: false }),
        Patched::named("collect_list", array_agg_udaf(), Patch::List { ignore_nulls: true, distinct: false }),
        Patched::named("collect_set", array_agg_udaf(), Patch::List { ignore_nulls: true, distinct: true }),
        Patched::new(string_agg_udaf(), Patch::List { ignore_nulls: false, distinct: false }),
        Patched::new(sum_udaf(), Patch::DistinctSum),
        Patched::new(avg_udaf(), Patch::DistinctMean),
        Patched::new(last_value_udaf(), Patch::Ties),
        Patched::new(bit_xor_udaf(), Patch::DistinctAlone),
    ];
    patched.map(|function| Arc::new(AggregateUDF::from(function))).to_vec()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Patch {
    /// DISTINCT values without an order of their own come sorted.
    List {
        ignore_nulls: bool,
        distinct: bool,
    },
    /// DISTINCT floats are added in the order of first sight.
    DistinctSum,
    DistinctMean,
    /// Rows one by one where DataFusion has no fold in groups: then a tie inside a batch is a tie between batches.
    Ties,
    /// DISTINCT is never folded in groups.
    DistinctAlone,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Patched {
    name: String,
    inner: Arc<AggregateUDF>,
    patch: Patch,
}

impl Patched {
    fn new(inner: Arc<AggregateUDF>, patch: Patch) -> Self {
        Self { name: inner.name().to_owned(), inner, patch }
    }

    fn named(name: &str, inner: Arc<AggregateUDF>, patch: Patch) -> Self {
        Self { name: name.to_owned(), inner, patch }
    }

    /// The call as the original is to see it.
    fn as_inner<T>(&self, args: AccumulatorArgs, call: impl FnOnce(AccumulatorArgs) -> T) -> T {
        let Patch::List { ignore_nulls, distinct } = self.patch else { return call(args) };
        let args = AccumulatorArgs { ignore_nulls: args.ignore_nulls || ignore_nulls, is_distinct: args.is_distinct || distinct, ..args };
        if !args.is_distinct || !args.order_bys.is_empty() {
            return call(args);
        }
        let sorted: Vec<_> = args.exprs.iter().take(1).map(|expr| ascending(Arc::clone(expr))).collect();
        call(AccumulatorArgs { order_bys: &sorted, ..args })
    }

    fn adds_distinct_floats(&self, args: &AccumulatorArgs) -> Option<OfFloats> {
        let floats = args.is_distinct && args.return_type() == &DataType::Float64;
        match self.patch {
            Patch::DistinctSum if floats => Some(sum),
            Patch::DistinctMean if floats => Some(mean),
            _ => None,
        }
    }
}

type OfFloats = fn(&[f64]) -> Option<f64>;

fn ascending(expr: Arc<dyn datafusion_physical_expr::PhysicalExpr>) -> PhysicalSortExpr {
    PhysicalSortExpr::new(expr, SortOptions { descending: false, nulls_first: false })
}

fn sum(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(|sum, value| sum + value)
}

fn mean(values: &[f64]) -> Option<f64> {
    sum(values).map(|sum| sum / values.len() as f64)
}

impl AggregateUDFImpl for Patched {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        // A renamed function leaves the original's other names to the original.
        if self.name == self.inner.name() { self.inner.aliases() } else { &[] }
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(self.inner.return_field(fields)?.as_ref().clone().with_name(&self.name)))
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let distinct = matches!(self.patch, Patch::List { distinct: true, .. });
        self.inner.state_fields(StateFieldsArgs { is_distinct: args.is_distinct || distinct, ..args })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if let Some(finish) = self.adds_distinct_floats(&args) {
            return Ok(distinct_floats(finish));
        }
        let ordered = !args.order_bys.is_empty();
        let inner = self.as_inner(args, |args| self.inner.accumulator(args))?;
        if self.patch == Patch::Ties && ordered { Ok(Box::new(RowByRow(inner))) } else { Ok(inner) }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        if self.patch == Patch::DistinctAlone && args.is_distinct {
            return false;
        }
        self.as_inner(args, |args| self.inner.groups_accumulator_supported(args))
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.as_inner(args, |args| self.inner.create_groups_accumulator(args))
    }

    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        // Input comes in the order of the log, never sorted for one call.
        Ok(None)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }
}

#[derive(Debug)]
struct RowByRow(Box<dyn Accumulator>);

impl Accumulator for RowByRow {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        (0..rows).try_for_each(|row| {
            let row: Vec<ArrayRef> = values.iter().map(|column| column.slice(row, 1)).collect();
            self.0.update_batch(&row)
        })
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }
}
