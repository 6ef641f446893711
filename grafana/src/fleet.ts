// Fleet: every sensor at a glance, the strangest first.

import * as common from '@grafana/grafana-foundation-sdk/common';
import { FieldColorModeId } from '@grafana/grafana-foundation-sdk/dashboard';
import { QUERIES, counts, deviations, late, sensors, strangest, strangestWindows } from './flux.js';
import {
  INFLUXDB,
  type Place,
  coloured,
  flux,
  history,
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
import { EXACT, PER_SECOND, STRANGE, above, colour, deviation, strength } from './palette.js';

export const query = () => variable('query', 'Query', QUERIES, INFLUXDB).description('The query whose windows are shown.');

/** To the dashboard of the sensor in this row or series. */
const toSensor = (sensor: string) =>
  property('links', [
    {
      title: 'Open the sensor',
      url: `/d/tidemark-sensor?var-query=\${query:percentencode}&var-sensor=\${${sensor}:percentencode}&\${__url_time_range}`,
    },
  ]);

function overview(place: Place) {
  const verdicts = `${sensors()}
front = sensors |> map(fn: (r) => ({_value: r.seen})) |> max() |> findRecord(fn: (key) => true, idx: 0)
sensors
  |> map(fn: (r) => ({
    sensors: 1,
    strange: if r.strength >= ${STRANGE}.0 then 1 else 0,
    silent: if front._value - r.seen > 120000.0 then 1 else 0,
  }))
  |> reduce(
    identity: {Sensors: 0, Strange: 0, Silent: 0},
    fn: (r, accumulator) => ({
      Sensors: accumulator.Sensors + r.sensors,
      Strange: accumulator.Strange + r.strange,
      Silent: accumulator.Silent + r.silent,
    }),
  )`;
  return numbers(
    'The fleet now',
    `Strange: the newest closed window's average is ${STRANGE} standard deviations or more from the sensor's own average in the chosen range. Silent: two minutes or more behind the newest sensor.`,
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(verdicts))
    .graphMode(common.BigValueGraphMode.None)
    .unit('short')
    .decimals(0)
    .noValue('No readings yet')
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .withTransformation(inOrder('Sensors', 'Strange', 'Silent'))
    .overrideByName('Sensors', [stepped(above([], colour.plain))])
    .overrideByName('Strange', [
      stepped(
        above([
          [1, colour.warning],
          [5, colour.bad],
        ]),
      ),
    ])
    .overrideByName('Silent', [stepped(above([[1, colour.bad]]))]);
}

function arrivals(place: Place) {
  const rate = `${counts()}
  |> group()
  |> aggregateWindow(every: v.windowPeriod, fn: sum, createEmpty: false, timeSrc: "_start")
  |> map(fn: (r) => ({_time: r._time, _value: r._value / (float(v: int(v: v.windowPeriod)) / 1000000000.0)}))`;
  return numbers('Readings', 'Readings that count in a window, per second: the average of the range.', place)
    .datasource(INFLUXDB)
    .withTarget(flux(rate))
    .graphMode(common.BigValueGraphMode.None)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['mean']).fields('').values(false))
    .unit(PER_SECOND)
    .decimals(1)
    .noValue('0')
    .colorScheme(scheme(FieldColorModeId.Fixed).fixedColor(colour.producer));
}

function tooLate(place: Place) {
  const count = `zero = array.from(rows: [{_value: 0}])
late = ${late()} |> group() |> count() |> keep(columns: ["_value"])
union(tables: [zero, late]) |> sum()`;
  return numbers(
    'Late readings',
    'Readings of the chosen range that came after all of their windows had closed. They lie in the late lane, whole.',
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(count))
    .graphMode(common.BigValueGraphMode.None)
    .unit(EXACT)
    .decimals(0)
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .thresholds(thresholds(above([[1, colour.late]])));
}

/** Of the table: of a larger fleet it has the strangest ones. */
const ROWS = 100;

