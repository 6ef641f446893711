//! Files of a directory, each batch exactly once.
//!
//! ```text
//! DIR/part-00000000000000000007-NAME.csv             the rows of batch 7
//!     kind=wind/part-...                             with partition_by: a subdirectory for each value
//!     _tidemark/NAME/00000000000000000007.json       that batch 7 is complete, and its files; written last
//! ```
//! The name of a file follows from its batch, so a batch that is written again after a crash replaces itself. Each file appears by a rename
//! and is whole; a reader who wants whole batches reads the files that `_tidemark` names.

mod write;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::super::checkpoint::{numbered, sync_folder, write_whole};
use super::super::error::TaskError;
use super::super::owner::Owner;
use super::rows::text;
use super::{Batch, Sink};
use crate::query::StreamQuery;
use crate::query::file::SinkFormat;

/// Where the lists of complete batches are.
const LISTS: &str = "_tidemark";
/// Spark's name of the directory for rows without a value.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

#[derive(Debug)]
pub(super) struct Files {
    query: String,
    folder: PathBuf,
    format: SinkFormat,
    /// Columns whose values name subdirectories, and the others.
    partition_by: Vec<usize>,
    columns: Vec<usize>,
    durable: bool,
}

/// What a complete batch consists of.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    version: u32,
    batch: i64,
    files: Vec<Listed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    /// Relative to the directory.
    path: String,
    rows: usize,
    bytes: usize,
}

impl Files {
    pub(super) fn open(query: &StreamQuery, durable: bool) -> Result<Self, TaskError> {
        let sink = &query.file.sink;
        let place = |name: &String| {
            let found = query.output.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
            found.ok_or_else(|| TaskError::Fatal(format!("sink.partition_by: the result has no column '{name}'")))
        };
        let partition_by = sink.partition_by.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<usize> = (0..query.output.fields().len()).filter(|column| !partition_by.contains(column)).collect();
        if columns.is_empty() {
            return Err(TaskError::Fatal("sink.partition_by names all columns of the result; leave one for the files".into()));
        }
        let files = Self {
            query: query.file.name.clone(),
            folder: sink.path.clone().unwrap_or_default(),
            format: sink.format,
            partition_by,
            columns,
            durable,
        };
        files.io(&files.lists(), std::fs::create_dir_all(files.lists()))?;
        Ok(files)
    }

    fn lists(&self) -> PathBuf {
        self.folder.join(LISTS).join(&self.query)
    }

    fn list(&self, batch: i64) -> PathBuf {
        self.lists().join(format!("{}.json", numbered(batch)))
    }

    fn part(&self, batch: i64) -> String {
        format!("part-{}-{}.{}", numbered(batch), self.query, self.format.name())
    }

    fn io<T>(&self, path: &Path, result: std::io::Result<T>) -> Result<T, TaskError> {
        result.map_err(|error| TaskError::Retry(format!("the sink's directory: {}: {error}", path.display())))
    }

    /// The rows of each subdirectory; of the directory itself when there are no partitions.
    fn parts(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, TaskError> {
        let fault = |error: arrow::error::ArrowError| TaskError::Fatal(format!("a batch cannot be cut into partitions: {error}"));
        if self.partition_by.is_empty() {
            return Ok(vec![(String::new(), rows.clone())]);
        }
        let mut of_folder: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (row, number) in (0..rows.num_rows()).zip(0_u32..) {
            let folder: String = self.partition_by.iter().map(|column| folder(rows, *column, row) + "/").collect();
            of_folder.entry(folder).or_default().push(number);
        }
        let kept = rows.project(&self.columns).map_err(fault)?;
        let part = |(folder, rows): (String, Vec<u32>)| Ok((folder, take_record_batch(&kept, &UInt32Array::from(rows)).map_err(fault)?));
        of_folder.into_iter().map(part).collect()
    }

    fn write_part(&self, batch: i64, folder: &str, rows: &RecordBatch) -> Result<Listed, TaskError> {
        let path = format!("{folder}{}", self.part(batch));
        let bytes =
            write::bytes(self.format, rows).map_err(|error| TaskError::Fatal(format!("the file {path} cannot be written: {error}")))?;
        let target = self.folder.join(&path);
        if !folder.is_empty() {
            let made = target.parent().unwrap_or(&self.folder);
            self.io(made, std::fs::create_dir_all(made))?;
            if self.durable {
                // A directory lasts when the one above it has been synced.
                made.ancestors().skip(1).take(self.partition_by.len()).try_for_each(|above| self.io(above, sync_folder(above)))?;
            }
        }
        self.io(&target, write_whole(&target, &bytes, self.durable))?;
        Ok(Listed { path, rows: rows.num_rows(), bytes: bytes.len() })
    }

    /// Deletes the parts of batches after `last`, complete or not.
    fn delete_after(&self, folder: &Path, last: i64) -> Result<(), TaskError> {
        for entry in self.io(folder, std::fs::read_dir(folder))? {
            let entry = self.io(folder, entry)?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !name.starts_with(['.', '_']) {
                    self.delete_after(&path, last)?;
                }
                continue;
            }
            let ending = format!("-{}.{}", self.query, self.format.name());
            let number = name.strip_prefix("part-").and_then(|name| name.strip_suffix(&ending)?.parse::<i64>().ok());
            if number.is_some_and(|number| number > last) {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), TaskError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => self.io(path, removed),
        }
    }

