//! Random queries, together with what the definition needs to know about them.

use std::path::Path;
use std::sync::Arc;

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use super::world::Reading;
use crate::query::{QueryFile, StreamQuery};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Window {
    None,
    /// Size, slide, start offset, milliseconds.
    Panes(i64, i64, i64),
    Session(i64),
    /// So many days every day, of a zone without skipped midnights.
    Days(&'static str, i64),
    /// What only the engine is asked about: an offset or a length with rules of their own.
    Calendar(&'static str, &'static str),
}

/// How far an aggregate can be compared with a batch computation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Exact {
    /// The same bits whatever the order of the rows.
    Always,
    /// The same bits when the rows come in the order of one log.
    InOrder,
    /// The order of additions is another: nearly the same in the order of one log.
    Nearly,
    /// Ours, or an approximation: only against other runs of ours.
    Never,
}

/// An aggregate call; `name` and `column` are those of the batch computation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) sql: &'static str,
    pub(super) name: &'static str,
    pub(super) column: &'static str,
    pub(super) distinct: bool,
    pub(super) exact: Exact,
}

const fn call(sql: &'static str, name: &'static str, column: &'static str, exact: Exact) -> Call {
    Call { sql, name, column, distinct: false, exact }
}

const fn own(sql: &'static str) -> Call {
    call(sql, "", "", Exact::Never)
}

pub(super) const CALLS: &[Call] = &[
    call("count(*)", "count", "one", Exact::Always),
    call("count(value)", "count", "value", Exact::Always),
    Call { distinct: true, ..call("count(DISTINCT kind)", "count", "kind", Exact::Always) },
    Call { distinct: true, ..call("count(DISTINCT value)", "count", "one_zero", Exact::Always) },
    call("sum(value)", "sum", "value", Exact::InOrder),
    call("sum(seq)", "sum", "seq", Exact::Always),
    call("avg(value)", "avg", "value", Exact::InOrder),
    call("avg(seq)", "avg", "seq", Exact::Always),
    call("min(value)", "min", "value", Exact::Always),
    call("max(value)", "max", "value", Exact::Always),
    call("min(kind)", "min", "kind", Exact::Always),
    call("max(sensor_id)", "max", "sensor", Exact::Always),
    call("max(sqrt(value))", "max", "root", Exact::InOrder),
    call("sum(sqrt(value))", "sum", "root", Exact::InOrder),
    call("median(seq)", "median", "seq", Exact::Always),
    call("bool_and(value > 0)", "bool_and", "above", Exact::Always),
    call("bool_or(value > 0)", "bool_or", "above", Exact::Always),
    call("bit_and(seq)", "bit_and", "seq", Exact::Always),
    call("bit_or(seq)", "bit_or", "seq", Exact::Always),
    call("bit_xor(seq)", "bit_xor", "seq", Exact::Always),
    call("first_value(value)", "first_value", "value", Exact::InOrder),
    call("last_value(seq)", "last_value", "seq", Exact::InOrder),
    call("stddev(value)", "stddev", "value", Exact::Nearly),
    call("var_pop(value)", "var_pop", "value", Exact::Nearly),
    own("median(value)"),
    own("covar_pop(value, seq)"),
    own("corr(value, seq)"),
    own("regr_slope(value, seq)"),
    own("array_agg(seq)"),
    own("array_agg(kind ORDER BY ts)"),
    own("collect_set(kind)"),
    own("collect_list(value)"),
    own("string_agg(kind, ',')"),
    own("sum(DISTINCT value)"),
    own("nth_value(seq, 2)"),
    own("first_value(value ORDER BY seq DESC)"),
    own("last_value(value ORDER BY ts)"),
    own("count_if(value > 0)"),
    own("sum(value) FILTER (WHERE kind = 'humidity')"),
    own("sum(exp(value))"),
    own("max(ts)"),
    own("percentile_cont(0.9) WITHIN GROUP (ORDER BY value)"),
    own("approx_distinct(kind)"),
    own("sum(CAST(seq AS DECIMAL(12, 2)))"),
    own("avg(CAST(seq AS DECIMAL(12, 2)))"),
];

/// A condition and what it means.
#[derive(Clone, Copy)]
pub(super) struct Where(&'static str, pub(super) fn(&Reading) -> bool);

const WHERES: &[Where] = &[
    Where("value > 0", |r| r.value.is_some_and(|value| value > 0.0)),
    Where("kind = 'humidity' OR seq IS NULL", |r| r.seq.is_none() || r.kind.as_deref() == Some("humidity")),
    Where("value IS NOT NULL AND seq % 3 <> 0", |r| r.value.is_some() && r.seq.is_some_and(|seq| seq % 3 != 0)),
    Where("kind <> ''", |r| r.kind.as_deref().is_some_and(|kind| !kind.is_empty())),
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Append,
    Update,
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// One aggregate.
    Groups,
    /// One aggregate, with ORDER BY and LIMIT.
    Top,
    /// An aggregate over it.
    Chained,
    Rows,
    Distinct,
}

pub(super) struct Query {
    pub(super) compiled: Arc<StreamQuery>,
    pub(super) text: String,
    pub(super) form: Form,
    pub(super) window: Window,
    pub(super) mode: Mode,
    pub(super) keys: &'static [&'static str],
    pub(super) calls: Vec<Call>,
    pub(super) condition: Option<Where>,
    /// HAVING count(*) > this.
    pub(super) having: Option<i64>,
    pub(super) dedup: &'static [&'static str],
    /// `watermark_by = "sensor_id"`, and the silence after which a device is given up.
    pub(super) silence: Option<i64>,
    pub(super) delay: i64,
    pub(super) idle: i64,
}

