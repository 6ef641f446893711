//! SQL to a [`StreamQuery`]: DataFusion parses, types and plans; the analyzer coerces types; no optimizer, because its rules change the
//! shape that is matched here.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StructArray, TimestampMillisecondArray, UInt32Array, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result, TableReference, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::logical_plan::builder::LogicalTableSource;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_functions_aggregate::planner::AggregateFunctionPlanner;
use datafusion_optimizer::Analyzer;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, Statement, visit_expressions};

use super::ddl::parse_ddl;
use super::file::{FileError, OutputMode, QueryFile};
use super::fold::Aggregates;
use super::functions::{Functions, LazyChoices, SparkCasts, SparkExtract, SparkText, cut_sensitive, refused};
use super::keys::{GroupKeys, normalize};
use super::shape::{Scope, Shape, Step, base_column};
use super::sql;
use super::window::{WINDOW, WindowSpec, is_window, timestamp_type, window_fields, window_function};

/// A query that cannot run, with what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("query '{query}': {cause}")]
    Refused { query: String, cause: String },
    #[error("query '{query}' is named twice, in {first} and {second}; give one of them another name")]
    NamedTwice { query: String, first: PathBuf, second: PathBuf },
}

/// A query, ready for batches. It holds no state.
pub struct StreamQuery {
    pub file: QueryFile,
    /// The columns that a record is decoded into.
    pub schema: SchemaRef,
    /// Which of them is the event time.
    pub(crate) event_time: usize,
    /// Tells states of different queries apart: SQL, input, time settings and state layout.
    pub fingerprint: u64,
    pub(crate) scope: Scope,
    /// The column that each record's key must be; `None` when the query does not depend on it.
    pub(crate) partition_key: Option<usize>,
    /// `None`: the groups have no window; nothing is ever late, and no state is ever given up.
    pub(crate) window: Option<WindowSpec>,
    /// Where the window stands among the grouping columns.
    window_at: usize,
    /// WHERE and projections below the aggregate.
    pub(crate) before: Vec<Step>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The grouping columns other than the window.
    pub(crate) group_keys: GroupKeys,
    pub(crate) aggregates: Aggregates,
    /// State columns as rows.
    pub(crate) state_rows: GroupKeys,
    /// Grouping columns, then aggregates.
    groups: SchemaRef,
    /// HAVING and projections above the aggregate.
    pub(crate) after: Vec<Step>,
    /// The columns of a result row.
    pub output: SchemaRef,
}

impl fmt::Debug for StreamQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamQuery").field("name", &self.file.name).field("output", &self.output).finish_non_exhaustive()
    }
}

/// What the query reads, how it groups, and what it gives; for `processor check`.
impl fmt::Display for StreamQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = |schema: &Schema| {
            schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
        };
        let source = &self.file.source;
        writeln!(f, "query {} (fingerprint {:016x})", self.file.name, self.fingerprint)?;
        writeln!(f, "  reads   {}: {}", source.topic, columns(&self.schema))?;
        writeln!(f, "  time    {}, watermark {} behind, up to {} ahead", source.event_time, source.watermark, source.max_future)?;
        match self.window {
            Some(window) => writeln!(f, "  window  {} ms, every {} ms, starting at {} ms", window.size, window.slide, window.start)?,
            None => writeln!(f, "  window  none: state grows with the number of groups")?,
        }
        let owner = match self.scope {
            Scope::Partition => "each input partition on its own",
            Scope::Topic => "all input partitions together, in one processor",
        };
        writeln!(f, "  shards  {owner}")?;
        write!(f, "  gives   {}: {}", self.file.output_topic(), columns(&self.output))
    }
}

impl StreamQuery {
    /// Compiles a query file.
    ///
    /// # Errors
    /// One sentence that says what does not stream and what to write instead.
    pub fn compile(file: QueryFile) -> Result<Self, QueryError> {
        let query = file.name.clone();
        Compiler::new(file).and_then(Compiler::compile).map_err(|cause| QueryError::Refused { query, cause })
    }

