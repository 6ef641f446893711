//! Accumulators, and nothing else that touches them.
//!
//! An accumulator lives for one fold. What stays is its state, as rows: `state()` after the fold, `merge` before the next. Old state is
//! merged *first*, into an empty accumulator, and the new rows are folded onto it in log order, so that results do not depend on how the
//! log was cut into batches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DFSchema, DataFusionError, Result};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{EmitTo, Expr, GroupsAccumulator};
use datafusion_physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion_physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};

use super::grouping::checked;
use super::keys::normalize;
use super::shape::boolean;

/// One aggregate call of the query.
#[derive(Debug)]
struct Call {
    aggregate: Arc<AggregateFunctionExpr>,
    /// Arguments, then the columns of an ORDER BY inside the call.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// How many state columns it has.
    states: usize,
    /// It takes each value once: those that make one group are one value here as well.
    distinct: bool,
}

/// All aggregate calls of a query.
#[derive(Debug)]
pub(crate) struct Aggregates {
    calls: Vec<Call>,
    state_fields: Vec<FieldRef>,
}

/// State columns, one row a group; column order as [`Aggregates::state_fields`].
pub(crate) type States = Vec<ArrayRef>;

/// The values of all calls' arguments for one batch, evaluated before anything is folded, so that a failing expression leaves no
/// accumulator half-fed.
pub(crate) struct Arguments {
    calls: Vec<(Vec<ArrayRef>, Option<BooleanArray>)>,
}

impl Arguments {
    /// Of no calls.
    pub(crate) fn none() -> Self {
        Self { calls: Vec::new() }
    }

    /// The arguments of some of the rows.
    pub(crate) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let call = |(values, filter): &(Vec<ArrayRef>, Option<BooleanArray>)| {
            let values = values.iter().map(|column| Ok(take(column, rows, None)?)).collect::<Result<Vec<_>>>()?;
            let filter = filter.as_ref().map(|filter| Ok::<_, DataFusionError>(take(filter, rows, None)?.as_boolean().clone()));
            Ok((values, filter.transpose()?))
        };
        Ok(Self { calls: self.calls.iter().map(call).collect::<Result<_>>()? })
    }

    /// The arguments of several batches as those of one; there is at least one batch.
    pub(crate) fn concat(parts: &[Self]) -> Result<Self> {
        let call = |call: usize| {
            let values = (0..parts[0].calls[call].0.len()).map(|value| {
                let columns: Vec<&dyn Array> = parts.iter().map(|part| part.calls[call].0[value].as_ref()).collect();
                Ok(concat(&columns)?)
            });
            let filters: Option<Vec<&dyn Array>> =
                parts.iter().map(|part| part.calls[call].1.as_ref().map(|filter| filter as &dyn Array)).collect();
            let filter = filters.map(|filters| Ok::<_, DataFusionError>(concat(&filters)?.as_boolean().clone())).transpose()?;
            Ok((values.collect::<Result<Vec<_>>>()?, filter))
        };
        Ok(Self { calls: (0..parts[0].calls.len()).map(call).collect::<Result<_>>()? })
    }
}

impl Aggregates {
    pub(crate) fn compile(calls: &[Expr], input: &DFSchema) -> Result<Self> {
        let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let mut compiled = Vec::with_capacity(calls.len());
        let mut state_fields: Vec<FieldRef> = Vec::new();
        for call in calls {
            let lowered = LoweredAggregateBuilder::new(call, input, input.as_arrow(), &props, &context).build()?;
            let fields = lowered.aggregate.state_fields()?;
            // Some kinds of calls are only refused here; better now than at the first row.
            if !lowered.aggregate.groups_accumulator_supported() {
                lowered.aggregate.create_accumulator()?;
            }
            let expressions = lowered.aggregate.all_expressions();
            let arguments = expressions.args.into_iter().chain(expressions.order_by_exprs);
            let arguments = arguments.map(|argument| checked(argument, input.as_arrow())).collect::<Result<_>>()?;
            let filter = lowered.filter.map(|filter| checked(filter, input.as_arrow())).transpose()?;
            let distinct = lowered.aggregate.is_distinct() || lowered.aggregate.fun().name() == "collect_set";
            compiled.push(Call { aggregate: lowered.aggregate, arguments, filter, states: fields.len(), distinct });
            // Names of state fields may repeat between calls; their place makes them unique.
            for field in fields {
                let name = format!("state_{}", state_fields.len());
                state_fields.push(Arc::new(Field::new(name, nullable_items(field.data_type()), true)));
            }
        }
        Ok(Self { calls: compiled, state_fields })
    }

