//! Windows: the `window(...)` call of the SQL, and the arithmetic of panes.
//!
//! All in i64 milliseconds with Euclidean division, so that sub-second windows and times before 1970 need no special care.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use common::units::Span;
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

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

/// A window's size, slide and start offset, milliseconds.
///
/// ```text
/// size 30, slide 20:   windows  [0      30)
///                                   [20      50)
///                                          [40      70)
///                      panes    |0 |10|20|30|40|50|...      gcd(30, 20) = 10
/// ```
/// State is kept per pane, which all windows over it share; a window is the merge of its panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpec {
    pub size: i64,
    /// Equal to `size` for tumbling windows; never larger.
    pub slide: i64,
    /// Windows start at `start + k * slide`.
    pub start: i64,
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
        Self { size, slide: size, start: 0 }
    }

    fn pane_size(&self) -> i64 {
        gcd(self.size, self.slide)
    }

    /// The pane of a row that came at `watermark`; `None` when all of its windows have closed.
    pub(crate) fn pane(&self, time: i64, watermark: i64) -> Option<Pane> {
        let start = time - (time - self.start).rem_euclid(self.pane_size());
        let last = self.last_window(start);
        // The first window is the last one, moved back by as many slides as fit into the size.
        let mut since = last - (self.size - 1 - (time - last)) / self.slide * self.slide;
        while self.end(since) <= watermark {
            if since == last {
                return None;
            }
            since += self.slide;
        }
        Some(Pane { start, since })
    }

    /// The start of the last window that a pane belongs to.
    pub(crate) fn last_window(&self, pane: i64) -> i64 {
        pane - (pane - self.start).rem_euclid(self.slide)
    }

    /// The end (exclusive) of the window that starts at `start`.
    pub fn end(&self, start: i64) -> i64 {
        start.saturating_add(self.size)
    }

    /// The starts of the windows that count the rows of a pane.
    pub(crate) fn windows(&self, pane: Pane) -> impl Iterator<Item = i64> + use<> {
        let (slide, last) = (self.slide, self.last_window(pane.start));
        (0..).map(move |number| pane.since + number * slide).take_while(move |window| *window <= last)
    }

    /// Reads `window(time, size[, slide[, start]])`; gives the window and its time argument.
    pub(crate) fn from_call(call: &ScalarFunction) -> std::result::Result<(Self, Expr), String> {
        let [time, rest @ ..] = call.args.as_slice() else {
            return Err("window() needs a time column and a size, such as window(ts, '10 seconds')".into());
        };
        let spans: Vec<i64> = rest.iter().map(span_of).collect::<std::result::Result<_, _>>()?;
        let (size, slide, start) = match spans.as_slice() {
            [size] => (*size, *size, 0),
            [size, slide] => (*size, *slide, 0),
            [size, slide, start] => (*size, *slide, *start),
            _ => return Err("window() takes a time column, a size, a slide and a start offset".into()),
        };
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
        Ok((Self { size, slide, start: start.rem_euclid(slide) }, time.clone()))
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn span_of(expr: &Expr) -> std::result::Result<i64, String> {
    let text = match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)), _) => text,
        other => return Err(format!("window() takes lengths as text, such as '10 seconds', not {other}")),
    };
    let bare = text.trim();
    // Spark also takes `INTERVAL 10 SECONDS` inside the text.
    let bare = bare.strip_prefix("INTERVAL ").or_else(|| bare.strip_prefix("interval ")).unwrap_or(bare);
    let span: Span = bare.parse().map_err(|fault| format!("window(): {fault}"))?;
    Ok(span.millis())
}

/// Reads `session_window(time, gap)`; gives the gap, milliseconds, and the time argument.
pub(crate) fn session_from_call(call: &ScalarFunction) -> std::result::Result<(i64, Expr), String> {
    let [time, gap] = call.args.as_slice() else {
        return Err("session_window() takes a time column and a gap, such as session_window(ts, '5 minutes')".into());
    };
    if !matches!(gap, Expr::Literal(..)) {
        return Err("session_window() takes a gap that is the same for all rows, such as '5 minutes'".into());
    }
    let gap = span_of(gap)?;
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
mod tests {
    use super::*;

    const NEVER: i64 = i64::MIN;

    #[test]
    fn panes_hold_their_times_before_1970_too() {
        let window = WindowSpec { size: 10_000, slide: 10_000, start: 0 };
        for (time, start) in [(0, 0), (9_999, 0), (10_000, 10_000), (-1, -10_000), (-10_000, -10_000), (-10_001, -20_000)] {
            assert_eq!(window.pane(time, NEVER), Some(Pane { start, since: start }), "{time}");
        }
        let offset = WindowSpec { size: 100, slide: 100, start: 30 };
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
            let window = WindowSpec { size, slide, start };
            for time in -70..70 {
                for watermark in [NEVER, time - 30, time - 1, time, time + 1, time + 9, time + 25, time + 80] {
                    let counted = window.pane(time, watermark).map_or(Vec::new(), |pane| window.windows(pane).collect());
                    assert_eq!(counted, windows_over(window, time, watermark), "{window:?} at {time}, watermark {watermark}");
                }
            }
        }
    }

    #[test]
    fn rows_of_one_pane_share_their_windows() {
        let window = WindowSpec { size: 30, slide: 20, start: 0 };
        for time in 20..30 {
            assert_eq!(window.pane(time, NEVER), Some(Pane { start: 20, since: 0 }));
        }
    }
}
