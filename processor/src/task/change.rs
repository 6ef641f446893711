//! A query that is not what it was: known before it meets its old state.
//!
//! | verdict | when | then |
//! |---|---|---|
//! | new | the journal is empty | it begins |
//! | same | nothing has changed | it goes on |
//! | compatible | only what stands above the aggregate, the trigger, the sink | it goes on; closed windows keep the rows that they have |
//! | rebuild | something that the state follows from | refused, unless `--rebuild` begins it anew from the log |
//! | refused | another input, or another number of journal partitions | it needs another name |

use std::collections::BTreeMap;

use common::units::Span;
use common::{Settings, topics};
use serde::Serialize;

use super::error::{ProcessorError, TaskError};
use super::journal::{Peeked, peek};
use super::membership::Workers;
use super::owner::Owner;
use super::scan::{fault, partitions};
use crate::engine::{Decision, Progress};
use crate::query::{Change, StreamQuery, TOPIC, WATERMARK};

/// Partitions of a journal that are looked into together.
const AT_A_TIME: usize = 4;

/// What the journal of a query holds.
#[derive(Debug, Default)]
pub(crate) struct Journals {
    /// By journal partition; `None` for one without an entry.
    pub(crate) by_partition: BTreeMap<i32, Option<Peeked>>,
    /// How many of them, the last ones, merge what the others have read.
    pub(crate) merges: u32,
}

/// Looks into all partitions of a query's journal.
///
/// # Errors
/// When the log does not answer, or a journal cannot be read.
pub(crate) fn journals(settings: &Settings, query: &StreamQuery, owner: &Owner) -> Result<Journals, ProcessorError> {
    let topic = topics::journal(&query.file.name);
    let mut journals = Journals { merges: query.merges(), ..Journals::default() };
    let look = |partition: i32| peek(settings, query, (&topic, partition), owner);
    // At the same time: most of the wait is for clients that connect.
    for partitions in partitions(settings, &topic)?.chunks(AT_A_TIME) {
        let peeked: Vec<_> = std::thread::scope(|scope| {
            let looks: Vec<_> = partitions.iter().map(|partition| scope.spawn(|| look(*partition))).collect();
            let broken = || Err(TaskError::Fatal("the look into a journal ended by a fault of the program".into()));
            looks.into_iter().map(|look| look.join().unwrap_or_else(|_| broken())).collect()
        });
        for (partition, peeked) in partitions.iter().zip(peeked) {
            journals.by_partition.insert(*partition, peeked.map_err(fault)?);
        }
    }
    Ok(journals)
}

impl Journals {
    pub(crate) fn written(&self) -> impl Iterator<Item = &Peeked> {
        self.by_partition.values().flatten()
    }

    /// Those of whoever reads input partitions.
    fn readers(&self) -> impl Iterator<Item = &Peeked> {
        let readers = self.by_partition.len().saturating_sub(self.merges as usize);
        self.by_partition.values().take(readers).flatten()
    }

    /// What the wall clock decided about an input partition, in order.
    pub(crate) fn decisions(&self, partition: i32) -> impl Iterator<Item = Decision> {
        self.readers().flat_map(|peeked| &peeked.decisions).filter(move |taken| taken.partition == partition).copied()
    }

    /// Of every input partition that has been read.
    pub(crate) fn progress(&self) -> impl Iterator<Item = &Progress> {
        self.readers().flat_map(|peeked| peeked.progress.values())
    }

    pub(crate) fn base(&self) -> i64 {
        self.written().map(|peeked| peeked.base).max().unwrap_or(0)
    }

    /// No row of the query has a larger revision, but for corrections.
    pub(crate) fn revision(&self) -> i64 {
        self.base() + self.progress().map(|progress| progress.to).sum::<i64>()
    }

    /// The delay of the query that wrote the journal, milliseconds.
    pub(crate) fn delay(&self, now: i64) -> i64 {
        let told = self.written().find_map(|peeked| peeked.description.as_ref()?.state.get(WATERMARK));
        told.and_then(|text| text.parse::<Span>().ok()).map_or(now, Span::millis)
    }
}

/// What a query is to its old state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "changes", rename_all = "lowercase")]
pub(crate) enum Verdict {
    New,
    Same,
    Compatible(Vec<Change>),
    Rebuild(Vec<Change>),
    Refused(Vec<Change>),
}

