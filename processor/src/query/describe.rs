//! What a query is, part by part, as its journal keeps it: so that a changed query is known before it meets an old state.

use std::collections::BTreeMap;
use std::fmt;

use arrow::datatypes::{FieldRef, Schema};
use datafusion_expr::LogicalPlan;
use serde::{Deserialize, Serialize};

use super::file::{OutputMode, QueryFile, Trigger};
use super::grouping::Grouping;
use super::shape::{Scope, Shape};

/// The parts of a query by name, each as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// What the state follows from: of another query it would be another state.
    pub(crate) state: BTreeMap<String, String>,
    /// What only the results follow from, given the state.
    pub(crate) output: BTreeMap<String, String>,
}

/// A part that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) what: String,
    /// `None`: there was no such part.
    pub(crate) old: Option<String>,
    pub(crate) new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |part: &Option<String>| part.as_deref().map_or_else(|| "none".to_owned(), |part| format!("'{part}'"));
        write!(f, "{} was {} and is {}", self.what, shown(&self.old), shown(&self.new))
    }
}

/// The topic of the source, by which a journal belongs to its input.
pub(crate) const TOPIC: &str = "source.topic";
/// The names of the columns that tell a row from the others of its window.
pub(crate) const KEY_COLUMNS: &str = "key columns";
pub(crate) const GROUP_BY: &str = "GROUP BY";
pub(crate) const WATERMARK: &str = "source.watermark";
/// How many partitions the source has; only in the description of a query whose groups lie in all of them.
pub(crate) const PARTITIONS: &str = "the number of partitions of the source";
const SHARDS: &str = "shards";
const SCHEMA: &str = "source.schema";

impl Description {
    /// The parts that differ: those of the state, and those of the output.
    pub(crate) fn changes(&self, new: &Self) -> (Vec<Change>, Vec<Change>) {
        let mut state = differences(&self.state, &new.state);
        // Journals of an older release do not say it, and without the log nobody knows it.
        state.retain(|change| change.what != PARTITIONS || (change.old.is_some() && change.new.is_some()));
        (state, differences(&self.output, &new.output))
    }

    /// Describes a query that has been compiled so far. `sql` is its text in the planner's spelling.
    pub(crate) fn of(file: &QueryFile, schema: &Schema, shape: &Shape<'_>, groupings: &[&Grouping], scope: Scope, sql: &str) -> Self {
        let mut described = Self::default();
        described.source(file, schema);
        described.stages(shape, groupings);
        let shards = match scope {
            Scope::Partition => "one for each input partition",
            Scope::Topic => "one",
        };
        described.state(SHARDS, shards);
        if file.query.output_mode == OutputMode::Complete {
            described.state("query.output_mode", "complete");
        }
        described.output("query.sql", &sql.split_whitespace().collect::<Vec<_>>().join(" "));
        described.output("query.output_mode", &format!("{:?}", file.query.output_mode).to_lowercase());
        described.output("query.trigger", &trigger(file.query.trigger));
        match file.sink.is_kafka() {
            true => described.output("sink.topic", &file.output_topic()),
            false => described.output("sink.format", file.sink.format.name()),
        }
        let idle_timeout = file.source.idle_timeout().map_or_else(|| "never".to_owned(), |timeout| timeout.to_string());
        described.output("source.idle_timeout", &idle_timeout);
        described
    }

    /// Adds a part that the state follows from.
    pub(crate) fn state(&mut self, what: &str, text: impl Into<String>) {
        self.state.insert(what.to_owned(), text.into());
    }

    /// Adds a part that only the results follow from.
    pub(crate) fn output(&mut self, what: &str, text: &str) {
        self.output.insert(what.to_owned(), text.to_owned());
    }

    fn source(&mut self, file: &QueryFile, schema: &Schema) {
        let source = &file.source;
        let column =
            |field: &FieldRef| format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "" } else { " NOT NULL" });
        self.state(TOPIC, source.topic.clone());
        if !source.is_kafka() {
            self.state("source.format", source.format.name());
        }
        if let Some(path) = &source.path {
            self.state("source.path", path.display().to_string());
        }
        if let Some(kinesis) = &source.kinesis {
            self.state("source.kinesis.stream", kinesis.stream.clone());
        }
        self.state(SCHEMA, schema.fields().iter().map(column).collect::<Vec<_>>().join(", "));
        self.state("source.event_time", source.event_time.clone());
        self.state("source.partition_key", source.partition_key.clone());
        self.state(WATERMARK, source.watermark.to_string());
        self.state("source.max_future", source.max_future.to_string());
        if !source.watermark_by.is_empty() {
            self.state("source.watermark_by", format!("{}, given up after {}", source.watermark_by, source.max_silence));
        }
        if !source.drop_duplicates_within_watermark.is_empty() {
            self.state("source.drop_duplicates_within_watermark", source.drop_duplicates_within_watermark.join(", "));
        }
    }

    /// The groupings, the rows that come to each, and the columns that its state is kept in.
    fn stages(&mut self, shape: &Shape<'_>, groupings: &[&Grouping]) {
        let mut below = &shape.before;
        for (number, (stage, grouping)) in shape.stages.iter().zip(groupings).enumerate() {
            let name = |what: &str| if number == 0 { what.to_owned() } else { format!("{what} of the outer aggregate") };
            let list = |exprs: Vec<datafusion_expr::Expr>| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let types = |fields: &[FieldRef]| fields.iter().map(|field| field.data_type().to_string()).collect::<Vec<_>>().join(", ");
            let rows: Vec<String> = below.iter().map(|node: &&LogicalPlan| node.display().to_string()).collect();
            if !rows.is_empty() {
                self.state(&name("WHERE"), rows.join("; "));
            }
            self.state(&name(GROUP_BY), list(stage.node.group_exprs()));
            self.state(&name("aggregates"), list(stage.node.calls().to_vec()));
            self.state(&name("state of the keys"), types(grouping.group_keys.fields()));
            self.state(&name("state of the aggregates"), types(grouping.aggregates.state_fields()));
            below = &stage.after;
        }
    }
}

fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let change = |name: &String| Change { what: name.clone(), old: old.get(name).cloned(), new: new.get(name).cloned() };
    names.into_iter().map(change).filter(|change| change.old != change.new).collect()
}

fn trigger(trigger: Trigger) -> String {
    match trigger {
        Trigger::AsSoonAsPossible => "as soon as possible".into(),
        Trigger::ProcessingTime(span) => format!("every {span}"),
        Trigger::AvailableNow => "available_now".into(),
        Trigger::Once => "once".into(),
        Trigger::Continuous(span) => format!("continuous, committed every {span}"),
    }
}
