//! Variance, deviation, covariance, correlation and linear regression, folded so that the result does not depend on where the input was
//! cut.
//!
//! The engine saves the state of a group after each batch and goes on from it in a fresh accumulator. DataFusion's own versions merge a
//! saved state into an empty accumulator with the general formula, which rounds: the last bits of a result would tell how the log was
//! cut. Here a state that meets an empty group is *copied*, rows are folded one by one in order (Welford's recurrence, the same operations
//! as DataFusion's, so a straight fold gives the same bits), and only two states that both hold rows, such as the panes of one window, are
//! combined with Chan's formula.
//!
//! The edges are Spark's: null for too few rows (`var_samp` of one row), null for a correlation with a constant, NaN in gives NaN out.

use std::{collections::HashSet, fmt, mem::size_of_val, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, UInt64Array},
    buffer::NullBuffer,
    datatypes::{DataType, Field, FieldRef},
};
use datafusion_common::{
    Result, ScalarValue,
    cast::{as_float64_array, as_list_array, as_uint64_array},
    internal_err, plan_err,
};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
    function::{AccumulatorArgs, StateFieldsArgs},
    utils::{AggregateOrderSensitivity, format_state_name},
};

/// Every aggregate of this module; their names and aliases cover DataFusion's of the same meaning.
pub(crate) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    Kind::ALL.iter().map(|kind| Arc::new(AggregateUDF::from(Statistic::new(*kind)))).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    CovarSamp,
    CovarPop,
    Corr,
    RegrSlope,
    RegrIntercept,
    RegrR2,
    RegrAvgX,
    RegrAvgY,
    RegrCount,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    Skewness,
    Kurtosis,
}

impl Kind {
    const ALL: [Self; 18] = [
        Self::VarSamp,
        Self::VarPop,
        Self::StddevSamp,
        Self::StddevPop,
        Self::CovarSamp,
        Self::CovarPop,
        Self::Corr,
        Self::RegrSlope,
        Self::RegrIntercept,
        Self::RegrR2,
        Self::RegrAvgX,
        Self::RegrAvgY,
        Self::RegrCount,
        Self::RegrSxx,
        Self::RegrSyy,
        Self::RegrSxy,
        Self::Skewness,
        Self::Kurtosis,
    ];

    /// DataFusion's name first, so that unnamed output columns are called as in plain DataFusion; then the other names.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::VarSamp => &["var", "var_samp", "var_sample", "variance"],
            Self::VarPop => &["var_pop", "var_population"],
            Self::StddevSamp => &["stddev", "stddev_samp", "std"],
            Self::StddevPop => &["stddev_pop"],
            Self::CovarSamp => &["covar_samp", "covar"],
            Self::CovarPop => &["covar_pop"],
            Self::Corr => &["corr"],
            Self::RegrSlope => &["regr_slope"],
            Self::RegrIntercept => &["regr_intercept"],
            Self::RegrR2 => &["regr_r2"],
            Self::RegrAvgX => &["regr_avgx"],
            Self::RegrAvgY => &["regr_avgy"],
            Self::RegrCount => &["regr_count"],
            Self::RegrSxx => &["regr_sxx"],
            Self::RegrSyy => &["regr_syy"],
            Self::RegrSxy => &["regr_sxy"],
            Self::Skewness => &["skewness"],
            Self::Kurtosis => &["kurtosis"],
        }
    }

    fn inputs(self) -> usize {
        if self.takes_one() { 1 } else { 2 }
    }

    fn takes_one(self) -> bool {
        matches!(self, Self::VarSamp | Self::VarPop | Self::StddevSamp | Self::StddevPop) || self.has_shape()
    }

    /// Whether it needs the third and fourth moment.
    fn has_shape(self) -> bool {
        matches!(self, Self::Skewness | Self::Kurtosis)
    }

    fn result_type(self) -> DataType {
        if self == Self::RegrCount { DataType::Int64 } else { DataType::Float64 }
    }
}