impl Verdict {
    /// Compares the query with those that wrote its journal. `input_partitions`: how many its topic has; `None` when there is no topic.
    pub(crate) fn of(query: &StreamQuery, journals: &Journals, input_partitions: Option<u32>) -> Self {
        if journals.written().next().is_none() {
            return Self::New;
        }
        let (mut state, mut output): (Vec<Change>, Vec<Change>) = (Vec::new(), Vec::new());
        for peeked in journals.written() {
            match &peeked.description {
                Some(before) => {
                    let (of_state, of_output) = before.changes(&query.described());
                    state.extend(of_state);
                    output.extend(of_output);
                    if !peeked.fits && state.is_empty() {
                        state.push(unknown("the form of the state", "that of this release"));
                    }
                }
                None if peeked.fits => {}
                None => state.push(unknown("the SQL, schema, time or zone", "that of the query file")),
            }
        }
        for changes in [&mut state, &mut output] {
            changes.sort_by(|one, other| (&one.what, &one.old).cmp(&(&other.what, &other.old)));
            changes.dedup();
        }
        let found = u32::try_from(journals.by_partition.len()).unwrap_or(u32::MAX);
        if let Some(needed) = input_partitions.map(|input| Workers::shards(query, input)).filter(|needed| *needed != found) {
            let what = format!("the number of partitions of {}", topics::journal(&query.file.name));
            state.push(Change { what, old: Some(found.to_string()), new: Some(needed.to_string()) });
            return Self::Refused(state);
        }
        match () {
            () if state.iter().any(|change| change.what == TOPIC) => Self::Refused(state),
            // Journals that follow each other cannot begin anew at the same moment.
            () if !state.is_empty() && query.merges() > 0 => Self::Refused(state),
            () if !state.is_empty() => Self::Rebuild(state),
            () if !output.is_empty() => Self::Compatible(output),
            () => Self::Same,
        }
    }

    pub(crate) fn changes(&self) -> &[Change] {
        match self {
            Self::New | Self::Same => &[],
            Self::Compatible(changes) | Self::Rebuild(changes) | Self::Refused(changes) => changes,
        }
    }

    /// Whether the query can start as it is.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Self::New | Self::Same | Self::Compatible(_))
    }

    /// One sentence: what changed, and what to do.
    pub(crate) fn sentence(&self, name: &str) -> String {
        let changes = self.changes().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        match self {
            Self::New => format!("query '{name}' is new: it begins where its input begins"),
            Self::Same => format!("query '{name}' is the one that wrote its state: it goes on"),
            Self::Compatible(_) => {
                format!("query '{name}' goes on with its state; windows that have closed keep the rows that they have: {changes}")
            }
            Self::Rebuild(_) => format!(
                "query '{name}' does not fit its state: {changes}; put the old query file back, begin anew from the log with --rebuild \
                 {name}, or give the changed query another name"
            ),
            Self::Refused(_) => {
                format!("query '{name}' is another query than the one that wrote its state: {changes}; give it another name")
            }
        }
    }
}