    /// How many calls there are.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn state_fields(&self) -> &[FieldRef] {
        &self.state_fields
    }

    /// Evaluates the arguments of every call for the rows of `batch`.
    pub(crate) fn arguments(&self, batch: &RecordBatch) -> Result<Arguments> {
        let evaluate = |call: &Call| {
            let values = call.arguments.iter().map(|expr| {
                let values = expr.evaluate(batch)?.into_array(batch.num_rows())?;
                Ok(if call.distinct { normalize(values) } else { values })
            });
            let filter = call.filter.as_ref().map(|predicate| boolean(predicate, batch)).transpose()?;
            Ok((values.collect::<Result<Vec<_>>>()?, filter))
        };
        Ok(Arguments { calls: self.calls.iter().map(evaluate).collect::<Result<_>>()? })
    }

    /// Empty accumulators.
    pub(crate) fn fold(&self) -> Result<Fold<'_>> {
        let accumulator = |call: &Call| -> Result<Box<dyn GroupsAccumulator>> {
            let aggregate = Arc::clone(&call.aggregate);
            if aggregate.groups_accumulator_supported() {
                return aggregate.create_groups_accumulator();
            }
            Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
        };
        Ok(Fold { aggregates: self, accumulators: self.calls.iter().map(accumulator).collect::<Result<_>>()? })
    }
}

/// A list state may say that its items are never null and then hold nulls; the row format and the journal take it as nullable.
fn nullable_items(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::List(Arc::new(item.as_ref().clone().with_nullable(true))),
        other => other.clone(),
    }
}

/// Accumulators for the groups of one step. After an error it must be thrown away: some accumulators may have seen rows that others
/// have not.
pub(crate) struct Fold<'a> {
    aggregates: &'a Aggregates,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Fold<'_> {
    /// Merges saved states, row `i` into group `groups[i]`, of `total` groups. Each of them must have a row, now or in an earlier call, here
    /// and in [`Fold::update`]: DataFusion numbers groups as they come, and takes one without a row as one whose values were not null.
    pub(crate) fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let mut rest = states;
        for (call, accumulator) in self.aggregates.calls.iter().zip(&mut self.accumulators) {
            let (own, others) = rest.split_at(call.states);
            accumulator.merge_batch(own, groups, total)?;
            rest = others;
        }
        Ok(())
    }

    /// Folds rows, row `i` into group `groups[i]`, of `total` groups.
    pub(crate) fn update(&mut self, arguments: &Arguments, groups: &[usize], total: usize) -> Result<()> {
        for ((values, filter), accumulator) in arguments.calls.iter().zip(&mut self.accumulators) {
            accumulator.update_batch(values, groups, filter.as_ref(), total)?;
        }
        Ok(())
    }

    /// The states of all groups.
    pub(crate) fn states(mut self) -> Result<States> {
        let mut states = Vec::with_capacity(self.aggregates.state_fields.len());
        for accumulator in &mut self.accumulators {
            states.extend(accumulator.state(EmitTo::All)?);
        }
        // An accumulator may differ from its declared type in details such as the nullability of list items.
        states.iter().zip(&self.aggregates.state_fields).map(|(column, field)| cast_state(column, field)).collect()
    }

    /// The results of all groups, one column a call.
    pub(crate) fn results(mut self) -> Result<Vec<ArrayRef>> {
        self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All)).collect()
    }
}

fn cast_state(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    Ok(arrow::compute::cast(column, field.data_type())?)
}