/// One aggregate function of this module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Statistic {
    kind: Kind,
    signature: Signature,
    aliases: Vec<String>,
}

impl Statistic {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            signature: Signature::exact(vec![DataType::Float64; kind.inputs()], Volatility::Immutable),
            aliases: kind.names()[1..].iter().map(ToString::to_string).collect(),
        }
    }
}

impl AggregateUDFImpl for Statistic {
    fn name(&self) -> &str {
        self.kind.names()[0]
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.result_type())
    }

    fn is_nullable(&self) -> bool {
        self.kind != Kind::RegrCount
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            let name = format_state_name(args.name, "values");
            return Ok(vec![Arc::new(Field::new_list(name, Field::new_list_field(DataType::Float64, true), true))]);
        }
        let floats = match (self.kind.takes_one(), self.kind.has_shape()) {
            (_, true) => Shape::FLOATS,
            (true, false) => Spread::FLOATS,
            (false, false) => Pairs::FLOATS,
        };
        let count = Field::new(format_state_name(args.name, "count"), DataType::UInt64, true);
        let floats = floats.iter().map(|part| Field::new(format_state_name(args.name, part), DataType::Float64, true));
        Ok(std::iter::once(count).chain(floats).map(Arc::new).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match (self.kind.takes_one(), args.is_distinct) {
            (_, false) if self.kind.has_shape() => Ok(Box::new(Single(Groups::<Shape>::new(self.kind)))),
            (_, true) if self.kind.has_shape() => plan_err!("{} takes no DISTINCT: write it without", self.name()),
            (true, false) => Ok(Box::new(Single(Groups::<Spread>::new(self.kind)))),
            (false, false) => Ok(Box::new(Single(Groups::<Pairs>::new(self.kind)))),
            (true, true) => Ok(Box::new(Distinct::spread(self.kind))),
            (false, true) => plan_err!("{} takes no DISTINCT: write it without", self.name()),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match (self.kind.takes_one(), self.kind.has_shape()) {
            (_, true) => Box::new(Groups::<Shape>::new(self.kind)),
            (true, false) => Box::new(Groups::<Spread>::new(self.kind)),
            (false, false) => Box::new(Groups::<Pairs>::new(self.kind)),
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        if self.kind == Kind::RegrCount { Ok(ScalarValue::Int64(Some(0))) } else { ScalarValue::try_from(data_type) }
    }
}

/// What is kept of a group: a row count and some floats.
trait Moments: Copy + Default + fmt::Debug + Send + Sync + 'static {
    /// Names of the floats, in the order of the state's columns.
    const FLOATS: &'static [&'static str];
    fn count(&self) -> u64;
    fn float(&self, part: usize) -> f64;
    fn restore(count: u64, float: impl Fn(usize) -> f64) -> Self;
    fn fold(&mut self, inputs: &[&Float64Array], row: usize);
    /// Chan's formula; both sides hold rows.
    fn combine(&mut self, other: &Self);
    fn finish(&self, kind: Kind) -> Option<f64>;

    /// A copy keeps every bit where the formula would round; a state without rows says nothing.
    fn merge(&mut self, other: &Self) {
        if other.count() == 0 {
            return;
        }
        if self.count() == 0 {
            *self = *other;
        } else {
            self.combine(other);
        }
    }
}

/// One variable: mean and sum of squared deviations.
#[derive(Debug, Clone, Copy, Default)]
struct Spread {
    count: u64,
    mean: f64,
    m2: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        let after = value - self.mean;
        self.m2 += before * after;
    }
}