const KEYS: &[&[&str]] =
    &[&[], &["sensor_id"], &["sensor_id"], &["sensor_id", "kind"], &["kind"], &["seq % 2", "sensor_id"], &["kind", "seq % 2"]];

impl Query {
    pub(super) fn is_keyed(&self) -> bool {
        self.keys.contains(&"sensor_id")
    }

    /// Whether a closed window is told apart from an open one.
    pub(super) fn closes(&self) -> bool {
        self.mode != Mode::Complete && self.window != Window::None
    }

    /// Whether the rows can be computed by [`super::batch`].
    pub(super) fn has_batch_form(&self) -> bool {
        self.form == Form::Groups && !matches!(self.window, Window::Calendar(..))
    }

    /// Whether [`super::definition`] knows the outcome of every row.
    pub(super) fn is_defined(&self) -> bool {
        matches!(self.form, Form::Groups | Form::Rows | Form::Chained | Form::Top) && !matches!(self.window, Window::Calendar(..))
    }
}

pub(super) fn query(random: &mut ChaCha8Rng) -> Query {
    let form = *[Form::Groups; 12].iter().chain(&[Form::Top, Form::Chained, Form::Chained, Form::Rows, Form::Distinct]).collect::<Vec<_>>()
        [random.random_range(0..17)];
    let window = match form {
        Form::Groups | Form::Top => window(random),
        Form::Chained => Window::Panes(60_000, 60_000, 0),
        Form::Rows | Form::Distinct => Window::None,
    };
    let mode = mode(random, form, window);
    let keys = if matches!(form, Form::Rows | Form::Distinct) { &[] } else { *KEYS.choose(random).unwrap() };
    let delay = [1_000, 5_000, 60_000, 600_000][random.random_range(0..4)];
    let dedup: &[&str] = match random.random_range(0..10) {
        0 => &["sensor_id", "seq"],
        1 => &["sensor_id", "ts"],
        _ => &[],
    };
    let by_device = form == Form::Groups && window != Window::None && keys.contains(&"sensor_id") && random.random_bool(0.4);
    let silence = by_device.then(|| [60_000, 1_800_000, 86_400_000][random.random_range(0..3)]);
    let condition = random.random_bool(0.3).then(|| *WHERES.choose(random).unwrap());
    let having = (form == Form::Groups && random.random_bool(0.25)).then(|| random.random_range(1..4));
    let mut calls: Vec<Call> = (0..random.random_range(1..=5)).map(|_| *CALLS.choose(random).unwrap()).collect();
    // The planner takes avg(seq) and avg(CAST(seq AS ...)) for one name.
    if calls.iter().any(|call| call.sql == "avg(seq)") {
        calls.retain(|call| !call.sql.starts_with("avg(CAST"));
    }
    if calls.iter().any(|call| call.sql == "sum(seq)") {
        calls.retain(|call| !call.sql.starts_with("sum(CAST"));
    }
    let idle = [1_000, 30_000, 600_000][random.random_range(0..3)];
    let mut query = Query {
        compiled: compile(include_str!("../../../queries/iot-10s.toml")),
        text: String::new(),
        form,
        window,
        mode,
        keys,
        calls,
        condition,
        having,
        dedup,
        silence,
        delay,
        idle,
    };
    query.text = query.file();
    query.compiled = compile(&query.text);
    query
}

fn window(random: &mut ChaCha8Rng) -> Window {
    let minute = 60_000;
    match random.random_range(0..15) {
        0 => Window::None,
        1..=3 => Window::Panes(minute * 10, minute * 10, 0),
        4 => Window::Panes(10_000, 10_000, 3_000),
        5 | 6 => Window::Panes(30 * minute, 10 * minute, 0),
        7 => Window::Panes(7 * minute, 3 * minute, minute),
        // Of so many panes that they are merged block by block.
        14 => Window::Panes(10 * minute, minute, 0),
        8..=10 => Window::Session([30_000, 5 * minute, 20 * minute][random.random_range(0..3)]),
        11 | 12 => Window::Days(["Europe/Rome", "America/New_York", "Asia/Kolkata"][random.random_range(0..3)], random.random_range(1..3)),
        _ => *[
            Window::Calendar("Europe/Rome", "'1 day', '1 day', '6 hours'"),
            Window::Calendar("Europe/Rome", "'1 month'"),
            Window::Calendar("Pacific/Apia", "'1 week'"),
            Window::Calendar("America/New_York", "'2 hours', '30 minutes'"),
            Window::Calendar("Europe/Rome", "'14 days', '1 day'"),
        ]
        .choose(random)
        .unwrap(),
    }
}

