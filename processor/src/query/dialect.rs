//! Spark's spellings that the parser or the planner does not know, replaced before planning by what they mean: `1.5D`, `a DIV b`, `~a`,
//! `x RLIKE p`, `string(x)`, `count(DISTINCT a, b)`, `listagg(x) WITHIN GROUP (...)`, and the functions of
//! [`MACROS`].

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DuplicateTreatment, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Select, SelectItem, Statement, UnaryOperator,
    Value, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::dialect::SparkSqlDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::functions::{CASTS, MACROS, WITH_UNIT};

const DIALECT: SparkSqlDialect = SparkSqlDialect {};

/// The statements of a text.
///
/// # Errors
/// When the text is not SQL.
pub(crate) fn statements(sql: &str) -> Result<Vec<Statement>, ParserError> {
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location()?;
    Parser::new(&DIALECT).with_tokens_with_locations(intervals(suffixes(tokens))).parse_statements()
}

/// `INTERVAL '1 hour'` is `INTERVAL '1' hour`, the one form that the parser takes.
fn intervals(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut after_interval = false;
    for mut token in tokens {
        let mut unit = None;
        if let Token::SingleQuotedString(text) = &mut token.token
            && after_interval
            && let Some((number, name)) = number_and_unit(text)
        {
            unit = Some(TokenWithSpan::new(Token::make_keyword(name), token.span));
            *text = number.to_owned();
        }
        if !matches!(token.token, Token::Whitespace(_)) {
            after_interval = matches!(&token.token, Token::Word(word) if word.keyword == Keyword::INTERVAL);
        }
        out.push(token);
        out.extend(unit);
    }
    out
}

fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.split_whitespace();
    let (number, unit) = (parts.next()?, parts.next()?);
    let is_one = parts.next().is_none() && number.parse::<f64>().is_ok() && unit.chars().all(|letter| letter.is_ascii_alphabetic());
    is_one.then_some((number, unit))
}

/// `1.5D` is a DOUBLE: the number with an exponent, which is one as well. `1.5BD` is a DECIMAL, as it is without.
fn suffixes(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let Token::Word(word) = &token.token
            && let Some(last) = out.last_mut()
            && last.span.end == token.span.start
            && let Token::Number(digits, _) = &mut last.token
        {
            match word.value.to_ascii_uppercase().as_str() {
                "D" | "F" => {
                    digits.push_str("e0");
                    continue;
                }
                "BD" => continue,
                _ => {}
            }
        }
        out.push(token);
    }
    out
}

/// Replaces the spellings in a statement.
pub(crate) fn respell(statement: &mut Statement) {
    let ControlFlow::Continue(()) = statement.visit(&mut Respell { names: Vec::new() });
}

struct Respell {
    /// How the unnamed items of each open select list were written: what stands for a call must not rename its column.
    names: Vec<Vec<String>>,
}

impl VisitorMut for Respell {
    type Break = std::convert::Infallible;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        self.names.push(select.projection.iter().map(ToString::to_string).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for (item, name) in select.projection.iter_mut().zip(self.names.pop().unwrap_or_default()) {
            if let SelectItem::UnnamedExpr(expr) = item
                && expr.to_string() != name
            {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        // Before the arguments are looked at: a unit is no column.
        if let Expr::Function(function) = expr {
            name_unit(function);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Some(meant) = meaning(expr) {
            *expr = meant;
        }
        ControlFlow::Continue(())
    }
}

/// What stands for an expression whose parts have been replaced already.
fn meaning(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::MyIntegerDivide, right } => Some(call("div", vec![*left.clone(), *right.clone()])),
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr } => Some(call("bit_not", vec![*expr.clone()])),
        Expr::RLike { negated, expr, pattern, .. } => {
            let matches = call("regexp_like", vec![*expr.clone(), *pattern.clone()]);
            Some(if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(matches) } } else { matches })
        }
        // A number with an exponent is a DOUBLE, without one a DECIMAL.
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) if digits.contains(['e', 'E']) => Some(cast(text(digits), DataType::Double(ExactNumberInfo::None))),
            _ => None,
        },
        Expr::Cast { data_type: DataType::Decimal(info) | DataType::Dec(info) | DataType::Numeric(info), .. }
            if *info == ExactNumberInfo::None =>
        {
            *info = ExactNumberInfo::PrecisionAndScale(10, 0);
            None
        }
        Expr::Function(function) => of_call(function),
        _ => None,
    }
}

fn of_call(function: &mut Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    if matches!(name.as_str(), "listagg" | "string_agg") {
        order_inside(function);
    }
    let args = arguments(function)?;
    if name == "count" && args.len() > 1 && distinct(function) {
        count_distinct(function, &args);
        return None;
    }
    if CASTS.contains(&name.as_str()) && args.len() == 1 {
        let target = Parser::new(&DIALECT).try_with_sql(&name.to_uppercase()).and_then(|mut parser| parser.parse_data_type()).ok()?;
        let mut cast = cast(args.into_iter().next()?, target);
        return meaning(&mut cast).or(Some(cast));
    }
    let (.., template) = MACROS.iter().find(|(known, count, _)| *known == name && *count == args.len())?;
    let mut meant = Parser::new(&DIALECT).try_with_sql(template).and_then(|mut parser| parser.parse_expr()).ok()?;
    let ControlFlow::Continue(()) = meant.visit(&mut Fill { args: &args });
    if let (Expr::Function(inner), Some(outer)) = (&mut meant, function.filter.take()) {
        inner.filter = Some(match inner.filter.take() {
            Some(own) => Box::new(Expr::BinaryOp { left: own, op: BinaryOperator::And, right: Box::new(Expr::Nested(outer)) }),
            None => outer,
        });
    }
    Some(if matches!(meant, Expr::Function(_)) { meant } else { Expr::Nested(Box::new(meant)) })
}