impl Moments for Spread {
    const FLOATS: &'static [&'static str] = &["mean", "m2"];

    fn count(&self) -> u64 {
        self.count
    }

    fn float(&self, part: usize) -> f64 {
        if part == 0 { self.mean } else { self.m2 }
    }

    fn restore(count: u64, float: impl Fn(usize) -> f64) -> Self {
        Self { count, mean: float(0), m2: float(1) }
    }

    fn fold(&mut self, inputs: &[&Float64Array], row: usize) {
        self.add(inputs[0].value(row));
    }

    fn combine(&mut self, other: &Self) {
        let (n1, n2) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        self.count += other.count;
        let total = self.count as f64;
        self.mean += delta * (n2 / total);
        self.m2 += other.m2 + delta * delta * (n1 * n2 / total);
    }

    fn finish(&self, kind: Kind) -> Option<f64> {
        match kind {
            Kind::VarPop => over(self.m2, self.count),
            Kind::StddevSamp => over(self.m2, self.count.saturating_sub(1)).map(f64::sqrt),
            Kind::StddevPop => over(self.m2, self.count).map(f64::sqrt),
            _ => over(self.m2, self.count.saturating_sub(1)),
        }
    }
}

/// One variable up to its fourth central moment, by the recurrences of Pébay that Spark uses too.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    count: u64,
    mean: f64,
    m2: f64,
    m3: f64,
    m4: f64,
}

impl Moments for Shape {
    const FLOATS: &'static [&'static str] = &["mean", "m2", "m3", "m4"];

    fn count(&self) -> u64 {
        self.count
    }

    fn float(&self, part: usize) -> f64 {
        [self.mean, self.m2, self.m3, self.m4][part]
    }

    fn restore(count: u64, float: impl Fn(usize) -> f64) -> Self {
        Self { count, mean: float(0), m2: float(1), m3: float(2), m4: float(3) }
    }

    fn fold(&mut self, inputs: &[&Float64Array], row: usize) {
        self.count += 1;
        let delta = inputs[0].value(row) - self.mean;
        let step = delta / self.count as f64;
        let (delta2, step2) = (delta * delta, step * step);
        self.mean += step;
        self.m2 += delta * (delta - step);
        self.m3 += -3.0 * step * self.m2 + delta * (delta2 - step2);
        self.m4 += -4.0 * step * self.m3 - 6.0 * step2 * self.m2 + delta * (delta * delta2 - step * step2);
    }

    fn combine(&mut self, other: &Self) {
        let (a, b) = (*self, *other);
        let (n1, n2) = (a.count as f64, b.count as f64);
        self.count += b.count;
        let delta = b.mean - a.mean;
        let step = delta / self.count as f64;
        self.mean += step * n2;
        self.m2 += b.m2 + delta * step * n1 * n2;
        self.m3 += b.m3 + step * step * delta * n1 * n2 * (n1 - n2) + 3.0 * step * (n1 * b.m2 - n2 * a.m2);
        self.m4 += b.m4
            + step * step * step * delta * n1 * n2 * (n1 * n1 - n1 * n2 + n2 * n2)
            + 6.0 * step * step * (n1 * n1 * b.m2 + n2 * n2 * a.m2)
            + 4.0 * step * (n1 * b.m3 - n2 * a.m3);
    }

    /// Null for values that are all the same: they have no shape.
    fn finish(&self, kind: Kind) -> Option<f64> {
        let n = self.count as f64;
        if self.count == 0 || self.m2 == 0.0 {
            return None;
        }
        Some(if kind == Kind::Skewness {
            n.sqrt() * self.m3 / (self.m2 * self.m2 * self.m2).sqrt()
        } else {
            n * self.m4 / (self.m2 * self.m2) - 3.0
        })
    }
}

/// Two variables: `a` is the first argument (the dependent one, *y*, of `regr_*`), `b` the second.
#[derive(Debug, Clone, Copy, Default)]
struct Pairs {
    count: u64,
    mean_a: f64,
    mean_b: f64,
    m2_a: f64,
    m2_b: f64,
    co: f64,
}

