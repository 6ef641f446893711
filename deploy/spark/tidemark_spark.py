"""Runs Tidemark query files (TOML), unchanged, on Apache Spark 4.

    spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0 tidemark_spark.py \\
        --bootstrap-servers localhost:9092 --checkpoint /var/lib/tidemark-spark iot-10s.toml

README.md beside this file says what each setting becomes and what is not the same on Spark.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType, TimestampType

# ---- the query file

UNITS = {  # milliseconds; Spark's words and Tidemark's short forms
    "ms": 1, "msec": 1, "millis": 1, "millisecond": 1, "s": 1000, "sec": 1000, "second": 1000, "m": 60_000, "min": 60_000,
    "minute": 60_000, "h": 3_600_000, "hr": 3_600_000, "hour": 3_600_000, "d": 86_400_000, "day": 86_400_000,
    "w": 604_800_000, "week": 604_800_000,
}  # fmt: skip

# `partition_key`, `idle_timeout` and `repartition` mean nothing to Spark, and nothing is lost without them.
SOURCE = {"format", "topic", "schema", "event_time", "watermark", "max_future", "partition_key", "idle_timeout", "drop_duplicates_within_watermark"}
QUERY = {"sql", "output_mode", "trigger", "repartition"}
SINK = {"format", "topic"}
LOOKUP = {"name", "path", "format", "schema"}
CANNOT = {
    "watermark_by": "Spark has one watermark for all readings; leave watermark_by and max_silence out, and take a longer watermark",
    "time_zone": "Spark's windows begin at multiples of their size in UTC; leave time_zone out",
}


class Refused(Exception):
    """A query file that cannot run on Spark, with what to write instead."""


def millis(text):
    """`500ms`, `5 seconds`, `1h 30m` in milliseconds."""
    parts = re.findall(r"(\d+)\s*([a-z]+)", text.lower())
    if not parts or re.sub(r"(\d+)\s*([a-z]+)", "", text.lower()).strip():
        raise Refused(f"'{text}' is not a length of time; write a number with a unit, such as '500ms' or '5 seconds'")
    total = 0
    for number, unit in parts:
        # Words may have a plural.
        factor = UNITS.get(unit) or UNITS.get(unit.removesuffix("s"))
        if factor is None:
            raise Refused(f"'{unit}' in '{text}' is not a unit of time that this runner knows; write milliseconds, seconds, minutes, hours or days")
        total += int(number) * factor
    return total


def interval(text):
    """The same as Spark takes it."""
    return f"{millis(text)} milliseconds"


def read_file(path):
    """The file's tables `source`, `query` and `sink`, and its name."""
    with open(path, "rb") as file:
        query = tomllib.load(file)
    for table, known in (("source", SOURCE), ("query", QUERY), ("sink", SINK)):
        part = query.setdefault(table, {})
        for name in sorted(set(part) & set(CANNOT)):
            raise Refused(f"[{table}] {name}: {CANNOT[name]}")
        if unknown := sorted(set(part) - known):
            raise Refused(f"[{table}] {', '.join(unknown)}: not supported on Spark by this runner")
        if part.get("format", "kafka") != "kafka":
            raise Refused(f"[{table}] format = \"{part['format']}\": this runner reads and writes Kafka; use format = \"kafka\"")
    for lookup in query.setdefault("lookup", []):
        if unknown := sorted(set(lookup) - LOOKUP):
            raise Refused(f"[[lookup]] {', '.join(unknown)}: not supported on Spark by this runner")
        lookup["path"] = str(Path(path).parent / lookup["path"])
    if unknown := sorted(set(query) - {"name", "source", "query", "sink", "lookup"}):
        raise Refused(f"{', '.join(unknown)}: not supported on Spark by this runner")
    return query


def trigger(query):
    """Arguments of `DataStreamWriter.trigger`; none: as soon as possible."""
    match query["query"].get("trigger"):
        case None:
            return {}
        case "available_now":
            return {"availableNow": True}
        case "once":
            return {"once": True}
        case {"processing_time": span}:
            return {"processingTime": interval(span)}
        case {"continuous": span}:
            return {"continuous": interval(span)}
        case other:
            raise Refused(f"trigger = {other} is not known")


# ---- input


