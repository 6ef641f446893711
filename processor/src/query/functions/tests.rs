//! The registry, and the scalar functions as the engine calls them.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray, new_null_array,
    },
    datatypes::{DataType, Field, Float64Type},
};
use datafusion_common::{DFSchema, Result, ScalarValue, config::ConfigOptions};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, col,
    expr_rewriter::FunctionRewrite,
    lit,
    planner::{ExprPlanner, PlannerResult},
    type_coercion::functions::fields_with_udf,
};

use super::{Functions, LazyChoices, SparkText, common::time_type, cut_sensitive, refused};

/// Plans, coerces and runs a call as the engine would, without a simplifier.
fn call(name: &str, args: &[ColumnarValue]) -> Result<ArrayRef> {
    let function = Functions::new().scalar(name).unwrap_or_else(|| panic!("no function {name}"));
    let given: Vec<_> = args.iter().map(|arg| Arc::new(Field::new("x", arg.data_type(), true))).collect();
    let fields = fields_with_udf(&given, function.as_ref())?;
    let args = args.iter().zip(&fields).map(|(arg, field)| arg.cast_to(field.data_type(), None)).collect::<Result<Vec<_>>>()?;
    let constants: Vec<_> = args.iter().map(|arg| if let ColumnarValue::Scalar(value) = arg { Some(value) } else { None }).collect();
    let return_field = function.return_field_from_args(ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &constants })?;
    let rows = args.iter().find_map(|arg| if let ColumnarValue::Array(array) = arg { Some(array.len()) } else { None }).unwrap_or(1);
    let config_options = Arc::new(ConfigOptions::default());
    let result =
        function.invoke_with_args(ScalarFunctionArgs { args, arg_fields: fields, number_rows: rows, return_field, config_options })?;
    result.into_array(rows)
}

fn array(values: impl arrow::array::Array + 'static) -> ColumnarValue {
    ColumnarValue::Array(Arc::new(values))
}

fn text(value: &str) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::from(value))
}

fn times(values: &[Option<i64>]) -> TimestampMillisecondArray {
    TimestampMillisecondArray::from(values.to_vec()).with_timezone("+00:00")
}

fn texts(values: &[Option<&str>]) -> StringArray {
    StringArray::from(values.to_vec())
}

fn expect(result: Result<ArrayRef>, expected: impl arrow::array::Array + 'static) {
    let expected: ArrayRef = Arc::new(expected);
    assert_eq!(&result.unwrap(), &expected);
}

/// 2023-11-14T22:13:20.123Z, a Tuesday; one millisecond before the epoch, a Wednesday; null.
fn some_times() -> ColumnarValue {
    array(times(&[Some(1_700_000_000_123), Some(-1), None]))
}

#[test]
fn parts_of_times_floor_before_the_epoch() {
    let longs = |name: &str, values: [i64; 2]| {
        expect(call(name, &[some_times()]), Int64Array::from(vec![Some(values[0]), Some(values[1]), None]));
    };
    longs("unix_millis", [1_700_000_000_123, -1]);
    longs("unix_seconds", [1_700_000_000, -1]);
    longs("unix_micros", [1_700_000_000_123_000, -1000]);
    let ints = |name: &str, values: [i32; 2]| {
        expect(call(name, &[some_times()]), Int32Array::from(vec![Some(values[0]), Some(values[1]), None]));
    };
    ints("unix_date", [19_675, -1]);
    ints("year", [2023, 1969]);
    ints("quarter", [4, 4]);
    ints("month", [11, 12]);
    ints("day", [14, 31]);
    ints("dayofmonth", [14, 31]);
    ints("dayofweek", [3, 4]);
    ints("weekday", [1, 2]);
    ints("dayofyear", [318, 365]);
    ints("weekofyear", [46, 1]);
    ints("hour", [22, 23]);
    ints("minute", [13, 59]);
    ints("second", [20, 59]);
    let sentence = call("hour", &[text("2020-01-01")]).unwrap_err().to_string();
    assert!(sentence.contains("to_timestamp(x)"), "{sentence}");
    assert!(call("hour", &[array(Int64Array::from(vec![1]))]).unwrap_err().to_string().contains("timestamp_millis(x)"));
}

