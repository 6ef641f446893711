//! Sources and sinks outside Kafka, with the real processor and without any log: what goes in comes out once, straight, cut and killed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use harness::hook::{Answer, Hook};
use harness::log::{Kind, Log, free_address};
use harness::place::{LIMIT, Place, stop};
use harness::process::Process;
use harness::random::Random;
use harness::wait::{wait_for, wait_until};

const WINDOWS: &str = "SELECT window.start AS start, sensor_id, count(*) AS n, sum(value) AS s, avg(value) AS a FROM stream \
                       GROUP BY window(ts, '10 seconds'), sensor_id";
const ROWS: &str = "SELECT sensor_id, ts, value * 2 AS twice FROM stream WHERE value > 1";

fn query(format: &str, sql: &str, trigger: &str, sink: &str) -> String {
    format!(
        "name = 'q'\n[source]\nformat = '{format}'\nname = 'stream'\npath = 'in'\norder = 'name'\nschema = 'sensor_id STRING, ts TIMESTAMP, \
         value DOUBLE'\nevent_time = 'ts'\nwatermark = '5 seconds'\nmax_files_per_trigger = 2\n[query]\nsql = \"{sql}\"\noutput_mode = \
         'append'\ncheckpoint = 'state'\n{trigger}\n[sink]\n{sink}\n"
    )
}

fn below(random: &mut Random, limit: u64) -> u64 {
    random.between(0, limit)
}

/// Files of readings, some late, with sums that depend on the order of their terms.
fn readings(random: &mut Random, files: u64) -> Vec<String> {
    let mut time = 1_700_000_000_000_u64;
    let mut file = || {
        let mut text = "sensor_id,ts,value\n".to_owned();
        for _ in 0..below(random, 200) {
            time += below(random, 700);
            let back = below(random, 8_000);
            writeln!(text, "s{},{},{}.{}", below(random, 5), time - back, below(random, 100), below(random, 1000)).unwrap();
        }
        text
    };
    (0..files).map(|_| file()).collect()
}

/// Runs to the end, killed again and again on the way.
fn run_killed(place: &Place, random: &mut Random, kills: u64) {
    for _ in 0..kills {
        let mut process = place.start();
        // The moment is counted in work done, so that slow machines are killed in the midst, too.
        let more = place.list("state/versions").len() + usize::try_from(below(random, 4)).unwrap();
        wait_for("entries to be written, or the end", LIMIT, || {
            (place.list("state/versions").len() > more || process.try_wait().is_some()).then_some(())
        });
        process.kill();
    }
    place.run();
}

#[test]
fn files_to_files_are_the_same_straight_and_killed() {
    let mut random = Random::seeded(1);
    for (sql, sink) in [(WINDOWS, "format = 'csv'\npath = 'out'"), (ROWS, "format = 'json'\npath = 'out'")] {
        let (straight, killed) = (Place::new(), Place::new());
        for (number, text) in readings(&mut random, 30).iter().enumerate() {
            for place in [&straight, &killed] {
                place.write(&format!("in/{number:03}.csv"), text);
            }
        }
        for place in [&straight, &killed] {
            place.write("q.toml", &query("csv", sql, "trigger = 'available_now'", sink));
        }
        straight.run();
        std::fs::create_dir_all(killed.path("state/versions")).unwrap();
        run_killed(&killed, &mut random, 12);
        let rows = straight.rows("out");
        assert!(rows.len() > 50, "{rows:?}");
        assert_eq!(rows, killed.rows("out"));
        assert_eq!(straight.lanes(), killed.lanes());
        // Cut in another way, by a run for every few files, it is the same again.
        let cut = Place::new();
        cut.write("q.toml", &query("csv", sql, "trigger = 'once'", sink));
        for name in straight.list("in") {
            cut.write(&format!("in/{name}"), &std::fs::read_to_string(straight.path("in").join(&name)).unwrap());
            if below(&mut random, 3) == 0 {
                cut.run();
            }
        }
        cut.run();
        assert_eq!(rows, cut.rows("out"));
    }
}

