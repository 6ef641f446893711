//! Spark's functions that other functions say already: each name with its number of arguments and what stands for it. `_1`, `_2`, ... are
//! the arguments. An argument can be evaluated more than once, which only costs time: every function is immutable.

/// Name, number of arguments, what the call is replaced by.
pub(crate) const MACROS: &[(&str, usize, &str)] = &[
    // Numbers.
    ("csc", 1, "1 / sin(_1)"),
    ("e", 0, "exp(1)"),
    ("mod", 2, "_1 % _2"),
    ("negative", 1, "-(_1)"),
    ("nullifzero", 1, "nullif(_1, 0)"),
    ("pmod", 2, "CASE WHEN _1 % _2 < 0 THEN (_1 % _2 + _2) % _2 ELSE _1 % _2 END"),
    ("positive", 1, "_1"),
    ("sec", 1, "1 / cos(_1)"),
    ("try_divide", 2, "CASE WHEN _2 <> 0 THEN _1 / _2 END"),
    ("try_mod", 2, "CASE WHEN _2 <> 0 THEN _1 % _2 END"),
    ("zeroifnull", 1, "coalesce(_1, 0)"),
    // Times.
    ("date_add", 2, "date_from_unix_date(unix_date(_1) + _2)"),
    ("date_diff", 2, "unix_date(_1) - unix_date(_2)"),
    ("date_sub", 2, "date_from_unix_date(unix_date(_1) - _2)"),
    ("dateadd", 2, "date_from_unix_date(unix_date(_1) + _2)"),
    ("datediff", 2, "unix_date(_1) - unix_date(_2)"),
    ("dayname", 1, "date_format(_1, 'EEE')"),
    ("last_day", 1, "date_from_unix_date(unix_date(add_months(date_trunc('month', _1), 1)) - 1)"),
    ("monthname", 1, "date_format(_1, 'MMM')"),
    ("to_date", 1, "CAST(to_timestamp(_1) AS DATE)"),
    ("to_date", 2, "CAST(to_timestamp(_1, _2) AS DATE)"),
    ("trunc", 2, "CAST(date_trunc(_2, _1) AS DATE)"),
    // Texts.
    ("hex", 1, "upper(to_hex(CAST(_1 AS BIGINT)))"),
    ("left", 2, "left(_1, CASE WHEN _2 < 0 THEN 0 ELSE _2 END)"),
    ("regexp_extract", 2, "regexp_extract(_1, _2, 1)"),
    ("regexp_substr", 2, "nullif(regexp_extract(_1, _2, 0), '')"),
    ("replace", 2, "replace(_1, _2, '')"),
    ("right", 2, "right(_1, CASE WHEN _2 < 0 THEN 0 ELSE _2 END)"),
    ("space", 1, "repeat(' ', _1)"),
    // Aggregates. All values are kept, so the approximate percentiles are exact and need no accuracy.
    ("approx_percentile", 2, "percentile_disc(_2) WITHIN GROUP (ORDER BY _1)"),
    ("approx_percentile", 3, "percentile_disc(_2) WITHIN GROUP (ORDER BY _1)"),
    ("max_by", 2, "first_value(_1 ORDER BY _2 DESC NULLS LAST) FILTER (WHERE _2 IS NOT NULL)"),
    ("min_by", 2, "first_value(_1 ORDER BY _2 NULLS LAST) FILTER (WHERE _2 IS NOT NULL)"),
    ("percentile", 2, "percentile_cont(_2) WITHIN GROUP (ORDER BY _1)"),
    ("percentile_approx", 2, "percentile_disc(_2) WITHIN GROUP (ORDER BY _1)"),
    ("percentile_approx", 3, "percentile_disc(_2) WITHIN GROUP (ORDER BY _1)"),
];

/// Functions whose name is a type: `int(x)` is `CAST(x AS INT)`.
pub(crate) const CASTS: &[&str] =
    &["bigint", "boolean", "date", "decimal", "double", "float", "int", "smallint", "string", "timestamp", "tinyint"];

/// Functions whose first argument is a unit of time, written as a word.
pub(crate) const WITH_UNIT: &[(&str, &str)] = &[
    ("date_add", "timestampadd"),
    ("date_diff", "timestampdiff"),
    ("dateadd", "timestampadd"),
    ("datediff", "timestampdiff"),
    ("timestampadd", "timestampadd"),
    ("timestampdiff", "timestampdiff"),
];
