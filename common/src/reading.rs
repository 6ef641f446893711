//! The reading: one value of one sensor at one moment, as it stands in topic `iot`.

use serde::{Deserialize, Serialize};

/// One reading, the value of a record of topic `iot`:
/// `{"sensor_id":"s-0001","ts":1700000000123,"value":21.5,"kind":"temperature","seq":17}`.
///
/// The processor does not know this type: it decodes by the schema of the query file. It is what *our* producers write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub sensor_id: String,
    /// Event time, milliseconds since 1970-01-01T00:00:00Z; negative before that.
    pub ts: i64,
    /// JSON has no NaN and no infinity; such a value is written as `null`.
    pub value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Counts up by one per sensor, so that a consumer can see a gap or a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
}

impl Reading {
    /// Appends the reading as JSON, without allocating more than `out` needs to grow.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        // Writing into a Vec cannot fail, and the type has no map keys that could be rejected.
        if let Err(error) = serde_json::to_writer(out, self) {
            unreachable!("a reading is always representable as JSON: {error}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_as_the_readme_says() {
        let reading =
            Reading { sensor_id: "s-0001".into(), ts: 1_700_000_000_123, value: 21.5, kind: Some("temperature".into()), seq: Some(17) };
        let mut out = Vec::new();
        reading.write_json(&mut out);
        let text = r#"{"sensor_id":"s-0001","ts":1700000000123,"value":21.5,"kind":"temperature","seq":17}"#;
        assert_eq!(String::from_utf8(out).unwrap(), text);
        assert_eq!(serde_json::from_str::<Reading>(text).unwrap(), reading);
    }
}