/// Killed at each named step of a commit, and again at each step of the recovery.
#[test]
fn files_to_files_are_the_same_killed_at_every_step() {
    let mut random = Random::seeded(2);
    let texts = readings(&mut random, 12);
    let place = |sql: &str| {
        let place = Place::new();
        place
            .write("q.toml", &query("csv", sql, "trigger = 'available_now'", "format = 'csv'\npath = 'out'\npartition_by = ['sensor_id']"));
        texts.iter().enumerate().for_each(|(number, text)| place.write(&format!("in/{number:03}.csv"), text));
        place
    };
    let in_commit = ["after_lanes", "after_journal", "before_results", "after_results", "before_snapshot", "after_snapshot", "after_cut"];
    let in_recovery = ["after_fence", "mid_restore", "before_redelivery", "after_redelivery"];
    for sql in [WINDOWS, ROWS] {
        let straight = place(sql);
        straight.run();
        let rows = straight.partitioned("out");
        assert!(rows.values().map(Vec::len).sum::<usize>() > 50 && rows.len() > 2, "{:?}", rows.keys());
        for (number, point) in in_commit.iter().enumerate() {
            let killed = place(sql);
            for crash in [format!("{point}:{}:q", 1 + number % 2), format!("{}:1:q", in_recovery[number % in_recovery.len()])] {
                let mut process = Process::start("processor", killed.command().env("_TIDEMARK_TEST_CRASH", &crash));
                let code = process.wait_exit(LIMIT);
                // Without an entry there is nothing to restore and to deliver again.
                assert!(code.is_none() || (crash.contains("re") && code == Some(0)), "{crash}: {code:?} {}", process.output());
            }
            killed.run();
            assert_eq!(rows, killed.partitioned("out"), "{point}");
            assert_eq!(straight.lanes(), killed.lanes(), "{point}");
        }
    }
}

#[test]
fn a_damaged_version_is_passed_over() {
    let mut random = Random::seeded(1);
    let (straight, damaged) = (Place::new(), Place::new());
    for place in [&straight, &damaged] {
        place.write("q.toml", &query("csv", WINDOWS, "trigger = 'available_now'", "format = 'csv'\npath = 'out'"));
    }
    let texts = readings(&mut random, 12);
    for (number, text) in texts.iter().enumerate() {
        straight.write(&format!("in/{number:03}.csv"), text);
        damaged.write(&format!("in/{number:03}.csv"), text);
        if number % 4 == 3 {
            damaged.run();
            // The disk has lost the end of the newest entry, and of the newest snapshot.
            for ending in [".entry", ".snapshot"] {
                let newest = damaged.list("state/versions").into_iter().rfind(|name| name.ends_with(ending));
                let path = damaged.path("state/versions").join(newest.unwrap_or_else(|| panic!("there is no {ending}")));
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }
        }
    }
    let said = damaged.run();
    assert!(said.contains("is passed over: its bytes do not match their checksum"), "{said}");
    straight.run();
    assert_eq!(straight.rows("out"), damaged.rows("out"));
}