impl Moments for Pairs {
    const FLOATS: &'static [&'static str] = &["mean_a", "mean_b", "m2_a", "m2_b", "co"];

    fn count(&self) -> u64 {
        self.count
    }

    fn float(&self, part: usize) -> f64 {
        [self.mean_a, self.mean_b, self.m2_a, self.m2_b, self.co][part]
    }

    fn restore(count: u64, float: impl Fn(usize) -> f64) -> Self {
        Self { count, mean_a: float(0), mean_b: float(1), m2_a: float(2), m2_b: float(3), co: float(4) }
    }

    fn fold(&mut self, inputs: &[&Float64Array], row: usize) {
        let (a, b) = (inputs[0].value(row), inputs[1].value(row));
        self.count += 1;
        let n = self.count as f64;
        let before_a = a - self.mean_a;
        let before_b = b - self.mean_b;
        self.mean_a += before_a / n;
        self.mean_b += before_b / n;
        let after_b = b - self.mean_b;
        self.m2_a += before_a * (a - self.mean_a);
        self.m2_b += before_b * after_b;
        self.co += before_a * after_b;
    }

    fn combine(&mut self, other: &Self) {
        let (n1, n2) = (self.count as f64, other.count as f64);
        let delta_a = other.mean_a - self.mean_a;
        let delta_b = other.mean_b - self.mean_b;
        self.count += other.count;
        let total = self.count as f64;
        let weight = n1 * n2 / total;
        self.mean_a += delta_a * (n2 / total);
        self.mean_b += delta_b * (n2 / total);
        self.m2_a += other.m2_a + delta_a * delta_a * weight;
        self.m2_b += other.m2_b + delta_b * delta_b * weight;
        self.co += other.co + delta_a * delta_b * weight;
    }

    fn finish(&self, kind: Kind) -> Option<f64> {
        let some = self.count > 0;
        match kind {
            Kind::CovarSamp => over(self.co, self.count.saturating_sub(1)),
            Kind::CovarPop => over(self.co, self.count),
            Kind::Corr => self.correlation(),
            Kind::RegrSlope => self.slope(),
            Kind::RegrIntercept => self.slope().map(|slope| self.mean_a - slope * self.mean_b),
            Kind::RegrR2 => self.determination(),
            Kind::RegrAvgX => some.then_some(self.mean_b),
            Kind::RegrAvgY => some.then_some(self.mean_a),
            Kind::RegrSxx => some.then_some(self.m2_b),
            Kind::RegrSyy => some.then_some(self.m2_a),
            Kind::RegrSxy => some.then_some(self.co),
            _ => None,
        }
    }
}

impl Pairs {
    fn correlation(&self) -> Option<f64> {
        // Separate roots: the product of two sums of squares overflows or vanishes long before its root does.
        (self.m2_a != 0.0 && self.m2_b != 0.0).then(|| self.co / (self.m2_a.sqrt() * self.m2_b.sqrt()))
    }

    fn slope(&self) -> Option<f64> {
        (self.m2_b != 0.0).then(|| self.co / self.m2_b)
    }

    /// A constant *y* is explained fully by any line; a constant *x* allows no line.
    fn determination(&self) -> Option<f64> {
        if self.m2_b == 0.0 {
            return None;
        }
        if self.m2_a == 0.0 {
            return Some(1.0);
        }
        self.correlation().map(|r| r * r)
    }
}

fn over(sum: f64, divisor: u64) -> Option<f64> {
    (divisor > 0).then(|| sum / divisor as f64)
}

/// The moments of many groups, by group id.
#[derive(Debug)]
struct Groups<M> {
    kind: Kind,
    groups: Vec<M>,
}

impl<M: Moments> Groups<M> {
    fn new(kind: Kind) -> Self {
        Self { kind, groups: Vec::new() }
    }

    fn grow(&mut self, total: usize) {
        if self.groups.len() < total {
            self.groups.resize(total, M::default());
        }
    }

    fn inputs(values: &[ArrayRef]) -> Result<Vec<&Float64Array>> {
        values.iter().map(|column| as_float64_array(column)).collect()
    }

    fn results(&self, groups: &[M]) -> ArrayRef {
        if self.kind == Kind::RegrCount {
            return Arc::new(groups.iter().map(|group| count_as_i64(group.count())).collect::<Int64Array>());
        }
        Arc::new(groups.iter().map(|group| group.finish(self.kind)).collect::<Float64Array>())
    }

