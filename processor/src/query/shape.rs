//! Which plans stream: every node of a logical plan is accepted by name, or refused with what to write instead.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{Aggregate, Expr, LogicalPlan};
use datafusion_physical_expr::PhysicalExpr;

/// Whether one input partition has all rows of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The groups contain the partition key: each input partition is on its own.
    Partition,
    /// A group's rows are spread over the partitions: one owner reads all of them and merges their states for output.
    Topic,
}

/// The three parts of a plan that streams, each from the input to the output.
pub(crate) struct Shape<'a> {
    pub(crate) before: Vec<&'a LogicalPlan>,
    pub(crate) aggregate: &'a Aggregate,
    pub(crate) after: Vec<&'a LogicalPlan>,
}

impl<'a> Shape<'a> {
    /// Takes the plan apart.
    ///
    /// # Errors
    /// A sentence for the first node that does not stream.
    pub(crate) fn of(plan: &'a LogicalPlan) -> Result<Self, String> {
        let mut above = Vec::new();
        let mut below = Vec::new();
        let mut aggregate = None;
        let mut node = plan;
        loop {
            let side = if aggregate.is_none() { &mut above } else { &mut below };
            node = match node {
                LogicalPlan::Projection(projection) => {
                    side.push(node);
                    &projection.input
                }
                LogicalPlan::Filter(filter) => {
                    side.push(node);
                    &filter.input
                }
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                LogicalPlan::Aggregate(inner) if aggregate.is_none() => {
                    aggregate = Some(inner);
                    &inner.input
                }
                LogicalPlan::TableScan(_) => break,
                other => return Err(refusal(other)),
            };
        }
        let aggregate = aggregate.ok_or(
            "the query has no aggregate: a plain SELECT, which would run in append mode, is not supported yet; \
             group by a window, such as GROUP BY window(ts, '10 seconds')",
        )?;
        below.reverse();
        above.reverse();
        Ok(Self { before: below, aggregate, after: above })
    }
}

/// What to write instead of a node that does not stream.
fn refusal(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
            "ORDER BY and LIMIT need the whole result, so they only fit complete mode, which is not supported yet; sort where you read"
                .into()
        }
        LogicalPlan::Distinct(_) => {
            "SELECT DISTINCT is not supported yet; group by the columns and a window, with count(*), to see each value once a window".into()
        }
        LogicalPlan::Join(_) => "joins are not supported yet; send what you would join with the reading, or join where you read".into(),
        LogicalPlan::Union(_) => "UNION is not supported; run one query file per SELECT, all into the same topic".into(),
        LogicalPlan::Window(_) => {
            "OVER (...) needs rows in a final order, which a stream does not have; aggregate over window(ts, ...) instead".into()
        }
        LogicalPlan::Aggregate(_) => {
            "an aggregate over an aggregate is not supported yet; run two query files, the second with the first's topic as its input"
                .into()
        }
        LogicalPlan::Subquery(_) => "a subquery in an expression is not supported; compute it in a query of its own".into(),
        LogicalPlan::Unnest(_) => "unnest is not supported; send one record per value".into(),
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
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::TableScan(_) => {
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
            LogicalPlan::TableScan(_) => Some(column.name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// A filter or a projection, ready for batches.
#[derive(Debug)]
pub(crate) enum Step {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}

impl Step {
    /// Applies the steps in order. `rows` follows the rows of `batch` through the filters.
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
