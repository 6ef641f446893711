//! Well-known functions that a query cannot have here, each with what to write instead.

const OF_THE_CLOCK: &str =
    "results must be a function of the log alone, so there is no current time: use the event-time column, or Kafka's own timestamp";
const OF_CHANCE: &str = "results must be a function of the log alone, so nothing may be random: use a column of the readings";
const OF_PLACE: &str = "results must be a function of the log alone, and this tells where it is computed: use a column of the readings";
const CAST: &str = "write CAST(x AS type)";

/// The names, lower case, and the sentences.
pub(super) const REFUSED: &[(&[&str], &str)] = &[
    (
        &[
            "now",
            "current_timestamp",
            "current_date",
            "current_time",
            "curdate",
            "curtime",
            "localtimestamp",
            "localtime",
            "today",
            "getdate",
        ],
        OF_THE_CLOCK,
    ),
    (&["current_timezone"], "times are in UTC: leave it out"),
    (&["rand", "random", "randn", "uuid", "uniform", "randstr", "shuffle", "gen_random_uuid"], OF_CHANCE),
    (
        &[
            "input_file_name",
            "file_row_index",
            "monotonically_increasing_id",
            "spark_partition_id",
            "version",
            "current_user",
            "user",
            "session_user",
            "current_database",
            "current_catalog",
            "current_schema",
        ],
        OF_PLACE,
    ),
    (&["arrow_cast", "cast_to_type"], CAST),
    (&["arrow_try_cast", "try_cast_to_type"], "write TRY_CAST(x AS type)"),
    (&["to_char", "to_varchar"], "write date_format(time, pattern) for a time, CAST(x AS STRING) for a number"),
    (&["format_number", "format_string", "printf"], "give the number, and format it where it is shown"),
    (
        &["md5", "sha", "sha1", "sha2", "crc32", "xxhash64", "hash", "aes_encrypt", "aes_decrypt"],
        "results are readable by those who may read them: compute digests where they are used",
    ),
    (&["base64", "unbase64", "encode", "decode"], "text stays text here: encode it where it is used"),
    (
        &["try_add", "try_subtract", "try_multiply", "try_sum", "try_avg"],
        "leave the try_ out, and cast to DOUBLE where the result may be beyond BIGINT",
    ),
    (&["months_between"], "write timestampdiff(MONTH, start, end) for whole months"),
    (
        &["histogram_numeric", "count_min_sketch", "hll_sketch_agg"],
        "a sketch is no result: write percentile(x, 0.5) or approx_count_distinct(x)",
    ),
    (&["grouping", "grouping_id", "cube", "rollup"], "grouping sets cannot be folded here: write one query for each grouping"),
    (
        &["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"],
        "it needs the rows of a window in order, which a stream does not keep: aggregate, for example with last_value(x ORDER BY ts)",
    ),
    (
        &["posexplode", "explode_outer", "inline", "stack"],
        "explode(array) is the one that makes rows: write it in the SELECT list of a subquery",
    ),
    (&["convert_timezone"], "times are in UTC: write from_utc_timestamp(x, 'Europe/Rome') for the local time of a place"),
];
