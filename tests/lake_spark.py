"""Reads a table of the data lake with Spark, compacts it with Spark, and reads it again; started by lake_spark.sh."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spark = SparkSession.builder.appName("lake").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
path = sys.argv[1]


def look():
    table = spark.read.format("delta").load(path)
    row = table.agg(F.count("*"), F.round(F.sum("avg"), 6), F.countDistinct("sensor_id", "time"), F.countDistinct("day")).first()
    # A filter on the day that leaves files out finds the same rows as one on the time.
    for day, count in table.groupBy("day").count().collect():
        by_time = table.where(F.to_date("time") == F.lit(day)).count()
        by_day = table.where(F.col("day") == F.lit(day)).count()
        assert by_time == by_day == count, (day, by_time, by_day, count)
    print("lake:", *row)


look()
spark.sql(f"OPTIMIZE delta.`{path}`").collect()
look()
