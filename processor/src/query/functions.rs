//! The functions that a query can call: DataFusion's under all their names, Spark's names for the same, and own ones where Spark's meaning
//! is another or where DataFusion's would break what the engine promises.
//!
//! Results are a function of the log alone, so only immutable functions are here; [`refused`] says what to write instead of the others.
//! No simplifier runs, so what DataFusion leaves to it (`coalesce`, `nvl2`) is implemented here. The aggregates must not show where the log
//! was cut into batches: see [`cut_sensitive`], and the module `cuts` for the test.

use std::{collections::BTreeMap, sync::Arc};

use datafusion_expr::{AggregateUDF, ScalarUDF, Volatility};
use datafusion_functions::all_default_functions;
use datafusion_functions_aggregate::all_default_aggregate_functions;

use super::welford;

mod arrays;
mod calendar;
mod common;
mod count_if;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod cuts;
mod logic;
mod macros;
mod math;
mod mode;
mod numbers;
mod patched;
mod pattern;
mod percentile;
mod plain;
mod refused;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod text;
mod time;
mod zone;

pub(crate) use arrays::{exploded, is_explode};
pub(crate) use calendar::{SparkCasts, SparkExtract};
pub(crate) use logic::LazyChoices;
pub(crate) use macros::{CASTS, MACROS, WITH_UNIT};
pub(crate) use text::SparkText;

/// Spark's names (left) for scalar functions of the same meaning.
const SCALAR_NAMES: &[(&str, &str)] = &[
    ("ceiling", "ceil"),
    ("char", "chr"),
    ("dayofmonth", "day"),
    ("endswith", "ends_with"),
    ("lcase", "lower"),
    ("len", "length"),
    ("regexp", "regexp_like"),
    ("rlike", "regexp_like"),
    ("sign", "signum"),
    ("startswith", "starts_with"),
    ("to_unix_timestamp", "unix_timestamp"),
    ("ucase", "upper"),
];

/// Spark's names (left) for aggregates of the same meaning.
const AGGREGATE_NAMES: &[(&str, &str)] = &[
    ("any", "bool_or"),
    ("any_value", "first_value"),
    ("approx_count_distinct", "approx_distinct"),
    ("every", "bool_and"),
    ("first", "first_value"),
    ("last", "last_value"),
    ("listagg", "string_agg"),
    ("some", "bool_or"),
];

/// Aggregates that keep a sketch: merging one into an empty accumulator compresses it anew, so their (approximate) results may tell where
/// the input was cut.
const CUT_SENSITIVE: &[&str] = &["approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];

/// The functions by lower-case name.
#[derive(Debug)]
pub(crate) struct Functions {
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    aggregates: BTreeMap<String, Arc<AggregateUDF>>,
}

impl Functions {
    pub(crate) fn new() -> Self {
        Self { scalars: scalars(), aggregates: aggregates() }
    }

    pub(crate) fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(&name.to_ascii_lowercase()).cloned()
    }

    pub(crate) fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(&name.to_ascii_lowercase()).cloned()
    }

    pub(crate) fn scalar_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }

    pub(crate) fn aggregate_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }
}

/// What to write instead of a well-known function that is not here.
pub(crate) fn refused(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    refused::REFUSED.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, instead)| *instead)
}

/// Whether the last bits of an aggregate's result may depend on where the log was cut into batches.
pub(crate) fn cut_sensitive(name: &str) -> bool {
    CUT_SENSITIVE.contains(&name.to_ascii_lowercase().as_str())
}

fn scalars() -> BTreeMap<String, Arc<ScalarUDF>> {
    let mut known = BTreeMap::new();
    let own = [
        time::functions(),
        zone::functions(),
        calendar::functions(),
        logic::functions(),
        text::functions(),
        arrays::functions(),
        math::functions(),
        numbers::functions(),
    ]
    .into_iter()
    .flatten();
    // The later of one name wins, so ours come last.
    for function in all_default_functions().into_iter().chain(own) {
        for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
            known.insert(name.to_ascii_lowercase(), Arc::clone(&function));
        }
    }
    known.retain(|name, function| refused(name).is_none() && function.signature().volatility == Volatility::Immutable);
    add_names(&mut known, SCALAR_NAMES);
    known
}

fn aggregates() -> BTreeMap<String, Arc<AggregateUDF>> {
    let mut known = BTreeMap::new();
    let own = [patched::aggregates(), vec![count_if::count_if(), mode::mode()], percentile::aggregates(), welford::aggregates()]
        .into_iter()
        .flatten();
    for function in all_default_aggregate_functions().into_iter().chain(own) {
        for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
            known.insert(name.to_ascii_lowercase(), Arc::clone(&function));
        }
    }
    known.retain(|name, _| refused(name).is_none());
    add_names(&mut known, AGGREGATE_NAMES);
    known
}

fn add_names<F>(known: &mut BTreeMap<String, Arc<F>>, names: &[(&str, &str)]) {
    for (name, same) in names {
        if let Some(function) = known.get(*same) {
            known.insert((*name).to_owned(), Arc::clone(function));
        }
    }
}
