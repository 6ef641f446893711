//! Which column is which: the first line decides.

use super::fields::Fields;

/// Positions of the columns that make a reading. Columns with other names are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) ts: usize,
    pub(super) value: usize,
    /// Without it, the file's name is the sensor.
    pub(super) sensor_id: Option<usize>,
    pub(super) kind: Option<usize>,
    pub(super) seq: Option<usize>,
    /// Number of columns; a row must have as many.
    pub(super) width: usize,
}

const TIMES: [&str; 3] = ["ts", "timestamp", "time"];

impl Header {
    /// # Errors
    /// What is wrong with the line, as a part of a sentence.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut fields = Fields::default();
        fields.split(line)?;
        let names: Vec<String> = (0..fields.len()).map(|index| fields.get(line, index).to_ascii_lowercase()).collect();
        let find = |wanted: &[&str]| -> Result<Option<usize>, String> {
            let mut found = (0..names.len()).filter(|index| wanted.contains(&names[*index].as_str()));
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(format!("column '{}' is there twice", wanted.join("' or '"))),
                (first, None) => Ok(first),
            }
        };
        let shown = || line.chars().take(80).collect::<String>();
        let missing = |what: &str| format!("there is no column {what} in '{}'", shown());
        Ok(Self {
            ts: find(&TIMES)?.ok_or_else(|| missing("'timestamp' (or 'ts', 'time')"))?,
            value: find(&["value"])?.ok_or_else(|| missing("'value'"))?,
            sensor_id: find(&["sensor_id"])?,
            kind: find(&["kind"])?,
            seq: find(&["seq"])?,
            width: names.len(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_known() {
        let bare = Header { ts: 0, value: 1, sensor_id: None, kind: None, seq: None, width: 2 };
        for line in ["timestamp,value", "time,value", "ts,value", "\"Timestamp\", VALUE "] {
            assert_eq!(Header::parse(line).unwrap(), bare, "{line}");
        }
        let own = Header::parse("seq,value,other,sensor_id,ts,kind").unwrap();
        assert_eq!(own, Header { ts: 4, value: 1, sensor_id: Some(3), kind: Some(5), seq: Some(0), width: 6 });
    }

    #[test]
    fn a_header_without_the_columns_is_refused() {
        for (line, part) in [
            ("", "no column 'timestamp'"),
            ("2013-07-04 00:00:00,69.88", "no column 'timestamp'"),
            ("timestamp,temperature", "no column 'value'"),
            ("timestamp,value,time", "twice"),
            ("timestamp,value,value", "twice"),
            ("timestamp,\"value", "not closed"),
        ] {
            assert!(Header::parse(line).unwrap_err().contains(part), "{line}");
        }
    }
}