function strangestFirst(place: Place) {
  const trend = `${strangestWindows(ROWS)}
windows |> keep(columns: ["_time", "_value", "sensor_id"]) |> group(columns: ["sensor_id"])`;
  const verdict = `${strangest(ROWS)}
strangest
  |> map(fn: (r) => ({r with seen: time(v: int(v: r.seen) * 1000000)}))
  |> keep(columns: ["sensor_id", "strength", "latest", "usual", "spread", "seen"])`;
  const columns = ['sensor_id', 'strength', 'latest', 'usual', 'spread', 'Trend #A', 'seen'];
  const names = ['Sensor', 'Deviation', 'Latest', 'Usual', 'Spread', 'Trend', 'Newest window'];
  return rows(
    'Sensors, the strangest first',
    `Deviation: how far the latest average is from the usual one, in standard deviations of the range. A click opens the sensor. Of a larger fleet: the ${ROWS} strangest.`,
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(trend, 'A'))
    .withTarget(flux(verdict, 'B'))
    .withTransformation({ id: 'timeSeriesTable', options: { A: { stat: 'lastNotNull' } } })
    .withTransformation({ id: 'joinByField', options: { byField: 'sensor_id', mode: 'outer' } })
    .withTransformation({
      id: 'organize',
      options: {
        indexByName: Object.fromEntries(columns.map((name, at) => [name, at])),
        renameByName: Object.fromEntries(columns.map((name, at) => [name, names[at]])),
        excludeByName: {},
      },
    })
    .sortBy([new common.TableSortByFieldStateBuilder().displayName('Deviation').desc(true)])
    .decimals(2)
    .noValue('–')
    .overrideByName('Sensor', [toSensor('__value.text'), property('custom.width', 90)])
    .overrideByName('Deviation', [
      property('unit', 'suffix:σ'),
      property('decimals', 1),
      property('min', 0),
      property('max', 6),
      stepped(strength),
      property('color', { mode: 'thresholds' }),
      property('custom.cellOptions', { type: 'gauge', mode: 'basic', valueDisplayMode: 'color' }),
      property('custom.width', 170),
    ])
    .overrideByName('Trend', [
      property('custom.cellOptions', {
        type: 'sparkline',
        hideValue: true,
        lineWidth: 1,
        fillOpacity: 12,
        gradientMode: 'none',
        lineInterpolation: 'linear',
        showPoints: 'never',
      }),
      coloured(colour.average),
    ])
    .overrideByName('Latest', [property('custom.width', 85)])
    .overrideByName('Usual', [property('custom.width', 85)])
    .overrideByName('Spread', [property('custom.width', 80)])
    .overrideByName('Newest window', [property('unit', 'dateTimeFromNow'), property('custom.width', 150)]);
}

function deviationHistory(place: Place) {
  return history(
    'Deviation of the 24 strangest',
    'One row for each sensor. Green is usual; yellow from 2, orange from 3, red from 4 standard deviations, either way.',
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(deviations(24)))
    .maxDataPoints(60)
    .unit('suffix:σ')
    .decimals(1)
    .displayName('${__field.labels.sensor_id}')
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .thresholds(thresholds(deviation))
    .legend(
      new common.VizLegendOptionsBuilder()
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom)
        .showLegend(false)
        .calcs([]),
    )
    .overrideByFieldType('number', [toSensor('__field.labels.sensor_id')]);
}

function fiveStrangest(place: Place) {
  return lines(
    'The five strangest',
    'How far their averages are from what is usual for them. Beyond the lines a sensor counts as strange.',
    place,
    ['lastNotNull', 'min', 'max'],
  )
    .datasource(INFLUXDB)
    .withTarget(flux(deviations(5)))
    .unit('suffix:σ')
    .decimals(1)
    .fillOpacity(0)
    .axisSoftMin(-4)
    .axisSoftMax(4)
    .displayName('${__field.labels.sensor_id}')
    .colorScheme(scheme(FieldColorModeId.PaletteClassic))
    .thresholds(
      thresholds([
        { value: null, color: colour.warning },
        { value: -STRANGE, color: 'transparent' },
        { value: STRANGE, color: colour.warning },
      ]),
    )
    .thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed))
    .overrideByFieldType('number', [toSensor('__field.labels.sensor_id')]);
}

function reporting(place: Place) {
  const count = `${counts()}
  |> group()
  |> window(every: v.windowPeriod)
  |> distinct(column: "sensor_id")
  |> count()
  |> duplicate(column: "_start", as: "_time")
  |> group()
  |> keep(columns: ["_time", "_value"])
  |> rename(columns: {_value: "Sensors"})`;
  const readings = `${counts()}
  |> group()
  |> aggregateWindow(every: v.windowPeriod, fn: sum, createEmpty: false, timeSrc: "_start")
  |> map(fn: (r) => ({_time: r._time, "Readings": r._value / (float(v: int(v: v.windowPeriod)) / 1000000000.0)}))`;
  return lines(
    'Who reports',
    'Sensors with a window at that time, and the readings in them. A step down is a part of the fleet that went silent.',
    place,
  )
    .datasource(INFLUXDB)
    .withTarget(flux(count, 'A'))
    .withTarget(flux(readings, 'B'))
    .min(0)
    .lineInterpolation(common.LineInterpolation.StepAfter)
    .overrideByName('Sensors', [coloured(colour.used), property('unit', 'short'), property('decimals', 0)])
    .overrideByName('Readings', [
      coloured(colour.producer),
      property('unit', PER_SECOND),
      property('custom.axisPlacement', 'right'),
      property('custom.fillOpacity', 0),
    ]);
}

export function fleet() {
  return page('Fleet', 'Every sensor at a glance, the strangest first.', 'now-15m')
    .withVariable(query())
    .withPanel(overview([0, 0, 12, 4]))
    .withPanel(arrivals([12, 0, 6, 4]))
    .withPanel(tooLate([18, 0, 6, 4]))
    .withPanel(strangestFirst([0, 4, 14, 17]))
    .withPanel(deviationHistory([14, 4, 10, 17]))
    .withPanel(fiveStrangest([0, 21, 14, 9]))
    .withPanel(reporting([14, 21, 10, 9]));
}
