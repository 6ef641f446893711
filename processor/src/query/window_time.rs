//! Spark's `window_time`: the event time of an aggregate's row, for an aggregate over it.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, TimestampMillisecondType};
use datafusion_common::{Result, exec_datafusion_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::window::timestamp_type;

pub(crate) const WINDOW_TIME: &str = "window_time";

/// `window_time(window)`: the last instant of the window, its end less the smallest step of time (a millisecond here).
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowTime {
    signature: Signature,
}

pub(crate) fn window_time_function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(WindowTime { signature: Signature::any(1, Volatility::Immutable) })));
    Arc::clone(&FUNCTION)
}

pub(crate) fn is_window_time(function: &ScalarUDF) -> bool {
    (function.inner().as_ref() as &dyn Any).is::<WindowTime>()
}

/// The event times of window structs, milliseconds; a column of timestamps is taken as it is.
pub(crate) fn event_times(column: &ArrayRef) -> Result<TimestampMillisecondArray> {
    let times = |column: &ArrayRef| column.as_primitive_opt::<TimestampMillisecondType>().cloned();
    let ends = column.as_struct_opt().and_then(|windows| windows.column_by_name("end"));
    match ends {
        None => times(column),
        Some(ends) => times(ends).map(|ends| ends.unary(|end| end - 1)),
    }
    .ok_or_else(|| exec_datafusion_err!("an event time is of type {}", column.data_type()))
}

impl ScalarUDFImpl for WindowTime {
    fn name(&self) -> &str {
        WINDOW_TIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Struct(fields)] if fields.iter().any(|field| field.name() == "end") => Ok(timestamp_type()),
            _ => plan_err!("window_time() takes the window column of an aggregate"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(event_times(&column)?.with_timezone("+00:00"))))
    }
}