    /// The grouping columns other than the window, for the rows of a batch that has passed [`StreamQuery::before`].
    pub(crate) fn key_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|key| Ok(normalize(key.evaluate(batch)?.into_array(batch.num_rows())?))).collect()
    }

    /// The result columns of no groups.
    pub(crate) fn no_results(&self) -> Vec<ArrayRef> {
        let keys = self.groups.fields().len() - self.aggregates.len();
        self.groups.fields()[keys..].iter().map(|field| new_empty_array(field.data_type())).collect()
    }

    /// The aggregate's output: grouping columns with the window in its place, then the results.
    pub(crate) fn group_batch(&self, starts: &[i64], keys: &[ArrayRef], results: Vec<ArrayRef>) -> Result<RecordBatch> {
        let mut columns = keys.to_vec();
        if let Some(window) = self.window {
            columns.insert(self.window_at, window_column(window, starts));
        }
        columns.extend(results);
        let columns = columns
            .into_iter()
            .zip(self.groups.fields())
            .map(|(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column),
                false => Ok(arrow::compute::cast(&column, field.data_type())?),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.groups), columns)?)
    }
}

fn window_column(window: WindowSpec, starts: &[i64]) -> ArrayRef {
    let times = |values: Vec<i64>| Arc::new(TimestampMillisecondArray::from(values).with_timezone("+00:00")) as ArrayRef;
    let ends = starts.iter().map(|start| window.end(*start)).collect();
    Arc::new(StructArray::new(window_fields(), vec![times(starts.to_vec()), times(ends)], None))
}

struct Compiler {
    file: QueryFile,
    schema: SchemaRef,
    event_time: usize,
}

impl Compiler {
    fn new(file: QueryFile) -> Result<Self, String> {
        let schema = parse_ddl(&file.source.schema).map_err(|fault| format!("source.schema: {fault}"))?;
        let name = &file.source.event_time;
        let event_time = schema
            .fields()
            .iter()
            .position(|field| field.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("source.event_time: there is no column '{name}' in source.schema"))?;
        if *schema.field(event_time).data_type() != timestamp_type() {
            return Err(format!("source.event_time: column '{name}' must be a TIMESTAMP"));
        }
        Ok(Self { file, schema, event_time })
    }

