//! The engine as a whole: golden cases, and properties against a plain batch computation.

mod again;
mod calendar;
mod clocks;
mod current;
mod exploded;
mod golden;
mod groups_of_nulls;
mod harness;
mod hopping;
mod idle;
mod lookup;
mod merged;
mod one_value;
pub(crate) mod oracle;
mod outlook;
mod property;
mod recount;
mod refused;
mod repartition;
mod sessions;
mod wider;
