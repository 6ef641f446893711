// Queries for InfluxDB. Points are what the sink writes: the measurement is the query's name, `sensor_id` a tag, the window's start the time,
// and `n`, `avg`, `min` and `max` are fields. Late readings are in the measurement `late`.

const RANGE = '  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)';

/** The rows of one field of the chosen query. */
export function field(name: string, only = ''): string {
  const sensor = only === '' ? '' : ` and r.sensor_id == "${only}"`;
  return `from(bucket: v.defaultBucket)
${RANGE}
  |> filter(fn: (r) => r._measurement == "\${query}" and r._field == "${name}" and exists r.sensor_id${sensor})
  |> keep(columns: ["_time", "_value", "sensor_id"])
  |> group(columns: ["sensor_id"])`;
}

/** The late readings, none of which is an answer too. */
export function late(only = ''): string {
  const sensor = only === '' ? '' : ` and r.sensor_id == "${only}"`;
  return `from(bucket: v.defaultBucket)
${RANGE}
  |> filter(fn: (r) => r._measurement == "late" and r._field == "value"${sensor})`;
}

/**
 * Defines `closed`, the averages of the windows before the newest one, which is still filling: the average of its first few readings is no
 * measure of anything.
 */
export function closedWindows(only = ''): string {
  return `readings = ${field('avg', only)}
newest = (readings |> last() |> group() |> sort(columns: ["_time"]) |> last() |> findRecord(fn: (key) => true, idx: 0))._time
closed = readings |> filter(fn: (r) => r._time < newest)`;
}

/**
 * Defines `sensors`, a row for each sensor: its newest average (`latest`), when that was (`seen`, in milliseconds), what is usual for it within
 * the range (`usual`, `spread`), how far it is from that in standard deviations (`deviation`, `strength` without its sign).
 */
export function sensors(only = ''): string {
  return `import "math"
${closedWindows(only)}
sensors = union(tables: [
    closed |> mean() |> set(key: "_field", value: "usual"),
    closed |> stddev() |> set(key: "_field", value: "spread"),
    closed |> last() |> drop(columns: ["_time"]) |> set(key: "_field", value: "latest"),
    closed |> last() |> map(fn: (r) => ({sensor_id: r.sensor_id, _field: "seen", _value: float(v: int(v: r._time)) / 1000000.0})),
  ])
  |> group()
  |> pivot(rowKey: ["sensor_id"], columnKey: ["_field"], valueColumn: "_value")
  |> map(fn: (r) => ({r with deviation: if exists r.spread and r.spread > 0.0 then (r.latest - r.usual) / r.spread else 0.0}))
  |> map(fn: (r) => ({r with strength: math.abs(x: r.deviation)}))`;
}

/** The deviation of each window, of the \`count\` strangest sensors. */
export function deviations(count: number): string {
  return `${sensors()}
strangest = sensors |> sort(columns: ["strength"], desc: true) |> limit(n: ${count}) |> findColumn(fn: (key) => true, column: "sensor_id")
usual = sensors |> filter(fn: (r) => contains(value: r.sensor_id, set: strangest)) |> keep(columns: ["sensor_id", "usual", "spread"])
  |> group(columns: ["sensor_id"])
windows = closed |> filter(fn: (r) => contains(value: r.sensor_id, set: strangest))
  |> aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: false, timeSrc: "_start")
join(tables: {windows: windows, usual: usual}, on: ["sensor_id"])
  |> map(fn: (r) => ({_time: r._time, sensor_id: r.sensor_id, _value: if r.spread > 0.0 then (r._value - r.usual) / r.spread else 0.0}))
  |> group(columns: ["sensor_id"])`;
}

/** The measurements that have sensors, for the variable \`query\`. */
export const QUERIES = `from(bucket: v.defaultBucket)
${RANGE}
  |> filter(fn: (r) => r._field == "avg" and exists r.sensor_id)
  |> keep(columns: ["_measurement"])
  |> group()
  |> distinct(column: "_measurement")`;

/** The sensors of the chosen query, for the variable \`sensor\`. */
export const SENSORS = `from(bucket: v.defaultBucket)
${RANGE}
  |> filter(fn: (r) => r._measurement == "\${query}" and r._field == "avg" and exists r.sensor_id)
  |> keep(columns: ["sensor_id"])
  |> group()
  |> distinct(column: "sensor_id")
  |> sort()`;
