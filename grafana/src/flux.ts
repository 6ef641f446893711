// Queries for InfluxDB. Points are what the sink writes: the measurement is the query's name, `sensor_id` a tag, the window's start the time,
// and `n`, `avg`, `min` and `max` are fields. Late readings are in the measurement `iot.late`. Variables are written as JSON, which is how Flux
// writes texts too: a sensor may have quotes in its name.

// From the beginning of a bucket, so that all buckets of a chart have the same length.
const START = '  |> range(start: date.truncate(t: v.timeRangeStart, unit: v.windowPeriod), ';
const RANGE = `${START}stop: v.timeRangeStop)`;
/** To the end of a bucket too: half a bucket at the end would look as if readings stayed away. */
const WHOLE_BUCKETS = `${START}stop: date.truncate(t: v.timeRangeStop, unit: v.windowPeriod))`;

/** Puts the imports of the packages that a query uses before it. */
export function whole(query: string): string {
  const packages = ['array', 'date', 'math'].filter((name) => query.includes(`${name}.`));
  return [...packages.map((name) => `import "${name}"`), query].join('\n');
}

/** The series of one field of the chosen query, as they are stored: the database itself finds the last row of each. */
function series(name: string, only = '', range = RANGE): string {
  const sensor = only === '' ? '' : ` and r.sensor_id == ${only}`;
  return `from(bucket: v.defaultBucket)
${range}
  |> filter(fn: (r) => r._measurement == \${query:json} and r._field == "${name}"${sensor})`;
}

/** The rows of one field of the chosen query, a table for each sensor. */
export function field(name: string, only = '', range = RANGE): string {
  return `${series(name, only, range)}
  |> filter(fn: (r) => exists r.sensor_id)
  |> keep(columns: ["_time", "_value", "sensor_id"])
  |> group(columns: ["sensor_id"])`;
}

/** For charts of counts. */
export const counts = (only = '') => field('n', only, WHOLE_BUCKETS);

/** The late readings. */
export function late(only = '', range = RANGE): string {
  const sensor = only === '' ? '' : ` and r.sensor_id == ${only}`;
  return `from(bucket: v.defaultBucket)
${range}
  |> filter(fn: (r) => r._measurement == "iot.late" and r._field == "value"${sensor})`;
}

/**
 * Defines `closed`, the averages of the windows before the newest one, which is still filling: the average of its first few readings is no
 * measure of anything.
 */
export function closedWindows(only = ''): string {
  return `readings = ${field('avg', only)}
newest = (${series('avg', only)} |> last() |> group() |> sort(columns: ["_time"]) |> last() |> findRecord(fn: (key) => true, idx: 0))._time
closed = readings |> filter(fn: (r) => r._time < newest)`;
}

/**
 * Defines `sensors`, a row for each sensor: its newest average (`latest`), when that was (`seen`, in milliseconds), what is usual for it within
 * the range (`usual`, `spread`), how far it is from that in standard deviations (`deviation`, `strength` without its sign).
 */
export function sensors(only = ''): string {
  return `${closedWindows(only)}
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

/** Defines `strangest`, the rows of `sensors` that deviate most. */
export function strangest(count: number): string {
  return `${sensors()}
strangest = sensors |> sort(columns: ["strength"], desc: true) |> limit(n: ${count})`;
}

/** Defines `windows`, the averages of the strangest sensors for a chart, each with what is usual for its sensor. */
export function strangestWindows(count: number): string {
  return `${strangest(count)}
windows = join(
  tables: {
    windows: closed |> aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: false, timeSrc: "_start"),
    usual: strangest |> keep(columns: ["sensor_id", "usual", "spread"]) |> group(columns: ["sensor_id"]),
  },
  on: ["sensor_id"],
)`;
}

/** The deviation of each window, of the strangest sensors. */
export function deviations(count: number): string {
  return `${strangestWindows(count)}
windows
  |> map(fn: (r) => ({_time: r._time, sensor_id: r.sensor_id, _value: if r.spread > 0.0 then (r._value - r.usual) / r.spread else 0.0}))
  |> group(columns: ["sensor_id"])`;
}

/** The late readings for charts of counts. */
export const lateCounts = (only = '') => late(only, WHOLE_BUCKETS);

/** The measurements that have sensors, for the variable \`query\`. */
export const QUERIES = whole(`from(bucket: v.defaultBucket)
${RANGE}
  |> filter(fn: (r) => r._field == "avg" and exists r.sensor_id)
  |> keep(columns: ["_measurement"])
  |> group()
  |> distinct(column: "_measurement")`);

/** The sensors of the chosen query, for the variable \`sensor\`. */
export const SENSORS = whole(`from(bucket: v.defaultBucket)
${RANGE}
  |> filter(fn: (r) => r._measurement == \${query:json} and r._field == "avg" and exists r.sensor_id)
  |> keep(columns: ["sensor_id"])
  |> group()
  |> distinct(column: "sensor_id")
  |> sort()`);
