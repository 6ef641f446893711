//! For the fuzz targets and the corpus of `producer/fuzz`: a payload of any format, and what becomes of it.

use common::settings::{Payload, PayloadFormat, PayloadMapping, TimeUnit, TopicFormat, TopicSetting};

use crate::payload::Reader;
use crate::source::Content;

/// The formats, by the names of their folders.
pub const FORMATS: [(&str, PayloadFormat); 6] = [
    ("json", PayloadFormat::Json),
    ("mapped_json", PayloadFormat::MappedJson),
    ("number", PayloadFormat::Number),
    ("line_protocol", PayloadFormat::LineProtocol),
    ("senml", PayloadFormat::Senml),
    ("sparkplug", PayloadFormat::Sparkplug),
];

/// Where the devices of a format publish; `file` is in each of their rows, as a column.
pub fn topic(format: PayloadFormat, file: &str) -> String {
    match FORMATS.iter().find(|(_, other)| *other == format) {
        Some((_, PayloadFormat::Sparkplug)) | None => format!("spBv1.0/corpus/NDATA/{file}"),
        Some((name, _)) => format!("corpus/{name}/{file}/device"),
    }
}

/// Settings with a topic for each format.
pub fn settings() -> Payload {
    let mapping = PayloadMapping {
        sensor_id: Some("/dev/id".into()),
        time: Some("/t".into()),
        values: [("temp", "/d/0"), ("hum", "/d/1")].map(|(name, pointer)| (name.into(), pointer.into())).into(),
        labels: [("model".to_owned(), "/dev/model".to_owned())].into(),
        ..PayloadMapping::default()
    };
    let topics = FORMATS.map(|(name, format)| {
        let mapped = format == PayloadFormat::MappedJson;
        TopicSetting::Full(TopicFormat {
            topic: match format {
                PayloadFormat::Sparkplug => "spBv1.0/#".to_owned(),
                // Its name must be in the payload.
                PayloadFormat::MappedJson => format!("corpus/{name}/{{file}}/+"),
                _ => format!("corpus/{name}/{{file}}/{{sensor_id}}"),
            },
            format: Some(format),
            time_unit: mapped.then_some(TimeUnit::Seconds),
            mapping: mapped.then(|| mapping.clone()),
        })
    });
    Payload { topics: topics.to_vec(), ..Payload::default() }
}

/// What a message became: readings as they stand in the log, and what went to the dead lane.
#[derive(Debug, Default)]
pub struct Rows {
    pub readings: Vec<Vec<u8>>,
    pub dead: Vec<Dead>,
    /// Values that are no readings and no faults.
    pub no_numbers: usize,
}

#[derive(Debug)]
pub struct Dead {
    pub reason: &'static str,
    pub detail: String,
    pub value: Vec<u8>,
}

/// Reads one message with [`settings`], as a producer that has just started.
///
/// # Errors
/// Faults of the settings; there are none.
pub fn read(format: PayloadFormat, file: &str, payload: &[u8], now: i64) -> Result<Rows, Vec<String>> {
    let outcome = Reader::new(&settings())?.read(&topic(format, file), payload, now);
    let mut rows = Rows { no_numbers: outcome.no_numbers, ..Rows::default() };
    for content in outcome.contents {
        match content {
            Content::Reading(reading) => {
                let mut out = Vec::new();
                reading.write_json(&mut out);
                rows.readings.push(out);
            }
            Content::Dead(row) => rows.dead.push(Dead { reason: row.reason, detail: row.detail, value: row.value }),
        }
    }
    Ok(rows)
}
