//! One CSV file, row by row.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use common::reading::Reading;

use super::fields::Fields;
use super::header::Header;
use super::time;
use crate::source::{DeadRow, SourceError};

/// No reading is as long as this; a longer line is cut, so that a file without line breaks does not fill the memory. A record with it
/// still fits into what Kafka takes.
const LONGEST_LINE: u64 = 512 * 1024;
const BUFFER: usize = 256 * 1024;

/// What a line of a file turned out to be.
#[derive(Debug)]
pub(super) enum Row {
    Reading(Reading),
    Dead(DeadRow),
    End,
}

/// Reason (one word for counting) and detail (for people) of a line that makes no reading.
type Fault = (&'static str, String);

#[derive(Debug)]
pub(super) struct CsvFile {
    path: PathBuf,
    name: String,
    /// The file's name without its ending: the sensor's id when there is no column for it.
    stem: String,
    input: BufReader<File>,
    header: Header,
    /// Size when it was opened.
    bytes: u64,
    bytes_read: u64,
    line_number: u64,
    line: Vec<u8>,
    fields: Fields,
}

impl CsvFile {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    /// When it cannot be opened or has no usable header.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let open_fault = |cause| SourceError::Open { path: path.to_owned(), cause };
        let file = File::open(path).map_err(open_fault)?;
        let meta = file.metadata().map_err(open_fault)?;
        if meta.is_dir() {
            return Err(open_fault(io::ErrorKind::IsADirectory.into()));
        }
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
        let mut csv = Self {
            path: path.to_owned(),
            name: text(path.file_name()),
            stem: text(path.file_stem()),
            input: BufReader::with_capacity(BUFFER, file),
            header: Header { ts: 0, value: 0, sensor_id: None, kind: None, seq: None, width: 0 },
            bytes: meta.len(),
            bytes_read: 0,
            line_number: 0,
            line: Vec::new(),
            fields: Fields::default(),
        };
        csv.header = csv.read_header()?;
        Ok(csv)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn read_header(&mut self) -> Result<Header, SourceError> {
        let fault = |path: &Path, detail: &str| SourceError::Header { path: path.to_owned(), detail: detail.to_owned() };
        if !self.read_line()? {
            return Err(fault(&self.path, "it is empty"));
        }
        // Spreadsheets mark UTF-8 with a byte order mark.
        let line = self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line);
        let text = std::str::from_utf8(line).map_err(|_| fault(&self.path, "its first line is not UTF-8"))?;
        Header::parse(text).map_err(|detail| fault(&self.path, &detail))
    }

    /// The next row; blank lines are none.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub(super) fn next_row(&mut self) -> Result<Row, SourceError> {
        loop {
            if !self.read_line()? {
                return Ok(Row::End);
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return Ok(match self.parse() {
                Ok(reading) => Row::Reading(reading),
                Err((reason, detail)) => Row::Dead(DeadRow {
                    topic: self.name.clone(),
                    offset: self.line_number,
                    value: std::mem::take(&mut self.line),
                    reason,
                    detail,
                }),
            });
        }
    }

    /// Reads a line without its end into `self.line`; `false` at the end of the file.
    fn read_line(&mut self) -> Result<bool, SourceError> {
        self.line.clear();
        let line = self.line_number;
        let fault = |path: &Path, cause| SourceError::Read { path: path.to_owned(), line, cause };
        let read = self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.line).map_err(|cause| fault(&self.path, cause))?;
        if read == 0 {
            return Ok(false);
        }
        self.line_number += 1;
        self.bytes_read += read as u64;
        if self.line.ends_with(b"\n") {
            self.line.pop();
        } else if read as u64 == LONGEST_LINE {
            self.bytes_read += self.input.skip_until(b'\n').map_err(|cause| fault(&self.path, cause))? as u64;
        }
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        Ok(true)
    }

    fn parse(&mut self) -> Result<Reading, Fault> {
        if self.line.len() as u64 >= LONGEST_LINE - 2 {
            return Err(("too_long", format!("the line is longer than {LONGEST_LINE} bytes; this is its beginning")));
        }
        let line = std::str::from_utf8(&self.line).map_err(|_| ("not_utf8", "the line is not UTF-8".to_owned()))?;
        self.fields.split(line).map_err(|detail| ("not_csv", detail.to_owned()))?;
        let (header, fields) = (&self.header, &self.fields);
        if fields.len() != header.width {
            return Err(("wrong_columns", format!("the line has {} columns, the header {}", fields.len(), header.width)));
        }
        let field = |index: usize| fields.get(line, index);
        let optional = |index: Option<usize>| index.map(field).filter(|text| !text.is_empty());
        Ok(Reading {
            sensor_id: self.sensor(optional(header.sensor_id))?.into(),
            ts: event_time(field(header.ts))?,
            value: value(field(header.value))?,
            kind: optional(header.kind).map(Into::into),
            seq: optional(header.seq).map(number).transpose()?,
            ..Reading::default()
        })
    }

    fn sensor<'a>(&'a self, id: Option<&'a str>) -> Result<&'a str, Fault> {
        match (id, self.header.sensor_id) {
            (Some(id), _) => Ok(id),
            (None, None) => Ok(&self.stem),
            (None, Some(_)) => Err(("no_sensor_id", "the column sensor_id is empty".to_owned())),
        }
    }
}

fn event_time(text: &str) -> Result<i64, Fault> {
    if text.is_empty() {
        return Err(("no_event_time", "the column of the event time is empty".to_owned()));
    }
    let fault = || {
        let detail = format!(
            "'{}' is not a time; write epoch milliseconds, RFC 3339 or YYYY-MM-DD hh:mm:ss[.fff] (UTC)",
            text.chars().take(80).collect::<String>()
        );
        ("wrong_type", detail)
    };
    time::parse(text).ok_or_else(fault)
}

fn value(text: &str) -> Result<f64, Fault> {
    if text.is_empty() {
        return Err(("no_value", "the column value is empty".to_owned()));
    }
    // JSON has neither NaN nor infinity, so they could not be told from a missing value later.
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| wrong_type(text, "a finite number"))
}

fn number(text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| wrong_type(text, "a whole number"))
}

fn wrong_type(text: &str, wanted: &str) -> Fault {
    ("wrong_type", format!("'{}' is not {wanted}", text.chars().take(80).collect::<String>()))
}
