//! The names of tables in the SQL: spelled alike everywhere, as Spark's ignore case; and which columns of the lookup tables it names.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem, Statement, TableAlias, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};

use super::table::{LookupTable, merged};

/// Spells the names of tables and of their aliases, and gives the tables with the columns that the statement names: what it leaves out is
/// neither looked up nor part of the query's identity.
///
/// # Errors
/// When a table is not used.
pub(crate) fn spell(
    statement: &mut Statement,
    topic: &str,
    tables: &[LookupTable],
    stream: &arrow::datatypes::Schema,
) -> Result<Vec<LookupTable>, String> {
    let known = std::iter::once(topic).chain(tables.iter().map(|table| table.name.as_str()));
    let columns = merged(stream, tables).fields().iter().map(|field| (field.name().to_lowercase(), field.name().clone())).collect();
    let mut names = Names {
        tables: known.map(|name| (name.to_lowercase(), name.to_owned())).collect(),
        columns,
        used: HashSet::new(),
        named: HashSet::new(),
        all: false,
    };
    let ControlFlow::Continue(()) = statement.visit(&mut names);
    let ControlFlow::Continue(()) = statement.visit(&mut Qualifiers(&mut names));
    // A name that is not known is the likelier fault, and the planner tells it.
    let known = names.used.iter().all(|table| names.tables.contains_key(table));
    if let Some(idle) = tables.iter().find(|table| known && !names.used.contains(&table.name.to_lowercase())) {
        return Err(format!("the SQL does not use the lookup table '{}'; join it, or leave its [[lookup]] out", idle.name));
    }
    tables.iter().map(|table| table.with_columns(|column| names.all || names.named.contains(&column.to_lowercase()))).collect()
}

/// Tables, aliases, and the columns of USING.
struct Names {
    /// The spelling of tables and aliases by their lower-case names.
    tables: HashMap<String, String>,
    /// The spelling of columns by their lower-case names.
    columns: HashMap<String, String>,
    /// Tables that are read, lower case.
    used: HashSet<String>,
    /// Columns that are named, lower case.
    named: HashSet<String>,
    /// Every column is named, by a star or by its place.
    all: bool,
}

impl Names {
    fn table(&mut self, name: &mut ObjectName) {
        if let [ObjectNamePart::Identifier(ident)] = name.0.as_mut_slice() {
            let lower = ident.value.to_lowercase();
            if let Some(spelled) = self.tables.get(&lower) {
                ident.value.clone_from(spelled);
            }
            self.used.insert(lower);
        }
    }

    fn alias(&mut self, alias: &mut TableAlias) {
        let spelled = self.tables.entry(alias.name.value.to_lowercase()).or_insert_with(|| alias.name.value.clone());
        alias.name.value.clone_from(spelled);
        self.all |= !alias.columns.is_empty();
    }

    fn joins(&mut self, from: &mut TableWithJoins) {
        for constraint in from.joins.iter_mut().filter_map(|join| constraint(&mut join.join_operator)) {
            match constraint {
                JoinConstraint::Using(names) => names.iter_mut().for_each(|name| self.shared_column(name)),
                JoinConstraint::Natural => self.all = true,
                JoinConstraint::On(_) | JoinConstraint::None => {}
            }
        }
    }

    fn shared_column(&mut self, name: &mut ObjectName) {
        if let [ObjectNamePart::Identifier(ident)] = name.0.as_mut_slice() {
            let lower = ident.value.to_lowercase();
            if let Some(spelled) = self.columns.get(&lower) {
                ident.value.clone_from(spelled);
            }
            self.named.insert(lower);
        }
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::LeftAnti(constraint) => Some(constraint),
        // The others are refused.
        _ => None,
    }
}

impl VisitorMut for Names {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Infallible> {
        query.with.iter_mut().flat_map(|with| &mut with.cte_tables).for_each(|table| self.alias(&mut table.alias));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Infallible> {
        select.from.iter_mut().for_each(|from| self.joins(from));
        self.all |= select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Infallible> {
        let alias = match factor {
            TableFactor::Table { name, alias, .. } => {
                self.table(name);
                alias
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.joins(table_with_joins);
                alias
            }
            TableFactor::Derived { alias, .. } => alias,
            _ => return ControlFlow::Continue(()),
        };
        if let Some(alias) = alias {
            self.alias(alias);
        }
        ControlFlow::Continue(())
    }
}

/// The tables before the dots of columns; a second walk, because a SELECT list stands before the FROM that names them.
struct Qualifiers<'a>(&'a mut Names);

impl VisitorMut for Qualifiers<'_> {
    type Break = Infallible;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        let parts: &mut [Ident] = match expr {
            Expr::Identifier(ident) => std::slice::from_mut(ident),
            Expr::CompoundIdentifier(idents) => idents,
            _ => return ControlFlow::Continue(()),
        };
        self.0.named.extend(parts.iter().map(|part| part.value.to_lowercase()));
        if let [table, _] = parts
            && let Some(spelled) = self.0.tables.get(&table.value.to_lowercase())
        {
            table.value.clone_from(spelled);
        }
        ControlFlow::Continue(())
    }
}