    fn compile(self) -> Result<StreamQuery, String> {
        let statement = sql::parse(&self.file.query.sql, &self.schema)?;
        let spelled = statement.to_string();
        let plan = self.plan(statement)?;
        check_functions(&plan)?;
        let shape = Shape::of(&plan)?;
        let aggregate = shape.aggregate;
        let (window_at, window) = self.window(&shape)?;
        if window.is_none() && self.file.query.output_mode == OutputMode::Append {
            return Err("append mode gives each row once, when its window closes, and this query has no window; \
                 use output_mode = \"update\", or group by window(...)"
                .into());
        }

        let input = aggregate.input.schema();
        let plain = |error: DataFusionError| sentence(&error);
        let mut keys = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        for (place, expr) in aggregate.group_expr.iter().enumerate().filter(|(place, _)| window.is_none() || *place != window_at) {
            keys.push(physical(expr, input).map_err(plain)?);
            fields.push(Arc::clone(&aggregate.schema.as_arrow().fields()[place]));
        }
        let aggregates = Aggregates::compile(&aggregate.aggr_expr, input).map_err(plain)?;
        let state_rows = GroupKeys::new(aggregates.state_fields().to_vec())
            .map_err(|error| format!("the state of one of the aggregates cannot be kept ({error}); use another aggregate"))?;
        let group_keys = GroupKeys::new(fields).map_err(|error| format!("cannot group by one of the columns: {error}"))?;
        let scope = self.scope(&shape);
        let key = &self.file.source.partition_key;
        let key_column = self.schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(key));
        let after = steps(&shape.after).map_err(plain)?;
        let groups = nullable(aggregate.schema.as_arrow());
        let output = after
            .iter()
            .rev()
            .find_map(|step| match step {
                Step::Project(_, schema) => Some(Arc::clone(schema)),
                Step::Filter(_) => None,
            })
            .unwrap_or_else(|| Arc::clone(&groups));
        check_output(&output)?;
        let before = steps(&shape.before).map_err(plain)?;
        check_constants(&before, &self.schema)?;
        check_constants(&after, &groups)?;
        Ok(StreamQuery {
            fingerprint: self.fingerprint(&spelled, group_keys.fields(), aggregates.state_fields()),
            scope,
            partition_key: key_column.filter(|_| scope == Scope::Partition),
            before,
            file: self.file,
            schema: self.schema,
            event_time: self.event_time,
            window,
            window_at,
            keys,
            group_keys,
            aggregates,
            state_rows,
            groups,
            after,
            output,
        })
    }

    fn plan(&self, statement: Statement) -> Result<LogicalPlan, String> {
        let catalog = Catalog::new(&self.file.source.topic, Arc::clone(&self.schema));
        if let ControlFlow::Break(fault) = visit_expressions(&statement, refused_call) {
            return Err(fault);
        }
        let options = ParserOptions::default()
            // Names were respelled to the schema's case already.
            .with_enable_ident_normalization(false)
            // As in Spark: 0.1 is a DECIMAL, 1e-1 and 0.1D are DOUBLE.
            .with_parse_float_as_decimal(true)
            .with_map_string_types_to_utf8view(false);
        let plan = SqlToRel::new_with_options(&catalog, options).sql_statement_to_plan(statement);
        let mut analyzer = Analyzer::new();
        // `if(n = 0, 0, s / n)` must not evaluate the branch that it does not take.
        analyzer.add_function_rewrite(Arc::new(LazyChoices));
        analyzer.add_function_rewrite(Arc::new(SparkCasts));
        let plan = plan.and_then(|plan| analyzer.execute_and_check(plan, &catalog.options, |_, _| {}));
        plan.map_err(|error| sentence(&error))
    }

    /// The one window call among the grouping columns.
    fn window(&self, shape: &Shape<'_>) -> Result<(usize, Option<WindowSpec>), String> {
        let aggregate = shape.aggregate;
        let mut found = None;
        for (place, expr) in aggregate.group_expr.iter().enumerate() {
            let Expr::ScalarFunction(call) = expr.clone().unalias() else {
                if matches!(expr, Expr::GroupingSet(_)) {
                    return Err("GROUPING SETS, CUBE and ROLLUP are not supported; run one query file per grouping".into());
                }
                continue;
            };
            if !is_window(&call.func) {
                continue;
            }
            if found.is_some() {
                return Err("the query groups by two windows; run one query file per window".into());
            }
            let (window, time) = WindowSpec::from_call(&call)?;
            let event_time = self.schema.field(self.event_time).name();
            if base_column(&time, &aggregate.input).as_deref() != Some(event_time.as_str()) {
                return Err(format!("window() must be over the event-time column '{event_time}', not {time}"));
            }
            found = Some((place, window));
        }
        Ok(found.map_or((0, None), |(place, window)| (place, Some(window))))
    }

    fn scope(&self, shape: &Shape<'_>) -> Scope {
        let key = &self.file.source.partition_key;
        let has_key = |expr: &Expr| base_column(expr, &shape.aggregate.input).is_some_and(|name| name.eq_ignore_ascii_case(key));
        if shape.aggregate.group_expr.iter().any(has_key) { Scope::Partition } else { Scope::Topic }
    }

    fn fingerprint(&self, spelled: &str, keys: &[FieldRef], states: &[FieldRef]) -> u64 {
        let source = &self.file.source;
        let types = |fields: &[FieldRef]| fields.iter().map(|field| format!("{:?}", field.data_type())).collect::<Vec<_>>().join(",");
        let parts = [
            spelled.to_owned(),
            source.topic.clone(),
            self.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(","),
            source.event_time.clone(),
            source.partition_key.clone(),
            source.watermark.millis().to_string(),
            source.max_future.millis().to_string(),
            types(keys),
            types(states),
        ];
        fnv1a(parts.join("\u{0}").as_bytes())
    }
}

/// FNV-1a, 64 bits: small, and the same in every release, which the standard library's hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}

