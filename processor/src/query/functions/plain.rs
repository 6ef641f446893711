//! A scalar function made of three plain ones: what its arguments are turned into, the type of its result, and the computation over columns.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{array::ArrayRef, datatypes::DataType};
use datafusion_common::{Result, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::common::over_columns;

/// Its name tells it apart.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) name: &'static str,
    /// The types that the arguments of these types are cast to, or a sentence that says what is wrong with them.
    pub(super) coerce: fn(&str, &[DataType]) -> Result<Vec<DataType>>,
    /// The type of the result for arguments of those types.
    pub(super) returns: fn(&[DataType]) -> DataType,
    pub(super) run: fn(&[ArrayRef]) -> Result<ArrayRef>,
}

impl Plain {
    pub(super) fn function(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Function { plain: self, signature: Signature::user_defined(Volatility::Immutable) }))
    }
}

#[derive(Debug)]
struct Function {
    plain: Plain,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.plain.name == other.plain.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.plain.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        (self.plain.coerce)(self.plain.name, types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok((self.plain.returns)(types))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, self.plain.run)
    }
}

/// A number that becomes a DOUBLE.
pub(super) fn as_double(function: &str, given: &DataType) -> Result<DataType> {
    if given.is_numeric() || given.is_null() { Ok(DataType::Float64) } else { plan_err!("{function} takes a number, not {given}") }
}

/// A whole number that becomes a BIGINT.
pub(super) fn as_long(function: &str, given: &DataType) -> Result<DataType> {
    if given.is_integer() || given.is_null() { Ok(DataType::Int64) } else { plan_err!("{function} takes a whole number, not {given}") }
}
