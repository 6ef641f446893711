//! The stages of the hot path one by one, without Kafka, for `benches/stages.rs` and nothing else.

use std::path::Path;
use std::sync::Arc;

use crate::engine::{Engine, Entry, Input, Output, codec};
use crate::format::decode::Decoder;
use crate::format::encode::{JsonRows, key_text};
use crate::query::{QueryFile, StreamQuery};
use crate::task::keys::refuse_wrong_keys;
use crate::task::records::Records;

/// When every record was received: no event time is ahead of it.
const RECEIVED: i64 = i64::MAX / 2;

/// What went wrong, in a sentence.
type Fault = Box<dyn std::error::Error>;

/// One partition of a query, step by step.
#[derive(Debug)]
pub struct Stages {
    query: Arc<StreamQuery>,
    engine: Engine,
    decoder: Decoder,
    records: Records,
    next: i64,
}

/// A record's key and value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

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
        let (decoder, records) = (query.decoder(), Records::new(&Arc::from("iot"), 0));
        Ok(Self { query, engine, decoder, records, next: 0 })
    }

    /// Collects the records of the next step.
    pub fn gather(&mut self, records: &[KeyValue]) {
        self.records.clear();
        for ((key, value), offset) in records.iter().zip(self.next..) {
            self.records.push(offset, RECEIVED, Some(key), Some(value));
        }
        self.next = self.records.next_offset().unwrap_or(self.next);
    }

    /// The step's values to columns, its keys compared with theirs.
    ///
    /// # Errors
    /// When they do not fit into columns.
    pub fn decode(&mut self) -> Result<Decoded, Fault> {
        let mut input = self.records.decode(&mut self.decoder)?;
        refuse_wrong_keys(&self.query, &self.records, &mut input)?;
        Ok(Decoded(input))
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
        Ok(Results(self.engine.apply(&folded.0)?))
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
