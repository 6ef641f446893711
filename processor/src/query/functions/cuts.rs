//! Every aggregate of the registry, folded as the engine folds: in batches cut at random, with only the touched groups' saved state merged
//! into a fresh accumulator before the new rows, must give the bits of one straight fold.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
        StringArray, TimestampMillisecondArray, UInt64Array,
    },
    compute::concat,
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit},
};
use datafusion_common::ScalarValue;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::{
    GroupsAccumulatorAdapter, PhysicalExpr, PhysicalSortExpr,
    aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
    expressions::{Column, Literal},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Functions, cut_sensitive};

const ROWS: usize = 600;
const GROUPS: usize = 7;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let fields = [
        ("f", DataType::Float64),
        ("g", DataType::Float64),
        ("f32", DataType::Float32),
        ("i", DataType::Int64),
        ("i32", DataType::Int32),
        ("u", DataType::UInt64),
        ("d", DataType::Decimal128(20, 3)),
        ("s", DataType::Utf8),
        ("b", DataType::Boolean),
        ("t", time),
        ("w", DataType::Float64),
    ];
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
}

/// Wide magnitudes, so that every other order of additions shows; small ranges elsewhere, so that ties and repeats are common.
fn float(rng: &mut ChaCha8Rng, special: bool) -> Option<f64> {
    match rng.random_range(0..40) {
        0 | 1 => None,
        2 => Some(-0.0),
        3 => Some(0.0),
        4 if special => Some(f64::NAN),
        5 if special => Some(-f64::NAN),
        6 | 7 => Some(f64::from(rng.random_range(-3..3))),
        _ => Some((rng.random::<f64>() - 0.5) * 10_f64.powi(rng.random_range(-12..12))),
    }
}

fn maybe<T>(rng: &mut ChaCha8Rng, value: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
    (!rng.random_bool(0.1)).then(|| value(rng))
}

fn column<T: FromIterator<Option<V>> + Array + 'static, V>(rng: &mut ChaCha8Rng, value: impl Fn(&mut ChaCha8Rng) -> V) -> T {
    (0..ROWS).map(|_| maybe(rng, &value)).collect()
}

