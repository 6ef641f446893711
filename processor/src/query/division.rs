//! Spark's `/`: the quotient of two integers is a DOUBLE, not a rounded integer.

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{Expr, ExprSchemable, Operator, binary_expr, cast};
use datafusion_sql::sqlparser::ast::BinaryOperator;

#[derive(Debug)]
pub(crate) struct SparkDivision;

impl ExprPlanner for SparkDivision {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let integer = |side: &Expr| side.get_type(schema).is_ok_and(|data_type| data_type.is_integer());
        if expr.op != BinaryOperator::Divide || !integer(&expr.left) || !integer(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let double = |side| cast(side, DataType::Float64);
        Ok(PlannerResult::Planned(binary_expr(double(expr.left), Operator::Divide, double(expr.right))))
    }
}