    fn columns(groups: &[M]) -> Vec<ArrayRef> {
        let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(groups.iter().map(Moments::count)));
        let floats = (0..M::FLOATS.len()).map(|part| float_column(groups, part));
        std::iter::once(counts).chain(floats).collect()
    }
}

fn float_column<M: Moments>(groups: &[M], part: usize) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.float(part))))
}

/// `Some` keeps the collected array's type plain; a count of rows is far from `i64::MAX`.
fn count_as_i64(count: u64) -> Option<i64> {
    Some(i64::try_from(count).unwrap_or(i64::MAX))
}

/// The rows that count: every input present, and the filter true (a null filter is not true).
fn used_rows(inputs: &[&Float64Array], filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let passed = filter.map(|filter| {
        let kept = NullBuffer::new(filter.values().clone());
        NullBuffer::union(Some(&kept), filter.nulls()).unwrap_or(kept)
    });
    inputs.iter().fold(passed, |used, input| NullBuffer::union(used.as_ref(), input.nulls()))
}

impl<M: Moments> GroupsAccumulator for Groups<M> {
    fn update_batch(&mut self, values: &[ArrayRef], ids: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        let inputs = Self::inputs(values)?;
        self.grow(total);
        let used = used_rows(&inputs, filter);
        for (row, id) in ids.iter().enumerate() {
            if used.as_ref().is_none_or(|used| used.is_valid(row)) {
                self.groups[*id].fold(&inputs, row);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(self.results(&groups))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(Self::columns(&emit_to.take_needed(&mut self.groups)))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], ids: &[usize], total: usize) -> Result<()> {
        let [counts, floats @ ..] = values else {
            return internal_err!("a state of {} without columns", self.kind.names()[0]);
        };
        let (counts, floats) = (as_uint64_array(counts)?, Self::inputs(floats)?);
        if floats.len() != M::FLOATS.len() {
            return internal_err!("a state of {} with {} columns", self.kind.names()[0], values.len());
        }
        self.grow(total);
        for (row, id) in ids.iter().enumerate() {
            if counts.is_valid(row) {
                self.groups[*id].merge(&M::restore(counts.value(row), |part| floats[part].value(row)));
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let inputs = Self::inputs(values)?;
        let rows = inputs.first().map_or(0, |input| input.len());
        let used = used_rows(&inputs, filter);
        let mut groups = vec![M::default(); rows];
        for (row, group) in groups.iter_mut().enumerate() {
            if used.as_ref().is_none_or(|used| used.is_valid(row)) {
                group.fold(&inputs, row);
            }
        }
        Ok(Self::columns(&groups))
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<M>()
    }
}

/// The same fold for callers that keep one accumulator per group.
#[derive(Debug)]
struct Single<M>(Groups<M>);

impl<M: Moments> Single<M> {
    /// `evaluate` and `state` must leave the accumulator as it was, which the groups' versions do not.
    fn group(&self) -> M {
        self.0.groups.first().copied().unwrap_or_default()
    }
}

impl<M: Moments> Accumulator for Single<M> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.results(&[self.group()]), 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Groups::columns(&[self.group()]).iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |column| column.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }
}

/// A statistic over distinct floats, folded in the order of first sight: a hash set's own order would show in the last bits.
pub(super) fn distinct_floats(finish: fn(&[f64]) -> Option<f64>) -> Box<dyn Accumulator> {
    Box::new(Distinct { finish: Finish::Floats(finish), seen: HashSet::new(), values: Vec::new() })
}

#[derive(Debug)]
struct Distinct {
    finish: Finish,
    seen: HashSet<u64>,
    values: Vec<f64>,
}

#[derive(Debug)]
enum Finish {
    Floats(fn(&[f64]) -> Option<f64>),
    Spread(Kind),
}

impl Finish {
    fn of(&self, values: &[f64]) -> Option<f64> {
        match self {
            Self::Floats(finish) => finish(values),
            Self::Spread(kind) => {
                let mut spread = Spread::default();
                values.iter().for_each(|value| spread.add(*value));
                spread.finish(*kind)
            }
        }
    }
}

impl Distinct {
    fn spread(kind: Kind) -> Self {
        Self { finish: Finish::Spread(kind), seen: HashSet::new(), values: Vec::new() }
    }

