#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use common::settings::TopicFormat;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000_000;

fn reader(topic: &str, format: PayloadFormat, change: impl FnOnce(&mut TopicFormat)) -> Reader {
    let mut full = TopicFormat { topic: topic.into(), format: Some(format), time_unit: None, mapping: None };
    change(&mut full);
    Reader::new(&Payload { topics: vec![TopicSetting::Full(full)], ..Payload::default() }).unwrap()
}

fn plain(format: PayloadFormat) -> Reader {
    reader("sensors/{site}/{sensor_id}/{kind}", format, |_| {})
}

/// Readings as JSON, and the reasons of dead rows.
fn read(reader: &Reader, topic: &str, payload: &[u8]) -> (Vec<Value>, Vec<&'static str>) {
    let (mut readings, mut dead) = (Vec::new(), Vec::new());
    for content in reader.read(topic, payload, NOW).contents {
        match content {
            Content::Reading(reading) => {
                let mut out = Vec::new();
                reading.write_json(&mut out);
                readings.push(serde_json::from_slice(&out).unwrap());
            }
            Content::Dead(row) => {
                assert_eq!(row.topic, topic);
                dead.push(row.reason);
            }
        }
    }
    (readings, dead)
}

const TOPIC: &str = "sensors/hall/p-1/temperature";