#[test]
fn date_trunc_keeps_the_type_and_floors() {
    let trunc = |unit: &str, values: [i64; 2]| {
        expect(call("date_trunc", &[text(unit), some_times()]), times(&[Some(values[0]), Some(values[1]), None]));
    };
    trunc("minute", [1_699_999_980_000, -60_000]);
    trunc("MINUTE", [1_699_999_980_000, -60_000]);
    trunc("second", [1_700_000_000_000, -1000]);
    trunc("hour", [1_699_999_200_000, -3_600_000]);
    trunc("day", [1_699_920_000_000, -86_400_000]);
    trunc("week", [1_699_833_600_000, -259_200_000]);
    trunc("month", [1_698_796_800_000, -2_678_400_000]);
    trunc("MM", [1_698_796_800_000, -2_678_400_000]);
    trunc("quarter", [1_696_118_400_000, -7_948_800_000]);
    trunc("year", [1_672_531_200_000, -31_536_000_000]);
    trunc("millisecond", [1_700_000_000_123, -1]);
    assert!(call("date_trunc", &[text("fortnight"), some_times()]).unwrap_err().to_string().contains("knows no unit 'fortnight'"));
    // A constant stays one.
    let constant = ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(Some(61_000), Some("+00:00".into())));
    expect(call("date_trunc", &[text("minute"), constant]), times(&[Some(60_000)]));
}

#[test]
fn times_from_numbers_and_texts() {
    let numbers = || array(Int64Array::from(vec![Some(5), Some(-1), None]));
    expect(call("timestamp_seconds", &[numbers()]), times(&[Some(5000), Some(-1000), None]));
    expect(call("timestamp_millis", &[numbers()]), times(&[Some(5), Some(-1), None]));
    expect(call("timestamp_micros", &[numbers()]), times(&[Some(0), Some(-1), None]));
    let fractions = array(Float64Array::from(vec![Some(1.5), Some(-0.001), Some(f64::NAN), None]));
    expect(call("timestamp_seconds", &[fractions]), times(&[Some(1500), Some(-1), None, None]));
    let written = array(texts(&[
        Some("1970-01-01T00:00:01Z"),
        Some("1970-01-01 00:00:01.5"),
        Some("1970-01-02"),
        Some("1970-01-01T01:00:00+01:00"),
        Some("tomorrow"),
        None,
    ]));
    expect(call("to_timestamp", &[written]), times(&[Some(1000), Some(1500), Some(86_400_000), Some(0), None, None]));
    let german = array(texts(&[Some("02.01.1970 03:04"), Some("1970")]));
    expect(call("to_timestamp", &[german, text("dd.MM.yyyy HH:mm")]), times(&[Some(86_400_000 + 11_040_000), None]));
    expect(call("to_timestamp", &[some_times()]), times(&[Some(1_700_000_000_123), Some(-1), None]));
}

#[test]
fn times_as_text() {
    expect(
        call("date_format", &[some_times(), text("yyyy-MM-dd HH:mm:ss.SSS")]),
        texts(&[Some("2023-11-14 22:13:20.123"), Some("1969-12-31 23:59:59.999"), None]),
    );
    let seconds = || array(Int64Array::from(vec![Some(1_700_000_000), None]));
    expect(call("from_unixtime", &[seconds()]), texts(&[Some("2023-11-14 22:13:20"), None]));
    expect(call("from_unixtime", &[seconds(), text("yyyyMMdd")]), texts(&[Some("20231114"), None]));
    assert!(call("date_format", &[some_times(), text("YYYY")]).unwrap_err().to_string().contains("'YYYY'"));
}

#[test]
fn local_times_as_in_spark() {
    // 2026-03-29T00:30:00Z and 01:30:00Z, around the change in Rome; one millisecond before the epoch.
    let (before, after) = (1_774_744_200_000, 1_774_747_800_000);
    let utc = || array(times(&[Some(before), Some(after), Some(-1), None]));
    let hours = |count: i64| count * 3_600_000;
    let local = [before + hours(1), after + hours(2), hours(1) - 1];
    expect(call("from_utc_timestamp", &[utc(), text("Europe/Rome")]), times(&[Some(local[0]), Some(local[1]), Some(local[2]), None]));
    let back = call("to_utc_timestamp", &[array(times(&local.map(Some))), text("Europe/Rome")]);
    expect(back, times(&[Some(before), Some(after), Some(-1)]));
    // 02:30 did not exist: Spark reads it as the clock that was not put forward.
    expect(call("to_utc_timestamp", &[array(times(&[Some(before + hours(2))])), text("Europe/Rome")]), times(&[Some(after)]));
    let zones = array(texts(&[Some("UTC"), Some("+05:45"), None, Some("UTC")]));
    expect(call("from_utc_timestamp", &[utc(), zones]), times(&[Some(before), Some(after + hours(6) - 900_000), None, None]));
    assert!(call("from_utc_timestamp", &[utc(), text("Rome")]).unwrap_err().to_string().contains("did you mean 'Europe/Rome'?"));
    assert!(call("to_utc_timestamp", &[utc(), array(texts(&[Some("Mars"); 4]))]).unwrap_err().to_string().contains("'Mars'"));
}