    fn add(&mut self, column: &ArrayRef) -> Result<()> {
        for value in as_float64_array(column)?.iter().flatten() {
            let value = canonical(value);
            if self.seen.insert(value.to_bits()) {
                self.values.push(value);
            }
        }
        Ok(())
    }
}

/// One value for both zeros and one for every NaN, as SQL's DISTINCT sees them.
fn canonical(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.first().map_or(Ok(()), |column| self.add(column))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.finish.of(&self.values)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>() + self.seen.capacity() * (size_of::<u64>() + 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<_> = self.values.iter().map(|value| ScalarValue::from(*value)).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list(&values, &DataType::Float64, true))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first() else { return Ok(()) };
        let lists: &ListArray = as_list_array(lists)?;
        lists.iter().flatten().try_for_each(|values| self.add(&values))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn column(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn some(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    /// All rows into one group.
    fn result(kind: Kind, inputs: &[ArrayRef]) -> Option<f64> {
        fn fold<M: Moments>(kind: Kind, inputs: &[ArrayRef]) -> ArrayRef {
            let mut groups = Groups::<M>::new(kind);
            groups.update_batch(inputs, &vec![0; inputs[0].len()], None, 1).unwrap();
            groups.evaluate(EmitTo::All).unwrap()
        }
        let out = match (kind.has_shape(), kind.takes_one()) {
            (true, _) => fold::<Shape>(kind, inputs),
            (_, true) => fold::<Spread>(kind, inputs),
            (_, false) => fold::<Pairs>(kind, inputs),
        };
        let out = as_float64_array(&out).unwrap().clone();
        out.is_valid(0).then(|| out.value(0))
    }

    #[test]
    fn known_values() {
        let values = [some(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])];
        assert_eq!(result(Kind::VarPop, &values), Some(4.0));
        assert_eq!(result(Kind::StddevPop, &values), Some(2.0));
        assert_eq!(result(Kind::VarSamp, &values), Some(32.0 / 7.0));
        assert_eq!(result(Kind::StddevSamp, &values), Some((32.0_f64 / 7.0).sqrt()));

        // Deviations -1, -1, 2: m2 = 6, m3 = 6, m4 = 18.
        let skewed = [some(&[1.0, 1.0, 4.0])];
        assert!((result(Kind::Skewness, &skewed).unwrap() - 0.5_f64.sqrt()).abs() < 1e-15);
        assert!((result(Kind::Kurtosis, &skewed).unwrap() + 1.5).abs() < 1e-15);
        assert_eq!(result(Kind::Skewness, &[some(&[3.0, 3.0])]), None);

        let line = [some(&[3.0, 5.0, 7.0]), some(&[1.0, 2.0, 3.0])];
        assert_eq!(result(Kind::RegrSlope, &line), Some(2.0));
        assert_eq!(result(Kind::RegrIntercept, &line), Some(1.0));
        assert!((result(Kind::RegrR2, &line).unwrap() - 1.0).abs() < 1e-15);
        assert!((result(Kind::Corr, &line).unwrap() - 1.0).abs() < 1e-15);
        assert_eq!(result(Kind::RegrAvgX, &line), Some(2.0));
        assert_eq!(result(Kind::RegrAvgY, &line), Some(5.0));
        assert_eq!(result(Kind::RegrSxx, &line), Some(2.0));
        assert_eq!(result(Kind::RegrSyy, &line), Some(8.0));
        assert_eq!(result(Kind::RegrSxy, &line), Some(4.0));
        assert_eq!(result(Kind::CovarSamp, &line), Some(2.0));
        assert_eq!(result(Kind::CovarPop, &line), Some(4.0 / 3.0));
    }

    #[test]
    fn too_few_rows_are_null_as_in_spark() {
        let one = [some(&[3.0])];
        assert_eq!(result(Kind::VarSamp, &one), None);
        assert_eq!(result(Kind::StddevSamp, &one), None);
        assert_eq!(result(Kind::VarPop, &one), Some(0.0));
        assert_eq!(result(Kind::StddevPop, &one), Some(0.0));
        let none = [column(&[None])];
        for kind in [Kind::VarSamp, Kind::VarPop, Kind::StddevSamp, Kind::StddevPop] {
            assert_eq!(result(kind, &none), None);
        }
        let pair = [some(&[3.0]), some(&[1.0])];
        for kind in [Kind::CovarSamp, Kind::Corr, Kind::RegrSlope, Kind::RegrIntercept, Kind::RegrR2] {
            assert_eq!(result(kind, &pair), None, "{kind:?}");
        }
        assert_eq!(result(Kind::CovarPop, &pair), Some(0.0));
        assert_eq!(result(Kind::RegrSxx, &pair), Some(0.0));
    }

    #[test]
    fn a_constant_has_no_correlation() {
        let flat_b = [some(&[1.0, 2.0, 4.0]), some(&[5.0, 5.0, 5.0])];
        let flat_a = [some(&[5.0, 5.0, 5.0]), some(&[1.0, 2.0, 4.0])];
        assert_eq!(result(Kind::Corr, &flat_a), None);
        assert_eq!(result(Kind::Corr, &flat_b), None);
        assert_eq!(result(Kind::RegrR2, &flat_b), None);
        assert_eq!(result(Kind::RegrR2, &flat_a), Some(1.0));
        assert_eq!(result(Kind::RegrSlope, &flat_a), Some(0.0));
    }

    #[test]
    fn nan_flows_through() {
        assert!(result(Kind::VarPop, &[some(&[1.0, f64::NAN, 2.0])]).unwrap().is_nan());
        assert!(result(Kind::StddevSamp, &[some(&[1.0, f64::INFINITY])]).unwrap().is_nan());
        let pair = [some(&[1.0, 2.0, f64::NAN]), some(&[1.0, 3.0, 2.0])];
        for kind in [Kind::Corr, Kind::CovarPop, Kind::RegrSlope, Kind::RegrR2, Kind::RegrAvgY] {
            assert!(result(kind, &pair).unwrap().is_nan(), "{kind:?}");
        }
        assert_eq!(result(Kind::RegrAvgX, &pair), Some(2.0));
    }

    #[test]
    fn nulls_and_filtered_rows_are_skipped() {
        let values = [column(&[Some(1.0), None, Some(3.0), Some(100.0), Some(7.0)])];
        let filter = BooleanArray::from(vec![Some(true), Some(true), Some(true), Some(false), None]);
        let mut groups = Groups::<Spread>::new(Kind::VarPop);
        groups.update_batch(&values, &[0, 0, 0, 0, 0], Some(&filter), 1).unwrap();
        assert_eq!(groups.groups[0].count, 2);
        assert_eq!(groups.groups[0].finish(Kind::VarPop), Some(1.0));
        // A pair counts only when both are there.
        let pair = [column(&[Some(1.0), None, Some(3.0)]), column(&[Some(1.0), Some(2.0), None])];
        let mut groups = Groups::<Pairs>::new(Kind::RegrCount);
        groups.update_batch(&pair, &[0, 0, 0], None, 2).unwrap();
        let counts = groups.evaluate(EmitTo::All).unwrap();
        assert_eq!(counts.as_ref(), &Int64Array::from(vec![1, 0]) as &dyn Array);
    }

    #[test]
    fn the_first_groups_leave_alone() {
        let mut groups = Groups::<Spread>::new(Kind::VarPop);
        groups.update_batch(&[some(&[1.0, 10.0, 3.0, 30.0])], &[0, 1, 0, 1], None, 3).unwrap();
        let first = groups.evaluate(EmitTo::First(1)).unwrap();
        assert_eq!(first.as_ref(), &Float64Array::from(vec![1.0]) as &dyn Array);
        let state = groups.state(EmitTo::First(1)).unwrap();
        assert_eq!(state[0].as_ref(), &UInt64Array::from(vec![2]) as &dyn Array);
        assert_eq!(groups.evaluate(EmitTo::All).unwrap().null_count(), 1);
    }

    #[test]
    fn a_row_turned_to_state_folds_like_the_row() {
        let values = [column(&[Some(1.5), None, Some(2.5), Some(9.0)])];
        let filter = BooleanArray::from(vec![true, true, true, false]);
        let state = Groups::<Spread>::new(Kind::VarSamp).convert_to_state(&values, Some(&filter)).unwrap();
        assert_eq!(state[0].as_ref(), &UInt64Array::from(vec![1, 0, 1, 0]) as &dyn Array);
        let mut groups = Groups::<Spread>::new(Kind::VarSamp);
        groups.merge_batch(&state, &[0, 0, 0, 0], 1).unwrap();
        assert_eq!(groups.groups[0].finish(Kind::VarSamp), Some(0.5));
    }

    #[test]
    fn a_state_into_an_empty_group_is_copied_and_an_empty_state_changes_nothing() {
        let odd = Spread { count: 3, mean: 0.1 + 0.2, m2: 1e-300 };
        let mut group = Spread::default();
        group.merge(&odd);
        group.merge(&Spread { count: 0, mean: f64::NAN, m2: f64::NAN });
        assert_eq!((group.count, group.mean.to_bits(), group.m2.to_bits()), (odd.count, odd.mean.to_bits(), odd.m2.to_bits()));
    }

    #[test]
    fn merged_panes_are_close_to_the_whole() {
        let a: Vec<f64> = (0..500).map(|i| f64::from(i * 7919 % 1000) / 7.0 + 1e6).collect();
        let b: Vec<f64> = (0..500).map(|i| f64::from(i * 104_729 % 997) / 3.0).collect();
        let fold = |from: usize, to: usize| {
            let mut pairs = Pairs::default();
            let (a, b) = (Float64Array::from(a.clone()), Float64Array::from(b.clone()));
            (from..to).for_each(|row| pairs.fold(&[&a, &b], row));
            pairs
        };
        let whole = fold(0, 500);
        let mut merged = fold(0, 120);
        merged.merge(&fold(120, 350));
        merged.merge(&fold(350, 500));
        for kind in [Kind::CovarSamp, Kind::Corr, Kind::RegrSlope, Kind::RegrSxx, Kind::RegrSyy, Kind::RegrAvgX, Kind::RegrAvgY] {
            let (left, right) = (whole.finish(kind).unwrap(), merged.finish(kind).unwrap());
            assert!(((left - right) / left).abs() < 1e-9, "{kind:?}: {left} {right}");
        }
    }

    #[test]
    fn distinct_values_in_order_of_first_sight() {
        let mut distinct = Distinct::spread(Kind::VarPop);
        distinct.update_batch(&[column(&[Some(1.0), Some(3.0), None, Some(1.0), Some(0.0), Some(-0.0)])]).unwrap();
        assert_eq!(distinct.values, [1.0, 3.0, 0.0]);
        let state = distinct.state().unwrap();
        let mut restored = Distinct::spread(Kind::VarPop);
        restored.merge_batch(&[state[0].to_array().unwrap()]).unwrap();
        assert_eq!(restored.values, distinct.values);
        assert_eq!(restored.evaluate().unwrap(), distinct.evaluate().unwrap());
    }

    #[test]
    fn one_accumulator_can_be_read_twice() {
        let mut single = Single(Groups::<Spread>::new(Kind::VarPop));
        assert_eq!(single.evaluate().unwrap(), ScalarValue::Float64(None));
        single.update_batch(&[some(&[1.0, 3.0])]).unwrap();
        assert_eq!(single.evaluate().unwrap(), ScalarValue::Float64(Some(1.0)));
        assert_eq!(single.evaluate().unwrap(), ScalarValue::Float64(Some(1.0)));
        assert_eq!(single.state().unwrap().len(), 3);
    }
}
