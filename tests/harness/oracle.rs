use std::collections::BTreeMap;

use rusqlite::Connection;

use super::readings::Reading;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CellKey {
    /// Start of the window, epoch milliseconds.
    pub(crate) start: i64,
    pub(crate) sensor: String,
}

/// One window of one sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub(crate) n: u64,
    pub(crate) avg: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

pub(crate) type Cells = BTreeMap<CellKey, Cell>;

/// Folds the readings one after the other. Given in the order of the log it must agree with the processor in every bit: a sum of
/// floats depends on its order, and the processor promises the log's.
pub(crate) fn fold<'a>(readings: impl IntoIterator<Item = &'a Reading>, window: i64) -> Cells {
    fold_windows(readings.into_iter().map(|reading| (reading.ts.div_euclid(window) * window, reading)))
}

/// The same of readings with the start of the window that they are for.
pub(crate) fn fold_windows<'a>(readings: impl IntoIterator<Item = (i64, &'a Reading)>) -> Cells {
    let mut sums: BTreeMap<CellKey, Sums> = BTreeMap::new();
    for (start, reading) in readings {
        let key = CellKey { start, sensor: reading.sensor.clone() };
        sums.entry(key).or_insert(Sums::NONE).add(reading.value);
    }
    sums.into_iter().map(|(key, sums)| (key, sums.cell())).collect()
}

