//! Why a record was set aside, in a sentence for whoever finds it in the dead lane.

use arrow::datatypes::{DataType, Field};

use super::column::Misfit;
use super::json::{Fault, Token};

/// What is wrong with a record that is not one JSON object.
#[cold]
pub(super) fn fault(text: &str, fault: Fault) -> String {
    let found = match text.get(fault.at..).and_then(|rest| rest.chars().next()) {
        Some(character) => format!("{character:?}"),
        None if text.is_empty() => return String::from("the payload is empty, expected a JSON object"),
        None => String::from("the end of the record"),
    };
    format!("at byte {}: expected {}, found {found}", fault.at, fault.wanted)
}

/// What is wrong with a value that does not fit its column.
#[cold]
pub(super) fn misfit(field: &Field, token: Token<'_>, misfit: Misfit) -> String {
    let (name, sql) = (field.name(), sql_name(field.data_type()));
    match misfit {
        Misfit::Missing => format!("column '{name}' is {sql} NOT NULL, found no value"),
        Misfit::Kind => format!("column '{name}' is {sql}, found {}", kind(token)),
        Misfit::Value(why) => format!("column '{name}' is {sql}, found {}, which {why}", shown(token)),
    }
}

/// What is wrong with a cell of a table.
#[cold]
pub(super) fn cell(field: &Field, token: Token<'_>, misfit: Misfit) -> String {
    match misfit {
        // A cell is always a text; which one, is what helps.
        Misfit::Kind => format!("column '{}' is {}, found {}", field.name(), sql_name(field.data_type()), shown(token)),
        _ => self::misfit(field, token, misfit),
    }
}

fn kind(token: Token<'_>) -> &'static str {
    match token {
        Token::Null => "null",
        Token::Bool(_) => "a boolean",
        Token::Number(_) => "a number",
        Token::Text(_) | Token::Escaped(_) => "a string",
        Token::Array => "an array",
        Token::Object => "an object",
    }
}

/// The value itself, if it is short.
fn shown(token: Token<'_>) -> String {
    let short = |text: &str| match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    match token {
        Token::Number(number) => short(number.raw),
        Token::Text(text) | Token::Escaped(text) => format!("\"{}\"", short(text)),
        other => kind(other).to_owned(),
    }
}

/// The type as it stands in a query file.
pub(super) fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "STRING".into(),
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        other => other.to_string(),
    }
}
