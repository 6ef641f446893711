//! The stages of the hot path one by one, without Kafka, for `benches/stages.rs` and nothing else.

use std::path::Path;
use std::sync::Arc;

use crate::engine::{Engine, Entry, Input, Output, codec};
use crate::format::decode::Decoder;
use crate::format::encode::{JsonRows, key_text};
use crate::query::{QueryFile, StreamQuery};

/// What went wrong, in a sentence.
type Fault = Box<dyn std::error::Error>;

/// One partition of a query, step by step.
#[derive(Debug)]
pub struct Stages {
    query: Arc<StreamQuery>,
    engine: Engine,
    read: i64,
}

/// Decoded records, an entry, its results: what one stage hands to the next.
#[derive(Debug)]
pub struct Decoded(Input);
#[derive(Debug)]
pub struct Folded(Entry);
#[derive(Debug)]
pub struct Results(Output);

impl Stages {
    /// # Errors
    /// When the text is no query file.
    pub fn new(text: &str) -> Result<Self, Fault> {
        let query = Arc::new(StreamQuery::compile(QueryFile::parse(text, Path::new("stages.toml"))?)?);
        let engine = Engine::new(Arc::clone(&query), [0]);
        Ok(Self { query, engine, read: 0 })
    }

    /// Values of records to columns.
    ///
    /// # Errors
    /// When they do not fit into columns.
    pub fn decode(&self, values: &[Vec<u8>]) -> Result<Decoded, Fault> {
        let decoded = Decoder::new(Arc::clone(&self.query.schema)).decode(values.iter().map(|value| Some(value.as_slice())))?;
        let to = self.read + i64::try_from(values.len())?;
        Ok(Decoded(Input { partition: 0, from: self.read, to, received: vec![i64::MAX / 2; values.len()], decoded }))
    }

    /// Columns to the changed states: time, WHERE, windows, and the fold onto the old states.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub fn fold(&self, decoded: Decoded) -> Result<Folded, Fault> {
        Ok(Folded(self.engine.prepare(vec![decoded.0])?.entry))
    }

    /// The entry as the journal holds it; gives its bytes.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn journal(&self, folded: &Folded) -> Result<usize, Fault> {
        Ok(codec::encode_with(&self.query, &folded.0, false)?.len())
    }

    /// The entry into the state, its results out of it, what has closed away.
    ///
    /// # Errors
    /// When a result cannot be computed.
    pub fn apply(&mut self, folded: &Folded) -> Result<Results, Fault> {
        let output = self.engine.apply(&folded.0)?;
        self.read = folded.0.progress.first().map_or(self.read, |progress| progress.to);
        Ok(Results(output))
    }

    /// Results as the bytes of keys and values; gives how many rows and bytes.
    ///
    /// # Errors
    /// When a column has no form in JSON.
    pub fn encode(results: &Results) -> Result<(usize, usize), Fault> {
        let rows = JsonRows::new(&results.0.rows)?;
        let (mut out, count) = (Vec::new(), results.0.rows.num_rows());
        for row in 0..count {
            rows.write_row(row, &mut out);
            key_text(&results.0.keys, row, &mut out);
        }
        Ok((count, out.len()))
    }
}
