//! SQL to a [`StreamQuery`]: DataFusion parses, types and plans; the analyzer coerces types; no optimizer, because its rules change the
//! shape that is matched here.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result, TableReference, plan_err};
use datafusion_expr::logical_plan::builder::LogicalTableSource;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_functions_aggregate::planner::AggregateFunctionPlanner;
use datafusion_optimizer::Analyzer;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{Expr as SqlExpr, Statement, visit_expressions};

use super::ddl::parse_ddl;
use super::describe::{Description, KEY_COLUMNS, PARTITIONS};
use super::file::{FileError, OutputMode, QueryFile, default_partition_key};
use super::functions::{Functions, LazyChoices, SparkCasts, SparkExtract, SparkText, cut_sensitive, exploded, is_explode, refused};
use super::grouping::{Grouping, Window, nullable, physical};
use super::identity::shown_groups;
use super::keys::GroupKeys;
use super::lookup::{self, LookupJoin, LookupTable};
use super::modes::Modal;
use super::order::{Cut, Order};
use super::read::columns_read;
use super::repartition;
use super::sentence::sentence;
use super::shape::{GroupNode, Scope, Shape, Stage, Step, base_column};
use super::sql;
use super::window::{
    SESSION_WINDOW, WINDOW, WindowSpec, is_session_window, is_window, session_from_call, session_window_function, timestamp_type,
    window_function,
};
use super::window_time::{WINDOW_TIME, is_window_time, window_time_function};
use super::zone::Zone;
use crate::format::decode::Decoder;

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
    /// The columns that a record has.
    pub schema: SchemaRef,
    /// Which of them the query reads. The values of the others are looked at, and not kept.
    read: Vec<bool>,
    /// Which of them is the event time.
    pub(crate) event_time: usize,
    /// The tables that it joins with the stream, with the columns that it uses.
    pub lookups: Vec<LookupTable>,
    /// Tells states of different queries apart: the hash of what the state follows from.
    pub fingerprint: u64,
    /// The same with the whole SQL in it, as earlier releases had it.
    pub(crate) whole_fingerprint: u64,
    pub(crate) description: Description,
    /// How many partitions the input has, once the log has said so.
    pub(crate) input_partitions: OnceLock<u32>,
    pub(crate) scope: Scope,
    /// The column that each record's key must be; `None` when the query does not depend on it.
    pub(crate) partition_key: Option<usize>,
    /// The column that has a timeline for each of its values; `None`: one timeline a partition.
    pub(crate) timeline: Option<Timeline>,
    pub(crate) dedup: Option<Dedup>,
    /// WHERE and projections below the first grouping, or all of a query without one.
    pub(crate) before: Vec<Step>,
    /// `None`: each row is a result.
    pub(crate) groups: Option<Grouping>,
    /// An aggregate over the first one's rows.
    pub(crate) second: Option<Second>,
    /// HAVING and projections above the last grouping; in complete mode ORDER BY and LIMIT.
    pub(crate) after: Vec<Step>,
    /// The names of the columns that tell a result row from the others of its window.
    pub(crate) key_names: Vec<String>,
    /// The columns of a result row.
    pub output: SchemaRef,
}

/// Rows that were there already are dropped by these columns.
pub(crate) struct Dedup {
    /// Of [`StreamQuery::schema`].
    pub(crate) columns: Vec<usize>,
    pub(crate) rows: GroupKeys,
}

/// Each value of a column has its own watermark.
pub(crate) struct Timeline {
    /// Of [`StreamQuery::schema`].
    pub(crate) column: usize,
    pub(crate) rows: GroupKeys,
    /// How far behind the partition a value may be before it is given up, milliseconds.
    pub(crate) max_silence: i64,
}

