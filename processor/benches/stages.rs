//! What each stage of the hot path costs: `cargo bench -p processor` (STEPS, SENSORS and ROWS may be set; a step has ROWS readings). Plain
//! Rust: the benchmark crates would add more to the build than they would tell.

use std::error::Error;
use std::time::{Duration, Instant};

use processor::stages::{KeyValue, Stages};

fn setting(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    Ok(std::env::var(name).map_or(Ok(default), |text| text.replace('_', "").parse())?)
}

fn query(window: &str) -> String {
    // A session that grows into another one takes the other's row back, which update mode cannot.
    let mode = if window.starts_with("session") { "append" } else { "update" };
    format!(
        "name = 'stages'\n[source]\ntopic = 'iot'\nschema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT'\n\
         event_time = 'ts'\nwatermark = '5 seconds'\n[query]\nsql = '''SELECT {window}.start AS s, {window}.end AS e, sensor_id, \
         count(*) AS n, avg(value) AS avg, min(value) AS min, max(value) AS max FROM iot GROUP BY {call}, sensor_id'''\n\
         output_mode = '{mode}'\n",
        window = window.split('(').next().unwrap_or_default(),
        call = window,
    )
}

/// Readings of one partition, 5,000 a second of event time.
fn readings(first: u64, rows: u64, sensors: u64) -> Vec<KeyValue> {
    let reading = |seq: u64| {
        let (sensor, ts) = (seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20, 1_700_000_000_000 + seq / 5);
        let (sensor, whole, part) = (sensor % sensors, sensor % 60, seq % 1000);
        let key = format!("sensor-{sensor:04}");
        let value = format!(r#"{{"sensor_id":"{key}","ts":{ts},"value":{whole}.{part:03},"kind":"temperature","seq":{seq}}}"#);
        (key.into_bytes(), value.into_bytes())
    };
    (first..first + rows).map(reading).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (steps, rows) = (setting("STEPS", 40)?, setting("ROWS", 20_000)?);
    println!("{steps} steps of {rows} readings; nanoseconds per reading, and result rows per reading");
    print!("{:<44}", "");
    ["gather", "decode", "fold", "journal", "apply", "encode", "rows"].iter().for_each(|stage| print!(" {stage:>8}"));
    println!();
    for sensors in [setting("SENSORS", 1000)?, 100_000] {
        for window in ["window(ts, '10 seconds')", "window(ts, '60 seconds', '1 second')", "session_window(ts, '2 seconds')"] {
            let mut stages = Stages::new(&query(window))?;
            let (mut spent, mut results) = ([Duration::ZERO; 6], 0);
            for step in 0..steps {
                let readings = readings(step * rows, rows, sensors);
                let mut begun = Instant::now();
                let mut lap = |stage: usize| {
                    let now = Instant::now();
                    spent[stage] += now - begun;
                    begun = now;
                };
                stages.gather(&readings);
                lap(0);
                let decoded = stages.decode()?;
                lap(1);
                let folded = stages.fold(decoded)?;
                lap(2);
                stages.journal(&folded)?;
                lap(3);
                let output = stages.apply(&folded)?;
                lap(4);
                results += Stages::encode(&output)?.0;
                lap(5);
            }
            #[allow(clippy::cast_precision_loss)]
            let each = |number: f64| number / (steps * rows) as f64;
            print!("{:<44}", format!("{sensors} sensors, {window}"));
            spent.iter().for_each(|time| print!(" {:>8.0}", each(time.as_secs_f64() * 1e9)));
            #[allow(clippy::cast_precision_loss)]
            let results = results as f64;
            println!(" {:>8.2}", each(results));
        }
    }
    Ok(())
}
