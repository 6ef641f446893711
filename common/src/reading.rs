//! The reading: one value of one sensor at one moment, as it stands in topic `iot`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names are short, and a short one lies in the reading itself.
pub type Name = CompactString;

/// One reading, the value of a record of topic `iot`:
/// `{"sensor_id":"s-0001","ts":1700000000123,"value":21.5,"kind":"temperature","seq":17}`.
///
/// The processor does not know this type: it decodes by the schema of the query file. It is what *our* producers write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub sensor_id: Name,
    /// Event time, milliseconds since 1970-01-01T00:00:00Z; negative before that.
    pub ts: i64,
    /// JSON has no NaN and no infinity; such a value is written as `null`.
    pub value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Name>,
    /// Counts up by one per sensor, so that a consumer can see a gap or a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// Where `ts` comes from, when it is not the sensor's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts_source: Option<TsSource>,
    /// Further columns of the row, such as the parts of an MQTT topic; none of them has the name of a field above.
    #[serde(skip)]
    pub labels: Vec<(String, Value)>,
}

/// A time that is not the sensor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TsSource {
    /// The sender gave no time; `ts` is when the reading was received.
    Receipt,
}

impl Reading {
    /// The names that a label cannot have.
    pub const FIELDS: [&str; 6] = ["sensor_id", "ts", "value", "kind", "seq", "ts_source"];

    /// Appends the reading as JSON, without allocating more than `out` needs to grow.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write(out, self);
        if self.labels.is_empty() {
            return;
        }
        out.pop();
        for (name, value) in &self.labels {
            out.push(b',');
            write(out, name);
            out.push(b':');
            write(out, value);
        }
        out.push(b'}');
    }
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing into a Vec cannot fail, and the types have no map keys that could be rejected.
    if let Err(error) = serde_json::to_writer(out, value) {
        unreachable!("a reading is always representable as JSON: {error}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn json(reading: &Reading) -> String {
        let mut out = Vec::new();
        reading.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_looks_as_the_readme_says() {
        let reading = Reading {
            sensor_id: "s-0001".into(),
            ts: 1_700_000_000_123,
            value: 21.5,
            kind: Some("temperature".into()),
            seq: Some(17),
            ..Reading::default()
        };
        let text = r#"{"sensor_id":"s-0001","ts":1700000000123,"value":21.5,"kind":"temperature","seq":17}"#;
        assert_eq!(json(&reading), text);
        assert_eq!(serde_json::from_str::<Reading>(text).unwrap(), reading);
    }

    #[test]
    fn a_time_of_receipt_says_so_and_labels_are_columns() {
        let reading = Reading {
            sensor_id: "p".into(),
            ts: 5,
            value: 1.0,
            ts_source: Some(TsSource::Receipt),
            labels: vec![("site".into(), "hall \"1\"".into()), ("is_historical".into(), true.into())],
            ..Reading::default()
        };
        let text = r#"{"sensor_id":"p","ts":5,"value":1.0,"ts_source":"receipt","site":"hall \"1\"","is_historical":true}"#;
        assert_eq!(json(&reading), text);
    }
}
