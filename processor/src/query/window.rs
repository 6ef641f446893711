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

/// Spark's name of the function, and of the column it makes.
pub(crate) const WINDOW: &str = "window";

/// The type of times inside queries: milliseconds, UTC.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// `struct<start, end>`, as Spark's `window` returns.
pub(crate) fn window_fields() -> Fields {
    Fields::from(vec![Field::new("start", timestamp_type(), false), Field::new("end", timestamp_type(), false)])
}

/// A window's size, slide and start offset, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSpec {
    pub size: i64,
    /// Equal to `size` for tumbling windows.
    pub slide: i64,
    /// Windows start at `start + k * slide`.
    pub start: i64,
}

impl WindowSpec {
    /// The start of the pane that `time` belongs to. A tumbling window is one pane.
    pub fn pane(&self, time: i64) -> i64 {
        time - (time - self.start).rem_euclid(self.slide)
    }

    /// The end (exclusive) of the last window that the pane belongs to: when the watermark is there, nobody needs the pane any more.
    pub fn pane_end(&self, pane: i64) -> i64 {
        pane.saturating_add(self.size)
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
        if slide != size {
            return Err("hopping windows are not supported yet; write window(ts, size) with one length for a tumbling window".into());
        }
        Ok((Self { size, slide, start: start.rem_euclid(slide) }, time.clone()))
    }
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

/// `window` for the planner: it has a type, and the engine puts its values in; nobody ever calls it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    signature: Signature,
}

pub(crate) fn window_function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(WindowFunction { signature: Signature::variadic_any(Volatility::Immutable) })));
    Arc::clone(&FUNCTION)
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        WINDOW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            Some(DataType::Timestamp(..)) => Ok(DataType::Struct(window_fields())),
            Some(other) => plan_err!("window() needs a TIMESTAMP as its first argument, not {other}"),
            None => plan_err!("window() needs a time column and a size, such as window(ts, '10 seconds')"),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("window() belongs into GROUP BY; select window.start and window.end of it")
    }
}

/// Whether a UDF is our stub.
pub(crate) fn is_window(function: &ScalarUDF) -> bool {
    (function.inner().as_ref() as &dyn Any).is::<WindowFunction>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_hold_their_times_before_1970_too() {
        let window = WindowSpec { size: 10_000, slide: 10_000, start: 0 };
        for (time, pane) in [(0, 0), (9_999, 0), (10_000, 10_000), (-1, -10_000), (-10_000, -10_000), (-10_001, -20_000)] {
            assert_eq!(window.pane(time), pane, "{time}");
        }
        let offset = WindowSpec { size: 100, slide: 100, start: 30 };
        for (time, pane) in [(30, 30), (29, -70), (129, 30), (130, 130), (-71, -170)] {
            assert_eq!(offset.pane(time), pane, "{time}");
        }
    }
}
