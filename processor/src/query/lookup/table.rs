//! The tables of a query file, read.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_expr::TableSource;

use crate::format::encode::JsonRows;
use crate::format::{csv, parquet};
use crate::query::compile::fnv1a;
use crate::query::ddl::parse_ddl;
use crate::query::file::{Lookup, TableFormat};

/// A table that a query joins with its stream.
#[derive(Debug, Clone)]
pub struct LookupTable {
    pub name: String,
    pub path: PathBuf,
    pub rows: RecordBatch,
    /// Where each row stands in the file.
    places: Arc<Places>,
}

#[derive(Debug)]
enum Places {
    Lines(Vec<u64>),
    Rows,
}

/// Reads the tables of a query file. A column that the stream or an earlier table has, too, gets the spelling that it has there.
///
/// # Errors
/// The first table that cannot be used: which file, which line, what is wrong.
pub(crate) fn load(lookups: &[Lookup], stream: &Schema) -> Result<Vec<LookupTable>, String> {
    let mut tables: Vec<LookupTable> = Vec::with_capacity(lookups.len());
    for lookup in lookups {
        let table = LookupTable::read(lookup).map_err(|fault| format!("lookup '{}': {fault}", lookup.name))?;
        let known = merged(stream, &tables);
        tables.push(table.spelled_as(&known)?);
    }
    Ok(tables)
}

/// All columns that the SQL can name, each name once.
pub(crate) fn merged(stream: &Schema, tables: &[LookupTable]) -> Schema {
    let mut fields: Vec<_> = stream.fields().iter().cloned().collect();
    for field in tables.iter().flat_map(|table| table.rows.schema_ref().fields()) {
        if !fields.iter().any(|known| known.name() == field.name()) {
            fields.push(Arc::clone(field));
        }
    }
    Schema::new(fields)
}

impl LookupTable {
    fn read(lookup: &Lookup) -> Result<Self, String> {
        let path = lookup.path.display();
        let schema = lookup.schema.as_deref().map(parse_ddl).transpose().map_err(|fault| format!("schema: {fault}"))?;
        let unreadable = |error: std::io::Error| format!("{path} cannot be read: {error}");
        let (rows, places) = match (lookup.table_format()?, schema) {
            (TableFormat::Csv, schema) => {
                let bytes = std::fs::read(&lookup.path).map_err(unreadable)?;
                let at_file = |fault| format!("{path}: {fault}");
                let schema = schema.map_or_else(|| Err(needs_schema(&csv::columns(&bytes).map_err(at_file)?)), Ok)?;
                let table = csv::read(&bytes, &schema).map_err(at_file)?;
                (table.batch, Places::Lines(table.lines))
            }
            (TableFormat::Parquet, schema) => {
                let file = File::open(&lookup.path).map_err(unreadable)?;
                (parquet::read(file, schema.as_ref()).map_err(|fault| format!("{path}: {fault}"))?, Places::Rows)
            }
        };
        if u32::try_from(rows.num_rows()).is_err() {
            return Err(format!("{path} has more rows than a lookup table can hold"));
        }
        Ok(Self { name: lookup.name.clone(), path: lookup.path.clone(), rows, places: Arc::new(places) })
    }

    /// With the spelling of the columns that `known` has, too; and nothing is ever NOT NULL, for a LEFT JOIN may find no row.
    fn spelled_as(self, known: &Schema) -> Result<Self, String> {
        let field = |field: &Arc<Field>| {
            let same = known.fields().iter().find(|known| known.name().eq_ignore_ascii_case(field.name()));
            Field::new(same.unwrap_or(field).name(), field.data_type().clone(), true)
        };
        let fields: Vec<Field> = self.rows.schema_ref().fields().iter().map(field).collect();
        let (_, columns, count) = self.rows.into_parts();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(|error| error.to_string())?;
        Ok(Self { rows, ..self })
    }

    /// The table with those columns alone for which `keep` says so.
    pub(super) fn with_columns(&self, keep: impl Fn(&str) -> bool) -> Result<Self, String> {
        let fields = self.rows.schema_ref().fields().iter().enumerate();
        let kept: Vec<usize> = fields.filter(|(_, field)| keep(field.name())).map(|(place, _)| place).collect();
        let rows = self.rows.project(&kept).map_err(|error| error.to_string())?;
        Ok(Self { rows, ..self.clone() })
    }

    /// The table as the planner sees it.
    pub(crate) fn source(&self) -> Arc<dyn TableSource> {
        Arc::new(LookupSource(self.clone()))
    }

    /// "line 7", for messages.
    pub(super) fn place(&self, row: u32) -> String {
        match &*self.places {
            Places::Lines(lines) => format!("line {}", lines.get(row as usize).copied().unwrap_or_default()),
            Places::Rows => format!("row {}", row + 1),
        }
    }

    /// Tells tables of different rows apart. The order of rows and columns, and the file's format, make no difference.
    ///
    /// # Errors
    /// When a column has a type that is not written.
    pub(crate) fn contents(&self) -> Result<u64, String> {
        let schema = self.rows.schema();
        let mut order: Vec<usize> = (0..schema.fields().len()).collect();
        order.sort_by_key(|place| schema.field(*place).name());
        let columns = self.rows.project(&order).map_err(|error| error.to_string())?;
        let types: Vec<String> = columns.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
        let json = JsonRows::new(&columns)?;
        let mut text = Vec::new();
        let mut hashes: Vec<u64> = (0..columns.num_rows())
            .map(|row| {
                text.clear();
                json.write_row(row, &mut text);
                fnv1a(&text)
            })
            .collect();
        hashes.sort_unstable();
        let mut all = types.join(",").into_bytes();
        hashes.iter().for_each(|hash| all.extend_from_slice(&hash.to_be_bytes()));
        Ok(fnv1a(&all))
    }
}

fn needs_schema(columns: &[String]) -> String {
    let columns = columns.iter().map(|column| format!("{column} STRING")).collect::<Vec<_>>().join(", ");
    format!("a CSV file does not tell the types of its columns; write a schema, such as schema = \"{columns}\"")
}

/// What the query reads of the table; for `processor check`.
impl fmt::Display for LookupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.rows.schema_ref().fields();
        let columns = fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ");
        write!(f, "{}: {columns} ({}, {} rows)", self.name, self.path.display(), self.rows.num_rows())
    }
}

/// A lookup table for the planner, which tells it from the stream.
pub(super) struct LookupSource(pub(super) LookupTable);

impl TableSource for LookupSource {
    fn schema(&self) -> SchemaRef {
        self.0.rows.schema()
    }
}
