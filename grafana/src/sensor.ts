// Sensor: one sensor in full.

import * as common from '@grafana/grafana-foundation-sdk/common';
import { FieldColorModeId } from '@grafana/grafana-foundation-sdk/dashboard';
import { query } from './fleet.js';
import { SENSORS, closedWindows, counts, field, late, lateCounts, sensors } from './flux.js';
import {
  INFLUXDB,
  type Place,
  coloured,
  flux,
  inOrder,
  lines,
  numbers,
  page,
  property,
  rows,
  scheme,
  stepped,
  thresholds,
  variable,
} from './house.js';
import { EXACT, STRANGE, above, colour, deviation } from './palette.js';

const SENSOR = '${sensor:json}';

/** A field in buckets of the chart's width. */
const bucketed = (rows: string, fn: string, label: string) => `${rows}
  |> aggregateWindow(every: v.windowPeriod, fn: ${fn}, createEmpty: false, timeSrc: "_start")
  |> rename(columns: {_value: "${label}"})
  |> group()
  |> keep(columns: ["_time", "${label}"])`;

function overview(place: Place) {
  const row = `${sensors(SENSOR)}
total = (rows) => (rows |> sum() |> findRecord(fn: (key) => true, idx: 0))._value
least = (${field('min', SENSOR)} |> min() |> findRecord(fn: (key) => true, idx: 0))._value
most = (${field('max', SENSOR)} |> max() |> findRecord(fn: (key) => true, idx: 0))._value
read = total(rows: ${field('n', SENSOR)})
none = array.from(rows: [{_value: 0}])
late = total(rows: union(tables: [none, ${late(SENSOR)} |> group() |> count() |> keep(columns: ["_value"])]))
sensors |> map(fn: (r) => ({"Latest": r.latest, "Deviation": r.deviation, "Minimum": least, "Maximum": most, "Readings": read, "Late": late}))`;
  return numbers(
    'The sensor now',
    "Latest: the average of the newest closed window. Deviation: how far it is from the sensor's average in the chosen range, in standard deviations. Late: readings that came after their windows had closed.",
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(row))
    .graphMode(common.BigValueGraphMode.None)
    .decimals(2)
    .noValue('No readings yet')
    .colorScheme(scheme(FieldColorModeId.Fixed).fixedColor(colour.plain))
    .withTransformation(inOrder('Latest', 'Deviation', 'Minimum', 'Maximum', 'Readings', 'Late'))
    .overrideByName('Latest', [coloured(colour.average)])
    .overrideByName('Deviation', [
      property('unit', 'suffix:σ'),
      property('decimals', 1),
      property('color', { mode: 'thresholds' }),
      stepped(deviation),
    ])
    .overrideByName('Readings', [property('unit', EXACT), property('decimals', 0)])
    .overrideByName('Late', [
      property('unit', EXACT),
      property('decimals', 0),
      property('color', { mode: 'thresholds' }),
      stepped(above([[1, colour.late]])),
    ]);
}

function band(place: Place) {
  return lines('Value of ${sensor}', 'The average of each window, within the band from its smallest to its largest reading.', place)
    .datasource(INFLUXDB)
    .withTarget(flux(bucketed(field('max', SENSOR), 'max', 'Maximum'), 'A'))
    .withTarget(flux(bucketed(field('avg', SENSOR), 'mean', 'Average'), 'B'))
    .withTarget(flux(bucketed(field('min', SENSOR), 'min', 'Minimum'), 'C'))
    .decimals(2)
    .overrideByName('Average', [coloured(colour.average), property('custom.fillOpacity', 0)])
    .overrideByName('Maximum', [
      coloured(colour.band),
      property('custom.lineWidth', 0),
      property('custom.fillBelowTo', 'Minimum'),
      property('custom.fillOpacity', 25),
      property('custom.gradientMode', 'none'),
    ])
    .overrideByName('Minimum', [coloured(colour.band), property('custom.lineWidth', 0), property('custom.fillOpacity', 0)]);
}

