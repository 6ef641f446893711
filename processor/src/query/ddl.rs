//! The schema string of a query file: Spark's DDL, such as `sensor_id STRING, ts TIMESTAMP, value DOUBLE`.
//!
//! Only types that one JSON scalar can fill are taken. Everything else is refused with what to write instead; fields that the
//! schema leaves out are ignored when records are read. `CHAR(n)` and `VARCHAR(n)` are plain text: `n` is not enforced, as in
//! Spark's own reading of JSON. `TIMESTAMP_NTZ` is taken as UTC.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Reads the columns of a DDL string; the error is a sentence for the author of the query file.
pub fn parse_ddl(text: &str) -> Result<SchemaRef, String> {
    let mut parser = Parser { rest: text };
    let mut seen = HashSet::new();
    let mut fields = Vec::new();
    loop {
        let field = parser.column()?;
        if !seen.insert(field.name().to_lowercase()) {
            return Err(format!("column '{}' is declared twice (upper and lower case are the same name)", field.name()));
        }
        fields.push(field);
        if !parser.take(',') {
            break;
        }
    }
    parser.space();
    if parser.rest.is_empty() {
        return Ok(Arc::new(Schema::new(fields)));
    }
    let last = fields.last().map_or("", |field| field.name());
    Err(format!("behind column '{last}' a comma is expected, found {}", parser.found()))
}

