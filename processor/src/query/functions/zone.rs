//! Spark's functions of local time. The local time of a place stands in a timestamp as if it were UTC: it is for showing and for reading
//! parts off, not for reckoning with.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion_common::{DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::common::{as_text, as_time, expect_arguments, over_columns, time_type, times};
use crate::query::zone::Zone;

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Direction::FromUtc, Direction::ToUtc]
        .into_iter()
        .map(|direction| Arc::new(ScalarUDF::from(Shifted { direction, signature: Signature::user_defined(Volatility::Immutable) })))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    FromUtc,
    ToUtc,
}

/// `from_utc_timestamp(time, zone)` and `to_utc_timestamp(time, zone)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shifted {
    direction: Direction,
    signature: Signature,
}

impl ScalarUDFImpl for Shifted {
    fn name(&self) -> &str {
        match self.direction {
            Direction::FromUtc => "from_utc_timestamp",
            Direction::ToUtc => "to_utc_timestamp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 2..=2)?;
        Ok(vec![as_time(self.name(), &types[0])?, as_text(self.name(), &types[1])?])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(Some(name)) = args.scalar_arguments.get(1).copied().flatten().and_then(ScalarValue::try_as_str) {
            Zone::named(name).map_err(|fault| DataFusionError::Plan(format!("{}: {fault}", self.name())))?;
        }
        Ok(Arc::new(Field::new(self.name(), time_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| self.shift(&columns[0], columns[1].as_string()))
    }
}

impl Shifted {
    fn shift(&self, column: &ArrayRef, zones: &StringArray) -> Result<ArrayRef> {
        let mut known: Option<&'static Zone> = None;
        let shifted = times(column).zip(zones).map(|(time, name)| {
            let (Some(time), Some(name)) = (time, name) else { return Ok(None) };
            let zone = match known {
                Some(zone) if zone.name() == name => zone,
                _ => Zone::named(name).map_err(|fault| exec_datafusion_err!("{}: {fault}", self.name()))?,
            };
            known = Some(zone);
            Ok(Some(match self.direction {
                Direction::FromUtc => zone.local(time),
                Direction::ToUtc => zone.utc(time),
            }))
        });
        let shifted: TimestampMillisecondArray = shifted.collect::<Result<_>>()?;
        Ok(Arc::new(shifted.with_data_type(time_type())))
    }
}