def readings(spark, query, args):
    """The topic's records as rows of the file's schema; records that Tidemark would set aside are left out."""
    source = query["source"]
    reader = spark.read if args.batch else spark.readStream
    reader = reader.format("kafka").option("kafka.bootstrap.servers", args.bootstrap_servers).option("subscribe", source["topic"])
    reader = reader.option("startingOffsets", "earliest").options(**dict(args.kafka_option))
    if args.max_offsets_per_trigger and not args.batch:
        reader = reader.option("maxOffsetsPerTrigger", args.max_offsets_per_trigger)
    schema = StructType.fromDDL(source["schema"])
    time = next((field.name for field in schema if field.name.lower() == source["event_time"].lower()), None)
    if time is None:
        raise Refused(f"source.event_time: there is no column '{source['event_time']}' in source.schema")

    rows = reader.load().select("timestamp", F.from_json(F.col("value").cast("string"), as_text(schema)).alias("row"))
    columns = [as_time(F.col(f"row.{field.name}")).alias(field.name) if is_time(field) else F.col(f"row.{field.name}") for field in schema]
    rows = rows.select(F.col("timestamp").alias("__received"), *columns)
    # No event time, or one from the future: Tidemark's dead lane. A wrong clock must not move the watermark here either.
    ahead = F.expr(f"INTERVAL {millis(source.get('max_future', '5 minutes'))} MILLISECONDS")
    rows = rows.where(F.col(time).isNotNull() & (F.col(time) <= F.col("__received") + ahead)).drop("__received")
    again = source.get("drop_duplicates_within_watermark")
    if args.batch:
        return rows.dropDuplicates(again) if again else rows
    rows = rows.withWatermark(time, interval(source["watermark"]))
    return rows.dropDuplicatesWithinWatermark(again) if again else rows


def lookup_table(spark, lookup):
    """A file of metadata that the SQL joins in, with the columns of its schema."""
    if lookup.get("format", Path(lookup["path"]).suffix.lstrip(".").lower()) == "parquet":
        rows = spark.read.parquet(lookup["path"])
    else:
        rows = spark.read.option("header", "true").csv(lookup["path"])
    if "schema" not in lookup:
        return rows
    return rows.select(*[F.col(f"`{f.name}`").cast(f.dataType).alias(f.name) for f in StructType.fromDDL(lookup["schema"])])


def is_time(field):
    return isinstance(field.dataType, TimestampType)


def as_text(schema):
    """The schema for `from_json`: times come as text, because Spark reads a number there as seconds and Tidemark as milliseconds."""
    return StructType([StructField(f.name, StringType() if is_time(f) else f.dataType) for f in schema])


def as_time(text):
    return F.when(text.rlike("^[+-]?[0-9]+$"), F.timestamp_millis(text.cast("bigint"))).otherwise(F.try_to_timestamp(text))


# ---- output


def groups(rows):
    """The names of the grouping columns other than the window, and of the result's columns that are the window's start and end."""
    node = aggregate(rows._jdf.queryExecution().analyzed())
    if node is None:
        return [], {}
    listed = lambda seq: [seq.apply(place) for place in range(seq.size())]
    grouped = {expr.sql() for expr in listed(node.groupingExpressions())}
    keys, bounds = [], {}
    for expr in listed(node.aggregateExpressions()):  # `column`, or `expression AS column`
        sql = expr.sql().rsplit(" AS ", 1)[0]
        bound = re.fullmatch(r"(session_)?window\.`?(start|end)`?", sql)
        if bound and expr.name() in rows.columns:
            bounds[bound[2]] = expr.name()
        elif sql in grouped and sql not in ("window", "session_window"):
            keys.append(expr.name())
    return keys, bounds


def aggregate(plan):
    """The uppermost aggregate of a logical plan."""
    if plan.nodeName() == "Aggregate":
        return plan
    children = plan.children()
    below = (aggregate(children.apply(place)) for place in range(children.size()))
    return next((node for node in below if node is not None), None)


def records(rows, query):
    """Result rows as Kafka records that Tidemark's sink can read: JSON, keyed by the group, with the headers of Tidemark's own rows."""
    keys, bounds = groups(rows)
    text = {"ignoreNullFields": "false"}
    final = "true" if query["query"].get("output_mode", "update") == "append" else "false"
    headers = [
        header("tidemark-query", F.lit(query["name"])),
        header("tidemark-final", F.lit(final)),
        header("tidemark-key-columns", F.lit("[" + ",".join(f'"{name}"' for name in keys) + "]")),
    ]
    headers += [header(f"tidemark-window-{bound}", F.unix_millis(name).cast("string")) for bound, name in bounds.items()]
    key = record_key(rows, [name for name in keys if name in rows.columns])
    return rows.select(key.alias("key"), F.to_json(F.struct("*"), text).alias("value"), F.array(*headers).alias("headers"))