fn rows(rng: &mut ChaCha8Rng, special: bool) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new((0..ROWS).map(|_| float(rng, special)).collect::<Float64Array>()),
        Arc::new((0..ROWS).map(|_| float(rng, special)).collect::<Float64Array>()),
        Arc::new((0..ROWS).map(|_| float(rng, special).map(|value| value as f32)).collect::<Float32Array>()),
        Arc::new(column::<Int64Array, _>(rng, |rng| rng.random_range(-50..50))),
        Arc::new(column::<Int32Array, _>(rng, |rng| rng.random_range(-50..50))),
        Arc::new(column::<UInt64Array, _>(rng, |rng| rng.random_range(0..50))),
        Arc::new(
            column::<Decimal128Array, _>(rng, |rng| i128::from(rng.random_range(-90_000..90_000))).with_precision_and_scale(20, 3).unwrap(),
        ),
        Arc::new(column::<StringArray, _>(rng, |rng| format!("s{}", rng.random_range(0..30)))),
        Arc::new(column::<BooleanArray, _>(rng, |rng| rng.random::<bool>())),
        Arc::new(column::<TimestampMillisecondArray, _>(rng, |rng| rng.random_range(-20..20)).with_timezone("+00:00")),
        Arc::new((0..ROWS).map(|_| Some(rng.random_range(1..9).into())).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

#[derive(Clone, Default)]
struct Call {
    label: String,
    name: &'static str,
    args: Vec<Arg>,
    order_by: Vec<(&'static str, bool)>,
    distinct: bool,
    ignore_nulls: bool,
}

#[derive(Clone)]
enum Arg {
    Column(&'static str),
    Value(ScalarValue),
}

impl Call {
    fn new(name: &'static str, columns: &[&'static str]) -> Self {
        let args = columns.iter().map(|column| Arg::Column(column)).collect();
        Self { label: format!("{name}({})", columns.join(", ")), name, args, ..Self::default() }
    }

    fn value(mut self, value: impl Into<ScalarValue>) -> Self {
        self.args.push(Arg::Value(value.into()));
        self
    }

    fn order_by(mut self, column: &'static str, descending: bool) -> Self {
        self.label += &format!(" order by {column}{}", if descending { " desc" } else { "" });
        self.order_by.push((column, descending));
        self
    }

    fn distinct(mut self) -> Self {
        self.label += " distinct";
        self.distinct = true;
        self
    }

    fn ignore_nulls(mut self) -> Self {
        self.label += " ignore nulls";
        self.ignore_nulls = true;
        self
    }

    fn build(&self, functions: &Functions) -> AggregateFunctionExpr {
        let schema = schema();
        let column = |name: &str| Arc::new(Column::new_with_schema(name, &schema).unwrap()) as Arc<dyn PhysicalExpr>;
        let args = self.args.iter().map(|arg| match arg {
            Arg::Column(name) => column(name),
            Arg::Value(value) => Arc::new(Literal::new(value.clone())),
        });
        let order = self.order_by.iter().map(|(name, descending)| {
            let options = arrow::compute::SortOptions { descending: *descending, nulls_first: *descending };
            PhysicalSortExpr::new(column(name), options)
        });
        AggregateExprBuilder::new(functions.aggregate(self.name).unwrap(), args.collect())
            .schema(Arc::clone(&schema))
            .alias(self.label.clone())
            .order_by(order.collect())
            .with_distinct(self.distinct)
            .with_ignore_nulls(self.ignore_nulls)
            .build()
            .unwrap_or_else(|error| panic!("{}: {error}", self.label))
    }
}

fn accumulator(call: &AggregateFunctionExpr) -> Box<dyn GroupsAccumulator> {
    if call.groups_accumulator_supported() {
        return call.create_groups_accumulator().unwrap();
    }
    let factory = call.clone();
    Box::new(GroupsAccumulatorAdapter::new(move || factory.create_accumulator()))
}

struct Input {
    values: Vec<ArrayRef>,
    groups: Vec<usize>,
    filter: Option<BooleanArray>,
}

impl Input {
    fn new(call: &AggregateFunctionExpr, rows: &RecordBatch, groups: &[usize], filter: Option<&BooleanArray>) -> Self {
        let order = call.order_bys().iter().map(|order| Arc::clone(&order.expr));
        let values = call.expressions().into_iter().chain(order);
        let values = values.map(|value| value.evaluate(rows).unwrap().into_array(rows.num_rows()).unwrap());
        Self { values: values.collect(), groups: groups.to_vec(), filter: filter.cloned() }
    }

    fn slice(&self, from: usize, to: usize) -> Self {
        Self {
            values: self.values.iter().map(|value| value.slice(from, to - from)).collect(),
            groups: self.groups[from..to].to_vec(),
            filter: self.filter.as_ref().map(|filter| filter.slice(from, to - from)),
        }
    }
}

/// The straight fold, by group.
fn straight(call: &AggregateFunctionExpr, input: &Input) -> Vec<ArrayRef> {
    let mut accumulator = accumulator(call);
    accumulator.update_batch(&input.values, &input.groups, input.filter.as_ref(), GROUPS).unwrap();
    let all = accumulator.evaluate(EmitTo::All).unwrap();
    (0..GROUPS).map(|group| all.slice(group, 1)).collect()
}

/// One state row per group between the batches, as the engine keeps them.
fn saved(call: &AggregateFunctionExpr, input: &Input, cuts: &[usize]) -> HashMap<usize, Vec<ArrayRef>> {
    let mut saved = HashMap::new();
    for window in cuts.windows(2) {
        step(call, &input.slice(window[0], window[1]), &mut saved);
    }
    saved
}

fn cut(call: &AggregateFunctionExpr, input: &Input, cuts: &[usize]) -> Vec<ArrayRef> {
    let saved = saved(call, input, cuts);
    (0..GROUPS).map(|group| finish(call, &[&saved[&group]])).collect()
}

/// A window of two panes, each half of the rows, merged in order for output.
fn paned(call: &AggregateFunctionExpr, input: &Input, cuts: &[usize]) -> Vec<ArrayRef> {
    let half = ROWS / 2;
    let first: Vec<usize> = cuts.iter().copied().filter(|cut| *cut < half).chain([half]).collect();
    let second: Vec<usize> = [half].into_iter().chain(cuts.iter().copied().filter(|cut| *cut > half)).collect();
    let (first, second) = (saved(call, input, &first), saved(call, input, &second));
    let panes = |group| [first.get(&group), second.get(&group)].into_iter().flatten().collect::<Vec<_>>();
    (0..GROUPS).map(|group| finish(call, &panes(group))).collect()
}

fn step(call: &AggregateFunctionExpr, input: &Input, saved: &mut HashMap<usize, Vec<ArrayRef>>) {
    let mut touched: Vec<usize> = Vec::new();
    let ids: Vec<usize> = input.groups.iter().map(|group| id_of(*group, &mut touched)).collect();
    let mut fold = accumulator(call);
    merge_saved(fold.as_mut(), &touched, saved);
    fold.update_batch(&input.values, &ids, input.filter.as_ref(), touched.len()).unwrap();
    let states = fold.state(EmitTo::All).unwrap();
    // The engine keeps states as rows of the declared columns: types and nulls must fit.
    let fields = call.state_fields().unwrap();
    if let Err(error) = RecordBatch::try_new(Arc::new(Schema::new(fields)), states.clone()) {
        panic!("{}: the state is not as declared: {error}", call.name());
    }
    for (id, group) in touched.into_iter().enumerate() {
        saved.insert(group, states.iter().map(|state| state.slice(id, 1)).collect());
    }
}

fn id_of(group: usize, touched: &mut Vec<usize>) -> usize {
    touched.iter().position(|known| *known == group).unwrap_or_else(|| {
        touched.push(group);
        touched.len() - 1
    })
}

fn merge_saved(fold: &mut dyn GroupsAccumulator, touched: &[usize], saved: &HashMap<usize, Vec<ArrayRef>>) {
    let known: Vec<usize> = (0..touched.len()).filter(|id| saved.contains_key(&touched[*id])).collect();
    let Some(first) = known.first() else { return };
    let columns = (0..saved[&touched[*first]].len()).map(|column| {
        let parts: Vec<&dyn Array> = known.iter().map(|id| saved[&touched[*id]][column].as_ref()).collect();
        concat(&parts).unwrap()
    });
    fold.merge_batch(&columns.collect::<Vec<_>>(), &known, touched.len()).unwrap();
}

fn finish(call: &AggregateFunctionExpr, states: &[&Vec<ArrayRef>]) -> ArrayRef {
    let mut scratch = accumulator(call);
    for state in states {
        scratch.merge_batch(state, &[0], 1).unwrap();
    }
    scratch.evaluate(EmitTo::All).unwrap()
}

fn random_cuts(rng: &mut ChaCha8Rng) -> Vec<usize> {
    let pieces = [1, 2, 5, 40, ROWS][rng.random_range(0..5)];
    let mut cuts: Vec<usize> = (1..pieces).map(|_| rng.random_range(0..=ROWS)).chain([0, ROWS]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

fn calls() -> Vec<Call> {
    let mut calls = Vec::new();
    let one_number = ["sum", "avg", "min", "max", "median", "count", "approx_median", "any_value", "array_agg", "collect_list"];
    for name in one_number {
        for column in ["f", "f32", "i", "i32", "u", "d"] {
            let floats = matches!(name, "avg" | "approx_median");
            if floats && column != "f" && column != "d"
                || name == "approx_median" && column == "d"
                || name == "sum" && matches!(column, "f32" | "i32")
            {
                continue; // the analyzer casts these arguments
            }
            calls.push(Call::new(name, &[column]));
        }
    }
    calls.extend(["i", "i32", "u"].map(|column| Call::new("approx_distinct", &[column])));
    for name in ["min", "max", "count", "approx_distinct", "any_value", "array_agg", "collect_list"] {
        calls.extend(["s", "b", "t"].map(|column| Call::new(name, &[column])));
    }
    for name in ["first_value", "last_value"] {
        for column in ["f", "i", "s", "b", "t", "d"] {
            calls.push(Call::new(name, &[column]));
            calls.push(Call::new(name, &[column]).ignore_nulls());
            calls.push(Call::new(name, &[column]).order_by("t", false));
            calls.push(Call::new(name, &[column]).order_by("t", true).ignore_nulls());
            calls.push(Call::new(name, &[column]).order_by("g", false));
        }
    }
    for name in ["bit_and", "bit_or", "bit_xor"] {
        calls.extend(["i", "i32", "u"].map(|column| Call::new(name, &[column])));
        calls.push(Call::new(name, &["i"]).distinct());
    }
    calls.extend(["bool_and", "bool_or", "count_if"].map(|name| Call::new(name, &["b"])));
    for name in ["var", "var_pop", "stddev", "stddev_pop"] {
        calls.push(Call::new(name, &["f"]));
        calls.push(Call::new(name, &["f"]).distinct());
    }
    for name in ["skewness", "kurtosis"] {
        calls.push(Call::new(name, &["f"]));
    }
    for column in ["f", "f32", "i", "s", "b", "t", "d"] {
        calls.push(Call::new("mode", &[column]));
    }
    calls.push(Call::new("percentile_disc", &["f"]).value(0.4).order_by("f", false));
    calls.push(Call::new("percentile_disc", &["f"]).value(0.4).order_by("f", true).distinct());
    for name in ["covar_samp", "covar_pop", "corr"] {
        calls.push(Call::new(name, &["f", "g"]));
    }
    for name in ["regr_slope", "regr_intercept", "regr_r2", "regr_avgx", "regr_avgy", "regr_count", "regr_sxx", "regr_syy", "regr_sxy"] {
        calls.push(Call::new(name, &["f", "g"]));
    }
    for column in ["f", "f32", "i", "s", "b", "t", "d"] {
        calls.push(Call::new("count", &[column]).distinct());
        calls.push(Call::new("array_agg", &[column]).distinct());
        calls.push(Call::new("collect_list", &[column]).distinct());
        calls.push(Call::new("collect_set", &[column]));
        calls.push(Call::new("array_agg", &[column]).order_by("t", false));
        calls.push(Call::new("array_agg", &[column]).order_by("g", true));
        calls.push(Call::new("array_agg", &[column]).order_by(column, false).distinct());
        calls.push(Call::new("nth_value", &[column]).value(2_i64));
        calls.push(Call::new("nth_value", &[column]).value(-2_i64));
        calls.push(Call::new("nth_value", &[column]).value(2_i64).order_by("t", false));
    }
    for name in ["sum", "avg"] {
        calls.push(Call::new(name, &["f"]).distinct());
        calls.push(Call::new(name, &["d"]).distinct());
    }
    calls.push(Call::new("sum", &["i"]).distinct());
    calls.push(Call::new("median", &["f"]).distinct());
    calls.push(Call::new("string_agg", &["s"]).value(","));
    calls.push(Call::new("string_agg", &["s"]).value(",").distinct());
    calls.push(Call::new("string_agg", &["s"]).value(",").order_by("t", false));
    calls.push(Call::new("approx_percentile_cont", &["f"]).value(0.9).order_by("f", false));
    calls.push(Call::new("approx_percentile_cont_with_weight", &["f", "w"]).value(0.9).order_by("f", false));
    calls.push(Call::new("percentile_cont", &["f"]).value(0.9).order_by("f", false));
    calls.push(Call::new("percentile_cont", &["f"]).value(0.9).order_by("f", true));
    calls.push(Call::new("percentile_cont", &["f"]).value(0.9).order_by("f", false).distinct());
    calls
}

/// How often a random cut changed a bit of a call's results.
fn changed(functions: &Functions, call: &Call, trials: u64) -> usize {
    let aggregate = call.build(functions);
    let differs = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rows = rows(&mut rng, seed % 3 == 2);
        // One large group in every fourth trial, so that sketches overflow.
        let spread = if seed % 4 == 3 { 1 } else { GROUPS };
        let groups: Vec<usize> = (0..ROWS).map(|row| if row < GROUPS { row } else { rng.random_range(0..spread) }).collect();
        let filter = (seed % 2 == 1).then(|| column::<BooleanArray, _>(&mut rng, |rng| rng.random::<bool>()));
        let input = Input::new(&aggregate, &rows, &groups, filter.as_ref());
        let cuts = random_cuts(&mut rng);
        straight(&aggregate, &input) != cut(&aggregate, &input, &cuts)
            || paned(&aggregate, &input, &[0, ROWS]) != paned(&aggregate, &input, &cuts)
    };
    (0..trials).filter(|seed| differs(*seed)).count()
}

#[test]
fn results_do_not_tell_where_the_input_was_cut() {
    let functions = Functions::new();
    let changed = |call: &Call| (changed(&functions, call, 8) > 0).then(|| call.label.clone());
    let wrong: Vec<_> = calls().iter().filter(|call| !cut_sensitive(call.name)).filter_map(changed).collect();
    assert!(wrong.is_empty(), "changed by a cut:\n{}", wrong.join("\n"));
}

#[test]
fn sketches_are_declared_and_do_change() {
    let functions = Functions::new();
    let sensitive: Vec<_> = calls().into_iter().filter(|call| cut_sensitive(call.name)).collect();
    assert_eq!(sensitive.len(), 3);
    for call in sensitive {
        assert!(changed(&functions, &call, 24) > 0, "{} could leave the list", call.label);
    }
}

/// A name that is not tried above could break the promise unseen.
#[test]
fn every_aggregate_is_tried() {
    let functions = Functions::new();
    let tried: Vec<_> = calls().iter().map(|call| functions.aggregate(call.name).unwrap()).collect();
    for name in functions.aggregate_names() {
        assert!(tried.contains(&functions.aggregate(&name).unwrap()), "{name} is not tried");
    }
}

/// The patches change the way, not the meaning: against a plain computation over one group.
#[test]
fn patched_aggregates_mean_what_they_say() {
    let functions = Functions::new();
    let rows = rows(&mut ChaCha8Rng::seed_from_u64(1), false);
    let result = |call: Call| {
        let aggregate = call.build(&functions);
        ScalarValue::try_from_array(&straight(&aggregate, &Input::new(&aggregate, &rows, &[0; ROWS], None))[0], 0).unwrap()
    };
    let ints = rows.column(3).as_primitive::<Int64Type>().iter().flatten();
    let distinct: BTreeSet<i64> = ints.collect();
    let mut seen = Vec::new();
    for value in rows.column(0).as_primitive::<Float64Type>().iter().flatten() {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    let sum = seen.iter().copied().fold(0.0, |sum, value| sum + value);
    let listed: Vec<_> = distinct.iter().copied().map(ScalarValue::from).collect();
    let listed = ScalarValue::List(ScalarValue::new_list(&listed, &DataType::Int64, true));
    let held = rows.column(8).as_boolean().true_count();

    assert_eq!(result(Call::new("sum", &["i"]).distinct()), ScalarValue::from(distinct.iter().sum::<i64>()));
    assert_eq!(result(Call::new("sum", &["f"]).distinct()), ScalarValue::from(sum));
    assert_eq!(result(Call::new("avg", &["f"]).distinct()), ScalarValue::from(sum / seen.len() as f64));
    assert_eq!(result(Call::new("bit_xor", &["i"]).distinct()), ScalarValue::from(distinct.iter().fold(0, |all, value| all ^ value)));
    assert_eq!(result(Call::new("collect_set", &["i"])), listed);
    assert_eq!(result(Call::new("collect_list", &["i"]).distinct()), listed);
    assert_eq!(result(Call::new("count_if", &["b"])), ScalarValue::from(i64::try_from(held).unwrap()));
}
