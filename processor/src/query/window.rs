//! Windows: the `window(...)` call of the SQL, and the arithmetic of panes.
//!
//! All in i64 with Euclidean division, so that sub-second windows and times before 1970 need no special care.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::calendar::{DAY, Grid, Local};
use super::length::Length;
use super::zone::Zone;

/// Spark's names of the functions, and of the columns they make.
pub(crate) const WINDOW: &str = "window";
pub(crate) const SESSION_WINDOW: &str = "session_window";

/// Each row of a hopping window has this many results at most.
const MOST_WINDOWS: i64 = 10_000;

/// The type of times inside queries: milliseconds, UTC.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// `struct<start, end>`, as Spark's `window` returns.
pub(crate) fn window_fields() -> Fields {
    Fields::from(vec![Field::new("start", timestamp_type(), false), Field::new("end", timestamp_type(), false)])
}

/// The longest window of a calendar: 10,000 years.
const MOST_MONTHS: i64 = 120_000;
const MOST_DAYS: i64 = 3_652_425;

/// From here on an offset within a month would reach the next one in some Februaries.
const SHORTEST_MONTH: i64 = 28 * DAY;

/// The Monday of the ISO week of 1970-01-01, in days from it.
const FIRST_MONDAY: i64 = -3;

/// A window's size, slide and start offset, in steps of its grid: milliseconds, or with a time zone local days or months.
///
/// ```text
/// size 30, slide 20:   windows  [0      30)
///                                   [20      50)
///                                          [40      70)
///                      panes    |0 |10|20|30|40|50|...      gcd(30, 20) = 10
/// ```
/// State is kept per pane, which all windows over it share; a window is the merge of its panes. Windows and panes are known by the
/// instants at which they begin. Where clocks skip a whole day, two days begin at one instant: the skipped one has no instants, and no
/// window and no pane of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpec {
    pub size: i64,
    /// Equal to `size` for tumbling windows; never larger.
    pub slide: i64,
    /// Windows start at `start + k * slide`.
    pub start: i64,
    pub(crate) grid: Grid,
}

/// Where a row's state is kept: the pane of its time, and the first window that the row counts in.
///
/// A row can be late for one of its windows and in time for the next. Its state then stands beside that of the rows which came in time
/// for both, so that a window that has closed never changes, whatever the batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pane {
    pub(crate) start: i64,
    /// Start of the first window that counts these rows.
    pub(crate) since: i64,
}

impl WindowSpec {
    /// Windows of `size` milliseconds, one after the other since 1970.
    pub(crate) fn tumbling(size: i64) -> Self {
        Self { size, slide: size, start: 0, grid: Grid::Exact }
    }

    pub(crate) fn pane_size(&self) -> i64 {
        gcd(self.size, self.slide)
    }

    /// The pane of a row that came at `watermark`; `None` when all of its windows have closed.
    pub(crate) fn pane(&self, time: i64, watermark: i64) -> Option<Pane> {
        match self.grid {
            Grid::Exact => self.pane_of_step(time, watermark),
            grid => {
                let pane = self.pane_of_step(grid.step(time), grid.step(watermark))?;
                Some(Pane { start: grid.start(pane.start), since: grid.start(pane.since) })
            }
        }
    }

    /// The same in steps of the grid.
    fn pane_of_step(&self, time: i64, watermark: i64) -> Option<Pane> {
        let start = time - (time - self.start).rem_euclid(self.pane_size());
        let last = self.last(start);
        // The first window is the last one, moved back by as many slides as fit into the size.
        let mut since = last - (self.size - 1 - (time - last)) / self.slide * self.slide;
        while since.saturating_add(self.size) <= watermark {
            if since == last {
                return None;
            }
            since += self.slide;
        }
        Some(Pane { start, since })
    }

    /// The first step of the last window over a step.
    fn last(&self, step: i64) -> i64 {
        step - (step - self.start).rem_euclid(self.slide)
    }

