//! Rows that become several: a reading stays one in the ledger, and words are counted as a loop over them counts.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::{Value, json};

use super::harness::{Record, Way, compile, run};
use crate::query::{QueryFile, StreamQuery};

const WORDS: &str = "SELECT word, count(*) AS n FROM (SELECT explode(split(lower(text), ' ')) AS word, ts FROM lines) WHERE word <> '' \
                     GROUP BY window(ts, '10 seconds'), word";

fn file(sql: &str) -> String {
    format!(
        "name = 'case'\n[source]\ntopic = 'lines'\nschema = 'text STRING, ts TIMESTAMP'\nevent_time = 'ts'\n\
         watermark = '5 seconds'\n[query]\nsql = '''{sql}'''\n"
    )
}

#[test]
fn words_are_counted_wherever_the_log_is_cut() {
    let query = compile(&file(WORDS));
    for seed in 0..20 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut log, mut wanted) = (Vec::new(), BTreeMap::new());
        let (mut filtered, mut late, mut watermark) = (0, 0, i64::MIN);
        for number in 0..200_i64 {
            let ts = number * 300 - random.random_range(0..15_000);
            let words: Vec<&str> = (0..random.random_range(0..4)).map(|_| ["a", "B", "b", ""][random.random_range(0..4)]).collect();
            let text = (!words.is_empty()).then(|| words.join(" "));
            log.push(Record { partition: 0, received: -1, value: Some(json!({ "text": text, "ts": ts }).to_string().into_bytes()) });
            let window = ts - ts.rem_euclid(10_000);
            let words: Vec<String> = words.iter().filter(|word| !word.is_empty()).map(|word| word.to_lowercase()).collect();
            match () {
                () if words.is_empty() => filtered += 1,
                () if window + 10_000 <= watermark => late += 1,
                () => words.into_iter().for_each(|word| *wanted.entry((window, word)).or_insert(0_i64) += 1),
            }
            watermark = watermark.max(ts - 5_000);
        }
        let straight = run(&query, &log, Way::Straight);
        let ledger = straight.ledger;
        assert_eq!(
            (ledger.imbalance(), ledger.filtered, ledger.late, straight.late.len()),
            (0, filtered, late, late as usize),
            "seed {seed}"
        );
        let counted: BTreeMap<(i64, String), i64> = straight
            .rows
            .iter()
            .map(|((window, key), row)| ((*window, key.clone()), serde_json::from_str::<Value>(row).unwrap()["n"].as_i64().unwrap()))
            .collect();
        assert_eq!(counted, wanted, "seed {seed}");
        assert_eq!(run(&query, &log, Way::Cut { seed }), straight, "seed {seed}");
        assert_eq!(run(&query, &log, Way::Killed { seed }), straight, "seed {seed}");
    }
}

#[test]
fn explode_stands_where_it_streams() {
    let compile = |sql: &str| StreamQuery::compile(QueryFile::parse(&file(sql), std::path::Path::new("case.toml")).unwrap());
    for sql in [
        "SELECT explode(split(text, ' ')) AS word, ts FROM lines",
        "SELECT ts, explode(split(text, chr(44))) AS tag FROM lines WHERE ts IS NOT NULL",
    ] {
        compile(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for (sql, part) in [
        ("SELECT upper(explode(split(text, ' '))) AS word FROM lines", "stands alone"),
        ("SELECT explode(split(text, ' ')) AS a, explode(split(text, ',')) AS b FROM lines", "one explode() only"),
        ("SELECT text FROM lines WHERE explode(split(text, ' ')) = 'a'", "stands alone"),
        ("SELECT explode(split(text, ' ')) AS word, count(*) AS n FROM lines GROUP BY explode(split(text, ' '))", "stands alone"),
        ("SELECT explode(split(max(text), ' ')) AS word FROM lines GROUP BY window(ts, '1 second')", "stands alone"),
        ("SELECT explode(text) AS word FROM lines", "takes an array"),
        ("SELECT posexplode(split(text, ' ')) FROM lines", "explode(array)"),
    ] {
        let fault = compile(sql).unwrap_err().to_string();
        assert!(fault.contains(part), "{sql}: '{part}' is not in: {fault}");
    }
}
