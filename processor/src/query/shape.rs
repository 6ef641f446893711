//! Which plans stream: every node of a logical plan is accepted by name, or refused with what to write instead.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter, filter_record_batch, prep_null_mask_filter, take};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion_physical_expr::PhysicalExpr;

use super::lookup::{self, LookupJoin};
use super::order::{Cut, Order};

/// Whether one input partition has all rows of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The groups contain the partition key: each input partition is on its own.
    Partition,
    /// A group's rows are spread over the partitions: one owner reads all of them and merges their states for output.
    Topic,
}

/// What groups rows: an aggregate, or a DISTINCT, which is an aggregate of keys alone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GroupNode<'a> {
    Aggregate(&'a Aggregate),
    /// The plan whose rows are made distinct.
    Distinct(&'a LogicalPlan),
}

impl<'a> GroupNode<'a> {
    pub(crate) fn input(&self) -> &'a LogicalPlan {
        match self {
            Self::Aggregate(aggregate) => &aggregate.input,
            Self::Distinct(input) => input,
        }
    }

    pub(crate) fn schema(&self) -> &'a Schema {
        match self {
            Self::Aggregate(aggregate) => aggregate.schema.as_arrow(),
            Self::Distinct(input) => input.schema().as_arrow(),
        }
    }

    pub(crate) fn group_exprs(&self) -> Vec<Expr> {
        match self {
            Self::Aggregate(aggregate) => aggregate.group_expr.clone(),
            Self::Distinct(input) => input.schema().columns().into_iter().map(Expr::Column).collect(),
        }
    }

    pub(crate) fn calls(&self) -> &'a [Expr] {
        match self {
            Self::Aggregate(aggregate) => &aggregate.aggr_expr,
            Self::Distinct(_) => &[],
        }
    }
}

/// One grouping and what stands between it and the next, or the output.
pub(crate) struct Stage<'a> {
    pub(crate) node: GroupNode<'a>,
    pub(crate) after: Vec<&'a LogicalPlan>,
}

/// The parts of a plan that streams, from the input to the output.
pub(crate) struct Shape<'a> {
    pub(crate) before: Vec<&'a LogicalPlan>,
    /// None for a plain SELECT; two for an aggregate over an aggregate.
    pub(crate) stages: Vec<Stage<'a>>,
}

impl<'a> Shape<'a> {
    /// Takes the plan apart. `sorted`: whether the output mode takes ORDER BY and LIMIT.
    ///
    /// # Errors
    /// A sentence for the first node that does not stream.
    pub(crate) fn of(plan: &'a LogicalPlan, sorted: bool) -> Result<Self, String> {
        let mut stages: Vec<Stage<'a>> = Vec::new();
        let mut part = Vec::new();
        let mut node = plan;
        loop {
            node = match node {
                LogicalPlan::Projection(projection) => {
                    part.push(node);
                    &projection.input
                }
                LogicalPlan::Filter(filter) => {
                    part.push(node);
                    &filter.input
                }
                LogicalPlan::Sort(sort) if sorted && stages.is_empty() => {
                    part.push(node);
                    &sort.input
                }
                LogicalPlan::Limit(limit) if sorted && stages.is_empty() => {
                    part.push(node);
                    &limit.input
                }
                LogicalPlan::Join(join) => {
                    lookup::check_join(join)?;
                    part.push(node);
                    &join.left
                }
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                LogicalPlan::Aggregate(inner) if stages.len() < 2 => {
                    part.reverse();
                    stages.push(Stage { node: GroupNode::Aggregate(inner), after: std::mem::take(&mut part) });
                    &inner.input
                }
                LogicalPlan::Distinct(Distinct::All(input)) if stages.is_empty() => {
                    part.reverse();
                    stages.push(Stage { node: GroupNode::Distinct(input), after: std::mem::take(&mut part) });
                    input
                }
                LogicalPlan::TableScan(scan) => {
                    lookup::check_scan(scan)?;
                    break;
                }
                other => return Err(refusal(other)),
            };
        }
        part.reverse();
        stages.reverse();
        if stages.is_empty() && part.iter().any(|node| matches!(node, LogicalPlan::Sort(_) | LogicalPlan::Limit(_))) {
            return Err("ORDER BY and LIMIT need an aggregate, whose whole result complete mode gives; sort where you read".into());
        }
        if stages.len() == 2 && stages.iter().any(|stage| matches!(stage.node, GroupNode::Distinct(_))) {
            return Err("SELECT DISTINCT over an aggregate is not supported: each of its groups is one row already; leave DISTINCT out, \
                 or group the aggregate's rows once more by a window"
                .into());
        }
        Ok(Self { before: part, stages })
    }
}