    /// The start of the last window that a pane belongs to.
    pub(crate) fn last_window(&self, pane: i64) -> i64 {
        self.grid.start(self.last(self.grid.step(pane)))
    }

    /// The end (exclusive) of the window that starts at `start`.
    pub fn end(&self, start: i64) -> i64 {
        match self.grid {
            Grid::Exact => start.saturating_add(self.size),
            // Of steps that begin together `step` is the last, and it need not be the window's.
            grid => grid.start(self.last(grid.step(start)).saturating_add(self.size)),
        }
    }

    /// The starts of the windows that count the rows of a pane.
    pub(crate) fn windows(&self, pane: Pane) -> impl Iterator<Item = i64> + use<> {
        let (slide, grid, last) = (self.slide, self.grid, self.last(self.grid.step(pane.start)));
        let since = match grid {
            Grid::Exact => pane.since,
            grid => self.last(grid.step(pane.since)),
        };
        let starts = std::iter::successors(Some(since), move |step: &i64| step.checked_add(slide)).take_while(move |step| *step <= last);
        starts.filter(move |step| grid == Grid::Exact || grid.start(*step) < grid.start(step + slide)).map(move |step| grid.start(step))
    }

    /// Reads `window(time, size[, slide[, start]])`; gives the window and its time argument.
    ///
    /// With a zone, lengths in days, weeks, months and years are those of its calendar.
    pub(crate) fn from_call(call: &ScalarFunction, zone: Option<&'static Zone>) -> std::result::Result<(Self, Expr), String> {
        let [time, rest @ ..] = call.args.as_slice() else {
            return Err("window() needs a time column and a size, such as window(ts, '10 seconds')".into());
        };
        let before = match rest {
            [_, _, Expr::Literal(start, _)] => start.try_as_str().flatten().and_then(|text| text.trim().strip_prefix('-')),
            _ => None,
        };
        let read = |(place, expr): (usize, &Expr)| match before {
            Some(text) if place == 2 => text.parse(),
            _ => length_of(expr),
        };
        let lengths: Vec<Length> = rest.iter().enumerate().map(read).collect::<std::result::Result<_, _>>()?;
        let zero = Length::default();
        let (size, slide, start) = match lengths.as_slice() {
            [size] => (size, size, &zero),
            [size, slide] => (size, slide, &zero),
            [size, slide, start] => (size, slide, start),
            _ => return Err("window() takes a time column, a size, a slide and a start offset".into()),
        };
        let window = match zone {
            Some(_) if before.is_some() && (size.is_calendar() || slide.is_calendar()) => {
                return Err(format!("window(): the start offset of a calendar's windows is not negative; write what is left to '{size}'"));
            }
            Some(zone) if size.is_calendar() || slide.is_calendar() => Self::of_calendar(zone, size, slide, start)?,
            Some(_) if size.fraction || slide.fraction => {
                return Err(format!(
                    "window(): days and weeks of a calendar are whole; '{size}' every '{slide}' is not, write it in hours"
                ));
            }
            _ => Self {
                size: size.fixed()?,
                slide: slide.fixed()?,
                start: if before.is_some() { -start.fixed()? } else { start.fixed()? },
                grid: Grid::Exact,
            },
        };
        Ok((window.checked()?, time.clone()))
    }