/// The sums of some readings.
#[derive(Clone, Copy)]
struct Sums {
    n: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Sums {
    const NONE: Self = Self { n: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, value: f64) {
        self.merge(Self { n: 1, sum: value, min: value, max: value });
    }

    fn merge(&mut self, other: Self) {
        self.n += other.n;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    #[allow(clippy::cast_precision_loss)]
    fn cell(self) -> Cell {
        Cell { n: self.n, avg: self.sum / self.n as f64, min: self.min, max: self.max }
    }
}

/// Windows of `size` at each `slide`, which divides it, of readings with the watermark that each met; and how many came too late for all of
/// theirs. A window adds up the sums of its slides, in order: those of the readings that counted from the same window on stand apart. Slides of
/// a block that lies in the window as a whole are added up first.
pub(crate) struct Hopping {
    pub(crate) size: i64,
    pub(crate) slide: i64,
    /// By sensor: a slide's start and the first window that counts.
    panes: BTreeMap<String, BTreeMap<(i64, i64), Sums>>,
    pub(crate) late: usize,
}

impl Hopping {
    pub(crate) fn new(size: i64, slide: i64) -> Self {
        assert_eq!(size % slide, 0);
        Self { size, slide, panes: BTreeMap::new(), late: 0 }
    }

    pub(crate) fn add(&mut self, reading: &Reading, watermark: i64) {
        let pane = reading.ts.div_euclid(self.slide) * self.slide;
        let mut windows = (0..self.size / self.slide).rev().map(|back| pane - back * self.slide);
        let Some(since) = windows.find(|start| start + self.size > watermark) else {
            self.late += 1;
            return;
        };
        let panes = self.panes.entry(reading.sensor.clone()).or_default();
        panes.entry((pane, since)).or_insert(Sums::NONE).add(reading.value);
    }

    pub(crate) fn cells(&self) -> Cells {
        let block = self.block();
        let mut cells: BTreeMap<CellKey, InBlocks> = BTreeMap::new();
        for (sensor, panes) in &self.panes {
            for ((pane, since), sums) in panes {
                let number = pane.div_euclid(block);
                for start in (0..self.size / self.slide).map(|back| pane - back * self.slide).filter(|start| start >= since) {
                    let is_whole = start <= number * block && (number + 1) * block <= start + self.size;
                    let cell = cells.entry(CellKey { start, sensor: sensor.clone() }).or_insert(InBlocks { all: Sums::NONE, block: None });
                    cell.add(*sums, is_whole.then_some(number));
                }
            }
        }
        cells.into_iter().map(|(key, sums)| (key, sums.all().cell())).collect()
    }

    /// The length of a block; of few slides each one is a block.
    fn block(&self) -> i64 {
        let (slides, mut slides_of_block) = (self.size / self.slide, 1);
        while slides >= 8 && 2 * slides_of_block * slides_of_block < slides {
            slides_of_block *= 2;
        }
        slides_of_block * self.slide
    }
}

/// Sums of a window, with those of the block that it is at.
#[derive(Clone, Copy)]
struct InBlocks {
    all: Sums,
    block: Option<(i64, Sums)>,
}

impl InBlocks {
    fn add(&mut self, sums: Sums, block: Option<i64>) {
        match (&mut self.block, block) {
            (Some((number, of_block)), Some(block)) if *number == block => of_block.merge(sums),
            (_, block) => {
                self.all = self.all();
                self.block = block.map(|block| (block, sums));
                if block.is_none() {
                    self.all.merge(sums);
                }
            }
        }
    }

    fn all(self) -> Sums {
        let mut all = self.all;
        self.block.into_iter().for_each(|(_, of_block)| all.merge(of_block));
        all
    }
}

/// The same by SQL in SQLite: not one line of it is ours. Its `avg` adds with compensation, so it agrees with [`fold`] but for the
/// last bits; see [`assert_close`].
pub(crate) fn sqlite<'a>(readings: impl IntoIterator<Item = &'a Reading>, window: i64) -> Cells {
    let mut database = Connection::open_in_memory().unwrap();
    database.execute_batch("CREATE TABLE iot (sensor TEXT, ts INTEGER, value REAL)").unwrap();
    let transaction = database.transaction().unwrap();
    {
        let mut insert = transaction.prepare("INSERT INTO iot VALUES (?1, ?2, ?3)").unwrap();
        for reading in readings {
            insert.execute((&reading.sensor, reading.ts, reading.value)).unwrap();
        }
    }
    transaction.commit().unwrap();
    // SQLite's `/` and `%` cut towards zero; times before 1970 must not.
    let sql = "SELECT ts - ((ts % ?1) + ?1) % ?1 AS start, sensor, count(*), avg(value), min(value), max(value)
               FROM iot GROUP BY 1, 2";
    let mut query = database.prepare(sql).unwrap();
    let rows = query.query_map([window], |row| {
        let cell = Cell { n: row.get::<_, i64>(2)?.unsigned_abs(), avg: row.get(3)?, min: row.get(4)?, max: row.get(5)? };
        Ok((CellKey { start: row.get(0)?, sensor: row.get(1)? }, cell))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Every cell the same, bit for bit.
#[track_caller]
pub(crate) fn assert_equal(what: &str, got: &Cells, want: &Cells) {
    compare(what, got, want, |a, b| a == b);
}

/// Every cell the same; averages but for the order of the additions, which the other side chose for itself.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Cells, want: &Cells) {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    compare(what, got, want, |a, b| a.n == b.n && a.min == b.min && a.max == b.max && close(a.avg, b.avg));
}

#[track_caller]
fn compare(what: &str, got: &Cells, want: &Cells, same: impl Fn(&Cell, &Cell) -> bool) {
    let missing: Vec<_> = want.keys().filter(|key| !got.contains_key(key)).collect();
    let extra: Vec<_> = got.keys().filter(|key| !want.contains_key(key)).collect();
    let wrong: Vec<_> = want.iter().filter_map(|(key, want)| Some((key, got.get(key)?, want))).filter(|(_, a, b)| !same(a, b)).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && wrong.is_empty(),
        "{what}: of {} cells {} are missing {:?}, {} too many {:?}, {} wrong (key, got, wanted) {:#?}",
        want.len(),
        missing.len(),
        &missing[..missing.len().min(3)],
        extra.len(),
        &extra[..extra.len().min(3)],
        wrong.len(),
        &wrong[..wrong.len().min(3)],
    );
}

/// RFC 3339 in UTC to epoch milliseconds.
pub(crate) fn millis(text: &str) -> i64 {
    assert!(text.ends_with('Z'), "'{text}' is not RFC 3339 in UTC");
    let (seconds, rest) = text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), "0"));
    let millis: i64 = format!("{rest:0<3}")[..3].parse().unwrap();
    epoch_seconds(seconds) * 1000 + millis
}

/// `2013-07-04 00:00:00` or with a `T`, taken as UTC.
pub(crate) fn epoch_seconds(text: &str) -> i64 {
    let digits = |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse::<i64>().ok());
    let parts = (|| Some((digits(0..4)?, digits(5..7)?, digits(8..10)?, digits(11..13)?, digits(14..16)?, digits(17..19)?)))();
    let (year, month, day, hour, minute, second) = parts.unwrap_or_else(|| panic!("'{text}' is no time"));
    // Days since 1970-03-01 of the year that begins in March: leap days come last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

#[test]
fn the_calendar_is_right() {
    assert_eq!(epoch_seconds("1970-01-01 00:00:00"), 0);
    assert_eq!(millis("2023-11-14T22:13:20.123Z"), 1_700_000_000_123);
    assert_eq!(millis("2024-02-29T12:00:00Z"), 1_709_208_000_000);
    assert_eq!(millis("1969-12-31T23:59:59.500Z"), -500);
}