fn mode(random: &mut ChaCha8Rng, form: Form, window: Window) -> Mode {
    let modes: &[Mode] = match (form, window) {
        (Form::Top, _) => &[Mode::Complete],
        (Form::Chained | Form::Rows | Form::Distinct, _) => &[Mode::Append],
        (Form::Groups, Window::None) => &[Mode::Update, Mode::Update, Mode::Complete],
        (Form::Groups, Window::Session(_)) => &[Mode::Append, Mode::Append, Mode::Complete],
        (Form::Groups, _) => &[Mode::Append, Mode::Update, Mode::Update, Mode::Complete],
    };
    *modes.choose(random).unwrap()
}

pub(super) fn compile(text: &str) -> Arc<StreamQuery> {
    let file = QueryFile::parse(text, Path::new("simulated.toml")).unwrap();
    Arc::new(StreamQuery::compile(file).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

impl Query {
    fn file(&self) -> String {
        let mode = format!("{:?}", self.mode).to_lowercase();
        let mut source = format!("watermark = '{} ms'\nidle_timeout = '{} ms'\n", self.delay, self.idle);
        if let Some(silence) = self.silence {
            source += &format!("watermark_by = 'sensor_id'\nmax_silence = '{silence} ms'\n");
        }
        if !self.dedup.is_empty() {
            source += &format!("drop_duplicates_within_watermark = {:?}\n", self.dedup);
        }
        let zone = match self.window {
            Window::Days(zone, _) | Window::Calendar(zone, _) => format!("time_zone = '{zone}'\n"),
            _ => String::new(),
        };
        format!(
            "name = 'simulated'\n[source]\ntopic = 'iot'\nevent_time = 'ts'\n\
             schema = 'sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT'\n\
             {source}[query]\noutput_mode = '{mode}'\n{zone}sql = '''{}'''\n",
            self.sql()
        )
    }

    fn sql(&self) -> String {
        let condition = self.condition.map(|condition| format!(" WHERE {}", condition.0)).unwrap_or_default();
        let keys: String = self.keys.iter().enumerate().map(|(place, key)| format!("{key} AS k{place}, ")).collect();
        let calls: Vec<String> = self.calls.iter().enumerate().map(|(place, call)| format!("{} AS a{place}", call.sql)).collect();
        let (window, bounds) = match self.window {
            Window::None => (None, String::new()),
            Window::Panes(size, slide, start) => {
                (Some(format!("window(ts, '{size} ms', '{slide} ms', '{start} ms')")), "window".to_owned())
            }
            Window::Days(_, days) => (Some(format!("window(ts, '{days} days', '1 day')")), "window".to_owned()),
            Window::Calendar(_, lengths) => (Some(format!("window(ts, {lengths})")), "window".to_owned()),
            Window::Session(gap) => (Some(format!("session_window(ts, '{gap} ms')")), "session_window".to_owned()),
        };
        let bounds = match bounds.as_str() {
            "" => String::new(),
            name => format!("unix_millis({name}.start) AS s, unix_millis({name}.end) AS e, "),
        };
        let groups: Vec<String> = window.into_iter().chain(self.keys.iter().map(|key| (*key).to_owned())).collect();
        let group = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
        match self.form {
            Form::Rows => format!("SELECT sensor_id, ts, value * 2 AS v, kind FROM iot{condition}"),
            Form::Distinct => {
                format!("SELECT DISTINCT {} FROM iot{condition}", ["kind", "sensor_id, kind", "sensor_id, ts"][self.calls.len() % 3])
            }
            Form::Groups => {
                let having = self.having.map(|least| format!(" HAVING count(*) > {least}")).unwrap_or_default();
                format!("SELECT {bounds}{keys}{} FROM iot{condition}{group}{having}", calls.join(", "))
            }
            Form::Top => format!("SELECT {bounds}{keys}{} FROM iot{condition}{group} ORDER BY a0 DESC LIMIT 3", calls.join(", ")),
            Form::Chained => {
                let outer = if self.is_keyed() { ", id" } else { "" };
                let id = if self.is_keyed() { "sensor_id AS id, " } else { "" };
                let inner: Vec<String> = groups.iter().map(|group| format!(", {group}")).collect();
                format!(
                    "SELECT unix_millis(window.start) AS s{outer}, count(*) AS windows, sum(n) AS n, sum(mean) AS means, max(mean) AS peak FROM \
                     (SELECT {} AS w, {id}count(*) AS n, avg(value) AS mean, {} FROM iot{condition} GROUP BY {}) GROUP BY window(w, '10 minutes'){outer}",
                    groups[0],
                    calls.join(", "),
                    inner.concat().trim_start_matches(", "),
                )
            }
        }
    }
}