def record_key(rows, keys):
    """The plain text of a single text column, else a JSON array of the group's values; nothing for a result without groups."""
    if not keys:
        return F.lit("")
    # `{"x":VALUE}` without its first five characters and its last one.
    objects = [F.to_json(F.struct(F.col(name).alias("x")), {"ignoreNullFields": "false"}) for name in keys]
    values = [F.substring(text, F.lit(6), F.length(text) - 6) for text in objects]
    array = F.concat(F.lit("["), F.concat_ws(",", *values), F.lit("]"))
    plain = len(keys) == 1 and isinstance(rows.schema[keys[0]].dataType, StringType)
    return F.coalesce(F.col(keys[0]), array) if plain else array


def header(name, value):
    return F.struct(F.lit(name).alias("key"), value.cast("binary").alias("value"))


def start(spark, path, args):
    """Starts one query file. Gives the running query, or `None` when it has run to its end."""
    query = read_file(path)
    readings(spark, query, args).createOrReplaceTempView(f"`{query['source']['topic']}`")
    for lookup in query["lookup"]:
        lookup_table(spark, lookup).createOrReplaceTempView(lookup["name"])
    rows = spark.sql(query["query"]["sql"])
    writer = rows if args.to != "kafka" else records(rows, query)
    writer = writer.write if args.batch else writer.writeStream
    writer = to(writer, query, args)
    if args.batch:
        writer.save()
        return None
    writer = writer.outputMode(query["query"].get("output_mode", "update")).queryName(query["name"])
    if args.checkpoint:
        writer = writer.option("checkpointLocation", f"{args.checkpoint.rstrip('/')}/{query['name']}")
    when = trigger(query)
    running = (writer.trigger(**when) if when else writer).start()
    if "availableNow" in when or "once" in when:
        running.awaitTermination()
        return None
    return running


def to(writer, query, args):
    if args.to == "kafka":
        topic = args.topic_prefix + query["sink"].get("topic", f"iot.agg.{query['name']}")
        return writer.format("kafka").option("kafka.bootstrap.servers", args.bootstrap_servers).option("topic", topic).options(**dict(args.kafka_option))
    if args.to == "console":
        return writer.format("console").option("truncate", "false")
    return writer.format("json").option("path", f"{args.to.rstrip('/')}/{query['name']}").option("ignoreNullFields", "false")


# ---- the command


def option(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return f"kafka.{name}", value


def arguments():
    parser = argparse.ArgumentParser(description="Run Tidemark query files on Apache Spark.")
    parser.add_argument("queries", nargs="+", metavar="FILE", help="query files (TOML)")
    parser.add_argument("--bootstrap-servers", default="localhost:9092", metavar="HOST:PORT,...")
    parser.add_argument("--checkpoint", metavar="DIR", help="where offsets and state are kept, a folder for each query; none: a temporary one")
    parser.add_argument("--to", default="kafka", metavar="kafka|console|DIR", help="where results go; DIR: JSON files (append mode only)")
    parser.add_argument("--topic-prefix", default="", help="put before the result topics' names, to compare with Tidemark's own results")
    parser.add_argument("--kafka-option", type=option, action="append", default=[], metavar="NAME=VALUE", help="a setting of the Kafka clients")
    parser.add_argument("--max-offsets-per-trigger", type=int, metavar="N", help="most records of one micro-batch")
    parser.add_argument("--batch", action="store_true", help="read what is in the topic now as a plain table, without watermark and state")
    return parser.parse_args()


def main():
    args = arguments()
    # Tidemark's times are UTC.
    spark = SparkSession.builder.appName("tidemark").config("spark.sql.session.timeZone", "UTC").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    running, failed = [], 0
    for path in args.queries:
        try:
            query = start(spark, path, args)
            running += [query] if query else []
            print(f"{path}: {'runs' if query else 'done'}", flush=True)
        except Exception as fault:  # One query's fault is not its neighbours'.
            failed += 1
            print(f"{path}: failed: {' '.join(str(fault).split('JVM stacktrace:')[0].split())}", flush=True)
    for query in running:
        query.awaitTermination()
    spark.stop()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