/// An aggregate over the rows of closed windows.
pub(crate) struct Second {
    /// What stands between the two aggregates.
    pub(crate) before: Vec<Step>,
    /// The event time of a row: its window, or the last instant of it.
    pub(crate) time: Arc<dyn PhysicalExpr>,
    pub(crate) grouping: Grouping,
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
        writeln!(f, "  reads   {}: {}", source.place(), columns(&self.schema))?;
        for table in &self.lookups {
            writeln!(f, "  joins   {table}")?;
        }
        writeln!(f, "  time    {}, watermark {} behind, up to {} ahead", source.event_time, source.watermark, source.max_future)?;
        match (&self.groups, &self.second) {
            (None, _) => writeln!(f, "  groups  none: each row is a result")?,
            (Some(first), None) => write_window(f, "window", first)?,
            (Some(first), Some(second)) => {
                write_window(f, "window", first)?;
                write_window(f, "  over ", &second.grouping)?;
            }
        }
        let owner = match self.scope {
            _ if !self.file.has_journal_topic() => "one, in one processor".to_owned(),
            Scope::Partition => "each input partition on its own".to_owned(),
            Scope::Topic if self.merges() > 0 => format!("each input partition on its own, and {} that merge their groups", self.merges()),
            Scope::Topic => "all input partitions together, in one processor".to_owned(),
        };
        writeln!(f, "  shards  {owner}")?;
        let sink = &self.file.sink;
        let place = match (&sink.path, sink.is_kafka()) {
            (_, true) => self.file.output_topic(),
            (Some(path), _) => format!("{} files in {}", sink.format.name(), path.display()),
            (None, _) => sink.format.name().to_owned(),
        };
        write!(f, "  gives   {place}: {}", columns(&self.output))?;
        if !self.file.has_journal_topic() {
            let kept = self.file.query.checkpoint.as_ref().map_or_else(|| "for this run only".to_owned(), |dir| dir.display().to_string());
            write!(f, "\n  state   {kept}")?;
        }
        Ok(())
    }
}

impl StreamQuery {
    /// Compiles a query file.
    ///
    /// # Errors
    /// One sentence that says what does not stream and what to write instead.
    pub fn compile(file: QueryFile) -> Result<Self, QueryError> {
        let query = file.name.clone();
        let work = || Compiler::new(file).and_then(Compiler::compile);
        with_room(work).map_err(|cause| QueryError::Refused { query, cause })
    }

    /// A decoder of the topic's records into the engine's batches.
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::reading(Arc::clone(&self.schema), |column| self.read[column])
    }

    /// The description as a journal holds it: with the number of input partitions where the state of one group lies in all of them.
    pub(crate) fn described(&self) -> Description {
        let mut description = self.description.clone();
        if let (Scope::Topic, Some(partitions)) = (self.scope, self.input_partitions.get()) {
            description.state(PARTITIONS, partitions.to_string());
        }
        description
    }

    /// How many shards merge what others have found in the input partitions; 0: who reads partitions gives their results, too.
    pub(crate) fn merges(&self) -> u32 {
        self.file.query.repartition
    }

    /// The grouping whose groups are the results.
    pub(crate) fn top(&self) -> Option<&Grouping> {
        self.second.as_ref().map(|second| &second.grouping).or(self.groups.as_ref())
    }

    /// Whether the whole result is given at each trigger. Then nothing is late and nothing is given up, as in Spark.
    pub(crate) fn is_complete(&self) -> bool {
        self.file.query.output_mode == OutputMode::Complete
    }

    /// Whether each result row is given once, when it is final.
    pub(crate) fn is_append(&self) -> bool {
        self.file.query.output_mode == OutputMode::Append
    }
}

/// Stack for parser and planner: they go as deep as an expression does, and only afterwards can it be refused.
const ROOM: usize = 64 << 20;

/// Runs `work` where there is room for it.
fn with_room<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    let said = tracing::dispatcher::get_default(Clone::clone);
    let work = move || tracing::dispatcher::with_default(&said, work);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".into()).stack_size(ROOM).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("there is no memory for a thread to compile it ({error})"))?;
        thread.join().unwrap_or_else(|fault| std::panic::resume_unwind(fault))
    })
}

fn write_window(f: &mut fmt::Formatter<'_>, what: &str, grouping: &Grouping) -> fmt::Result {
    match &grouping.window {
        Some(window) => writeln!(f, "  {what}  {window}"),
        None => writeln!(f, "  {what}  none: state grows with the number of groups"),
    }
}

