use super::*;
use crate::point::tests::point;

fn line(point: &Point) -> String {
    let mut out = Vec::new();
    assert!(write(point, Dialect::Influxdb, &mut out));
    String::from_utf8(out).unwrap()
}

/// InfluxDB's own reading of a name: a backslash goes when a special character follows it.
fn influx_reads(escaped: &str) -> String {
    let mut out = String::new();
    let mut characters = escaped.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\\' && matches!(characters.peek(), Some(',' | ' ' | '=')) {
            continue;
        }
        out.push(character);
    }
    out
}

/// VictoriaMetrics' reading: as above, and a backslash escapes itself.
fn victoria_reads(escaped: &str) -> String {
    let mut out = String::new();
    let mut characters = escaped.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(',' | ' ' | '=' | '\\')) => out.extend(characters.next()),
            _ => out.push(character),
        }
    }
    out
}

const HARD: [&str; 18] = [
    "plain",
    "two words",
    "a,b",
    "a=b",
    "line\nbreak",
    "\r\n",
    "🌡 °C é",
    "back\\slash",
    "end\\",
    "\\",
    "\\\\",
    "C:\\new\\x5c",
    "\\n",
    "\\\n",
    "\"quoted\"",
    "a\\,b",
    " lead",
    "trail ",
];

#[test]
fn every_text_comes_back_and_stays_apart_from_the_others() {
    let mut seen = std::collections::BTreeSet::new();
    for text in HARD {
        for (dialect, reads) in [(Dialect::Influxdb, influx_reads as fn(&str) -> String), (Dialect::Victoriametrics, victoria_reads)] {
            let mut out = Vec::new();
            escape::key(text, dialect, &mut out);
            let escaped = String::from_utf8(out).unwrap();
            assert!(!escaped.contains('\n'), "{text:?} would end the line: {escaped:?}");
            assert!(dialect == Dialect::Victoriametrics || !escaped.ends_with('\\'), "{text:?} would escape what follows: {escaped:?}");
            assert_eq!(readable(&reads(&escaped)), text, "{dialect:?} {escaped:?}");
            if dialect == Dialect::Influxdb {
                assert!(seen.insert(reads(&escaped)), "{text:?} is the same as another");
            }
        }
    }
}

#[test]
fn a_line_has_tags_fields_and_milliseconds() {
    let mut point = point("a b,c=d", 1_700_000_000_123, 21.5, None);
    point.measurement = "my m,=".into();
    point.tags.push(("z".into(), "".into()));
    point.fields.extend([
        ("i".into(), FieldValue::Int(-3)),
        ("u".into(), FieldValue::UInt(u64::MAX)),
        ("b".into(), FieldValue::Bool(true)),
        ("t x".into(), FieldValue::Text("say \"hi\" \\ bye\nnow".into())),
        ("tiny".into(), FieldValue::Float(1e-300)),
    ]);
    let expected = concat!(
        r"my\ m\,=,sensor_id=a\ b\,c\=d avg=21.5,i=-3i,u=18446744073709551615u,b=true,",
        r#"t\ x="say \"hi\" \\ bye"#,
        "\n",
        r#"now",tiny=1e-300"#
    );
    let text = line(&point);
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with(" 1700000000123\n"), "{text}");
}

#[test]
fn what_line_protocol_would_take_for_something_else_is_refused() {
    let named = |measurement: &str, tag: &str, field: &str| Point {
        measurement: measurement.into(),
        tags: vec![(tag.into(), "x".into())],
        fields: vec![(field.into(), FieldValue::Int(1))],
        ..point("s", 0, 0.0, None)
    };
    assert_eq!(fault(0, &named("m", "t", "f"), Dialect::Influxdb), None);
    for (measurement, tag, field) in
        [("", "t", "f"), ("m", "", "f"), ("m", "t", ""), ("#m", "t", "f"), ("m", "time", "f"), ("m", "t", "time"), ("m", "a\0", "f")]
    {
        assert_eq!(fault(3, &named(measurement, tag, field), Dialect::Influxdb).unwrap().index, 3, "{measurement} {tag} {field}");
    }
    let empty = Point { fields: vec![], ..named("m", "t", "f") };
    assert!(!write(&empty, Dialect::Influxdb, &mut Vec::new()));
}