function arrivals(place: Place) {
  const onTime = bucketed(counts(SENSOR), 'sum', 'In time');
  // A zero for each bucket that has readings, so that no late reading is a bar of height 0 and not an empty chart.
  const tooLate = `late = ${lateCounts(SENSOR)}
  |> group()
  |> aggregateWindow(every: v.windowPeriod, fn: count, createEmpty: false, timeSrc: "_start")
  |> map(fn: (r) => ({_time: r._time, _value: r._value}))
none = ${counts(SENSOR)}
  |> aggregateWindow(every: v.windowPeriod, fn: count, createEmpty: false, timeSrc: "_start")
  |> map(fn: (r) => ({_time: r._time, _value: 0}))
  |> group()
union(tables: [none, late])
  |> group(columns: ["_time"])
  |> sum()
  |> group()
  |> sort(columns: ["_time"])
  |> rename(columns: {_value: "Late"})`;
  return lines(
    'Readings',
    'Readings in each bucket: those that count in a window, and those that came after their windows had closed.',
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(onTime, 'A'))
    .withTarget(flux(tooLate, 'B'))
    .unit('short')
    .decimals(0)
    .min(0)
    .maxDataPoints(120)
    .drawStyle(common.GraphDrawStyle.Bars)
    .lineWidth(0)
    .fillOpacity(75)
    .gradientMode(common.GraphGradientMode.None)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group('A'))
    .overrideByName('In time', [coloured(colour.used)])
    .overrideByName('Late', [coloured(colour.late)]);
}

function drift(place: Place) {
  const deviations = `${closedWindows(SENSOR)}
usual = (closed |> mean() |> findRecord(fn: (key) => true, idx: 0))._value
spread = (closed |> stddev() |> findRecord(fn: (key) => true, idx: 0))._value
closed
  |> aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: false, timeSrc: "_start")
  |> map(fn: (r) => ({_time: r._time, "Deviation": if spread > 0.0 then (r._value - usual) / spread else 0.0}))
  |> group()`;
  return lines(
    'Deviation',
    "How far each window's average is from the sensor's average in the chosen range. Beyond the lines it counts as strange.",
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(deviations))
    .unit('suffix:σ')
    .decimals(1)
    .fillOpacity(0)
    .axisSoftMin(-4)
    .axisSoftMax(4)
    .colorScheme(scheme(FieldColorModeId.Fixed).fixedColor(colour.average))
    .thresholds(
      thresholds([
        { value: null, color: colour.warning },
        { value: -STRANGE, color: 'transparent' },
        { value: STRANGE, color: colour.warning },
      ]),
    )
    .thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed));
}

function windows(place: Place) {
  const newest = `from(bucket: v.defaultBucket)
  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)
  |> filter(fn: (r) => r._measurement == \${query:json} and r.sensor_id == ${SENSOR} and contains(value: r._field, set: ["n", "avg", "min", "max"]))
  |> tail(n: 50)
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> keep(columns: ["_time", "n", "avg", "min", "max"])`;
  const names = { _time: 'Window', n: 'Readings', avg: 'Average', min: 'Minimum', max: 'Maximum' };
  return rows('Newest windows', 'The newest fifty windows as they are in the database. The first one is still filling.', place)
    .datasource(INFLUXDB)
    .withTarget(flux(newest))
    .withTransformation({
      id: 'organize',
      options: {
        indexByName: Object.fromEntries(Object.keys(names).map((name, at) => [name, at])),
        renameByName: names,
        excludeByName: {},
      },
    })
    .sortBy([new common.TableSortByFieldStateBuilder().displayName('Window').desc(true)])
    .decimals(2)
    .overrideByName('Window', [property('unit', 'dateTimeAsLocal')])
    .overrideByName('Readings', [
      property('decimals', 0),
      coloured(colour.used),
      property('custom.cellOptions', { type: 'gauge', mode: 'basic', valueDisplayMode: 'text' }),
      property('min', 0),
      property('fieldMinMax', true),
    ])
    .overrideByName('Average', [coloured(colour.average), property('custom.cellOptions', { type: 'color-text' })]);
}

export function sensor() {
  return page('Sensor', 'One sensor in full: its values, how many came and how many too late.', 'now-1h')
    .withVariable(query())
    .withVariable(variable('sensor', 'Sensor', SENSORS, INFLUXDB).description('The sensor that is shown.'))
    .withPanel(overview([0, 0, 24, 4]))
    .withPanel(band([0, 4, 24, 11]))
    .withPanel(arrivals([0, 15, 12, 8]))
    .withPanel(drift([12, 15, 12, 8]))
    .withPanel(windows([0, 23, 24, 9]));
}
