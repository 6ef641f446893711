//! The corpus of `fuzz/corpus`: payloads of every kind, good and bad, in a folder for each format. A file's name says what becomes of it:
//! `READINGS-DEAD-what`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use producer::fuzzing::{FORMATS, Rows, read};

const NOW: i64 = 1_800_000_000_000;

/// Name and payload of each file of a format.
fn files(format: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(format);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() > 10, "{format}");
    files
}

/// What holds of every payload in every format.
fn check(what: &str, payload: &[u8], rows: &Rows) {
    for reading in &rows.readings {
        let reading: serde_json::Value = serde_json::from_slice(reading).unwrap();
        assert!(reading["sensor_id"].as_str().is_some_and(|name| !name.is_empty()), "{what}: {reading}");
        assert!(reading["value"].as_f64().is_some_and(f64::is_finite) && reading["ts"].is_i64(), "{what}: {reading}");
    }
    for dead in &rows.dead {
        assert!(!dead.reason.is_empty() && !dead.detail.is_empty() && dead.detail.len() < 3_000, "{what}: {dead:?}");
        let kept = dead.value.is_empty() == payload.is_empty() && (payload.len() > 1 << 20 || contains(payload, &dead.value));
        assert!(kept, "{what}: the dead lane must have a piece of the payload");
    }
}

fn contains(payload: &[u8], piece: &[u8]) -> bool {
    piece.is_empty() || payload.windows(piece.len()).any(|window| window == piece)
}

#[test]
fn each_file_becomes_what_its_name_says() {
    for (name, format) in FORMATS {
        for (file, payload) in files(name) {
            let rows = read(format, &file, &payload, NOW).unwrap();
            let what = format!("{name}/{file}");
            check(&what, &payload, &rows);
            let mut counts = file.split('-').map(str::parse);
            let wanted = (counts.next().unwrap().unwrap(), counts.next().unwrap().unwrap());
            assert_eq!((rows.readings.len(), rows.dead.len()), wanted, "{what}: {rows:?}");
            if wanted == (0, 1) && rows.dead[0].reason != "no_birth" {
                assert_eq!(rows.dead[0].value, payload, "{what}: the payload whole");
            }
        }
    }
}

#[test]
fn each_file_is_harmless_in_every_other_format() {
    for (folder, _) in FORMATS {
        for (file, payload) in files(folder) {
            for (name, format) in FORMATS {
                let rows = read(format, &file, &payload, NOW).unwrap();
                check(&format!("{folder}/{file} as {name}"), &payload, &rows);
            }
        }
    }
}

/// What is too large for a file: small messages that could become large ones, or that a reader could drown in.
#[test]
fn nothing_grows_out_of_a_message() {
    let large = 10 << 20;
    let deep = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        ("no JSON", vec![b'x'; large]),
        ("nulls", vec![0; large]),
        ("beyond the limit", vec![b' '; 17 << 20]),
        ("open lists", vec![b'['; large]),
        ("closed lists", deep("[", "]", large / 2).into_bytes()),
        ("objects", deep("{\"value\":", "}", 100_000).into_bytes()),
        ("records", format!("[{}]", vec!["{}"; large / 3].join(",")).into_bytes()),
        ("numbers", format!("[{}]", vec!["1"; large / 2].join(",")).into_bytes()),
        ("labels", format!("{{\"value\":1{}}}", (0..800_000).map(|n| format!(",\"{n}\":0")).collect::<String>()).into_bytes()),
        (
            "a unit for each record",
            format!("[{{\"bu\":\"{}\"}}{}]", "u".repeat(1 << 20), ",{\"n\":\"a\",\"v\":1}".repeat(9_999)).into_bytes(),
        ),
        ("fields", format!("m{}", " a=1".to_owned() + &",a=1".repeat(large / 4)).into_bytes()),
        ("fields and texts", format!("m a=1{}", ",a=1,b=\"x\"".repeat(100_000)).into_bytes()),
        ("tags for each field", format!("m,t={} a=1{}", "x".repeat(1 << 20), ",a=1".repeat(9_000)).into_bytes()),
        ("lines", "m a=1\n".repeat(large / 6).into_bytes()),
        ("digits", vec![b'9'; large]),
        ("metrics", b"\x12\x00".repeat(large / 2)),
        ("groups", vec![0x13; large]),
    ];
    for (what, payload) in &payloads {
        for (name, format) in FORMATS {
            let rows = read(format, "large", payload, NOW).unwrap();
            check(&format!("{what} as {name}"), payload, &rows);
            let bytes: usize =
                rows.readings.iter().map(Vec::len).sum::<usize>() + rows.dead.iter().map(|dead| dead.value.len()).sum::<usize>();
            assert!(bytes < 12 << 20, "{what} as {name}: {} bytes became {bytes}", payload.len());
            assert!(rows.readings.len() + rows.dead.len() <= 10_000, "{what} as {name}");
        }
    }
}