    fn of_calendar(zone: &'static Zone, size: &Length, slide: &Length, start: &Length) -> std::result::Result<Self, String> {
        let is_months = size.months != 0;
        let same =
            |length: &Length| length.exact == 0 && !length.fraction && (length.months != 0) == is_months && (length.days != 0) != is_months;
        if !same(size) || !same(slide) {
            return Err(format!(
                "window() in a time zone takes size and slide both in days and weeks, both in months and years, or both in hours and smaller \
                 units; '{size}' every '{slide}' mixes them: write for example '7 days' every '1 day', or '24 hours' every '6 hours'"
            ));
        }
        let shift = start.days.saturating_mul(DAY).saturating_add(start.exact);
        if is_months {
            if size.months > MOST_MONTHS {
                return Err("window() takes at most 10,000 years; use a shorter size".into());
            }
            if shift >= SHORTEST_MONTH {
                return Err(format!(
                    "window(): the start offset '{start}' must be less than 28 days into a month; use whole months before it"
                ));
            }
            return Ok(Self { size: size.months, slide: slide.months, start: start.months, grid: Grid::Months(Local { zone, shift }) });
        }
        if start.months != 0 {
            return Err(format!("window(): the start offset '{start}' has months, and the windows have days; write it in days or hours"));
        }
        if size.days > MOST_DAYS {
            return Err("window() takes at most 10,000 years; use a shorter size".into());
        }
        let first = if size.weeks || slide.weeks { FIRST_MONDAY } else { 0 };
        let local = Local { zone, shift: shift.rem_euclid(DAY) };
        Ok(Self { size: size.days, slide: slide.days, start: first + shift.div_euclid(DAY), grid: Grid::Days(local) })
    }

    fn checked(self) -> std::result::Result<Self, String> {
        let Self { size, slide, .. } = self;
        if size < 1 || slide < 1 {
            return Err("window() needs a size and a slide of at least 1 millisecond".into());
        }
        if size / slide > MOST_WINDOWS {
            return Err(format!(
                "window() would put every row into more than {MOST_WINDOWS} windows; use a longer slide or a shorter size"
            ));
        }
        if slide > size {
            return Err("window() needs a slide no longer than the size, or the rows between two windows would be in none".into());
        }
        Ok(Self { start: self.start.rem_euclid(slide), ..self })
    }
}

/// Finds the panes of many rows. Most rows are of the same day as the row before, and need no look into the calendar.
pub(crate) struct PaneFinder {
    window: WindowSpec,
    /// Times and watermarks that have the same pane; never any on the grid of milliseconds, where it is not worth it.
    known: Option<(Range<i64>, Range<i64>, Option<Pane>)>,
}

impl PaneFinder {
    pub(crate) fn new(window: WindowSpec) -> Self {
        Self { window, known: None }
    }

    /// As [`WindowSpec::pane`].
    pub(crate) fn pane(&mut self, time: i64, watermark: i64) -> Option<Pane> {
        match &self.known {
            _ if self.window.grid == Grid::Exact => self.window.pane(time, watermark),
            Some((times, watermarks, pane)) if times.contains(&time) && watermarks.contains(&watermark) => *pane,
            _ => {
                let pane = self.window.pane(time, watermark);
                self.known = Some((self.window.grid.around(time), self.window.grid.around(watermark), pane));
                pane
            }
        }
    }
}

/// Size, slide and where they are counted from; for `processor check`.
impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grid.describe(self.size, self.slide, self.start, f)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn length_of(expr: &Expr) -> std::result::Result<Length, String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)), _) => {
            text.parse()
        }
        other => Err(format!("window() takes lengths as text, such as '10 seconds', not {other}")),
    }
}

/// Reads `session_window(time, gap)`; gives the gap, milliseconds, and the time argument.
pub(crate) fn session_from_call(call: &ScalarFunction) -> std::result::Result<(i64, Expr), String> {
    let [time, gap] = call.args.as_slice() else {
        return Err("session_window() takes a time column and a gap, such as session_window(ts, '5 minutes')".into());
    };
    if !matches!(gap, Expr::Literal(..)) {
        return Err("session_window() takes a gap that is the same for all rows, such as '5 minutes'".into());
    }
    let gap = length_of(gap)?.fixed()?;
    if gap < 1 {
        return Err("session_window() needs a gap of at least 1 millisecond".into());
    }
    Ok((gap, time.clone()))
}

/// `window` and `session_window` for the planner: they have a type, and the engine puts their values in; nobody ever calls them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    name: &'static str,
    signature: Signature,
}

