//! Choices and tests: `if`, `coalesce` and its kin, `isnull`, `isnotnull`, `isnan`.
//!
//! DataFusion leaves these to its simplifier, which turns them into CASE. The functions here work as they stand, with every argument
//! evaluated for every row; [`LazyChoices`] does that rewriting for planners that can take it, so that `if(n = 0, 0, s / n)` never divides
//! by zero.

use std::{ops::RangeInclusive, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray},
    compute::{is_not_null, is_null, kernels::zip::zip},
    datatypes::{DataType, Float64Type},
};
use datafusion_common::{DFSchema, Result, config::ConfigOptions, plan_err, tree_node::Transformed};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    expr::{Case, ScalarFunction},
    expr_rewriter::FunctionRewrite,
    type_coercion::binary::type_union_resolution,
};

use super::common::{expect_arguments, over_columns};

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    Choice::ALL
        .iter()
        .map(|choice| ScalarUDF::from(Choose { choice: *choice, signature: Signature::user_defined(Volatility::Immutable) }))
        .chain(
            Test::ALL.iter().map(|test| ScalarUDF::from(Tested { test: *test, signature: Signature::user_defined(Volatility::Immutable) })),
        )
        .map(Arc::new)
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Choice {
    If,
    Coalesce,
    Nvl,
    IfNull,
    Nvl2,
}

impl Choice {
    const ALL: [Self; 5] = [Self::If, Self::Coalesce, Self::Nvl, Self::IfNull, Self::Nvl2];

    fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::Coalesce => "coalesce",
            Self::Nvl => "nvl",
            Self::IfNull => "ifnull",
            Self::Nvl2 => "nvl2",
        }
    }

    fn arguments(self) -> RangeInclusive<usize> {
        match self {
            Self::If | Self::Nvl2 => 3..=3,
            Self::Coalesce => 1..=usize::MAX,
            Self::Nvl | Self::IfNull => 2..=2,
        }
    }

    /// How many arguments lead the choice and are not themselves chosen.
    fn leading(self) -> usize {
        usize::from(matches!(self, Self::If | Self::Nvl2))
    }

    fn lazy(self, mut args: Vec<Expr>) -> Expr {
        let last = args.pop();
        let otherwise = last.map(Box::new);
        let whens = match self {
            Self::If | Self::Nvl2 => {
                let then = args.pop().unwrap_or_default();
                let test = args.pop().unwrap_or_default();
                let test = if self == Self::If { test } else { test.is_not_null() };
                vec![(Box::new(test), Box::new(then))]
            }
            _ => args.into_iter().map(|arg| (Box::new(arg.clone().is_not_null()), Box::new(arg))).collect(),
        };
        match otherwise {
            Some(only) if whens.is_empty() => *only,
            otherwise => Expr::Case(Case::new(None, whens, otherwise)),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Choose {
    choice: Choice,
    signature: Signature,
}

impl ScalarUDFImpl for Choose {
    fn name(&self) -> &str {
        self.choice.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), self.choice.arguments())?;
        let (leading, chosen) = types.split_at(self.choice.leading());
        if self.choice == Choice::If && !matches!(leading[0], DataType::Boolean | DataType::Null) {
            return plan_err!("if takes a condition first, not {}", leading[0]);
        }
        let Some(common) = type_union_resolution(chosen) else {
            return plan_err!("the choices of {} have no type in common: write CAST(x AS type)", self.name());
        };
        let leading = leading.iter().map(|given| if self.choice == Choice::If { DataType::Boolean } else { given.clone() });
        Ok(leading.chain(chosen.iter().map(|_| common.clone())).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[self.choice.leading()].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| match self.choice {
            Choice::If => either(&is_true(columns[0].as_boolean()), &columns[1], &columns[2]),
            Choice::Nvl2 => either(&is_not_null(&columns[0])?, &columns[1], &columns[2]),
            Choice::Coalesce | Choice::Nvl | Choice::IfNull => first_present(columns),
        })
    }
}

fn is_true(condition: &BooleanArray) -> BooleanArray {
    condition.iter().map(|value| Some(value.unwrap_or(false))).collect()
}

fn either(test: &BooleanArray, yes: &ArrayRef, no: &ArrayRef) -> Result<ArrayRef> {
    Ok(zip(test, yes, no)?)
}

fn first_present(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut result = Arc::clone(&columns[0]);
    for column in &columns[1..] {
        if result.null_count() == 0 {
            break;
        }
        result = either(&is_not_null(&result)?, &result, column)?;
    }
    Ok(result)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Test {
    Null,
    NotNull,
    Nan,
}

impl Test {
    const ALL: [Self; 3] = [Self::Null, Self::NotNull, Self::Nan];
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Tested {
    test: Test,
    signature: Signature,
}

impl ScalarUDFImpl for Tested {
    fn name(&self) -> &str {
        match self.test {
            Test::Null => "isnull",
            Test::NotNull => "isnotnull",
            Test::Nan => "isnan",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        expect_arguments(self.name(), types.len(), 1..=1)?;
        if self.test != Test::Nan {
            return Ok(types.to_vec());
        }
        if types[0].is_numeric() || types[0].is_null() {
            return Ok(vec![DataType::Float64]);
        }
        plan_err!("isnan takes a number, not {}", types[0])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_columns(&args.args, |columns| {
            let result = match self.test {
                Test::Null => is_null(&columns[0])?,
                Test::NotNull => is_not_null(&columns[0])?,
                // Spark's isnan(NULL) is false.
                Test::Nan => columns[0].as_primitive::<Float64Type>().iter().map(|value| Some(value.is_some_and(f64::is_nan))).collect(),
            };
            Ok(Arc::new(result))
        })
    }
}

/// Turns calls of this module's choices into CASE, whose branches are evaluated only where they are chosen. For the analyzer's
/// function rewrites, which run before types are coerced.
#[derive(Debug)]
pub(crate) struct LazyChoices;

impl FunctionRewrite for LazyChoices {
    fn name(&self) -> &str {
        "lazy_choices"
    }

    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return Ok(Transformed::no(expr)) };
        match func.inner().downcast_ref::<Choose>() {
            Some(choose) if choose.choice.arguments().contains(&args.len()) => Ok(Transformed::yes(choose.choice.lazy(args))),
            _ => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
        }
    }
}
