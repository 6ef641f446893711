use super::*;

const START: &str = "1700000000000";

fn headers<'a>(revision: &'a str, keys: &'a str) -> Vec<(&'a str, &'a [u8])> {
    vec![
        (header::QUERY, b"iot-10s".as_slice()),
        (header::REVISION, revision.as_bytes()),
        (header::FINAL, b"true"),
        (header::WINDOW_START, START.as_bytes()),
        (header::WINDOW_END, b"1700000010000"),
        (header::KEY_COLUMNS, keys.as_bytes()),
    ]
}

fn map(headers: &[(&str, &[u8])], value: &str) -> Result<Point, Unreadable> {
    Mapper::default().map("iot.agg.spark", headers.iter().copied(), Some(value.as_bytes()))
}

#[test]
fn key_columns_become_tags_and_the_rest_fields() {
    let value = r#"{"window_start":"2023-11-14T22:13:20Z","window_end":"2023-11-14T22:13:30Z","sensor_id":"s-1","n":3,"avg":21.5,
        "top":"high","ok":true,"gone":null}"#;
    let point = map(&headers("42", r#"["sensor_id"]"#), value).unwrap();
    assert_eq!(point.measurement, "iot-10s");
    assert_eq!(point.tags, [("sensor_id".into(), "s-1".into())]);
    assert_eq!((point.time_ms, point.end_ms), (1_700_000_000_000, Some(1_700_000_010_000)));
    assert_eq!((point.revision, point.is_final), (Some(42), true));
    let fields: Vec<(&str, &FieldValue)> = point.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(
        fields,
        [
            ("n", &FieldValue::Int(3)),
            ("avg", &FieldValue::Float(21.5)),
            ("top", &FieldValue::Text("high".into())),
            ("ok", &FieldValue::Bool(true))
        ]
    );
}

#[test]
fn tags_are_sorted_and_keep_every_character() {
    let point = map(&headers("1", r#"["z","a b","n"]"#), r#"{"z":"q\"uo,te=\\ 🌡é","a b":"","n":7,"v":1}"#).unwrap();
    let tags: Vec<(&str, &str)> = point.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("a b", ""), ("n", "7"), ("z", "q\"uo,te=\\ 🌡é")]);
    assert_eq!(point.tags_json(), r#"{"a b":"","n":"7","z":"q\"uo,te=\\ 🌡é"}"#);
}

#[test]
fn window_columns_by_another_name_are_no_fields() {
    let point = map(&headers("1", "[]"), r#"{"from":"2023-11-14T22:13:20Z","until":"2023-11-14T22:13:30Z","v":1}"#).unwrap();
    assert_eq!(point.fields, [("v".into(), FieldValue::Int(1))]);
}

#[test]
fn rows_of_spark_need_no_headers() {
    for value in [
        r#"{"window_start":"2023-11-14T22:13:20.000Z","window_end":"2023-11-14T22:13:30.000Z","sensor_id":"s","avg":1.5}"#,
        r#"{"window_start":1700000000000,"window_end":1700000010000,"sensor_id":"s","avg":1.5}"#,
        r#"{"window":{"start":"2023-11-14T22:13:20.000Z","end":"2023-11-14T22:13:30.000Z"},"sensor_id":"s","avg":1.5}"#,
    ] {
        let point = map(&[], value).unwrap();
        assert_eq!(point.measurement, "spark");
        assert_eq!((point.time_ms, point.end_ms), (1_700_000_000_000, Some(1_700_000_010_000)));
        assert_eq!(point.tags, [("sensor_id".into(), "s".into())]);
        assert_eq!(point.fields, [("avg".into(), FieldValue::Float(1.5))]);
        assert_eq!((point.revision, point.is_final), (None, false));
    }
}

#[test]
fn what_cannot_be_a_point_says_why() {
    let reason = |headers: &[(&str, &[u8])], value| map(headers, value).unwrap_err().reason;
    assert_eq!(reason(&[], "nonsense"), "not_json");
    assert_eq!(reason(&[], "[1,2]"), "not_json");
    assert_eq!(reason(&[], r#"{"avg":1}"#), "no_time");
    assert_eq!(reason(&[], r#"{"window_start":"yesterday"}"#), "no_time");
    assert_eq!(reason(&headers("x", "[]"), "{}"), "bad_header");
    assert_eq!(reason(&headers("1", "sensor_id"), "{}"), "bad_header");
    assert_eq!(Mapper::default().map("t", std::iter::empty(), None).unwrap_err().reason, "no_value");
}

#[test]
fn readings_and_rows_without_a_window_have_their_own_time() {
    let reading = Mapper::default()
        .map("iot", std::iter::empty(), Some(br#"{"sensor_id":"s","ts":1700000000123,"value":21.5,"kind":"temperature","seq":17}"#))
        .unwrap();
    assert_eq!((reading.measurement.as_str(), reading.time_ms), ("iot", 1_700_000_000_123));
    assert_eq!(reading.tags, [("kind".into(), "temperature".into()), ("sensor_id".into(), "s".into())]);
    assert_eq!(reading.fields, [("value".into(), FieldValue::Float(21.5)), ("seq".into(), FieldValue::Int(17))]);

    let own = |more: &[(&'static str, &'static [u8])]| {
        let mut headers: Vec<(&str, &[u8])> = vec![(header::QUERY, b"q"), (header::REVISION, b"7"), (header::KEY_COLUMNS, b"[\"s\"]")];
        headers.extend(more);
        map(&headers, r#"{"s":"a","v":1.5,"ts":"2023-11-14T22:13:20Z"}"#).unwrap()
    };
    let stateless = own(&[(header::TIME, b"1700000000000"), (header::ROW, b"iot-0@7")]);
    assert_eq!((stateless.time_ms, stateless.fields.len()), (1_700_000_000_000, 1));
    let current = own(&[(header::RANK, b"3")]);
    assert_eq!(current.time_ms, 0);
    assert_eq!(current.fields.last().unwrap(), &("rank".into(), FieldValue::Int(3)));
}

#[test]
fn a_row_that_has_left_the_result_is_a_deletion_of_its_identity() {
    let mut told = headers("9", r#"["a","b"]"#);
    told.push((header::KEY, br#"{"a":"x","b":null,"window_start":"2023-11-14T22:13:20Z"}"#));
    let point = Mapper::default().map("iot.agg.q", told.iter().copied(), None).unwrap();
    assert!(point.deleted && point.fields.is_empty());
    assert_eq!(point.tags, [("a".into(), "x".into())]);
    assert_eq!((point.null_tag, point.time_ms, point.revision), (true, 1_700_000_000_000, Some(9)));
    // Without the key nobody knows what is to go.
    assert_eq!(Mapper::default().map("t", headers("9", "[]").into_iter(), None).unwrap_err().reason, "no_value");
}

#[test]
fn the_settings_choose_measurement_tags_fields_and_time() {
    let settings = Mapping {
        measurement: Some("{query}_{topic}".into()),
        tags: vec!["kind".into()],
        fields: vec!["value".into(), "note".into()],
        time_column: Some("at".into()),
        ..Mapping::default()
    };
    let mut mapper = Mapper::new(&settings);
    let mut map = |value: &str| mapper.map("iot.agg.q", std::iter::empty(), Some(value.as_bytes()));
    let point = map(r#"{"sensor_id":"s","kind":"k","at":1700000000123,"value":1,"note":"text","other":2}"#).unwrap();
    assert_eq!(point.measurement, "q_iot.agg.q");
    assert_eq!(point.tags, [("kind".into(), "k".into())]);
    assert_eq!(point.fields, [("value".into(), FieldValue::Int(1)), ("note".into(), FieldValue::Text("text".into()))]);
    assert_eq!(point.time_ms, 1_700_000_000_123);
    let fault = map(r#"{"kind":"k","value":1}"#).unwrap_err();
    assert!(fault.reason == "no_time" && fault.detail.contains("'at'"), "{fault:?}");
}