/// A change of which only one side is known.
fn unknown(what: &str, new: &str) -> Change {
    Change { what: what.to_owned(), old: Some("that of an earlier release, which does not say more".to_owned()), new: Some(new.to_owned()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::query::QueryFile;

    const FILE: &str = "name = 'q'\n[source]\ntopic = 'iot'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE'\nevent_time = 'ts'\n\
        watermark = '5 seconds'\n[[lookup]]\nname = 'rooms'\npath = 'rooms.csv'\nschema = 'id STRING, room STRING'\n[query]\n\
        sql = \"SELECT window.start AS s, sensor_id, room, avg(value) AS a FROM iot JOIN rooms ON sensor_id = id WHERE value > 0 \
        GROUP BY window(ts, '10 seconds'), sensor_id, room HAVING avg(value) > 1\"\n";
    const ROOMS: &str = "id,room\ns-1,hall\n";

    fn query(text: &str, rooms: &str) -> StreamQuery {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rooms.csv"), rooms).unwrap();
        let path = folder.path().join("q.toml");
        StreamQuery::compile(QueryFile::parse(text, Path::new(&path)).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn journals_of(query: &StreamQuery, now: &StreamQuery, partitions: i32) -> Journals {
        let fits = query.fingerprint == now.fingerprint;
        let peeked = Peeked { description: Some(query.description.clone()), fits, ..Peeked::default() };
        let by_partition = (0..partitions).map(|partition| (partition, Some(peeked.clone()))).collect();
        Journals { by_partition, merges: now.merges() }
    }

    /// The verdict about a change, and the parts that it names.
    fn verdict(text: &str, rooms: &str) -> (&'static str, Vec<String>) {
        let (old, new) = (query(FILE, ROOMS), query(text, rooms));
        let verdict = Verdict::of(&new, &journals_of(&old, &new, 2), Some(2));
        let word = match verdict {
            Verdict::New => "new",
            Verdict::Same => "same",
            Verdict::Compatible(_) => "compatible",
            Verdict::Rebuild(_) => "rebuild",
            Verdict::Refused(_) => "refused",
        };
        (word, verdict.changes().iter().map(|change| change.what.clone()).collect())
    }

    #[test]
    fn each_change_has_its_verdict() {
        let sql = "query.sql";
        let cases: [(&str, &str, &str, &[&str]); 15] = [
            ("", "", "same", &[]),
            ("avg(value) AS a", "avg(value) * 2 AS b, 1 AS one", "compatible", &[sql]),
            ("HAVING avg(value) > 1", "", "compatible", &[sql]),
            ("[query]\n", "[query]\noutput_mode = 'append'\n", "compatible", &["query.output_mode"]),
            ("[query]\n", "[query]\ntrigger = 'once'\n", "compatible", &["query.trigger"]),
            ("avg(value) AS a", "avg(value) AS a, max(value) AS m", "rebuild", &["aggregates", "state of the aggregates"]),
            ("'10 seconds'", "'20 seconds'", "rebuild", &["GROUP BY"]),
            ("sensor_id, room HAVING", "sensor_id, room, value HAVING", "rebuild", &["GROUP BY", "state of the keys"]),
            ("value > 0", "value > 1", "rebuild", &["WHERE"]),
            ("'5 seconds'", "'6 seconds'", "rebuild", &["source.watermark"]),
            ("value DOUBLE'", "value DOUBLE, kind STRING'", "rebuild", &["source.schema"]),
            ("[[lookup]]", "max_future = '1 hour'\n[[lookup]]", "rebuild", &["source.max_future"]),
            ("[[lookup]]", "watermark_by = 'sensor_id'\n[[lookup]]", "rebuild", &["source.watermark_by"]),
            ("[query]\n", "[query]\ntime_zone = 'Europe/Rome'\n", "rebuild", &["query.time_zone"]),
            ("FROM iot", "FROM iot", "same", &[]),
        ];
        for (from, to, word, parts) in cases {
            let (found, what) = verdict(&FILE.replacen(from, to, 1), ROOMS);
            assert!(found == word && parts.iter().all(|part| what.iter().any(|what| what == part)), "{from} -> {to}: {found} {what:?}");
        }
        assert_eq!(verdict(FILE, "id,room\ns-1,attic\n"), ("rebuild", vec!["lookup rooms".to_owned()]));
        let other = FILE.replace("topic = 'iot'", "topic = 'other'").replace("FROM iot", "FROM other");
        assert_eq!(verdict(&other, ROOMS).0, "refused");
        // Without the partition key the journal has one partition.
        let alone =
            FILE.replace("window.start AS s, sensor_id,", "window.start AS s,").replace("'10 seconds'), sensor_id,", "'10 seconds'),");
        assert_eq!(verdict(&alone, ROOMS).0, "refused");
    }

    #[test]
    fn a_sentence_names_old_and_new() {
        let (old, new) = (query(FILE, ROOMS), query(&FILE.replace("'5 seconds'", "'6 seconds'"), ROOMS));
        let sentence = Verdict::of(&new, &journals_of(&old, &new, 2), None).sentence("q");
        assert!(sentence.contains("source.watermark was '5s' and is '6s'; put the old") && sentence.contains("--rebuild q"), "{sentence}");
    }

    #[test]
    fn journals_of_earlier_releases_do_not_say_what_changed() {
        let now = query(FILE, ROOMS);
        let silent = |fits| Journals { by_partition: [(0, Some(Peeked { fits, ..Peeked::default() }))].into(), merges: 0 };
        assert_eq!(Verdict::of(&now, &silent(true), None), Verdict::Same);
        assert!(matches!(Verdict::of(&now, &silent(false), None), Verdict::Rebuild(_)));
        assert_eq!(Verdict::of(&now, &Journals { by_partition: [(0, None)].into(), merges: 0 }, None), Verdict::New);
    }
}
