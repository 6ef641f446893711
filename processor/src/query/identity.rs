//! Which columns of a result row name its group: a database keeps rows apart by them.

use datafusion_expr::{Expr, LogicalPlan};

/// For each grouping column of the plan's last aggregate or DISTINCT, the result column that shows it, under whatever name; `None` when the result leaves
/// it out or only has what is computed from it.
pub(crate) fn shown_groups(plan: &LogicalPlan, groups: usize) -> Vec<Option<String>> {
    let mut shown = vec![None; groups];
    for (qualifier, field) in plan.schema().iter() {
        let place = group_of(&Expr::Column((qualifier, field).into()), plan).and_then(|place| shown.get_mut(place));
        if let Some(name @ None) = place {
            *name = Some(field.name().clone());
        }
    }
    shown
}

/// Which grouping column `expr` over `below` is.
fn group_of(expr: &Expr, below: &LogicalPlan) -> Option<usize> {
    let column = match expr {
        Expr::Alias(alias) => return group_of(&alias.expr, below),
        Expr::Column(column) => column,
        _ => return None,
    };
    let place = below.schema().maybe_index_of_column(column)?;
    match below {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => Some(place),
        LogicalPlan::Projection(projection) => group_of(projection.expr.get(place)?, &projection.input),
        // A join has its left side's columns first; what else stands between the aggregate and the result keeps its columns' places.
        other => {
            let input = other.inputs().into_iter().next()?;
            let (qualifier, field) = (place < input.schema().fields().len()).then(|| input.schema().qualified_field(place))?;
            group_of(&Expr::Column((qualifier, field).into()), input)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use crate::query::{QueryFile, StreamQuery};

    fn names(sql: &str) -> Vec<String> {
        let text = format!(
            "name = 'q'\n[source]\ntopic = 'iot'\nschema = 'id STRING, kind STRING, ts TIMESTAMP'\nevent_time = 'ts'\nwatermark = '5s'\n\
             [query]\nsql = \"{sql}\"\noutput_mode = '{}'\n",
            if sql.contains("window") { "append" } else { "update" }
        );
        StreamQuery::compile(QueryFile::parse(&text, Path::new("q.toml")).unwrap()).unwrap().key_names
    }

    #[test]
    fn a_group_is_named_as_the_result_names_it() {
        const GROUP: &str = "GROUP BY window(ts, '1s'), id, upper(kind)";
        let select = |columns: &str| names(&format!("SELECT {columns}, count(*) AS n FROM iot {GROUP}"));
        assert_eq!(select("id, upper(kind)"), ["id", "upper(iot.kind)"]);
        assert_eq!(select("window.start AS s, upper(kind) AS k, id AS sensor"), ["sensor", "k"]);
        assert_eq!(select("id AS first, id AS second, upper(kind) AS k"), ["first", "k"]);
        let outer =
            format!("SELECT s.w AS w, s.a AS b, s.k FROM (SELECT window.start AS w, id AS a, upper(kind) AS k FROM iot {GROUP}) AS s");
        assert_eq!(names(&outer), ["b", "k"]);
        assert_eq!(names("SELECT DISTINCT id AS sensor, upper(kind) AS k FROM iot"), ["sensor", "k"]);
        let session = "SELECT session_window.start AS s, id AS sensor, count(*) AS n FROM iot GROUP BY session_window(ts, '1s'), id";
        assert_eq!(names(session), ["sensor"]);
        let hours = "SELECT window.start AS s, sensor AS who, max(n) AS n FROM (SELECT window AS w, id AS sensor, count(*) AS n \
                     FROM iot GROUP BY window(ts, '1m'), id) AS inner_rows GROUP BY window(w, '1h'), sensor";
        assert_eq!(names(hours), ["who"]);
        // Nothing shows it: the group's own name stays.
        assert_eq!(select("concat(id, 'x') AS id2"), ["id", "upper(iot.kind)"]);
        assert_eq!(names("SELECT n + 1 AS kind FROM (SELECT kind, count(*) AS n FROM iot GROUP BY kind)"), ["kind"]);
    }
}