/// Nullability is a planner's guess; a batch must never fail over it.
fn nullable(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| Field::new(field.name(), field.data_type().clone(), true);
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn steps(nodes: &[&LogicalPlan]) -> Result<Vec<Step>> {
    let step = |node: &&LogicalPlan| match node {
        LogicalPlan::Filter(filter) => Ok(Some(Step::Filter(physical(&filter.predicate, filter.input.schema())?))),
        LogicalPlan::Projection(projection) => {
            let exprs = projection.expr.iter().map(|expr| physical(expr, projection.input.schema())).collect::<Result<_>>()?;
            Ok(Some(Step::Project(exprs, nullable(projection.schema.as_arrow()))))
        }
        // A new name for what is below: columns are found by their place.
        _ => Ok(None),
    };
    nodes.iter().filter_map(|node| step(node).transpose()).collect()
}

/// An expression that fails without any row fails with every row: said now, and not when the first result is due.
fn check_constants(steps: &[Step], input: &SchemaRef) -> Result<(), String> {
    let no_rows = RecordBatch::new_empty(Arc::clone(input));
    match Step::apply_all(steps, no_rows, UInt32Array::from(Vec::<u32>::new())) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("an expression can never be computed: {}", sentence(&error))),
    }
}

fn refused_call(expr: &SqlExpr) -> ControlFlow<String> {
    match expr {
        SqlExpr::Function(function) => match refused(&function.name.to_string().to_lowercase()) {
            Some(fault) => ControlFlow::Break(format!("{}: {fault}", function.name)),
            None => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    }
}

/// Only immutable functions; and a word in the log about aggregates whose last digits depend on batches.
fn check_functions(plan: &LogicalPlan) -> Result<(), String> {
    let mut fault = None;
    let mut check = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            fault =
                Some(format!("{}() does not give the same value at every run; results must be a function of the log alone", call.name()));
            Ok(TreeNodeRecursion::Stop)
        }
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
            fault = Some("a subquery in an expression is not supported; compute it in a query of its own".to_owned());
            Ok(TreeNodeRecursion::Stop)
        }
        Expr::AggregateFunction(call) if cut_sensitive(call.func.name()) => {
            tracing::warn!(
                function = call.func.name(),
                "this aggregate is an approximation: its result may depend on how rows came in batches"
            );
            Ok(TreeNodeRecursion::Continue)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    };
    plan.apply(|node| {
        for expr in node.expressions() {
            expr.apply(&mut check)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| sentence(&error))?;
    fault.map_or(Ok(()), Err)
}

fn check_output(output: &Schema) -> Result<(), String> {
    for (place, field) in output.fields().iter().enumerate() {
        if output.fields().iter().take(place).any(|other| other.name() == field.name()) {
            return Err(format!("two result columns are named '{}'; give one of them another name with AS", field.name()));
        }
        if matches!(field.data_type(), DataType::Map(..) | DataType::Union(..)) {
            return Err(format!("the result column '{}' has a type that JSON rows cannot hold", field.name()));
        }
    }
    Ok(())
}

/// DataFusion's message without its internal layers.
fn sentence(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let mut rest = text.as_str();
    for layer in ["type_coercion", "caused by", "Error during planning: ", "Schema error: ", "SQL error: "] {
        rest = rest.trim_start().strip_prefix(layer).unwrap_or(rest).trim_start();
    }
    rest.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// What the planner may know: one table, our functions, no variables, no clock.
struct Catalog {
    table: String,
    source: Arc<dyn TableSource>,
    functions: Functions,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Catalog {
    fn new(table: &str, schema: SchemaRef) -> Self {
        Self {
            table: table.to_owned(),
            source: Arc::new(LogicalTableSource::new(schema)),
            functions: Functions::new(),
            planners: vec![
                Arc::new(super::division::SparkDivision),
                Arc::new(CoreFunctionPlanner::default()),
                Arc::new(SparkExtract),
                Arc::new(DatetimeFunctionPlanner),
                // Before DataFusion's own, which would take SUBSTRING and POSITION its way.
                Arc::new(SparkText),
                Arc::new(UnicodeFunctionPlanner),
                Arc::new(AggregateFunctionPlanner),
            ],
            options: ConfigOptions::default(),
        }
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        if name.to_string().replace('"', "").eq_ignore_ascii_case(&self.table) {
            return Ok(Arc::clone(&self.source));
        }
        plan_err!("there is no table '{name}'; select FROM {}, the topic of the source", self.table)
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name.eq_ignore_ascii_case(WINDOW) { Some(window_function()) } else { self.functions.scalar(name) }
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregate(name)
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