/// What to write instead of a node that does not stream.
fn refusal(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
            "ORDER BY and LIMIT need the whole result of an aggregate, so they stand at its top and only fit output_mode = \"complete\"; \
             aggregate in complete mode, or sort where you read"
                .into()
        }
        LogicalPlan::Distinct(_) => {
            "DISTINCT ON and a DISTINCT below another grouping are not supported; use SELECT DISTINCT at the top, or GROUP BY".into()
        }
        LogicalPlan::Union(_) => "UNION is not supported; run one query file per SELECT, all into the same topic".into(),
        LogicalPlan::Window(_) => {
            "OVER (...) needs rows in a final order, which a stream does not have; aggregate over window(ts, ...) instead".into()
        }
        LogicalPlan::Aggregate(_) => {
            "more than two aggregates over one another are not supported; run two query files, the second with the first's topic as its \
             input"
                .into()
        }
        LogicalPlan::Subquery(_) => "a subquery in an expression is not supported; compute it in a query of its own".into(),
        LogicalPlan::Unnest(_) => "unnest is not supported; write explode(x) in the SELECT list of a subquery".into(),
        LogicalPlan::RecursiveQuery(_) => "a recursive query does not stream; write it without WITH RECURSIVE".into(),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => "the query reads no stream; select FROM the topic".into(),
        LogicalPlan::Repartition(_) => "DISTRIBUTE BY and CLUSTER BY have no meaning here; leave them out".into(),
        LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Extension(_) => "the SQL must be a SELECT".into(),
        // Accepted by the walk before it asks for a refusal.
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::TableScan(_) => {
            format!("this part of the query is at a place where it does not stream: {}", plan.display())
        }
    }
}

/// The column of the table that `expr` is, seen through the projections below it; `None` when it is computed.
pub(crate) fn base_column(expr: &Expr, below: &LogicalPlan) -> Option<String> {
    match expr {
        Expr::Alias(alias) => base_column(&alias.expr, below),
        Expr::Column(column) => match below {
            LogicalPlan::Projection(projection) => {
                let index = projection.schema.maybe_index_of_column(column)?;
                base_column(&projection.expr[index], &projection.input)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                // The alias renames the qualifier, the columns keep their places.
                let index = alias.schema.maybe_index_of_column(column)?;
                let (qualifier, field) = alias.input.schema().qualified_field(index);
                base_column(&Expr::Column((qualifier, field).into()), &alias.input)
            }
            LogicalPlan::Filter(filter) => base_column(expr, &filter.input),
            LogicalPlan::Join(join) => lookup::base_column_below(column, join),
            LogicalPlan::TableScan(_) => Some(column.name.clone()),
            LogicalPlan::Aggregate(aggregate) => {
                let index = aggregate.schema.maybe_index_of_column(column)?;
                base_column(aggregate.group_expr.get(index)?, &aggregate.input)
            }
            _ => None,
        },
        _ => None,
    }
}

/// A filter, a projection or a join with a lookup table, ready for batches.
#[derive(Debug)]
pub(crate) enum Step {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    /// A projection whose column at this place is an array, of which each value makes a row; an empty one or null makes none.
    Explode(Vec<Arc<dyn PhysicalExpr>>, SchemaRef, usize),
    Lookup(Box<LookupJoin>),
    /// Only above the aggregate, in complete mode; as is [`Step::Cut`].
    Order(Order),
    Cut(Cut),
}

impl Step {
    /// Applies the steps in order. `rows` follows the rows of `batch` through them.
    pub(crate) fn apply_all(steps: &[Self], mut batch: RecordBatch, mut rows: UInt32Array) -> Result<(RecordBatch, UInt32Array)> {
        for step in steps {
            match step {
                Self::Filter(predicate) => {
                    let keep = boolean(predicate, &batch)?;
                    if keep.true_count() < batch.num_rows() {
                        batch = filter_record_batch(&batch, &keep)?;
                        rows = filter(&rows, &keep)?.as_primitive().clone();
                    }
                }
                Self::Project(exprs, schema) => batch = project(exprs, schema, &batch)?,
                Self::Explode(exprs, schema, place) => (batch, rows) = explode(exprs, schema, *place, &batch, &rows)?,
                Self::Lookup(join) => (batch, rows) = join.apply(batch, rows)?,
                Self::Order(order) => (batch, rows) = order.apply(&batch, &rows)?,
                Self::Cut(cut) => (batch, rows) = cut.apply(&batch, &rows),
            }
        }
        Ok((batch, rows))
    }
}

/// A predicate's value for every row; null counts as false.
pub(crate) fn boolean(predicate: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray> {
    let values = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
    let values = values.as_boolean_opt().ok_or_else(|| DataFusionError::Execution("a condition does not give true or false".to_owned()))?;
    Ok(if values.null_count() > 0 { prep_null_mask_filter(values) } else { values.clone() })
}

fn project(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn explode(
    exprs: &[Arc<dyn PhysicalExpr>],
    schema: &SchemaRef,
    place: usize,
    batch: &RecordBatch,
    rows: &UInt32Array,
) -> Result<(RecordBatch, UInt32Array)> {
    let mut columns: Vec<ArrayRef> = exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect::<Result<_>>()?;
    let lists = columns[place].as_list_opt::<i32>();
    let lists = lists.ok_or_else(|| DataFusionError::Execution("explode() takes an array".to_owned()))?.clone();
    let (mut of_row, mut of_value) = (Vec::new(), Vec::new());
    let number = |place: usize| u32::try_from(place).map_err(|_| DataFusionError::Execution("too many values in one batch".to_owned()));
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let offsets = lists.value_offsets();
        for value in offsets[row]..offsets[row + 1] {
            of_row.push(number(row)?);
            of_value.push(value);
        }
    }
    let (of_row, of_value) = (UInt32Array::from(of_row), arrow::array::Int32Array::from(of_value));
    for (column, values) in columns.iter_mut().enumerate() {
        *values = if column == place { take(lists.values(), &of_value, None)? } else { take(values, &of_row, None)? };
    }
    let options = RecordBatchOptions::new().with_row_count(Some(of_row.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    Ok((batch, take(rows, &of_row, None)?.as_primitive().clone()))
}
