//! One GROUP BY, ready for batches: its window, its other keys, its aggregates, and the rows that they make.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StructArray, TimestampMillisecondArray, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, Operator};
use datafusion_physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use super::fold::Aggregates;
use super::keys::{GroupKeys, normalize};
use super::sentence::sentence;
use super::shape::GroupNode;
use super::window::{WindowSpec, window_fields};

/// What cuts event time into groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Window {
    /// Tumbling and hopping windows, and GROUP BY the event time itself, which is a window of one millisecond.
    Panes(WindowSpec),
    /// Windows that end when a group has been silent for this long, milliseconds.
    Session { gap: i64 },
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panes(window) => window.fmt(f),
            Self::Session { gap } => write!(f, "sessions that end after {gap} ms of silence"),
        }
    }
}

/// The grouping of one aggregate, or of a DISTINCT, which has keys and no aggregates.
pub(crate) struct Grouping {
    /// `None`: the groups have no window; nothing is ever late, and no state is ever given up.
    pub(crate) window: Option<Window>,
    /// Where the window stands among the grouping columns.
    window_at: usize,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The grouping columns other than the window.
    pub(crate) group_keys: GroupKeys,
    pub(crate) aggregates: Aggregates,
    /// State columns as rows.
    pub(crate) state_rows: GroupKeys,
    /// Grouping columns, then aggregates.
    pub(crate) schema: SchemaRef,
    /// A DISTINCT: a group shows once, when it is first seen.
    pub(crate) distinct: bool,
}

impl Grouping {
    /// `window` is the window and its place among the grouping columns.
    ///
    /// # Errors
    /// When an expression cannot be evaluated, or a key or a state cannot be kept.
    pub(crate) fn compile(node: &GroupNode<'_>, window: Option<(usize, Window)>) -> std::result::Result<Self, String> {
        let plain = |error: DataFusionError| sentence(&error);
        let input = node.input().schema();
        let (window_at, window) = window.map_or((usize::MAX, None), |(place, window)| (place, Some(window)));
        let schema = node.schema();
        let (mut keys, mut fields): (Vec<_>, Vec<FieldRef>) = (Vec::new(), Vec::new());
        for (place, expr) in node.group_exprs().iter().enumerate().filter(|(place, _)| *place != window_at) {
            keys.push(physical(expr, input).map_err(plain)?);
            fields.push(Arc::clone(&schema.fields()[place]));
        }
        let aggregates = Aggregates::compile(node.calls(), input).map_err(plain)?;
        let state_rows = GroupKeys::new(aggregates.state_fields().to_vec())
            .map_err(|error| format!("the state of one of the aggregates cannot be kept ({error}); use another aggregate"))?;
        let group_keys = GroupKeys::new(fields).map_err(|error| format!("cannot group by one of the columns: {error}"))?;
        let distinct = matches!(node, GroupNode::Distinct(_));
        Ok(Self { window, window_at, keys, group_keys, aggregates, state_rows, schema: nullable(schema), distinct })
    }

    /// Where the window stands among the grouping columns.
    pub(crate) fn window_place(&self) -> Option<usize> {
        self.window.is_some().then_some(self.window_at)
    }

    /// The window when it is made of panes.
    pub(crate) fn panes(&self) -> Option<&WindowSpec> {
        match &self.window {
            Some(Window::Panes(window)) => Some(window),
            Some(Window::Session { .. }) | None => None,
        }
    }

    /// The gap when the window is a session.
    pub(crate) fn session_gap(&self) -> Option<i64> {
        match self.window {
            Some(Window::Session { gap }) => Some(gap),
            Some(Window::Panes(_)) | None => None,
        }
    }

    /// The grouping columns other than the window, for the rows of a batch.
    pub(crate) fn key_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|key| Ok(normalize(key.evaluate(batch)?.into_array(batch.num_rows())?))).collect()
    }

    /// The result columns of no groups.
    pub(crate) fn no_results(&self) -> Vec<ArrayRef> {
        let keys = self.schema.fields().len() - self.aggregates.len();
        self.schema.fields()[keys..].iter().map(|field| new_empty_array(field.data_type())).collect()
    }

    /// The aggregate's output: grouping columns with the window in its place, then the results. `windows` are starts and ends,
    /// milliseconds.
    pub(crate) fn group_batch(&self, windows: &[(i64, i64)], keys: &[ArrayRef], results: Vec<ArrayRef>) -> Result<RecordBatch> {
        let mut columns = keys.to_vec();
        if self.window.is_some() {
            columns.insert(self.window_at, self.window_column(windows));
        }
        columns.extend(results);
        let columns = columns
            .into_iter()
            .zip(self.schema.fields())
            .map(|(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column),
                false => Ok(arrow::compute::cast(&column, field.data_type())?),
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(windows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// The struct of start and end, or only the start for a GROUP BY over the event time itself.
    fn window_column(&self, windows: &[(i64, i64)]) -> ArrayRef {
        let times = |bound: fn(&(i64, i64)) -> i64| {
            Arc::new(TimestampMillisecondArray::from_iter_values(windows.iter().map(bound)).with_timezone("+00:00")) as ArrayRef
        };
        if !matches!(self.schema.field(self.window_at).data_type(), DataType::Struct(_)) {
            return times(|window| window.0);
        }
        Arc::new(StructArray::new(window_fields(), vec![times(|window| window.0), times(|window| window.1)], None))
    }
}

pub(crate) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    checked(create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?, schema.as_arrow())
}

/// The same expression, in which a result that does not fit its type is an error, as in Spark, and not another number.
pub(crate) fn checked(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let check = |expr: Arc<dyn PhysicalExpr>| {
        let checked = |left, op, right| Ok(Transformed::yes(Arc::new(BinaryExpr::new(left, op, right).with_fail_on_overflow(true)) as _));
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>()
            && matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
        {
            return checked(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()));
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            let kind = negative.arg().data_type(schema)?;
            if kind.is_signed_integer() {
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&kind)?));
                return checked(zero, Operator::Minus, Arc::clone(negative.arg()));
            }
        }
        Ok(Transformed::no(expr))
    };
    expr.transform_up(check).data()
}

/// Nullability is a planner's guess; a batch must never fail over it.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| Field::new(field.name(), field.data_type().clone(), true);
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}
