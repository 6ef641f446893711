//! Which joins stream: the stream on the left, a lookup table on the right, an equality between them.

use std::any::Any;

use datafusion_common::{Column, JoinType, Result};
use datafusion_expr::utils::{find_valid_equijoin_key_pair, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator, TableScan};

use super::table::{LookupSource, LookupTable};
use crate::query::shape::base_column;

const AMONG_THEMSELVES: &str = "joins of lookup tables with each other are not supported; join the stream with one after another: \
                                FROM topic JOIN table1 ON ... JOIN table2 ON ...";

/// Accepts a join of the stream with a lookup table.
///
/// # Errors
/// What to write instead of any other join.
pub(crate) fn check_join(join: &Join) -> Result<(), String> {
    match (reads_stream(&join.left), reads_stream(&join.right)) {
        (true, false) => {}
        (true, true) => {
            return Err("joins of a stream with a stream, or with itself, are not supported; send what you would join with the reading, \
                        or join where you read; a table that does not change can be joined as a [[lookup]]"
                .into());
        }
        (false, true) => {
            return Err("a lookup table stands on the left of a join; put the stream first: FROM topic JOIN table ON ...".into());
        }
        (false, false) => return Err(AMONG_THEMSELVES.into()),
    }
    match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => {}
        other => {
            return Err(format!(
                "{} JOIN gives rows of the lookup table that no reading has matched, and on a stream one still could; \
                 write JOIN, or LEFT JOIN to keep readings without a match",
                other.to_string().to_uppercase()
            ));
        }
    }
    table_side(&join.right)?;
    let condition = Condition::of(join).map_err(|error| error.strip_backtrace())?;
    if condition.keys.is_empty() {
        return Err("a join with a lookup table needs an equality of a column of each side, such as \
                    JOIN sensors ON iot.sensor_id = sensors.sensor_id"
            .into());
    }
    Ok(())
}

/// Refuses a lookup table where the stream should be.
pub(crate) fn check_scan(scan: &TableScan) -> Result<(), String> {
    match lookup_of(scan) {
        Some(table) => Err(format!("the query reads the lookup table '{}' and no stream; select FROM the topic, and join it", table.name)),
        None => Ok(()),
    }
}

fn lookup_of(scan: &TableScan) -> Option<&LookupTable> {
    (scan.source.as_ref() as &dyn Any).downcast_ref::<LookupSource>().map(|source| &source.0)
}

fn reads_stream(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => lookup_of(scan).is_none(),
        other => other.inputs().into_iter().any(reads_stream),
    }
}

/// A lookup table, and the filters and projections of a subquery over it, the nearest to the table first.
pub(super) fn table_side(plan: &LogicalPlan) -> Result<(&LookupTable, Vec<&LogicalPlan>), String> {
    let (mut node, mut nodes) = (plan, Vec::new());
    loop {
        node = match node {
            LogicalPlan::Projection(projection) => {
                nodes.push(node);
                &projection.input
            }
            LogicalPlan::Filter(filter) => {
                nodes.push(node);
                &filter.input
            }
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::TableScan(scan) => {
                nodes.reverse();
                let table = lookup_of(scan).ok_or("the stream stands where a lookup table should be")?;
                return Ok((table, nodes));
            }
            LogicalPlan::Join(_) => return Err(AMONG_THEMSELVES.into()),
            other => {
                return Err(format!(
                    "the lookup side of a join can be a table, or a subquery that filters one and computes columns, but not this: {}; \
                     put it into the file",
                    other.display()
                ));
            }
        };
    }
}

/// An ON condition, taken apart.
#[derive(Default)]
pub(super) struct Condition {
    /// Equalities: of the stream, of the table.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// What only looks at the table, and so holds for all rows of the stream or for none.
    pub(super) table: Vec<Expr>,
    pub(super) rest: Vec<Expr>,
}

impl Condition {
    pub(super) fn of(join: &Join) -> Result<Self> {
        let (left, right) = (join.left.schema(), join.right.schema());
        let mut condition = Self { keys: join.on.clone(), ..Self::default() };
        for part in join.filter.iter().flat_map(split_conjunction) {
            let pair = match part {
                Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: other }) => {
                    find_valid_equijoin_key_pair(one, other, left, right)?
                }
                _ => None,
            };
            let columns = part.column_refs();
            if let Some(pair) = pair {
                condition.keys.push(pair);
            } else if !columns.is_empty() && columns.iter().all(|column| right.is_column_from_schema(column)) {
                condition.table.push(part.clone());
            } else {
                condition.rest.push(part.clone());
            }
        }
        Ok(condition)
    }
}

/// What a column above a join is on the stream's side of it; `None` for a column of the table.
pub(crate) fn left_column(column: &Column, join: &Join) -> Option<Expr> {
    let place = join.schema.maybe_index_of_column(column)?;
    let left = join.left.schema();
    (place < left.fields().len()).then(|| Expr::Column(left.qualified_field(place).into()))
}

/// The column of the stream that a column above a join is; see [`base_column`].
///
/// A key of the table is its counterpart in the stream where there is always a match.
pub(crate) fn base_column_below(column: &Column, join: &Join) -> Option<String> {
    if let Some(left) = left_column(column, join) {
        return base_column(&left, &join.left);
    }
    if join.join_type != JoinType::Inner {
        return None;
    }
    let condition = Condition::of(join).ok()?;
    let same = |(_, table): &&(Expr, Expr)| matches!(table, Expr::Column(key) if key == column);
    base_column(&condition.keys.iter().find(same)?.0, &join.left)
}