/// `listagg(x, ',') WITHIN GROUP (ORDER BY y)` is `listagg(x, ',' ORDER BY y)` here.
fn order_inside(function: &mut Function) {
    let order = std::mem::take(&mut function.within_group);
    if let (false, FunctionArguments::List(list)) = (order.is_empty(), &mut function.args) {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
}

/// One distinct value made of several; a row in which one of them is null does not count.
fn count_distinct(function: &mut Function, args: &[Expr]) {
    let present = args.iter().map(|arg| Expr::IsNotNull(Box::new(Expr::Nested(Box::new(arg.clone())))));
    let all = present.reduce(|a, b| Expr::BinaryOp { left: Box::new(a), op: BinaryOperator::And, right: Box::new(b) });
    let template = Parser::new(&DIALECT).try_with_sql("CASE WHEN _1 THEN _2 END").and_then(|mut parser| parser.parse_expr());
    if let (Ok(mut whole), Some(all), FunctionArguments::List(list)) = (template, all, &mut function.args) {
        let ControlFlow::Continue(()) = whole.visit(&mut Fill { args: &[all, call("struct", args.to_vec())] });
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(whole))];
    }
}

/// Puts arguments in the places of `_1`, `_2`, ...
struct Fill<'a> {
    args: &'a [Expr],
}

impl VisitorMut for Fill<'_> {
    type Break = std::convert::Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::Identifier(name) = expr
            && let Some(place) = name.value.strip_prefix('_').and_then(|digits| digits.parse::<usize>().ok())
            && let Some(arg) = place.checked_sub(1).and_then(|place| self.args.get(place))
        {
            let plain = matches!(arg, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Function(_));
            *expr = if plain { arg.clone() } else { Expr::Nested(Box::new(arg.clone())) };
        }
        ControlFlow::Continue(())
    }
}

/// `timestampdiff(HOUR, a, b)`: the unit becomes a text.
fn name_unit(function: &mut Function) {
    let name = function.name.to_string().to_lowercase();
    let Some((_, meant)) = WITH_UNIT.iter().find(|(known, _)| *known == name) else { return };
    let FunctionArguments::List(list) = &mut function.args else { return };
    if list.args.len() != 3 {
        return;
    }
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) = list.args.first_mut()
        && let Expr::Identifier(word) = &*unit
    {
        *unit = text(&word.value);
    }
    function.name = ObjectName::from(vec![Ident::new(*meant)]);
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let list = match &function.args {
        FunctionArguments::List(list) => &list.args,
        FunctionArguments::None => return Some(Vec::new()),
        FunctionArguments::Subquery(_) => return None,
    };
    list.iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

fn distinct(function: &Function) -> bool {
    matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
}

fn text(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// A plain call of a function.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn respelled(expr: &str) -> String {
        let mut statement = statements(&format!("SELECT {expr} AS x FROM t")).unwrap().remove(0);
        respell(&mut statement);
        statement.to_string().trim_start_matches("SELECT ").trim_end_matches(" AS x FROM t").to_owned()
    }

    #[test]
    fn sparks_spellings_become_what_they_mean() {
        for (spark, meant) in [
            ("1.5D * n", "CAST('1.5e0' AS DOUBLE) * n"),
            ("1e3", "CAST('1e3' AS DOUBLE)"),
            ("1.5BD", "1.5"),
            ("a DIV 2", "div(a, 2)"),
            ("~a", "bit_not(a)"),
            ("a NOT RLIKE 'x'", "NOT regexp_like(a, 'x')"),
            ("string(a + 1)", "CAST(a + 1 AS STRING)"),
            ("decimal(a)", "CAST(a AS DECIMAL(10,0))"),
            ("CAST(a AS DECIMAL)", "CAST(a AS DECIMAL(10,0))"),
            ("timestampdiff(HOUR, a, b)", "timestampdiff('HOUR', a, b)"),
            ("dateadd(day, 1)", "date_from_unix_date(unix_date(day) + 1)"),
            ("mod(a + 1, 2)", "((a + 1) % 2)"),
            ("listagg(x, ',') WITHIN GROUP (ORDER BY y)", "listagg(x, ',' ORDER BY y)"),
            ("percentile(x, 0.9) FILTER (WHERE f)", "percentile_cont(0.9) WITHIN GROUP (ORDER BY x) FILTER (WHERE f)"),
            ("max_by(x, y) FILTER (WHERE f OR g)", "first_value(x ORDER BY y DESC NULLS LAST) FILTER (WHERE y IS NOT NULL AND (f OR g))"),
            ("count(DISTINCT a, b)", "count(DISTINCT CASE WHEN ((a) IS NOT NULL AND (b) IS NOT NULL) THEN struct(a, b) END)"),
        ] {
            assert_eq!(respelled(spark), meant, "{spark}");
        }
    }

    #[test]
    fn a_column_keeps_the_name_that_it_was_written_with() {
        let mut statement = statements("SELECT dayname(ts), a FROM t").unwrap().remove(0);
        respell(&mut statement);
        let text = statement.to_string();
        assert!(text.contains("AS dayname(ts), a FROM"), "{text}");
    }

    #[test]
    fn every_macro_can_be_read_and_fills_all_of_its_arguments() {
        for (name, count, template) in MACROS {
            let args = ["a", "b", "c"][..*count].join(", ");
            let meant = respelled(&format!("{name}({args})"));
            assert!(!meant.contains("_1") && !meant.contains("_2") && !meant.contains("_3"), "{name}: {meant}");
            assert_ne!(meant, format!("{name}({args})"), "{template}");
        }
    }
}
