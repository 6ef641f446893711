//! What a message is: its payload, and the columns that it has beside it. Of the sources that read messages, `mqtt` and `kinesis`.

use serde::Deserialize;

/// What a payload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// An object, read by the source's schema.
    #[default]
    Json,
    /// A text, which becomes the column `value`.
    Text,
}

/// A column that the message has beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnColumn {
    /// Of MQTT.
    Topic,
    /// Of Kinesis.
    PartitionKey,
    /// When the message came.
    Timestamp,
}

impl OwnColumn {
    fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::PartitionKey => "partition_key",
            Self::Timestamp => "timestamp",
        }
    }

    fn ddl(self) -> &'static str {
        match self {
            Self::Topic => "topic STRING",
            Self::PartitionKey => "partition_key STRING",
            Self::Timestamp => "timestamp TIMESTAMP",
        }
    }
}

/// The schema of texts.
const TEXT: &str = "value STRING";

impl Payload {
    /// Adds the message's own columns to those of the payload: each whose name the payload does not have. Gives those that were added.
    pub(super) fn settle(self, columns: &[OwnColumn], schema: &mut String) -> Vec<OwnColumn> {
        if self == Self::Text && schema.is_empty() {
            TEXT.clone_into(schema);
        }
        // A schema that cannot be read is refused later, with its fault.
        let Ok(declared) = crate::query::ddl::parse_ddl(schema) else { return Vec::new() };
        let has = |name: &str| declared.fields().iter().any(|field| field.name().eq_ignore_ascii_case(name));
        let own: Vec<OwnColumn> = columns.iter().copied().filter(|column| !has(column.name())).collect();
        for column in &own {
            schema.push_str(", ");
            schema.push_str(column.ddl());
        }
        own
    }

    /// Refuses a schema for texts, which have one.
    pub(super) fn check(self, columns: &[OwnColumn], schema: &str) -> Result<(), String> {
        let of_text = columns.iter().fold(TEXT.to_owned(), |ddl, column| ddl + ", " + column.ddl());
        if self == Self::Json || schema == of_text {
            return Ok(());
        }
        let names = columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(" and ");
        Err(format!("source.schema: payload = \"text\" has the columns value, {names}; leave the schema out"))
    }
}