    fn listed(&self) -> Result<Vec<i64>, TaskError> {
        let lists = self.lists();
        let mut batches = Vec::new();
        for entry in self.io(&lists, std::fs::read_dir(&lists))? {
            let name = self.io(&lists, entry)?.file_name();
            batches.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<i64>().ok()));
        }
        Ok(batches)
    }
}

impl Sink for Files {
    fn write(&mut self, batch: &Batch, _owner: &Owner) -> Result<(), TaskError> {
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        let parts = self.parts(&batch.rows)?;
        let files = parts.iter().map(|(folder, rows)| self.write_part(batch.id, folder, rows)).collect::<Result<_, _>>()?;
        let list = List { version: 1, batch: batch.id, files };
        let text = serde_json::to_vec(&list).map_err(|error| TaskError::Fatal(format!("a list of files cannot be written: {error}")))?;
        let path = self.list(batch.id);
        self.io(&path, write_whole(&path, &text, self.durable))
    }

    fn rewind(&mut self, last: i64, fresh: bool) -> Result<(), TaskError> {
        let later: Vec<i64> = self.listed()?.into_iter().filter(|batch| *batch > last).collect();
        if fresh && !later.is_empty() {
            return Err(TaskError::Fatal(format!(
                "{} holds results of a query '{}', and the checkpoint directory holds no state of it: with a new checkpoint its rows would \
                 replace them; move the old files away, or give the sink another path",
                self.folder.display(),
                self.query
            )));
        }
        for batch in later {
            self.remove(&self.list(batch))?;
        }
        self.delete_after(&self.folder, last)
    }
}

/// `column=value`, with what has a meaning in paths escaped as Spark does it.
fn folder(rows: &RecordBatch, column: usize, row: usize) -> String {
    let schema: SchemaRef = rows.schema();
    let value = text(rows.column(column) as &dyn Array, row).filter(|value| !value.is_empty());
    let value = value.map_or_else(|| NULL.to_owned(), |value| escaped(&value));
    format!("{}={value}", escaped(schema.field(column).name()))
}

fn escaped(text: &str) -> String {
    let unsafe_in_paths = |character: char| character.is_control() || "\"#%'*/:=?\\{[]^".contains(character);
    let escape = |character: char| match unsafe_in_paths(character) {
        true => format!("%{:02X}", u32::from(character)),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use common::Shutdown;

    use super::*;

    fn files(folder: &Path, partition_by: Vec<usize>) -> Files {
        let columns = (0..2).filter(|column| !partition_by.contains(column)).collect();
        let files = Files { query: "q".into(), folder: folder.to_owned(), format: SinkFormat::Csv, partition_by, columns, durable: true };
        std::fs::create_dir_all(files.lists()).unwrap();
        files
    }

    fn batch(id: i64, kinds: &[Option<&str>]) -> Batch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..i64::try_from(kinds.len()).unwrap()));
        let kinds: ArrayRef = Arc::new(StringArray::from(kinds.to_vec()));
        Batch {
            id,
            rows: RecordBatch::try_from_iter_with_nullable([("kind", kinds, true), ("n", numbers, true)]).unwrap(),
            is_whole: false,
        }
    }

    fn owner() -> (tokio::runtime::Runtime, Owner) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let owner = Owner::onlooker(Shutdown::manual(), runtime.handle().clone());
        (runtime, owner)
    }

    /// All files of a directory but the lists, with their texts.
    fn texts(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(inner) = open.pop() {
            for entry in std::fs::read_dir(inner).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                match path.is_dir() {
                    true if name != LISTS => open.push(path),
                    true => {}
                    false => drop(found.insert(name, std::fs::read_to_string(&path).unwrap())),
                }
            }
        }
        found
    }

    #[test]
    fn a_batch_that_comes_twice_replaces_itself_and_a_lost_one_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (_runtime, owner) = owner();
        let mut sink = files(folder.path(), Vec::new());
        sink.rewind(-1, true).unwrap();
        for (id, kinds) in [(0, vec![Some("a")]), (1, vec![]), (2, vec![Some("b"), None]), (2, vec![Some("b"), None])] {
            sink.write(&batch(id, &kinds), &owner).unwrap();
        }
        let name = |id| format!("part-{}-q.csv", numbered(id));
        assert_eq!(texts(folder.path()), [(name(0), "kind,n\na,0\n".to_owned()), (name(2), "kind,n\nb,0\n,1\n".to_owned())].into());
        sink.rewind(2, false).unwrap();
        assert_eq!(texts(folder.path()).len(), 2);
        // A part without its list, as a crash between the two leaves it.
        std::fs::write(folder.path().join(name(3)), "kind,n\n").unwrap();
        sink.rewind(1, false).unwrap();
        assert_eq!(texts(folder.path()).into_keys().collect::<Vec<_>>(), [name(0)]);
        assert_eq!(sink.listed().unwrap(), [0]);
        let fault = sink.rewind(-1, true).unwrap_err().to_string();
        assert!(fault.contains("move the old files away"), "{fault}");
    }

    #[test]
    fn values_name_subdirectories() {
        let folder = tempfile::tempdir().unwrap();
        let (_runtime, owner) = owner();
        let mut sink = files(folder.path(), vec![0]);
        sink.write(&batch(4, &[Some("a"), None, Some("a/b"), Some("a"), Some("")]), &owner).unwrap();
        let found: Vec<(String, String)> =
            texts(folder.path()).into_iter().map(|(name, text)| (name.split('/').next().unwrap().to_owned(), text)).collect();
        let expected = [("kind=__HIVE_DEFAULT_PARTITION__", "n\n1\n4\n"), ("kind=a%2Fb", "n\n2\n"), ("kind=a", "n\n0\n3\n")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
