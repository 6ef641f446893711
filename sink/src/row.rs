//! A row on the wire: a JSON object of a query's columns, in their order.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// One column's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(Cow<'a, str>),
    /// A list or a struct, such as Spark's column `window`.
    Nested(Value),
}

/// The columns in the order of the query; read straight from the bytes, without a tree in between. Texts without escapes are the record's own
/// bytes: half of them, such as the window's bounds, are never kept.
#[derive(Debug, PartialEq)]
pub(crate) struct Row<'a>(pub(crate) Vec<(Cow<'a, str>, Cell<'a>)>);

impl Row<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&Cell<'_>> {
        self.0.iter().find(|(column, _)| column == name).map(|(_, cell)| cell)
    }
}

impl<'de> Deserialize<'de> for Row<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = Row<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object of columns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row<'de>, A::Error> {
                let mut columns = Vec::with_capacity(8);
                while let Some((Name(name), cell)) = map.next_entry()? {
                    columns.push((name, cell));
                }
                Ok(Row(columns))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

/// A column's name.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Cell<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Cell<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Cell<'de>, E> {
                Ok(Cell::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Cell<'de>, E> {
                Ok(Cell::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Cell<'de>, E> {
                Ok(Cell::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Cell<'de>, E> {
                Ok(i64::try_from(value).map_or(Cell::UInt(value), Cell::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Cell<'de>, E> {
                Ok(Cell::Float(value))
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cell<'de>, E> {
                Ok(Cell::Text(Cow::Borrowed(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Cell<'de>, E> {
                Ok(Cell::Text(Cow::Owned(value.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Cell<'de>, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(seq)).map(Cell::Nested)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cell<'de>, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(map)).map(Cell::Nested)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_told_apart() {
        let row: Row = serde_json::from_str(
            r#"{"z":null,"a":true,"i":-3,"u":18446744073709551615,"f":2.0,"t":"\u00e9\ud83c\udf21","w":{"start":"x"},"l":[1]}"#,
        )
        .unwrap();
        assert_eq!(row.get("z"), Some(&Cell::Null));
        assert_eq!(row.get("i"), Some(&Cell::Int(-3)));
        assert_eq!(row.get("u"), Some(&Cell::UInt(u64::MAX)));
        assert_eq!(row.get("f"), Some(&Cell::Float(2.0)));
        assert_eq!(row.get("t"), Some(&Cell::Text("é🌡".into())));
        assert_eq!(row.get("w"), Some(&Cell::Nested(serde_json::json!({ "start": "x" }))));
        assert_eq!(row.0[0].0, "z", "the query's order is kept");
    }

    #[test]
    fn only_an_object_is_a_row() {
        for text in ["[1]", "3", "\"x\"", "", "{\"a\":1", "{\"a\":1} x"] {
            assert!(serde_json::from_str::<Row>(text).is_err(), "{text}");
        }
    }
}