struct Compiler {
    file: QueryFile,
    schema: SchemaRef,
    event_time: usize,
    lookups: Vec<LookupTable>,
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
        let key = &file.source.partition_key;
        let has_key = schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(key));
        // The default is a guess that need not fit.
        if !has_key && !key.is_empty() && *key != default_partition_key() {
            return Err(format!("source.partition_key: there is no column '{key}' in source.schema"));
        }
        let lookups = lookup::load(&file.lookups, &schema)?;
        Ok(Self { file, schema, event_time, lookups })
    }

    fn compile(mut self) -> Result<StreamQuery, String> {
        let mut statement = sql::parse(&self.file.query.sql, &lookup::merged(&self.schema, &self.lookups))?;
        if !self.lookups.is_empty() {
            self.lookups = lookup::spell(&mut statement, &self.file.source.topic, &self.lookups, &self.schema)?;
        }
        let spelled = statement.to_string();
        let plan = self.plan(statement)?;
        check_functions(&plan)?;
        check_window_calls(&plan)?;
        let mode = self.file.query.output_mode;
        let shape = Shape::of(&plan, mode == OutputMode::Complete)?;
        check_explodes(&plan, &shape)?;
        let plain = |error: DataFusionError| sentence(&error);
        let groups = match shape.stages.first() {
            Some(stage) => Some(Grouping::compile(&stage.node, self.window(&stage.node)?)?),
            None => None,
        };
        let second = match (shape.stages.as_slice(), &groups) {
            ([first, second], Some(inner)) => Some(self.second(first, second, inner)?),
            _ => None,
        };
        let groupings: Vec<&Grouping> = groups.iter().chain(second.as_ref().map(|second| &second.grouping)).collect();
        Modal { mode, groupings: &groupings }.check()?;

        let after = shape.stages.last().map_or(Ok(Vec::new()), |stage| steps(&stage.after)).map_err(plain)?;
        let before = steps(&shape.before).map_err(plain)?;
        let last = groupings.last().map_or_else(|| Arc::clone(&self.schema), |grouping| Arc::clone(&grouping.schema));
        let output = columns_after(if groupings.is_empty() { &before } else { &after }).unwrap_or(last);
        check_output(&output)?;
        let (scope, dedup) = (self.scope(&shape, &after), self.dedup()?);
        repartition::check(&self.file, scope, &groupings)?;
        let key = &self.file.source.partition_key;
        let key_column = self.schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(key));
        if let Some(grouping) = groupings.last() {
            check_constants(&after, &grouping.schema, None)?;
        }
        check_constants(&before, &self.schema, groups.as_ref())?;
        if let (Some(second), Some(inner)) = (&second, &groups) {
            check_constants(&second.before, &inner.schema, Some(&second.grouping))?;
        }
        // One owner of all partitions has all rows of a group, wherever they lie.
        let apart = self.file.has_journal_topic() || !self.file.source.watermark_by.is_empty();
        let keyed = self.file.source.is_kafka() && (dedup.is_some() || (scope == Scope::Partition && groups.is_some() && apart));
        let key_names = match groupings.last() {
            Some(grouping) => self.key_names(&plan, grouping),
            None => output.fields().iter().map(|field| field.name().clone()).filter(|name| name.eq_ignore_ascii_case(key)).collect(),
        };
        let (partition_key, timeline) = (key_column.filter(|_| keyed), self.timeline(&shape, scope)?);
        let mut read = columns_read(&plan, &self.schema)?;
        let named = dedup.iter().flat_map(|dedup| &dedup.columns).chain(&partition_key).chain(timeline.as_ref().map(|own| &own.column));
        named.chain([&self.event_time]).for_each(|column| read[*column] = true);
        // A join hands all columns on. The other sources make batches of the whole schema themselves, and put those that are decoded beside them.
        if !self.lookups.is_empty() || !self.file.source.is_kafka() {
            read.fill(true);
        }
        let mut description = self.describe(&shape, &groupings, scope, &spelled)?;
        description.output(KEY_COLUMNS, &key_names.join(", "));
        Ok(StreamQuery {
            fingerprint: fnv1a(format!("{:?}", description.state).as_bytes()),
            whole_fingerprint: self.whole_fingerprint(&spelled, &groupings)?,
            description,
            input_partitions: OnceLock::new(),
            scope,
            partition_key,
            timeline,
            dedup,
            before,
            file: self.file,
            schema: self.schema,
            read,
            event_time: self.event_time,
            lookups: self.lookups,
            groups,
            second,
            after,
            key_names,
            output,
        })
    }

    /// The names that the result gives the grouping columns other than the window.
    fn key_names(&self, plan: &LogicalPlan, grouping: &Grouping) -> Vec<String> {
        let fields = grouping.group_keys.fields();
        let mut shown = shown_groups(plan, fields.len() + usize::from(grouping.window.is_some()));
        if let Some(window) = grouping.window_place() {
            shown.remove(window);
        }
        let name = |(shown, field): (Option<String>, &FieldRef)| {
            shown.unwrap_or_else(|| {
                tracing::warn!(
                    query = self.file.name,
                    column = field.name(),
                    "the result does not show this column of GROUP BY, and a database would take the rows of its groups for one; select it"
                );
                field.name().clone()
            })
        };
        shown.into_iter().zip(fields).map(name).collect()
    }

    /// The aggregate over the aggregate.
    fn second(&self, first: &Stage<'_>, stage: &Stage<'_>, inner: &Grouping) -> Result<Second, String> {
        let plain = |error: DataFusionError| sentence(&error);
        let found = window_call(&stage.node, self.file.query.zone()?)?
            .ok_or("an aggregate over an aggregate needs a window over the inner one's window: GROUP BY window(w, '1 hour')")?;
        if let Window::Session { .. } = found.window {
            return Err("a session_window() over the rows of another aggregate is not supported; use window(w, '1 hour') there".into());
        }
        if !is_window_of(&found.time, stage.node.input(), inner) {
            return Err(format!(
                "the outer window must be over the window of the inner aggregate, or window_time() of it, not {}",
                found.time
            ));
        }
        let time = physical(&found.time, stage.node.input().schema()).map_err(plain)?;
        let grouping = Grouping::compile(&stage.node, Some((found.place, found.window)))?;
        Ok(Second { before: steps(&first.after).map_err(plain)?, time, grouping })
    }

    fn dedup(&self) -> Result<Option<Dedup>, String> {
        let (names, key) = (&self.file.source.drop_duplicates_within_watermark, &self.file.source.partition_key);
        if names.is_empty() {
            return Ok(None);
        }
        let columns = names.iter().map(|name| self.column("drop_duplicates_within_watermark", name)).collect::<Result<Vec<_>, _>>()?;
        if self.file.source.is_kafka() && !names.iter().any(|name| name.eq_ignore_ascii_case(key)) {
            return Err(format!(
                "source.drop_duplicates_within_watermark must contain the partition key '{key}': the same reading is looked for in its own \
                 partition only"
            ));
        }
        let fields = columns.iter().map(|column| Arc::new(self.schema.field(*column).clone())).collect();
        let rows = GroupKeys::new(fields).map_err(|error| format!("source.drop_duplicates_within_watermark: {error}"))?;
        Ok(Some(Dedup { columns, rows }))
    }

    fn timeline(&self, shape: &Shape<'_>, scope: Scope) -> Result<Option<Timeline>, String> {
        let name = &self.file.source.watermark_by;
        if name.is_empty() {
            return Ok(None);
        }
        let column = self.column("watermark_by", name)?;
        let is_column = |node: &GroupNode<'_>| {
            node.group_exprs().iter().any(|expr| base_column(expr, node.input()).is_some_and(|base| base.eq_ignore_ascii_case(name)))
        };
        let one_line = shape.stages.iter().all(|stage| is_column(&stage.node)) && shape.stages.len() < 2;
        if scope != Scope::Partition || !one_line {
            return Err(format!(
                "source.watermark_by: windows that close by the time of one '{name}' can hold its readings only; put {name} and the \
                 partition key '{}' into the GROUP BY of a query with one aggregate, or leave watermark_by out",
                self.file.source.partition_key
            ));
        }
        let rows =
            GroupKeys::new(vec![Arc::new(self.schema.field(column).clone())]).map_err(|error| format!("source.watermark_by: {error}"))?;
        Ok(Some(Timeline { column, rows, max_silence: self.file.source.max_silence.millis() }))
    }

    fn column(&self, setting: &str, name: &str) -> Result<usize, String> {
        let found = self.schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("source.{setting}: there is no column '{name}' in source.schema"))
    }

    fn plan(&self, statement: Statement) -> Result<LogicalPlan, String> {
        let catalog = Catalog::new(&self.file.source.topic, Arc::clone(&self.schema), &self.lookups);
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

    /// The window of a grouping over the input, and its place among the grouping columns.
    fn window(&self, node: &GroupNode<'_>) -> Result<Option<(usize, Window)>, String> {
        let event_time = self.schema.field(self.event_time).name();
        let is_event_time = |expr: &Expr| base_column(expr, node.input()).as_deref() == Some(event_time.as_str());
        match window_call(node, self.file.query.zone()?)? {
            Some(found) if is_event_time(&found.time) => Ok(Some((found.place, found.window))),
            Some(found) => Err(format!("the window must be over the event-time column '{event_time}', not {}", found.time)),
            // Grouped by the event time itself: a window of one instant, which closes as any other.
            None => {
                let place = node.group_exprs().iter().position(is_event_time);
                Ok(place.map(|place| (place, Window::Panes(WindowSpec::tumbling(1)))))
            }
        }
    }

    fn scope(&self, shape: &Shape<'_>, after: &[Step]) -> Scope {
        let key = &self.file.source.partition_key;
        // A source outside Kafka has one partition, with all rows of each group.
        if !self.file.source.is_kafka() {
            return Scope::Partition;
        }
        let Some(stage) = shape.stages.last() else { return Scope::Partition };
        let has_key = |expr: &Expr| base_column(expr, stage.node.input()).is_some_and(|name| name.eq_ignore_ascii_case(key));
        // An order is over all groups, wherever they are.
        let ordered = after.iter().any(|step| matches!(step, Step::Order(_) | Step::Cut(_)));
        if stage.node.group_exprs().iter().any(has_key) && !ordered { Scope::Partition } else { Scope::Topic }
    }

    fn describe(&self, shape: &Shape<'_>, groupings: &[&Grouping], scope: Scope, spelled: &str) -> Result<Description, String> {
        let mut description = Description::of(&self.file, &self.schema, shape, groupings, scope, spelled);
        if let Some(zone) = self.file.query.zone()? {
            let name = self.file.query.time_zone.as_deref().unwrap_or_default();
            description.state("query.time_zone", format!("{name} (rules {:016x})", fnv1a(zone.fingerprint().as_bytes())));
        }
        if self.file.query.repartition > 0 {
            description.state("query.repartition", self.file.query.repartition.to_string());
        }
        for table in &self.lookups {
            let (what, rows) = (format!("lookup {}", table.name), format!("rows {:016x}", table.contents()?));
            // A row without a group leaves nothing behind.
            if groupings.is_empty() { description.output(&what, &rows) } else { description.state(&what, rows) }
        }
        Ok(description)
    }

    /// As earlier releases wrote it into their journals: nothing may be added to it.
    fn whole_fingerprint(&self, spelled: &str, groupings: &[&Grouping]) -> Result<u64, String> {
        let source = &self.file.source;
        let types = |fields: &[FieldRef]| fields.iter().map(|field| format!("{:?}", field.data_type())).collect::<Vec<_>>().join(",");
        let mut parts = vec![
            spelled.to_owned(),
            source.topic.clone(),
            self.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(","),
            source.event_time.clone(),
            source.partition_key.clone(),
            source.watermark.millis().to_string(),
            source.max_future.millis().to_string(),
        ];
        for grouping in groupings {
            parts.extend([types(grouping.group_keys.fields()), types(grouping.aggregates.state_fields())]);
        }
        if self.file.query.output_mode == OutputMode::Complete {
            parts.push("complete".to_owned());
        }
        if !source.watermark_by.is_empty() {
            parts.push(format!("by {} {}", source.watermark_by, source.max_silence.millis()));
        }
        if !source.drop_duplicates_within_watermark.is_empty() {
            parts.push(format!("distinct {}", source.drop_duplicates_within_watermark.join(",")));
        }
        for table in &self.lookups {
            parts.push(format!("{} {:016x}", table.name, table.contents()?));
        }
        parts.extend(self.file.query.zone()?.map(Zone::fingerprint));
        Ok(fnv1a(parts.join("\u{0}").as_bytes()))
    }
}