#[test]
fn bad_files_are_set_aside_and_their_neighbours_pass() {
    let place = Place::new();
    place.write("q.toml", &query("csv", ROWS, "trigger = 'available_now'", "format = 'json'\npath = 'out'"));
    place.write("in/1.csv", "sensor_id,ts,value\na,2026-01-01T00:00:00Z,2\na,yesterday,2\na,2026-01-01T00:00:01Z\n");
    place.write("in/2.csv", "sensor_id;ts;value\n");
    place.write("in/3.csv", "");
    place.write("in/4.csv", "value,sensor_id,ts\n3,b,2026-01-01T00:00:02Z\n");
    place.write("in/_5.csv", "hidden\n");
    place.run();
    let rows = [("a", "00:00:00", "4.0"), ("b", "00:00:02", "6.0")];
    let rows = rows.map(|(sensor, time, twice)| format!(r#"{{"sensor_id":"{sensor}","ts":"2026-01-01T{time}.000Z","twice":{twice}}}"#));
    assert_eq!(place.rows("out"), rows);
    let lanes = place.lanes();
    let details = [
        "column 'ts' is TIMESTAMP",
        "2 columns, where line 1 names 3",
        "2.csv cannot be read: line 1 names no column",
        "3.csv cannot be read: the file is empty",
    ];
    assert_eq!(lanes.len(), details.len(), "{lanes:?}");
    for (line, detail) in lanes.iter().zip(details) {
        assert!(line.contains(detail), "'{detail}' is not in {line}");
    }
}

#[test]
fn what_one_query_writes_another_reads_in_each_format() {
    for format in ["csv", "json", "parquet"] {
        let place = Place::new();
        place.write("in/1.csv", "sensor_id,ts,value\n\"a, \"\"b\"\"\",2026-01-01T00:00:00.5Z,2.25\nc,2026-01-01T00:00:01Z,1e3\n");
        let copy = "SELECT sensor_id, ts, value FROM stream";
        place.write("q.toml", &query("csv", copy, "trigger = 'once'", &format!("format = '{format}'\npath = 'copy'")));
        place.run();
        let back = query(format, ROWS, "trigger = 'once'", "format = 'json'\npath = 'out'").replace("path = 'in'", "path = 'copy'");
        place.write("q.toml", &back.replace("'state'", "'state2'"));
        place.run();
        let rows = [
            r#"{"sensor_id":"a, \"b\"","ts":"2026-01-01T00:00:00.500Z","twice":4.5}"#,
            r#"{"sensor_id":"c","ts":"2026-01-01T00:00:01.000Z","twice":2000.0}"#,
        ];
        assert_eq!(place.rows("out"), rows, "{format}");
    }
}

#[test]
fn a_directory_is_watched_and_read_files_are_put_away() {
    let place = Place::new();
    let cleaning = "clean_source = 'archive'\nsource_archive_dir = 'done'\n[query]";
    place.write("q.toml", &query("csv", ROWS, "", "format = 'json'\npath = 'out'").replace("[query]", cleaning));
    let mut process = place.start();
    for number in 0..3 {
        place.write(&format!("in/{number}.csv"), "sensor_id,ts,value\na,2026-01-01T00:00:00Z,2\n");
        wait_for("the file to be put away", LIMIT, || place.path(&format!("done/{number}.csv")).exists().then_some(()));
    }
    assert!(place.list("in").is_empty());
    assert_eq!(place.rows("out").len(), 3);
    // A second program finds the directory taken.
    let mut second = place.start();
    assert_eq!(second.wait_exit(LIMIT), Some(1));
    assert!(second.output().contains("is in use by another program"), "{}", second.output());
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}

#[test]
fn a_program_gets_each_batch_until_it_takes_it() {
    let place = Place::new();
    place.write("in/1.csv", "sensor_id,ts,value\na,2026-01-01T00:00:00Z,2\nb,2026-01-01T00:00:00Z,3\n");
    // Refuses the first time; what it took is in a file of the batch's number.
    let script = "cat > got-$TIDEMARK_BATCH_ID; test -e tried || { touch tried; exit 7; }";
    place.write("q.toml", &query("csv", ROWS, "trigger = 'once'", &format!("format = 'foreach'\ncommand = ['sh', '-c', '{script}']")));
    let mut process = Process::start("processor", place.command().current_dir(place.path("")));
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
    assert!(process.output().contains("ended with exit status: 7"), "{}", process.output());
    assert_eq!(std::fs::read_to_string(place.path("got-0")).unwrap().lines().count(), 2);
    // What was taken does not come again with a restart.
    std::fs::remove_file(place.path("got-0")).unwrap();
    let mut process = Process::start("processor", place.command().current_dir(place.path("")));
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
    assert!(!place.path("got-0").exists());
}

#[test]
fn a_web_address_gets_each_batch_until_it_takes_it() {
    let (place, address) = (Place::new(), free_address());
    place.write("in/1.csv", "sensor_id,ts,value\na,2026-01-01T00:00:00Z,2\nb,2026-01-01T00:00:00Z,3\n");
    place.write("in/2.csv", "sensor_id,ts,value\nc,2026-01-01T00:00:01Z,4\n");
    let sink = format!("format = 'foreach'\nurl = 'http://{address}/hook'");
    let text = query("csv", ROWS, "trigger = 'available_now'", &sink).replace("max_files_per_trigger = 2", "max_files_per_trigger = 1");
    place.write("q.toml", &text);
    let mut process = place.start();
    process.wait_line("that nobody listens", LIMIT, |line| line.contains("does not answer").then_some(()));
    let hook = Hook::start(address, |number| Answer::Code(if number == 0 { 500 } else { 204 }));
    assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
    assert!(process.output().contains("answers 500"), "{}", process.output());
    let posted = hook.posted();
    assert_eq!(posted.iter().map(|batch| batch.header("tidemark-batch-id")).collect::<Vec<_>>(), ["0", "0", "1"]);
    assert_eq!(posted[0], posted[1]);
    assert_eq!(posted[0].body.lines().count(), 2);
    assert_eq!(posted[2].body, "{\"sensor_id\":\"c\",\"ts\":\"2026-01-01T00:00:01.000Z\",\"twice\":8.0}\n");
    let said = |name: &str| posted[2].header(name).to_owned();
    assert_eq!([said("tidemark-query"), said("idempotency-key"), said("content-type")], ["q", "q-1", "application/x-ndjson"]);
    // What was taken does not come again with a restart.
    place.run();
    assert_eq!(hook.posted().len(), 3);
}

/// Every other request gets no answer, and the processor is killed, or asked to end, while it waits for one.
#[test]
fn a_batch_comes_again_to_a_web_address_with_its_number_and_its_rows() {
    let mut random = Random::seeded(3);
    let texts = readings(&mut random, 12);
    for sql in [WINDOWS, ROWS] {
        let (straight, killed) = (Place::new(), Place::new());
        for (number, text) in texts.iter().enumerate() {
            [&straight, &killed].into_iter().for_each(|place| place.write(&format!("in/{number:03}.csv"), text));
        }
        straight.write("q.toml", &query("csv", sql, "trigger = 'available_now'", "format = 'json'\npath = 'out'"));
        straight.run();
        let hook = Hook::start(free_address(), |number| if number % 2 == 0 { Answer::Silence } else { Answer::Code(200) });
        let sink = format!("format = 'foreach'\nurl = '{}'", hook.url());
        killed.write("q.toml", &query("csv", sql, "trigger = 'available_now'", &sink));
        let mut code = None;
        while code != Some(0) {
            let seen = hook.posted().len();
            let mut process = Process::start("processor", killed.command().env("TIDEMARK_PROCESSOR__DRAIN_TIMEOUT", "300ms"));
            wait_for("a request without an answer, or the end", LIMIT, || {
                let posted = hook.posted().len();
                (posted > seen && posted % 2 == 1 || process.try_wait().is_some()).then_some(())
            });
            code = match process.try_wait() {
                Some(_) => process.wait_exit(LIMIT),
                // One that is asked to end does not wait for the answer for ever.
                None if below(&mut random, 3) == 0 => stop(&mut process).filter(|code| *code != 0),
                None => {
                    process.kill();
                    None
                }
            };
        }
        let mut batches: BTreeMap<u64, String> = BTreeMap::new();
        let mut requests = 0;
        for batch in hook.posted() {
            let rows = batches.entry(batch.header("tidemark-batch-id").parse().unwrap()).or_insert_with(|| batch.body.clone());
            assert_eq!(*rows, batch.body, "batch {}", batch.header("tidemark-batch-id"));
            requests += 1;
        }
        assert!(batches.len() > 3 && requests == 2 * batches.len(), "{requests} requests for {} batches", batches.len());
        let rows: Vec<String> = batches.values().flat_map(|body| body.lines()).map(str::to_owned).collect();
        assert_eq!(rows, straight.rows("out"));
    }
}

#[test]
fn words_of_a_socket_are_counted_on_the_console() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::new();
    let example = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wordcount/wordcount.toml")).unwrap();
    let port = listener.local_addr().unwrap().port();
    place.write(
        "q.toml",
        &example.replace("4444", &port.to_string()).replace("\"10 seconds\" }", "\"1 second\" }").replace("localhost", "127.0.0.1"),
    );
    let mut process = place.start();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"Hello world\nhello  again\r\n").unwrap();
    // The two of one word may be in two windows; then it stands twice.
    let count = |line: &str| line.split('|').nth(3)?.trim().parse::<u64>().ok();
    wait_until("the four words", LIMIT, || process.output().lines().filter_map(count).sum::<u64>() == 4);
    for word in ["again", "hello", "world"] {
        assert!(process.output().contains(&format!("|{word:>5}|")), "{}", process.output());
    }
    drop(stream);
    // The other end comes back, and the words go on.
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"later\n").unwrap();
    process.wait_line("the word", LIMIT, |line| line.contains("|later|").then_some(()));
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}