/// What is left of the text.
#[derive(Debug)]
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// `name [:] TYPE [NOT NULL] [COMMENT '...']`
    fn column(&mut self) -> Result<Field, String> {
        let name = self.name()?;
        self.take(':');
        let data_type = self.data_type(&name)?;
        let not_null = self.take_word("NOT");
        if not_null && !self.take_word("NULL") {
            return Err(format!("column '{name}': NOT is only known in NOT NULL, found {}", self.found()));
        }
        if self.take_word("COMMENT") {
            self.comment(&name)?;
        }
        Ok(Field::new(name, data_type, !not_null))
    }

    /// A plain name, or any name between backticks (two of them stand for one).
    fn name(&mut self) -> Result<String, String> {
        if !self.take('`') {
            return match self.word() {
                "" => Err(format!("a column's name is expected, found {}", self.found())),
                word => Ok(word.to_owned()),
            };
        }
        let mut name = String::new();
        while let Some((part, rest)) = self.rest.split_once('`') {
            name.push_str(part);
            self.rest = rest;
            match rest.strip_prefix('`') {
                Some(rest) => {
                    name.push('`');
                    self.rest = rest;
                }
                None if name.is_empty() => return Err("a column's name is expected, found nothing between two backticks".into()),
                None => return Ok(name),
            }
        }
        Err(format!("the backtick before `{}` is never closed", self.rest))
    }

    fn data_type(&mut self, column: &str) -> Result<DataType, String> {
        let word = self.word();
        if word.is_empty() {
            return Err(format!("column '{column}' needs a type, such as DOUBLE; found {}", self.found()));
        }
        let kind = word.to_uppercase();
        let data_type = match kind.as_str() {
            "STRING" => DataType::Utf8,
            "VARCHAR" | "CHAR" | "CHARACTER" => {
                self.length(column, &kind)?;
                DataType::Utf8
            }
            "TIMESTAMP" | "TIMESTAMP_LTZ" | "TIMESTAMP_NTZ" => DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())),
            "DATE" => DataType::Date32,
            "DOUBLE" => DataType::Float64,
            "FLOAT" | "REAL" => DataType::Float32,
            "BIGINT" | "LONG" => DataType::Int64,
            "INT" | "INTEGER" => DataType::Int32,
            "SMALLINT" | "SHORT" => DataType::Int16,
            "TINYINT" | "BYTE" => DataType::Int8,
            "BOOLEAN" => DataType::Boolean,
            "DECIMAL" | "DEC" | "NUMERIC" => self.decimal(column)?,
            _ => return Err(refusal(column, &kind, word)),
        };
        Ok(data_type)
    }

    /// The length of `VARCHAR(n)`, which must be there, as in Spark.
    fn length(&mut self, column: &str, kind: &str) -> Result<(), String> {
        match self.numbers(column)?.as_slice() {
            [length] if *length > 0 => Ok(()),
            _ => Err(format!("column '{column}': {kind} needs a length, such as {kind}(20); or write STRING")),
        }
    }

    /// `DECIMAL`, `DECIMAL(p)` or `DECIMAL(p, s)`; Spark's default is (10, 0).
    fn decimal(&mut self, column: &str) -> Result<DataType, String> {
        let (precision, scale) = match self.numbers(column)?.as_slice() {
            [] => (10, 0),
            [precision] => (*precision, 0),
            [precision, scale] => (*precision, *scale),
            _ => (0, 0),
        };
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(digits @ 1..=38), Ok(places)) if scale <= precision => Ok(DataType::Decimal128(digits, places)),
            _ => Err(format!("column '{column}': write DECIMAL(p, s) with p from 1 to 38 and s from 0 to p")),
        }
    }

    /// The numbers between the parentheses behind a type; none without parentheses.
    fn numbers(&mut self, column: &str) -> Result<Vec<u32>, String> {
        let mut numbers = Vec::new();
        if !self.take('(') {
            return Ok(numbers);
        }
        loop {
            let word = self.word();
            numbers.push(word.parse().map_err(|_| format!("column '{column}': a number is expected in the parentheses of its type"))?);
            if self.take(')') {
                return Ok(numbers);
            }
            if !self.take(',') {
                return Err(format!("column '{column}': the parentheses of its type are not closed, found {}", self.found()));
            }
        }
    }

    /// Steps over a quoted text; a backslash takes the next character along.
    fn comment(&mut self, column: &str) -> Result<(), String> {
        self.space();
        let mut characters = self.rest.char_indices();
        let quote = characters.next().map(|(_, quote)| quote).filter(|quote| matches!(quote, '\'' | '"'));
        let quote = quote.ok_or_else(|| format!("column '{column}': COMMENT needs a text in quotes, found {}", self.found()))?;
        while let Some((at, character)) = characters.next() {
            if character == '\\' {
                characters.next();
            } else if character == quote {
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(());
            }
        }
        Err(format!("column '{column}': the text of its COMMENT is never closed"))
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, character: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(character);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The next run of letters, digits and underscores; may be empty.
    fn word(&mut self) -> &'a str {
        self.space();
        let end = self.rest.find(|character: char| !(character.is_alphanumeric() || character == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        let same = self.word().eq_ignore_ascii_case(wanted);
        if !same {
            self.rest = before;
        }
        same
    }

    /// What stands next, for an error.
    fn found(&self) -> String {
        let rest = self.rest.trim_start();
        match rest.split_whitespace().next() {
            None => "the end of the schema".into(),
            Some(word) => format!("'{word}'"),
        }
    }
}

/// One sentence: which column, why not, and what to do.
fn refusal(column: &str, kind: &str, written: &str) -> String {
    let advice = match kind {
        "ARRAY" | "MAP" | "STRUCT" | "VARIANT" | "OBJECT" => {
            "nested fields are not read; leave the column out, or let the producer write its parts as fields of the record"
        }
        "BINARY" => "JSON has no bytes; declare it STRING, which holds their text",
        "INTERVAL" => "JSON has no intervals; declare it BIGINT and count in milliseconds",
        "VOID" | "NULL" => "it could hold nothing; leave the column out",
        _ => {
            "no such type is read; write one of STRING, TIMESTAMP, DATE, DOUBLE, FLOAT, BIGINT, INT, SMALLINT, TINYINT, BOOLEAN, DECIMAL(p, s)"
        }
    };
    format!("column '{column}' is {written}: {advice}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Vec<(String, DataType, bool)> {
        let schema = parse_ddl(text).unwrap();
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone(), field.is_nullable())).collect()
    }

    fn types(text: &str) -> Vec<DataType> {
        columns(text).into_iter().map(|(_, data_type, _)| data_type).collect()
    }

    fn refused(text: &str) -> String {
        parse_ddl(text).unwrap_err()
    }

    #[test]
    fn the_schema_of_the_readme() {
        let time = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
        let wanted = vec![DataType::Utf8, time.clone(), DataType::Float64, DataType::Utf8, DataType::Int64];
        assert_eq!(types("sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT"), wanted);
        assert_eq!(types("a timestamp_ltz,b\nTimestamp_NTZ"), [time.clone(), time]);
    }

    #[test]
    fn every_scalar_type_by_all_its_names() {
        use DataType::{Boolean, Date32, Decimal128, Float32, Int8, Int16, Int32, Int64, Utf8};
        assert_eq!(types("a varchar(20), b char( 3 ), c date, d float, e real"), [Utf8, Utf8, Date32, Float32, Float32]);
        assert_eq!(types("a long, b int, c integer, d smallint, e short"), [Int64, Int32, Int32, Int16, Int16]);
        assert_eq!(types("a tinyint, b byte, c boolean, d decimal(38, 10)"), [Int8, Int8, Boolean, Decimal128(38, 10)]);
        assert_eq!(types("a decimal, b dec(5), c numeric(3,3)"), [Decimal128(10, 0), Decimal128(5, 0), Decimal128(3, 3)]);
    }

    #[test]
    fn names_nulls_and_comments() {
        let found =
            columns("`a ``b``, c` : INT NOT NULL COMMENT 'it\\'s, fine' , not: string not null, `ts`TIMESTAMP COMMENT \"\", 1x INT");
        let found: Vec<_> = found.iter().map(|(name, _, nullable)| (name.as_str(), *nullable)).collect();
        assert_eq!(found, [("a `b`, c", false), ("not", false), ("ts", true), ("1x", true)]);
    }

    #[test]
    fn what_one_json_scalar_cannot_fill_is_refused_by_name() {
        let nested = "nested fields are not read; leave the column out, or let the producer write its parts as fields of the record";
        assert_eq!(refused("a INT, tags ARRAY<STRING>"), format!("column 'tags' is ARRAY: {nested}"));
        assert_eq!(refused("m map<string,int>"), format!("column 'm' is map: {nested}"));
        assert_eq!(refused("s STRUCT<a: INT>"), format!("column 's' is STRUCT: {nested}"));
        assert_eq!(refused("b BINARY"), "column 'b' is BINARY: JSON has no bytes; declare it STRING, which holds their text");
        assert!(refused("i INTERVAL DAY TO SECOND").starts_with("column 'i' is INTERVAL: JSON has no intervals"));
        assert!(refused("x TEXT").starts_with("column 'x' is TEXT: no such type is read; write one of STRING, "));
        assert!(refused("x VOID").contains("leave the column out"));
    }

    #[test]
    fn faults_say_what_was_expected() {
        assert_eq!(refused("a INT, b INT, A STRING"), "column 'A' is declared twice (upper and lower case are the same name)");
        assert_eq!(refused(""), "a column's name is expected, found the end of the schema");
        assert_eq!(refused("a INT,"), "a column's name is expected, found the end of the schema");
        assert_eq!(refused("a"), "column 'a' needs a type, such as DOUBLE; found the end of the schema");
        assert_eq!(refused("a INT b INT"), "behind column 'a' a comma is expected, found 'b'");
        assert_eq!(refused("a STRING COLLATE x"), "behind column 'a' a comma is expected, found 'COLLATE'");
        assert_eq!(refused("`a INT"), "the backtick before `a INT` is never closed");
        assert_eq!(refused("`` INT"), "a column's name is expected, found nothing between two backticks");
        assert_eq!(refused("a INT NOT b"), "column 'a': NOT is only known in NOT NULL, found 'b'");
        assert_eq!(refused("a INT COMMENT x"), "column 'a': COMMENT needs a text in quotes, found 'x'");
        assert_eq!(refused("a INT COMMENT 'x\\'"), "column 'a': the text of its COMMENT is never closed");
        assert_eq!(refused("a VARCHAR"), "column 'a': VARCHAR needs a length, such as VARCHAR(20); or write STRING");
        for text in
            ["a DECIMAL(39)", "a DECIMAL(3,4)", "a DECIMAL(0)", "a DECIMAL(1,1,1)", "a DECIMAL(999999999999)", "a DECIMAL(3", "a DECIMAL()"]
        {
            assert!(refused(text).starts_with("column 'a': "), "{text}");
        }
    }
}