/// A window call among grouping columns.
struct WindowCall {
    place: usize,
    window: Window,
    time: Expr,
}

/// The one window call of a grouping.
fn window_call(node: &GroupNode<'_>, zone: Option<&'static Zone>) -> Result<Option<WindowCall>, String> {
    let mut found = None;
    for (place, expr) in node.group_exprs().into_iter().enumerate() {
        let Expr::ScalarFunction(call) = expr.unalias() else { continue };
        let (window, time) = match () {
            () if is_window(&call.func) => WindowSpec::from_call(&call, zone).map(|(window, time)| (Window::Panes(window), time))?,
            () if is_session_window(&call.func) => session_from_call(&call).map(|(gap, time)| (Window::Session { gap }, time))?,
            () => continue,
        };
        if found.is_some() {
            return Err("the query groups by two windows; run one query file per window".into());
        }
        found = Some(WindowCall { place, window, time });
    }
    if node.group_exprs().iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Err("GROUPING SETS, CUBE and ROLLUP are not supported; run one query file per grouping".into());
    }
    Ok(found)
}

/// Whether `expr` is the window of the aggregate `inner`, or `window_time()` of it, seen through what lies between.
fn is_window_of(expr: &Expr, below: &LogicalPlan, inner: &Grouping) -> bool {
    match expr {
        Expr::Alias(alias) => is_window_of(&alias.expr, below, inner),
        Expr::ScalarFunction(call) if is_window_time(&call.func) => {
            call.args.first().is_some_and(|window| is_window_of(window, below, inner))
        }
        Expr::Column(column) => match below {
            LogicalPlan::Projection(projection) => projection
                .schema
                .maybe_index_of_column(column)
                .is_some_and(|index| is_window_of(&projection.expr[index], &projection.input, inner)),
            LogicalPlan::SubqueryAlias(alias) => alias.schema.maybe_index_of_column(column).is_some_and(|index| {
                let (qualifier, field) = alias.input.schema().qualified_field(index);
                is_window_of(&Expr::Column((qualifier, field).into()), &alias.input, inner)
            }),
            LogicalPlan::Filter(filter) => is_window_of(expr, &filter.input, inner),
            LogicalPlan::Join(join) => lookup::left_column(column, join).is_some_and(|left| is_window_of(&left, &join.left, inner)),
            LogicalPlan::Aggregate(aggregate) => aggregate.schema.maybe_index_of_column(column) == inner.window_place(),
            _ => false,
        },
        _ => false,
    }
}