#[test]
fn generated_rows_go_on_after_a_kill() {
    let place = Place::new();
    let text = "name = 'q'\n[source]\nformat = 'rate'\nrows_per_second = 200\nwatermark = '0 seconds'\n[query]\nsql = 'SELECT timestamp, value \
                FROM rate'\noutput_mode = 'append'\ncheckpoint = 'state'\n[sink]\nformat = 'csv'\npath = 'out'\n";
    place.write("q.toml", text);
    for round in 1..4 {
        let mut process = place.start();
        wait_for("rows", LIMIT, || (place.path("out").exists() && place.rows("out").len() > round * 100).then_some(()));
        process.kill();
    }
    let mut process = place.start();
    wait_for("rows", LIMIT, || (place.rows("out").len() > 400).then_some(()));
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
    let values: Vec<usize> = place.rows("out").iter().map(|row| row.rsplit(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(values, (0..values.len()).collect::<Vec<_>>());
}

/// A result that is given as it stands on the page of an example.
#[test]
fn the_examples_give_what_their_pages_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let page = |name: &str| std::fs::read_to_string(examples.join(name).join("README.md")).unwrap();
    let place = Place::new();
    let copy = |from: PathBuf, to: &str| place.write(to, &std::fs::read_to_string(from).unwrap());

    std::fs::create_dir(place.path("data")).unwrap();
    ["1.json", "2.json"].iter().for_each(|name| copy(examples.join("tweets/data").join(name), &format!("data/{name}")));
    copy(examples.join("tweets/tweets.toml"), "q.toml");
    place.run();
    let rows = place.rows("out");
    assert!(rows.len() == 2 && page("tweets").contains(&format!("```\n{}\n```", rows.join("\n"))), "{rows:?}");
    assert!(place.lanes()[0].contains("column 'id' is BIGINT"));
    place.run();
    assert_eq!(place.rows("out"), rows);

    copy(examples.join("cab-positions/cab-positions.toml"), "q.toml");
    let mut process = place.start();
    for number in 1..=3 {
        copy(examples.join(format!("cab-positions/data/{number}.json")), &format!("in/{number}.json"));
        let batch = format!("Batch: {}", number - 1);
        process.wait_line(&batch, LIMIT, |line| (line == batch).then_some(()));
    }
    process.wait_line("the last cab", LIMIT, |line| line.starts_with("|C  |").then_some(()));
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
    let shown: Vec<String> = process.output().lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect();
    assert_eq!(shown.len(), 8, "{shown:?}");
    assert!(page("cab-positions").contains(&shown[4]), "{shown:?}");
}

#[test]
fn a_table_in_memory_is_shown_over_http() {
    let place = Place::new();
    place.write("in/1.csv", "sensor_id,ts,value\na,2026-01-01T00:00:00Z,2\nb,2026-01-01T00:00:00Z,3\n");
    let text = query("csv", ROWS, "", "format = 'memory'\nmax_rows = 1").replace("checkpoint = 'state'", "");
    place.write("q.toml", &text);
    let mut process = place.start();
    let address = process.wait_line("its address", LIMIT, harness::http::address_in);
    let table = wait_for("the table to have a row", LIMIT, || {
        let table = harness::http::get_json(address, "/tables/q")?;
        (table["rows"].as_array()?.len() == 1).then_some(table)
    });
    assert_eq!((&table["rows"][0]["sensor_id"], &table["droppedRows"]), (&"b".into(), &1.into()), "{table}");
    assert_eq!(stop(&mut process), Some(0), "{}", process.output());
}

#[test]
fn a_topic_is_printed_and_lines_become_a_topic() {
    let log = Log::start(Kind::Embedded, "a_topic_is_printed").unwrap();
    let place = Place::new();
    let lines = "name = 'to-topic'\n[source]\nformat = 'text'\npath = 'in'\nwatermark = '0 seconds'\n[query]\nsql = \"SELECT value, \
                 timestamp FROM text WHERE value <> ''\"\noutput_mode = 'append'\ncheckpoint = 'state'\ntrigger = 'available_now'\n\
                 [sink]\ntopic = 'lines'\n";
    place.write("q.toml", lines);
    place.write("in/1.txt", "one\n\ntwo\n");
    let run = |name: &str| {
        let mut command = place.command();
        command.env("TIDEMARK_KAFKA__BOOTSTRAP_SERVERS", log.servers()).env("TIDEMARK_TOPICS__PARTITIONS", "1");
        let mut process = Process::start(name, &mut command);
        assert_eq!(process.wait_exit(LIMIT), Some(0), "{}", process.output());
        process.output()
    };
    run("lines to a topic");
    // What is there is not read again, and what comes is.
    place.write("in/2.txt", "three\n");
    run("lines to a topic");
    let poll = "name = 'count'\n[source]\ntopic = 'lines'\nschema = 'value STRING, timestamp TIMESTAMP'\nevent_time = 'timestamp'\n\
                watermark = '0 seconds'\n[query]\nsql = \"SELECT value, count(*) AS n FROM lines GROUP BY value ORDER BY value\"\n\
                output_mode = 'complete'\ntrigger = 'once'\n[sink]\nformat = 'console'\n";
    place.write("q.toml", poll);
    let printed = run("a topic on the console");
    let shown: Vec<&str> = printed.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(shown, ["|value|  n|", "|  one|  1|", "|three|  1|", "|  two|  1|"]);
}

#[test]
fn in_update_mode_a_batch_has_the_rows_that_changed() {
    let place = Place::new();
    let sql = "SELECT window.start AS start, count(*) AS n FROM stream GROUP BY window(ts, '10 seconds')";
    let text = query("csv", sql, "trigger = 'available_now'", "format = 'console'").replace("'append'", "'update'");
    place.write("q.toml", &text.replace("max_files_per_trigger = 2", "max_files_per_trigger = 1"));
    // The second file closes the window of the first, which says nothing new of it.
    for (name, time) in [("1", "00:00:01"), ("2", "00:01:01"), ("3", "00:01:02")] {
        place.write(&format!("in/{name}.csv"), &format!("sensor_id,ts,value\na,2026-01-01T{time}Z,2\n"));
    }
    let printed = place.run();
    let shown: Vec<&str> = printed.lines().filter(|line| line.starts_with("|20")).collect();
    assert_eq!(shown, ["|2026-01-01 00:00:00|  1|", "|2026-01-01 00:01:00|  1|", "|2026-01-01 00:01:00|  2|"], "{printed}");
}
