//! Which columns of its input a query reads: of the others no value need be kept.

use std::collections::HashSet;

use arrow::datatypes::Schema;
use datafusion_common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion_expr::LogicalPlan;

use super::sentence::sentence;

/// For each column of the input whether its name is a column's anywhere in the plan, whatever it means there: one too many costs little.
///
/// # Errors
/// A sentence, when the plan cannot be walked through.
pub(super) fn columns_read(plan: &LogicalPlan, input: &Schema) -> Result<Vec<bool>, String> {
    let mut names = HashSet::new();
    let walked = plan.apply(|node| {
        node.expressions().iter().for_each(|expr| names.extend(expr.column_refs().into_iter().map(|column| column.name.clone())));
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| sentence(&error))?;
    Ok(input.fields().iter().map(|field| names.contains(field.name())).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use arrow::datatypes::DataType;

    use crate::query::{QueryFile, StreamQuery};

    /// The columns whose values the query's batches have, out of `id, ts, a, b, c`.
    fn read(settings: &str, sql: &str) -> String {
        // What is read elsewhere than in a topic has its state in a directory.
        let checkpoint = if settings.starts_with("topic") { "" } else { "checkpoint = 'here'" };
        let text = format!(
            "name = 'q'\n[source]\n{settings}\nschema = 'id STRING, ts TIMESTAMP, a DOUBLE, b STRING, c BIGINT'\nevent_time = 'ts'\n\
             watermark = '5s'\n[query]\nsql = \"{sql}\"\n{checkpoint}\n"
        );
        let query = StreamQuery::compile(QueryFile::parse(&text, Path::new("q.toml")).unwrap()).unwrap();
        let batch = query.decoder().decode(std::iter::empty()).unwrap().batch;
        let fields = batch.schema_ref().fields();
        let names = fields.iter().filter(|field| *field.data_type() != DataType::Null).map(|field| field.name().as_str());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_the_sql_and_the_settings_name_is_read() {
        let (keyed, by_window) = ("topic = 'iot'\npartition_key = 'id'", "FROM iot GROUP BY window(ts, '1 second')");
        assert_eq!(read(keyed, "SELECT * FROM iot"), "id ts a b c");
        assert_eq!(read(keyed, "SELECT a FROM iot"), "ts a");
        assert_eq!(read(keyed, "SELECT a FROM iot WHERE c > 1"), "ts a c");
        assert_eq!(read(keyed, "SELECT upper(x) AS y FROM (SELECT b AS x, c FROM iot) AS t"), "ts b c");
        assert_eq!(read(keyed, &format!("SELECT count(*) AS n {by_window}")), "ts");
        assert_eq!(read(keyed, &format!("SELECT count(b) FILTER (WHERE c = 1) AS n {by_window}")), "ts b c");
        assert_eq!(read(keyed, &format!("SELECT avg(A + 1) AS n {by_window} HAVING max(c) > 1")), "ts a c");
        assert_eq!(read(keyed, &format!("SELECT count(*) AS n {by_window}, id, lower(b)")), "id ts b");
        assert_eq!(read(keyed, "SELECT DISTINCT id, c FROM iot"), "id ts c");
        assert_eq!(read(&format!("{keyed}\ndrop_duplicates_within_watermark = ['id', 'c']"), "SELECT a FROM iot"), "id ts a c");
    }

    #[test]
    fn other_sources_than_topics_make_all_columns() {
        assert_eq!(read("format = 'json'\npath = 'somewhere'", "SELECT a FROM json"), "id ts a b c");
    }
}