impl WindowFunction {
    fn udf(name: &'static str) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self { name, signature: Signature::variadic_any(Volatility::Immutable) }))
    }
}

pub(crate) fn window_function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| WindowFunction::udf(WINDOW));
    Arc::clone(&FUNCTION)
}

pub(crate) fn session_window_function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| WindowFunction::udf(SESSION_WINDOW));
    Arc::clone(&FUNCTION)
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            // A window of an aggregate below stands for its last instant.
            Some(DataType::Timestamp(..) | DataType::Struct(_)) => Ok(DataType::Struct(window_fields())),
            Some(other) => plan_err!("{}() needs a TIMESTAMP as its first argument, not {other}", self.name),
            None => plan_err!("{0}() needs a time column and a length, such as {0}(ts, '10 seconds')", self.name),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("{0}() belongs into GROUP BY; select {0}.start and {0}.end of it", self.name)
    }
}

/// Whether a UDF is our stub of `window`.
pub(crate) fn is_window(function: &ScalarUDF) -> bool {
    stub_name(function) == Some(WINDOW)
}

pub(crate) fn is_session_window(function: &ScalarUDF) -> bool {
    stub_name(function) == Some(SESSION_WINDOW)
}

fn stub_name(function: &ScalarUDF) -> Option<&'static str> {
    (function.inner().as_ref() as &dyn Any).downcast_ref::<WindowFunction>().map(|stub| stub.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod in_zones;

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: i64 = i64::MIN;

    #[test]
    fn panes_hold_their_times_before_1970_too() {
        let window = WindowSpec { size: 10_000, slide: 10_000, start: 0, grid: Grid::Exact };
        for (time, start) in [(0, 0), (9_999, 0), (10_000, 10_000), (-1, -10_000), (-10_000, -10_000), (-10_001, -20_000)] {
            assert_eq!(window.pane(time, NEVER), Some(Pane { start, since: start }), "{time}");
        }
        let offset = WindowSpec { size: 100, slide: 100, start: 30, grid: Grid::Exact };
        for (time, start) in [(30, 30), (29, -70), (129, 30), (130, 130), (-71, -170)] {
            assert_eq!(offset.pane(time, NEVER), Some(Pane { start, since: start }), "{time}");
        }
    }

    /// Every window over a time, by looking at all of them.
    fn windows_over(window: WindowSpec, time: i64, watermark: i64) -> Vec<i64> {
        let near = (-50..50).map(|number| window.start + number * window.slide);
        near.filter(|start| *start <= time && time < start + window.size && start + window.size > watermark).collect()
    }

    #[test]
    fn a_row_counts_in_the_windows_over_it_that_are_open() {
        for (size, slide, start) in [(30, 20, 0), (60, 10, 0), (60, 10, 7), (25, 10, 3), (10, 10, 0), (7, 3, 1), (5, 5, 4)] {
            let window = WindowSpec { size, slide, start, grid: Grid::Exact };
            for time in -70..70 {
                for watermark in [NEVER, time - 30, time - 1, time, time + 1, time + 9, time + 25, time + 80] {
                    let counted = window.pane(time, watermark).map_or(Vec::new(), |pane| window.windows(pane).collect());
                    assert_eq!(counted, windows_over(window, time, watermark), "{window:?} at {time}, watermark {watermark}");
                }
            }
        }
    }

    #[test]
    fn windows_at_the_end_of_time_are_few() {
        let window = WindowSpec { size: 10_000, slide: 5_000, start: 0, grid: Grid::Exact };
        let pane = Pane { start: i64::MAX - 3, since: i64::MAX - 8_000 };
        assert!(window.windows(pane).count() <= 2);
    }

    #[test]
    fn rows_of_one_pane_share_their_windows() {
        let window = WindowSpec { size: 30, slide: 20, start: 0, grid: Grid::Exact };
        for time in 20..30 {
            assert_eq!(window.pane(time, NEVER), Some(Pane { start: 20, since: 0 }));
        }
    }
}
