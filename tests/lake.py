"""Reads the tables of a data lake with other engines: Delta Lake's own reader, and DuckDB.

    python3 tests/lake.py TABLE     prints rows, sum of the column avg, and distinct (sensor_id, time), by each engine; they must agree

Needs `pip install deltalake duckdb pyarrow`.
"""

import sys

import duckdb
from deltalake import DeltaTable

table = DeltaTable(sys.argv[1])
rows = table.to_pyarrow_table()
by_delta = (rows.num_rows, round(sum(rows["avg"].to_pylist()), 6), len(set(zip(rows["sensor_id"].to_pylist(), rows["time"].to_pylist()))))
connection = duckdb.connect()
query = "SELECT count(*), round(sum(avg), 6), count(DISTINCT (sensor_id, time)) FROM {}"
by_duckdb = connection.execute(query.format("rows")).fetchone()
files = connection.execute(query.format("read_parquet(?, hive_partitioning = true)"), [table.file_uris()]).fetchone()
days = connection.execute("SELECT count(DISTINCT day) FROM rows").fetchone()[0]
assert by_delta == by_duckdb == files, (by_delta, by_duckdb, files)
print(*by_delta, days)