#[test]
fn choices_work_without_a_simplifier() {
    let conditions = array(BooleanArray::from(vec![Some(true), Some(false), None]));
    let ones = || array(Int64Array::from(vec![Some(1), None, Some(3)]));
    let nine = || ColumnarValue::Scalar(ScalarValue::from(9_i64));
    expect(call("if", &[conditions, ones(), nine()]), Int64Array::from(vec![1, 9, 9]));
    for name in ["coalesce", "nvl", "ifnull"] {
        expect(call(name, &[ones(), nine()]), Int64Array::from(vec![1, 9, 3]));
    }
    expect(call("nvl2", &[ones(), nine(), ones()]), Int64Array::from(vec![Some(9), None, Some(9)]));
    expect(
        call("coalesce", &[array(Int64Array::from(vec![None, Some(2)])), ColumnarValue::Scalar(ScalarValue::from(0.5))]),
        Float64Array::from(vec![0.5, 2.0]),
    );
    assert!(call("nvl", &[ones()]).is_err());
    expect(call("isnull", &[ones()]), BooleanArray::from(vec![false, true, false]));
    expect(call("isnotnull", &[ones()]), BooleanArray::from(vec![true, false, true]));
    let floats = array(Float64Array::from(vec![Some(f64::NAN), Some(1.0), None]));
    expect(call("isnan", &[floats]), BooleanArray::from(vec![true, false, false]));
}

#[test]
fn lazy_choices_are_cases() {
    let functions = Functions::new();
    let rewrite = |name: &str, args: Vec<Expr>| {
        let call = functions.scalar(name).unwrap().call(args);
        LazyChoices.rewrite(call, &DFSchema::empty(), &ConfigOptions::default()).unwrap().data.to_string()
    };
    assert_eq!(rewrite("if", vec![col("c"), col("a"), col("b")]), "CASE WHEN c THEN a ELSE b END");
    assert_eq!(rewrite("nvl2", vec![col("c"), col("a"), col("b")]), "CASE WHEN c IS NOT NULL THEN a ELSE b END");
    assert_eq!(rewrite("nvl", vec![col("a"), col("b")]), "CASE WHEN a IS NOT NULL THEN a ELSE b END");
    assert_eq!(rewrite("coalesce", vec![col("a")]), "a");
    assert_eq!(rewrite("upper", vec![lit("a")]), functions.scalar("upper").unwrap().call(vec![lit("a")]).to_string());
}

#[test]
fn substring_and_position_are_planned_as_sparks() {
    let planned = |result: Result<PlannerResult<Vec<Expr>>>| match result.unwrap() {
        PlannerResult::Planned(expr) => expr.to_string(),
        PlannerResult::Original(_) => panic!("not planned"),
    };
    assert_eq!(planned(SparkText.plan_substring(vec![col("a"), lit(2_i64)])), "substring(a, Int64(2))");
    // SQL's POSITION(b IN a) hands over (a, b).
    assert_eq!(planned(SparkText.plan_position(vec![col("a"), col("b")])), "locate(b, a)");
}

