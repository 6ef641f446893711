//! Spark's spelling of a query, made into what DataFusion's planner takes.
//!
//! - `window.start`, `window.end` and plain `window` (or an alias of the call) stand for the window call of the GROUP BY: they are
//!   replaced by field access on that call.
//! - Spark's identifiers ignore case: those that name an input column get the column's spelling.

use std::collections::HashMap;
use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::ast::{AccessExpr, Expr, GroupByExpr, Ident, Select, SelectItem, Statement, Value, VisitMut, VisitorMut};

use super::dialect;
use super::window::{SESSION_WINDOW, WINDOW};

/// Parses one SELECT in Spark's dialect and spells it for the planner.
///
/// # Errors
/// When the text is not one query.
pub(crate) fn parse(sql: &str, schema: &Schema) -> Result<Statement, String> {
    let mut statements = dialect::statements(sql).map_err(|error| format!("the SQL cannot be read: {error}"))?;
    let (Some(mut statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err("the SQL must be one SELECT".into());
    };
    if !matches!(statement, Statement::Query(_)) {
        return Err(format!("the SQL must be a SELECT; '{}' does not stream", first_word(&statement.to_string())));
    }
    let mut depth = Depth::default();
    if let ControlFlow::Break(()) = statement.visit(&mut depth) {
        return Err(format!(
            "an expression is more than {DEEPEST} operations deep; write a list as x IN (...), and a long sum or condition in pieces with brackets"
        ));
    }
    dialect::respell(&mut statement);
    let columns = schema.fields().iter().map(|field| (field.name().to_lowercase(), field.name().clone())).collect();
    let mut speller = Speller { columns };
    let ControlFlow::Continue(()) = statement.visit(&mut speller);
    Ok(statement)
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Expressions nest this deep at most: they are evaluated by recursion, in threads with an ordinary stack.
const DEEPEST: usize = 400;

#[derive(Default)]
struct Depth(usize);

impl VisitorMut for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 > DEEPEST { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

struct Speller {
    /// Input columns by their lower-case names.
    columns: HashMap<String, String>,
}

impl VisitorMut for Speller {
    type Break = std::convert::Infallible;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        let names = WindowNames::of(select, &self.columns);
        if !names.by_name.is_empty() {
            for item in &mut select.projection {
                names.name_item(item);
            }
            let ControlFlow::Continue(()) = select.visit(&mut names.replacer());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let respell = |ident: &mut Ident| {
            if let Some(name) = self.columns.get(&ident.value.to_lowercase()) {
                ident.value.clone_from(name);
            }
        };
        match expr {
            Expr::Identifier(ident) => respell(ident),
            Expr::CompoundIdentifier(idents) => {
                if let Some(last) = idents.last_mut() {
                    respell(last);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// What stands for the window call in one SELECT: `window`, or the alias that the select list gives it.
struct WindowNames {
    by_name: HashMap<String, Expr>,
}

impl WindowNames {
    fn of(select: &Select, columns: &HashMap<String, String>) -> Self {
        let mut by_name = HashMap::new();
        if let GroupByExpr::Expressions(keys, _) = &select.group_by {
            for (name, key) in keys.iter().filter_map(|key| Some((window_call(key)?, key))) {
                // A column of that name hides the function's, as in any SQL scope.
                if !columns.contains_key(name) {
                    by_name.insert(name.to_owned(), key.clone());
                }
            }
        }
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { expr, alias } = item
                && window_call(expr).is_some()
            {
                by_name.insert(alias.value.to_lowercase(), expr.clone());
            }
        }
        Self { by_name }
    }

    /// `SELECT window.start` makes a column `start`, as in Spark.
    fn name_item(&self, item: &mut SelectItem) {
        let SelectItem::UnnamedExpr(expr) = item else { return };
        let name = match &*expr {
            Expr::CompoundIdentifier(idents) => self.field_of(idents).map(|_| idents[1].value.clone()),
            Expr::Identifier(ident) => self.by_name.contains_key(&ident.value.to_lowercase()).then(|| ident.value.clone()),
            Expr::CompoundFieldAccess { .. } => bound_of_call(expr).map(|(_, bound)| bound),
            expr => window_call(expr).map(str::to_owned),
        };
        if let Some(name) = name {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
        }
    }

    fn field_of(&self, idents: &[Ident]) -> Option<Expr> {
        let [name, field] = idents else { return None };
        let call = self.by_name.get(&name.value.to_lowercase())?;
        let field = field.value.to_lowercase();
        matches!(field.as_str(), "start" | "end").then(|| get_field(call.clone(), &field))
    }

    fn replacer(&self) -> Replacer<'_> {
        Replacer { names: self, calls: 0 }
    }
}

struct Replacer<'a> {
    names: &'a WindowNames,
    /// How many window calls the visitor is inside: there, names are those of the input.
    calls: usize,
}

impl VisitorMut for Replacer<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.calls += usize::from(window_call(expr).is_some());
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.calls -= usize::from(window_call(expr).is_some());
        let replacement = match expr {
            _ if self.calls > 0 => None,
            Expr::CompoundIdentifier(idents) => self.names.field_of(idents),
            Expr::Identifier(ident) => self.names.by_name.get(&ident.value.to_lowercase()).cloned(),
            Expr::CompoundFieldAccess { .. } => bound_of_call(expr).map(|(call, bound)| get_field(call, &bound.to_lowercase())),
            _ => None,
        };
        if let Some(replacement) = replacement {
            *expr = replacement;
        }
        ControlFlow::Continue(())
    }
}

/// The call and the name of the bound in `window(ts, '1 minute').start`.
fn bound_of_call(expr: &Expr) -> Option<(Expr, String)> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
    let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() else { return None };
    let is_bound = ["start", "end"].iter().any(|bound| field.value.eq_ignore_ascii_case(bound));
    (is_bound && window_call(root).is_some()).then(|| (root.as_ref().clone(), field.value.clone()))
}

/// Which of the window functions an expression calls.
fn window_call(expr: &Expr) -> Option<&'static str> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.to_string();
    [WINDOW, SESSION_WINDOW].into_iter().find(|known| name.eq_ignore_ascii_case(known))
}

fn get_field(base: Expr, field: &str) -> Expr {
    dialect::call("get_field", vec![base, Expr::Value(Value::SingleQuotedString(field.to_owned()).into())])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn spelled(sql: &str) -> String {
        let field = |name: &str| Field::new(name, DataType::Utf8, true);
        parse(sql, &Schema::new(vec![field("ts"), field("sensorId")])).unwrap().to_string()
    }

    #[test]
    fn window_fields_become_field_access() {
        assert_eq!(
            spelled("SELECT window.start, window.END AS e FROM iot GROUP BY window(ts, '10 seconds')"),
            "SELECT get_field(window(ts, '10 seconds'), 'start') AS start, get_field(window(ts, '10 seconds'), 'end') AS e \
             FROM iot GROUP BY window(ts, '10 seconds')"
        );
    }

    #[test]
    fn an_alias_of_the_call_works_too() {
        assert_eq!(
            spelled("SELECT window(ts, '1 minute') AS w, w.start AS s FROM iot GROUP BY w"),
            "SELECT window(ts, '1 minute') AS w, get_field(window(ts, '1 minute'), 'start') AS s FROM iot GROUP BY window(ts, '1 minute')"
        );
    }

    #[test]
    fn the_call_itself_has_bounds_too() {
        assert_eq!(
            spelled("SELECT window(ts, '1 minute').start, count(*) FROM iot GROUP BY window(ts, '1 minute')"),
            "SELECT get_field(window(ts, '1 minute'), 'start') AS start, count(*) FROM iot GROUP BY window(ts, '1 minute')"
        );
    }

    #[test]
    fn inside_the_call_names_are_those_of_the_input() {
        assert_eq!(
            spelled(
                "SELECT window.start AS s FROM (SELECT window FROM iot GROUP BY window(ts, '1 minute')) GROUP BY window(window, '1 hour')"
            ),
            "SELECT get_field(window(window, '1 hour'), 'start') AS s FROM (SELECT window(ts, '1 minute') AS window FROM iot \
             GROUP BY window(ts, '1 minute')) GROUP BY window(window, '1 hour')"
        );
    }

    #[test]
    fn columns_are_found_in_any_case() {
        assert_eq!(spelled("SELECT SENSORID, iot.TS FROM iot"), "SELECT sensorId, iot.ts FROM iot");
    }

    #[test]
    fn only_one_select_is_taken() {
        let schema = Schema::empty();
        for sql in ["SELECT 1; SELECT 2", "DROP TABLE iot", "", "SELEC x"] {
            assert!(parse(sql, &schema).is_err(), "{sql}");
        }
    }
}