#[test]
fn a_reading_takes_from_the_topic_what_it_does_not_say() {
    let reader = plain(PayloadFormat::Json);
    let (readings, dead) = read(&reader, TOPIC, br#"{"ts":1700000000123,"value":21.5,"seq":3,"battery":3.1}"#);
    let expected =
        json!({"sensor_id":"p-1","ts":1_700_000_000_123_i64,"value":21.5,"kind":"temperature","seq":3,"site":"hall","battery":3.1});
    assert_eq!((readings, dead), (vec![expected], vec![]));
    let (readings, _) = read(&reader, TOPIC, br#"{"sensor_id":"own","kind":"k","ts":"2023-11-14T22:13:20Z","value":1}"#);
    assert_eq!(readings[0], json!({"sensor_id":"own","ts":1_700_000_000_000_i64,"value":1.0,"kind":"k","site":"hall"}));
}

#[test]
fn a_missing_time_is_the_time_of_receipt_and_says_so() {
    for (format, payload) in [
        (PayloadFormat::Json, "21.5"),
        (PayloadFormat::Json, r#"{"value":21.5}"#),
        (PayloadFormat::Json, r#"[{"value":21.5,"ts":null}]"#),
        (PayloadFormat::Number, " 21.5\n"),
        (PayloadFormat::LineProtocol, "m value=21.5"),
        (PayloadFormat::Senml, r#"[{"n":"p-1","v":21.5}]"#),
    ] {
        let (readings, dead) = read(&plain(format), TOPIC, payload.as_bytes());
        assert_eq!(dead, Vec::<&str>::new(), "{payload}");
        assert_eq!((readings[0]["ts"].as_i64(), readings[0]["ts_source"].as_str()), (Some(NOW), Some("receipt")), "{payload}");
        assert_eq!((readings[0]["value"].as_f64(), readings[0]["sensor_id"].as_str()), (Some(21.5), Some("p-1")), "{payload}");
    }
}

#[test]
fn a_bad_element_of_a_list_does_not_hold_up_its_neighbours() {
    let payload = br#"[{"value":1},{"value":"x"},{"value":2},7,{"value":null}]"#;
    let (readings, dead) = read(&plain(PayloadFormat::Json), TOPIC, payload);
    assert_eq!(readings.iter().map(|r| r["value"].as_f64().unwrap()).collect::<Vec<_>>(), [1.0, 2.0]);
    assert_eq!(dead, ["wrong_type", "not_json", "missing"]);
}

#[test]
fn every_bad_payload_has_a_word() {
    let deep = "[".repeat(100_000);
    let many = format!("[{}]", vec![r#"{"value":1}"#; 10_001].join(","));
    for (payload, reason) in [
        (&b""[..], "empty"),
        (b"[]", "empty"),
        (b"oops", "not_json"),
        (b"{\"value\":NaN}", "not_json"),
        (b"NaN", "not_json"),
        (b"{\"value\":1e999}", "not_json"),
        (b"{\"value\":1", "not_json"),
        (deep.as_bytes(), "not_json"),
        (many.as_bytes(), "too_many"),
        (b"\xff\xfe{}", "not_utf8"),
        (b"true", "wrong_type"),
        (b"{\"value\":true}", "wrong_type"),
        (b"{\"value\":1,\"seq\":1.5}", "wrong_type"),
        (b"{\"value\":1,\"sensor_id\":[]}", "wrong_type"),
        (b"{}", "missing"),
        (b"{\"value\":1,\"sensor_id\":\"\"}", "no_sensor_id"),
        (b"{\"value\":1,\"ts\":\"noon\"}", "no_event_time"),
        (b"{\"value\":1,\"ts\":1700000000123000}", "no_event_time"),
    ] {
        let (readings, dead) = read(&plain(PayloadFormat::Json), TOPIC, payload);
        assert_eq!((readings, dead), (vec![], vec![reason]), "{:?}", String::from_utf8_lossy(&payload[..payload.len().min(60)]));
    }
    assert_eq!(read(&plain(PayloadFormat::Number), TOPIC, b"inf").1, ["not_finite"]);
    assert_eq!(read(&plain(PayloadFormat::Number), TOPIC, b"12,5").1, ["not_a_number"]);
    assert_eq!(read(&plain(PayloadFormat::Number), "other", b"12").1, ["unknown_topic"]);
}

#[test]
fn a_payload_larger_than_a_record_keeps_its_beginning() {
    let huge = vec![b'x'; 10 << 20];
    let outcome = plain(PayloadFormat::Json).read(TOPIC, &huge, NOW);
    let [Content::Dead(row)] = &outcome.contents[..] else { panic!("{} contents", outcome.contents.len()) };
    assert_eq!(row.value.len(), MAX_DEAD);
    assert!(row.detail.contains("10485760 bytes"), "{}", row.detail);
}

#[test]
fn json_of_any_shape_through_pointers() {
    let reader = reader("up/{site}", PayloadFormat::MappedJson, |full| {
        full.time_unit = Some(TimeUnit::Seconds);
        full.mapping = Some(PayloadMapping {
            sensor_id: Some("/dev/id".into()),
            time: Some("/t".into()),
            seq: Some("/n".into()),
            values: [("temp", "/data/0"), ("hum", "/data/1"), ("gone", "/data/9")].map(|(a, b)| (a.into(), b.into())).into(),
            labels: [("model".into(), "/dev/model".into())].into(),
            ..PayloadMapping::default()
        });
    });
    let (readings, dead) = read(&reader, "up/hall", br#"{"dev":{"id":17,"model":"X"},"t":1700000000.5,"n":9,"data":["21.5",true]}"#);
    let expected = |kind: &str, value: f64| json!({"sensor_id": format!("17/{kind}"), "ts": 1_700_000_000_500_i64, "value": value, "kind": kind, "seq": 9, "site": "hall", "model": "X"});
    assert_eq!((readings, dead), (vec![expected("hum", 1.0), expected("temp", 21.5)], vec![]));
    for (payload, reason) in [
        (&br#"{"dev":{"id":1}}"#[..], "missing"),
        (br#"{"data":[1]}"#, "no_sensor_id"),
        (br#"{"dev":{"id":1},"data":[[],2]}"#, "wrong_type"),
        (b"[", "not_json"),
    ] {
        assert_eq!(read(&reader, "up/hall", payload), (vec![], vec![reason]), "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn line_protocol_with_all_its_escapes() {
    let reader = reader("lp/#", PayloadFormat::LineProtocol, |_| {});
    let payload = concat!(
        "# a comment\n",
        "weather,sensor_id=w\\ 1,site=a\\,b temp=21.5,hum=40i,note=\"say \\\"hi\\\", you\\\\\",up=t 1700000000123456789\r\n",
        "\n",
        "pressure,sensor_id=p value=1e3\n",
        "plain value=2u 1700000000000000000\n",
        "text note=\"two\nlines\" 5\n",
        "bad line here now\n",
        "m value=1 yesterday\n",
        "m value=\n",
        "m,=x value=1\n",
    );
    let (readings, dead) = read(&reader, "lp/x", payload.as_bytes());
    let names: Vec<(&str, &str, f64)> =
        readings.iter().map(|r| (r["sensor_id"].as_str().unwrap(), r["kind"].as_str().unwrap(), r["value"].as_f64().unwrap())).collect();
    let expected =
        [("w 1/temp", "temp", 21.5), ("w 1/hum", "hum", 40.0), ("w 1/up", "up", 1.0), ("p", "pressure", 1000.0), ("plain", "plain", 2.0)];
    assert_eq!(names, expected);
    assert_eq!((readings[0]["ts"].as_i64(), readings[0]["site"].as_str()), (Some(1_700_000_000_123), Some("a,b")));
    assert_eq!(readings[0]["note"], "say \"hi\", you\\");
    assert_eq!(readings[3]["ts_source"], "receipt");
    assert_eq!(dead, ["missing", "not_line_protocol", "no_event_time", "not_line_protocol", "not_line_protocol"]);
}

#[test]
fn a_line_that_is_no_text_goes_alone() {
    let (readings, dead) = read(&plain(PayloadFormat::LineProtocol), TOPIC, b"m value=1\nm,x=\xff value=2\nm value=3\n");
    assert_eq!(readings.iter().map(|r| r["value"].as_f64().unwrap()).collect::<Vec<_>>(), [1.0, 3.0]);
    assert_eq!(dead, ["not_utf8"]);
}

#[test]
fn of_a_tag_that_stands_twice_the_last_counts() {
    let outcome = plain(PayloadFormat::LineProtocol).read(TOPIC, b"m,a=1,b=2,a=3 value=1", NOW);
    let [Content::Reading(reading)] = &outcome.contents[..] else { panic!("{:?}", outcome.contents) };
    let labels: Vec<(&str, &Value)> = reading.labels.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(labels, [("site", &json!("hall")), ("a", &json!("3")), ("b", &json!("2"))]);
}

#[test]
fn lines_over_the_limit_are_counted() {
    let outcome = plain(PayloadFormat::LineProtocol).read(TOPIC, "m value=1\n".repeat(20_000).as_bytes(), NOW);
    let [Content::Dead(row)] = &outcome.contents[..] else { panic!("{} contents", outcome.contents.len()) };
    assert!(row.detail.contains("20000 readings"), "{}", row.detail);
}

#[test]
fn a_senml_pack_is_resolved() {
    let reader = reader("senml/#", PayloadFormat::Senml, |_| {});
    let pack = br#"[{"bn":"urn:dev:ow:10e2:","bt":1.320067464e+09,"bu":"%RH","v":20.5},{"u":"lon","n":"a","t":60,"v":24.3},{"n":"b","t":-1,"vb":true,"x":1},{"bn":"n2/","bt":0,"bv":10,"n":"c","t":-5,"v":1},{"n":"s","s":7}]"#;
    let (readings, dead) = read(&reader, "senml/x", pack);
    assert_eq!(dead, Vec::<&str>::new());
    let got: Vec<(&str, i64, f64, &str)> = readings
        .iter()
        .map(|r| (r["sensor_id"].as_str().unwrap(), r["ts"].as_i64().unwrap(), r["value"].as_f64().unwrap(), r["unit"].as_str().unwrap()))
        .collect();
    let expected = [
        ("urn:dev:ow:10e2:", 1_320_067_464_000, 20.5, "%RH"),
        ("urn:dev:ow:10e2:a", 1_320_067_524_000, 24.3, "lon"),
        ("urn:dev:ow:10e2:b", 1_320_067_463_000, 1.0, "%RH"),
        ("n2/c", NOW - 5_000, 11.0, "%RH"),
        ("n2/s", NOW, 7.0, "%RH"),
    ];
    assert_eq!(got, expected);
    assert_eq!((&readings[0]["ts_source"], &readings[3]["ts_source"]), (&Value::Null, &json!("receipt")));
    for (payload, reason) in [
        (&br#"{"n":"a","v":1}"#[..], "not_senml"),
        (br#"[{"n":"a","v":1,"must_":1}]"#, "not_senml"),
        (br#"[{"bver":11,"n":"a","v":1}]"#, "not_senml"),
        (br#"[{"n":"a b","v":1}]"#, "not_senml"),
        (br#"[{"n":"a","v":1,"vb":true}]"#, "not_senml"),
        (br#"[{"n":"a","v":"1"}]"#, "not_senml"),
        (br#"[{"n":"a","vs":"on"}]"#, "wrong_type"),
        (br#"[{"n":"a"}]"#, "missing"),
        (br#"[{"v":1}]"#, "no_sensor_id"),
        (br#"[{"bn":"a"}]"#, "empty"),
        (b"[", "not_json"),
    ] {
        assert_eq!(read(&reader, "senml/x", payload), (vec![], vec![reason]), "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn settings_that_cannot_be_are_said_together() {
    let topics = ["a/#/b", "ok/{sensor_id}"].map(|topic| {
        TopicSetting::Full(TopicFormat { topic: topic.into(), format: Some(PayloadFormat::MappedJson), time_unit: None, mapping: None })
    });
    let faults = Reader::new(&Payload { topics: topics.to_vec(), series: "x".into(), ..Payload::default() }).unwrap_err();
    assert_eq!(faults.len(), 4, "{faults:?}");
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_vanishes(payload in prop::collection::vec(any::<u8>(), 0..200), format in 0..5_usize) {
        let format = [PayloadFormat::Json, PayloadFormat::MappedJson, PayloadFormat::Number, PayloadFormat::LineProtocol, PayloadFormat::Senml][format];
        let reader = reader("sensors/{site}/{sensor_id}/{kind}", format, |full| {
            full.mapping = Some(PayloadMapping { value: Some("/v".into()), ..PayloadMapping::default() });
        });
        prop_assert!(!reader.read(TOPIC, &payload, NOW).contents.is_empty());
    }

    #[test]
    fn text_that_is_nearly_right_neither(
        text in r#"[\[{]?("?(sensor_id|value|ts|bn|n|v|t|m)"?[:=, ]{0,2}("[a-z\\]{0,3}"?|-?[0-9]{1,20}(\.[0-9]+)?|null|true|[{}\[\]])?[, \n]?){0,6}[\]}]?"#,
        format in 0..3_usize,
    ) {
        let format = [PayloadFormat::Json, PayloadFormat::LineProtocol, PayloadFormat::Senml][format];
        prop_assert!(!plain(format).read(TOPIC, text.as_bytes(), NOW).contents.is_empty());
    }

    #[test]
    fn names_and_texts_survive_line_protocol(name in "[ -~äß]{1,12}", text in "[ -~äß\n]{0,12}", value in -1e12..1e12_f64) {
        prop_assume!(!name.starts_with('#') && !name.contains('\\') && !text.ends_with('\\'));
        let escaped = name.replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ");
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let line = format!("m,sensor_id={escaped} value={value},note=\"{quoted}\" 1000000\n");
        let (readings, dead) = read(&reader("x", PayloadFormat::LineProtocol, |_| {}), "x", line.as_bytes());
        prop_assert_eq!(dead, Vec::<&str>::new(), "{}", line);
        prop_assert_eq!((readings[0]["sensor_id"].as_str(), readings[0]["value"].as_f64()), (Some(name.as_str()), Some(value)));
        prop_assert_eq!(readings[0]["note"].as_str(), Some(text.as_str()));
    }
}