#[test]
fn texts_and_numbers_as_in_spark() {
    let names = || array(texts(&[Some("s-0001"), Some("t-2"), None]));
    expect(call("rlike", &[names(), text("^s-[0-9]+$")]), BooleanArray::from(vec![Some(true), Some(false), None]));
    expect(call("instr", &[names(), text("-")]), Int32Array::from(vec![Some(2), Some(2), None]));
    expect(call("concat", &[names(), text("/"), names()]), texts(&[Some("s-0001/s-0001"), Some("t-2/t-2"), None]));
    expect(call("concat_ws", &[text("/"), names(), text("x")]), texts(&[Some("s-0001/x"), Some("t-2/x"), Some("x")]));
    expect(call("substring", &[names(), ColumnarValue::Scalar(ScalarValue::from(-2_i64))]), texts(&[Some("01"), Some("-2"), None]));
    expect(call("ucase", &[names()]), texts(&[Some("S-0001"), Some("T-2"), None]));
    expect(call("locate", &[text("0"), names()]), Int32Array::from(vec![Some(3), Some(0), None]));
    expect(call("position", &[text("0"), names()]), Int32Array::from(vec![Some(3), Some(0), None]));
    expect(call("regexp_replace", &[names(), text("[0-9]"), text("x")]), texts(&[Some("s-xxxx"), Some("t-x"), None]));
    let floats = || array(Float64Array::from(vec![Some(1.5), Some(-1.5), None]));
    expect(call("ceiling", &[floats()]), Int64Array::from(vec![Some(2), Some(-1), None]));
    expect(call("floor", &[floats()]), Int64Array::from(vec![Some(1), Some(-2), None]));
    expect(call("log", &[floats()]), Float64Array::from(vec![Some(1.5_f64.ln()), None, None]));
    expect(
        call("log", &[ColumnarValue::Scalar(ScalarValue::from(2.0)), array(Float64Array::from(vec![8.0]))]),
        Float64Array::from(vec![3.0]),
    );
    let roots = call("sqrt", &[floats()]).unwrap();
    let bits: Vec<_> = roots.as_primitive::<Float64Type>().iter().map(|root| root.map(f64::to_bits)).collect();
    assert_eq!(bits, [Some(1.5_f64.sqrt().to_bits()), Some(f64::NAN.to_bits()), None]);
    expect(call("sign", &[floats()]), Float64Array::from(vec![Some(1.0), Some(-1.0), None]));
}

#[test]
fn numbers_that_datafusion_has_not() {
    let floats = || array(Float64Array::from(vec![Some(2.5), Some(-0.5), None]));
    let longs = || array(Int64Array::from(vec![Some(-7), Some(7), None]));
    let number = |value: i64| ColumnarValue::Scalar(ScalarValue::from(value));
    expect(call("bround", &[floats()]), Float64Array::from(vec![Some(2.0), Some(-0.0), None]));
    expect(call("bround", &[floats(), number(-1)]), Float64Array::from(vec![Some(0.0), Some(-0.0), None]));
    expect(call("rint", &[floats()]), Float64Array::from(vec![Some(2.0), Some(-0.0), None]));
    assert!(call("sqrt", &[floats()]).unwrap().as_any().downcast_ref::<Float64Array>().unwrap().value(1).is_nan());
    expect(call("div", &[longs(), number(2)]), Int64Array::from(vec![Some(-3), Some(3), None]));
    assert!(call("div", &[longs(), number(0)]).unwrap_err().to_string().contains("zero"));
    expect(call("bit_not", &[longs()]), Int64Array::from(vec![Some(6), Some(-8), None]));
    let bits = || ColumnarValue::Scalar(ScalarValue::from(1_i32));
    expect(call("shiftleft", &[longs(), bits()]), Int64Array::from(vec![Some(-14), Some(14), None]));
    let ints = array(Int32Array::from(vec![Some(-1), Some(8)]));
    expect(call("shiftrightunsigned", &[ints, bits()]), Int32Array::from(vec![i32::MAX, 4]));
}

#[test]
fn groups_of_regular_expressions() {
    let names = || array(texts(&[Some("s-17"), Some("?"), None]));
    let group = |number: i64| ColumnarValue::Scalar(ScalarValue::from(number));
    expect(call("regexp_extract", &[names(), text("([a-z])-([0-9]+)"), group(2)]), texts(&[Some("17"), Some(""), None]));
    expect(call("regexp_extract", &[names(), text("[0-9]"), group(0)]), texts(&[Some("1"), Some(""), None]));
    let too_many = call("regexp_extract", &[names(), text("(a)"), group(2)]).unwrap_err().to_string();
    assert!(too_many.contains("1 group(s), not 2"), "{too_many}");
}