/// The columns that steps leave; `None` when they change none.
fn columns_after(steps: &[Step]) -> Option<SchemaRef> {
    steps.iter().rev().find_map(|step| match step {
        Step::Project(_, schema) | Step::Explode(_, schema, _) => Some(Arc::clone(schema)),
        Step::Lookup(join) => join.schema().cloned(),
        Step::Filter(_) | Step::Order(_) | Step::Cut(_) => None,
    })
}

/// FNV-1a, 64 bits: small, and the same in every release, which the standard library's hasher does not promise.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

pub(super) fn steps(nodes: &[&LogicalPlan]) -> Result<Vec<Step>> {
    let step = |node: &&LogicalPlan| match node {
        LogicalPlan::Filter(filter) => Ok(Some(Step::Filter(physical(&filter.predicate, filter.input.schema())?))),
        LogicalPlan::Projection(projection) => {
            let made = |expr| physical(exploded(expr).unwrap_or(expr), projection.input.schema());
            let exprs = projection.expr.iter().map(made).collect::<Result<_>>()?;
            let schema = nullable(projection.schema.as_arrow());
            Ok(Some(match projection.expr.iter().position(|expr| exploded(expr).is_some()) {
                Some(place) => Step::Explode(exprs, schema, place),
                None => Step::Project(exprs, schema),
            }))
        }
        LogicalPlan::Sort(sort) => Ok(Some(Step::Order(Order::compile(sort)?))),
        LogicalPlan::Limit(limit) => Ok(Some(Step::Cut(Cut::compile(limit)?))),
        LogicalPlan::Join(join) => Ok(Some(Step::Lookup(Box::new(LookupJoin::compile(join)?)))),
        // A new name for what is below: columns are found by their place.
        _ => Ok(None),
    };
    nodes.iter().filter_map(|node| step(node).transpose()).collect()
}

