//! Numbers in which Spark and DataFusion differ: `ceil` and `floor` give whole numbers, `log(x)` is the natural logarithm, a logarithm of
//! what has none is null, and the square root of a number below zero is NaN.

use std::{ops::RangeInclusive, sync::Arc};

use arrow::{
    array::{AsArray, Float64Array, Int64Array},
    datatypes::{DataType, Float64Type},
};
use datafusion_common::{Result, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::common::{expect_arguments, over_columns};

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    Math::ALL
        .iter()
        .map(|math| Arc::new(ScalarUDF::from(Compute { math: *math, signature: Signature::user_defined(Volatility::Immutable) })))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Math {
    Ceil,
    Floor,
    Ln,
    Log,
    Log2,
    Log10,
    Sqrt,
}

impl Math {
    const ALL: [Self; 7] = [Self::Ceil, Self::Floor, Self::Ln, Self::Log, Self::Log2, Self::Log10, Self::Sqrt];

    fn arguments(self) -> RangeInclusive<usize> {
        if self == Self::Log { 1..=2 } else { 1..=1 }
    }

    fn rounds(self) -> bool {
        matches!(self, Self::Ceil | Self::Floor)
    }

    fn logarithm(self, value: f64) -> Option<f64> {
        // NaN is not at or below zero: it flows through.
        let no_logarithm = value <= 0.0;
        (!no_logarithm).then(|| match self {
            Self::Log2 => value.log2(),
            Self::Log10 => value.log10(),
            _ => value.ln(),
        })
    }

    fn rounded(self, value: f64) -> i64 {
        // The cast saturates and takes NaN to 0, as Java's does.
        if self == Self::Ceil { value.ceil() as i64 } else { value.floor() as i64 }
    }
}

/// NaN below zero, and always the same one. The processor's own NaN has a sign that depends on how many rows are computed at once, and a
/// sort would see it; bits are chosen here because of two floats the compiler may take the quicker one.
fn square_root(value: f64) -> f64 {
    f64::from_bits(if value < 0.0 { f64::NAN.to_bits() } else { value.sqrt().to_bits() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Compute {
    math: Math,
    signature: Signature,
}

impl ScalarUDFImpl for Compute {
    fn name(&self) -> &str {
        match self.math {
            Math::Ceil => "ceil",
            Math::Floor => "floor",
            Math::Ln => "ln",
            Math::Log => "log",
            Math::Log2 => "log2",
            Math::Log10 => "log10",
            Math::Sqrt => "sqrt",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), self.math.arguments())?;
        if let Some(other) = types.iter().find(|given| !given.is_numeric() && !given.is_null()) {
            return plan_err!("{} takes a number, not {other}", self.name());
        }
        // A whole number keeps all its digits: there is nothing to round.
        let kept = self.math.rounds() && types[0].is_integer();
        Ok(vec![if kept { DataType::Int64 } else { DataType::Float64 }; types.len()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.math.rounds() { DataType::Int64 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args[0].data_type() == DataType::Int64 {
            return Ok(args.args[0].clone());
        }
        over_columns(&args.args, |columns| {
            let first = columns[0].as_primitive::<Float64Type>();
            if self.math.rounds() {
                let rounded: Int64Array = first.unary(|value| self.math.rounded(value));
                return Ok(Arc::new(rounded));
            }
            if self.math == Math::Sqrt {
                let root: Float64Array = first.unary(square_root);
                return Ok(Arc::new(root));
            }
            let logarithm = |value: f64| self.math.logarithm(value);
            let result: Float64Array = match columns.get(1) {
                None => first.unary_opt(logarithm),
                Some(values) => values
                    .as_primitive::<Float64Type>()
                    .iter()
                    .zip(first)
                    .map(|(value, base)| Some(logarithm(value?)? / logarithm(base?)?))
                    .collect(),
            };
            Ok(Arc::new(result))
        })
    }
}