#[test]
fn arithmetic_of_the_calendar() {
    let unit = |name: &str| text(name);
    let count = |number: i64| ColumnarValue::Scalar(ScalarValue::from(number));
    expect(call("timestampadd", &[unit("HOUR"), count(-1), some_times()]), times(&[Some(1_699_996_400_123), Some(-3_600_001), None]));
    expect(call("timestampadd", &[unit("month"), count(1), some_times()]), times(&[Some(1_702_592_000_123), Some(2_678_399_999), None]));
    let zero = || array(times(&[Some(0), Some(0), Some(0)]));
    expect(call("timestampdiff", &[unit("DAY"), zero(), some_times()]), Int64Array::from(vec![Some(19_675), Some(0), None]));
    expect(call("timestampdiff", &[unit("YEAR"), zero(), some_times()]), Int64Array::from(vec![Some(53), Some(0), None]));
    assert!(call("timestampadd", &[unit("fortnight"), count(1), some_times()]).unwrap_err().to_string().contains("'fortnight'"));
    expect(call("unix_timestamp", &[some_times()]), Int64Array::from(vec![Some(1_700_000_000), Some(0), None]));
    let written = array(texts(&[Some("02.01.1970"), Some("?"), None]));
    expect(call("unix_timestamp", &[written, text("dd.MM.yyyy")]), Int64Array::from(vec![Some(86_400), None, None]));
}

/// Spark's null in, null out; and no function of times panics on an untyped null.
#[test]
fn nulls_in_nulls_out() {
    let null = || array(new_null_array(&DataType::Null, 2));
    for name in ["year", "unix_millis", "to_timestamp", "timestamp_seconds", "from_unixtime", "ln", "floor", "concat", "coalesce"] {
        assert_eq!(call(name, &[null()]).unwrap().logical_null_count(), 2, "{name}");
    }
    assert_eq!(call("date_trunc", &[text("day"), null()]).unwrap().data_type(), &time_type());
}

#[test]
fn the_names_of_sparks_common_functions_are_known() {
    let functions = Functions::new();
    let scalars = "abs acos btrim cbrt ceiling char_length character_length coalesce concat_ws date_part date_trunc degrees exp greatest if \
        ifnull initcap instr lcase least left length levenshtein lpad ltrim nanvl nullif nvl nvl2 pi position pow power radians \
        regexp regexp_like regexp_replace repeat replace reverse right rlike round rpad rtrim sign signum sqrt split_part startswith \
        substr substring substring_index to_date translate trim ucase upper";
    for name in scalars.split_whitespace() {
        assert!(functions.scalar(name).is_some(), "{name}");
    }
    let aggregates = "any any_value approx_count_distinct array_agg avg bit_and bit_or bit_xor bool_and bool_or collect_list collect_set corr \
        count count_if covar_pop covar_samp every first first_value last last_value max mean median min regr_avgx regr_avgy regr_count \
        regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy some std stddev stddev_pop stddev_samp sum var_pop var_samp variance";
    for name in aggregates.split_whitespace() {
        assert!(functions.aggregate(name).is_some(), "{name}");
        assert!(functions.aggregate(&name.to_uppercase()).is_some(), "{name}");
    }
}

#[test]
fn nothing_that_is_refused_or_not_immutable_is_known() {
    let functions = Functions::new();
    for name in ["now", "current_timestamp", "current_date", "random", "rand", "uuid", "today", "arrow_cast", "version", "grouping"] {
        assert!(functions.scalar(name).is_none() && functions.aggregate(name).is_none(), "{name}");
        assert!(refused(name).is_some(), "{name}");
    }
    assert!(refused("NOW").unwrap().contains("event-time column"));
    for name in functions.scalar_names() {
        let volatility = functions.scalar(&name).unwrap().signature().volatility;
        assert_eq!(volatility, datafusion_expr::Volatility::Immutable, "{name}");
        assert!(refused(&name).is_none(), "{name}");
    }
    assert!(functions.aggregate_names().iter().all(|name| refused(name).is_none()));
    assert!(cut_sensitive("approx_median") && !cut_sensitive("stddev"));
}

/// The own variance is under every one of its names; DataFusion's own is under none.
#[test]
fn own_statistics_replace_the_others() {
    let functions = Functions::new();
    for name in ["var", "var_samp", "var_sample", "variance", "var_pop", "var_population", "stddev", "std", "stddev_samp", "covar", "corr"]
    {
        assert!(format!("{:?}", functions.aggregate(name).unwrap()).contains("Statistic"), "{name}");
    }
}