/// An expression that fails without any row fails with every row: said now, and not when the first result is due.
fn check_constants(steps: &[Step], input: &SchemaRef, grouping: Option<&Grouping>) -> Result<(), String> {
    let compute = || {
        let no_rows = RecordBatch::new_empty(Arc::clone(input));
        let (batch, _) = Step::apply_all(steps, no_rows, UInt32Array::from(Vec::<u32>::new()))?;
        if let Some(grouping) = grouping {
            grouping.key_columns(&batch)?;
            grouping.aggregates.arguments(&batch)?;
        }
        Ok(())
    };
    compute().map_err(|error: DataFusionError| format!("an expression can never be computed: {}", sentence(&error)))
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

/// Windows are for GROUP BY: anywhere else there are no values to put in.
fn check_window_calls(plan: &LogicalPlan) -> Result<(), String> {
    let mut found = None;
    let mut look = |expr: &Expr| {
        if let Expr::ScalarFunction(call) = expr
            && (is_window(&call.func) || is_session_window(&call.func))
        {
            found = Some(call.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply(|node| {
        let grouped = if let LogicalPlan::Aggregate(aggregate) = node { aggregate.group_expr.len() } else { 0 };
        for expr in node.expressions().iter().skip(grouped) {
            expr.apply(&mut look)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| sentence(&error))?;
    found.map_or(Ok(()), |name| Err(format!("{name}() belongs into GROUP BY; group by it, and select {name}.start and {name}.end of it")))
}

/// Rows are made below a grouping, where they are only folded, or in a query without one.
fn check_explodes(plan: &LogicalPlan, shape: &Shape<'_>) -> Result<(), String> {
    let count = |node: &LogicalPlan| {
        let mut calls = 0;
        for expr in node.expressions() {
            expr.apply(|expr| {
                calls += usize::from(is_explode(expr));
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok::<usize, DataFusionError>(calls)
    };
    let mut all = 0;
    let counted = plan.apply(|node| {
        all += count(node)?;
        Ok(TreeNodeRecursion::Continue)
    });
    counted.map_err(|error| sentence(&error))?;
    let at_top = |node: &&LogicalPlan| match node {
        LogicalPlan::Projection(projection) => projection.expr.iter().filter(|expr| exploded(expr).is_some()).count(),
        _ => 0,
    };
    let placed: Vec<usize> = shape.before.iter().map(at_top).collect();
    match () {
        () if placed.iter().any(|calls| *calls > 1) => Err("a SELECT has one explode() only; write the others around it".into()),
        () if placed.iter().sum::<usize>() != all => Err("explode() stands alone in the SELECT list of a subquery, below any aggregate: \
             SELECT ... FROM (SELECT explode(split(value, ' ')) AS word, ts FROM ...) GROUP BY ..."
            .into()),
        () => Ok(()),
    }
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

/// What the planner may know: the stream, the lookup tables, our functions, no variables, no clock.
struct Catalog {
    table: String,
    source: Arc<dyn TableSource>,
    lookups: Vec<(String, Arc<dyn TableSource>)>,
    functions: Functions,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Catalog {
    fn new(table: &str, schema: SchemaRef, lookups: &[LookupTable]) -> Self {
        Self {
            table: table.to_owned(),
            source: Arc::new(LogicalTableSource::new(schema)),
            lookups: lookups.iter().map(|table| (table.name.clone(), table.source())).collect(),
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
        if let Some((_, source)) = self.lookups.iter().find(|(table, _)| name.table().eq_ignore_ascii_case(table)) {
            return Ok(Arc::clone(source));
        }
        plan_err!(
            "there is no table '{name}'; select FROM {}, the topic of the source, or name a file of that table under [[lookup]]",
            self.table
        )
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        match name.to_lowercase().as_str() {
            WINDOW => Some(window_function()),
            SESSION_WINDOW => Some(session_window_function()),
            WINDOW_TIME => Some(window_time_function()),
            _ => self.functions.scalar(name),
        }
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
