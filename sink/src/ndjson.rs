//! Points as JSON objects, one a line.

use serde::Serialize;

use crate::point::{Object, Point, Text};

#[derive(Serialize)]
struct Line<'a> {
    measurement: &'a str,
    tags: Object<'a, Text>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    fields: Object<'a, crate::point::FieldValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(rename = "final")]
    is_final: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

pub(crate) fn write(points: &[Point], out: &mut Vec<u8>) {
    for point in points {
        let line = Line {
            measurement: &point.measurement,
            tags: Object(&point.tags),
            time: point.time_ms,
            end: point.end_ms,
            fields: Object(&point.fields),
            revision: point.revision,
            is_final: point.is_final,
            deleted: point.deleted,
        };
        // Text keys and plain values always serialise, and memory takes them.
        let written = serde_json::to_writer(&mut *out, &line);
        debug_assert!(written.is_ok());
        out.push(b'\n');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::point::tests::point;

    #[test]
    fn a_line_is_an_object_with_all_that_is_known() {
        let gone = Point { deleted: true, fields: vec![], ..point("b", 5, 0.0, None) };
        let mut out = Vec::new();
        write(&[point("a\n", 0, 1.5, Some(7)), gone], &mut out);
        let expected = concat!(
            r#"{"measurement":"m","tags":{"sensor_id":"a\n"},"time":0,"end":10000,"fields":{"avg":1.5},"revision":7,"final":false}"#,
            "\n",
            r#"{"measurement":"m","tags":{"sensor_id":"b"},"time":5,"end":10005,"fields":{},"final":false,"deleted":true}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
