//! Numbers that DataFusion has not, or that it stops at: `sqrt` of a negative number is NaN, as in Spark.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Int64Array, PrimitiveArray},
    compute::{binary, kernels::arity::try_binary},
    datatypes::{ArrowNativeType, DataType, Float64Type, Int32Type, Int64Type},
    error::ArrowError,
};
use datafusion_common::Result;
use datafusion_expr::ScalarUDF;

use super::{
    common::expect_arguments,
    plain::{Plain, as_double, as_long},
};

/// NaN below zero, and always the same one. The processor's own NaN has a sign that may depend on how many rows are computed at once, and a
/// sort would see it. To the compiler one NaN is as good as another, so it must not see that these bits are a float's.
fn square_root(value: f64) -> f64 {
    const SIGN: u64 = 1 << 63;
    let bits = std::hint::black_box(value.sqrt().to_bits());
    f64::from_bits(if bits & !SIGN > f64::INFINITY.to_bits() { f64::NAN.to_bits() } else { bits })
}

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let plain = |name, coerce, returns, run| Plain { name, coerce, returns, run }.function();
    vec![
        plain("sqrt", doubles::<1>, double, |columns| float(columns, square_root)),
        plain("expm1", doubles::<1>, double, |columns| float(columns, f64::exp_m1)),
        // Spark's logarithm of what has none is null.
        plain("log1p", doubles::<1>, double, |columns| {
            let result: Float64Array = columns[0].as_primitive::<Float64Type>().unary_opt(|x| (x > -1.0 || x.is_nan()).then(|| x.ln_1p()));
            Ok(Arc::new(result))
        }),
        plain("rint", doubles::<1>, double, |columns| float(columns, f64::round_ties_even)),
        plain("hypot", doubles::<2>, double, |columns| {
            let [a, b] = [0, 1].map(|place| columns[place].as_primitive::<Float64Type>());
            Ok(Arc::new(binary::<_, _, _, Float64Type>(a, b, f64::hypot)?))
        }),
        plain("bround", bround_types, double, bround),
        plain("div", longs::<2>, |_| DataType::Int64, div),
        plain("bit_not", integers::<1>, same, |columns| by_width(columns, |x, _| !x, |x, _| !x)),
        plain("shiftleft", integers::<2>, same, |columns| by_width(columns, i32::wrapping_shl, i64::wrapping_shl)),
        plain("shiftright", integers::<2>, same, |columns| by_width(columns, i32::wrapping_shr, i64::wrapping_shr)),
        plain("shiftrightunsigned", integers::<2>, same, |columns| {
            by_width(
                columns,
                |x, by| x.cast_unsigned().wrapping_shr(by).cast_signed(),
                |x, by| x.cast_unsigned().wrapping_shr(by).cast_signed(),
            )
        }),
    ]
}

fn double(_: &[DataType]) -> DataType {
    DataType::Float64
}

fn same(types: &[DataType]) -> DataType {
    types[0].clone()
}

fn doubles<const N: usize>(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), N..=N)?;
    types.iter().map(|given| as_double(function, given)).collect()
}

fn longs<const N: usize>(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), N..=N)?;
    types.iter().map(|given| as_long(function, given)).collect()
}

/// The first argument keeps its width, INT or BIGINT; the number of bits is an INT.
fn integers<const N: usize>(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    let mut types: Vec<DataType> = longs::<N>(function, types)?.into_iter().zip(types).map(|(long, given)| width(long, given)).collect();
    types.iter_mut().skip(1).for_each(|bits| *bits = DataType::Int32);
    Ok(types)
}

fn width(long: DataType, given: &DataType) -> DataType {
    if matches!(given, DataType::Int8 | DataType::Int16 | DataType::Int32) { DataType::Int32 } else { long }
}

fn float(columns: &[ArrayRef], map: impl Fn(f64) -> f64) -> Result<ArrayRef> {
    let result: Float64Array = columns[0].as_primitive::<Float64Type>().unary(map);
    Ok(Arc::new(result))
}

/// Integer division that cuts towards zero; a zero divisor fails the row, as in Spark's ANSI mode.
fn div(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [a, b] = [0, 1].map(|place| columns[place].as_primitive::<Int64Type>());
    let quotient = |a: i64, b: i64| match b {
        0 => Err(ArrowError::DivideByZero),
        b => a.checked_div(b).ok_or_else(|| ArrowError::ArithmeticOverflow(format!("{a} DIV {b} is beyond BIGINT"))),
    };
    let result: Int64Array = try_binary(a, b, quotient)?;
    Ok(Arc::new(result))
}

fn by_width(columns: &[ArrayRef], of_int: fn(i32, u32) -> i32, of_long: fn(i64, u32) -> i64) -> Result<ArrayRef> {
    if columns[0].data_type() == &DataType::Int32 { shifted::<Int32Type>(columns, of_int) } else { shifted::<Int64Type>(columns, of_long) }
}

fn shifted<T: ArrowPrimitiveType>(columns: &[ArrayRef], shift: fn(T::Native, u32) -> T::Native) -> Result<ArrayRef>
where
    T::Native: ArrowNativeType,
{
    let values = columns[0].as_primitive::<T>();
    let result: PrimitiveArray<T> = match columns.get(1) {
        None => values.unary(|value| shift(value, 0)),
        Some(bits) => binary(values, bits.as_primitive::<Int32Type>(), |value, bits| shift(value, bits.cast_unsigned()))?,
    };
    Ok(Arc::new(result))
}

fn bround_types(function: &str, types: &[DataType]) -> Result<Vec<DataType>> {
    expect_arguments(function, types.len(), 1..=2)?;
    let places = types.get(1).map(|given| as_long(function, given)).transpose()?;
    Ok(std::iter::once(as_double(function, &types[0])?).chain(places).collect())
}

/// Rounds halves to the even neighbour; negative places round before the point.
fn bround(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let values = columns[0].as_primitive::<Float64Type>();
    let Some(places) = columns.get(1) else { return float(columns, f64::round_ties_even) };
    let rounded: Float64Array = binary(values, places.as_primitive::<Int64Type>(), |value, places| {
        let scale = 10_f64.powi(i32::try_from(places.unsigned_abs()).unwrap_or(i32::MAX));
        if places < 0 { (value / scale).round_ties_even() * scale } else { round_at(value, scale) }
    })?;
    Ok(Arc::new(rounded))
}

/// Beyond the digits that a DOUBLE has there is nothing to round.
fn round_at(value: f64, scale: f64) -> f64 {
    let scaled = value * scale;
    if scaled.is_finite() { scaled.round_ties_even() / scale } else { value }
}
