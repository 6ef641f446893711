// Pipeline: whether readings flow, whether time moves, whether nothing is lost, and how full everything is.

import * as common from '@grafana/grafana-foundation-sdk/common';
import { FieldColorModeId } from '@grafana/grafana-foundation-sdk/dashboard';
import {
  PROMETHEUS,
  type Place,
  bars,
  coloured,
  lines,
  numbers,
  page,
  prom,
  promNow,
  property,
  rows,
  scheme,
  thresholds,
  variable,
} from './house.js';
import { EXACT, PER_SECOND, above, colour, diskFree, watermarkLag } from './palette.js';

const ALL = 'query=~"$query"';
const OUTCOMES = ['used', 'late', 'dead', 'filtered'] as const;

const single = (title: string, description: string, place: Place, expr: string) =>
  numbers(title, description, place).datasource(PROMETHEUS).withTarget(prom(expr, title)).noValue('–');

/** The colours of the four ways that a reading can go. */
const byOutcome = OUTCOMES.map((outcome) => ({ outcome, look: [coloured(colour[outcome])] }));

function ledger(place: Place) {
  return single(
    'Ledger',
    'Readings read less readings accounted for (used, late, dead, filtered), over all partitions. Anything but balanced is a fault of the program.',
    place,
    `sum(query:tidemark_processor_ledger_imbalance:abs_sum{${ALL}})`,
  )
    .graphMode(common.BigValueGraphMode.None)
    .colorMode(common.BigValueColorMode.Background)
    .text(new common.VizTextDisplayOptionsBuilder().valueSize(34))
    .mappings([{ type: 'value' as never, options: { '0': { text: 'Balanced', color: colour.good, index: 0 } } } as never])
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .thresholds(thresholds(above([[1, colour.bad]])));
}

const arriving = (place: Place) =>
  single('Readings in', 'Readings that the log has acknowledged, per second.', place, 'sum(job:tidemark_producer_published:rate1m)')
    .unit(PER_SECOND)
    .decimals(1)
    .colorScheme(scheme(FieldColorModeId.Fixed).fixedColor(colour.producer));

const written = (place: Place) =>
  single('Points out', 'Points that the databases have confirmed, per second.', place, 'sum(output:tidemark_sink_points_written:rate1m)')
    .unit(PER_SECOND)
    .decimals(1)
    .colorScheme(scheme(FieldColorModeId.Fixed).fixedColor(colour.sink));

const behind = (place: Place) =>
  single(
    'Watermark lag',
    'How far the slowest watermark is behind the clock on the wall. The delay of the query is in it.',
    place,
    `max(query:tidemark_processor_watermark_lag_seconds:max{${ALL}})`,
  )
    .unit('s')
    .decimals(1)
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .thresholds(thresholds(watermarkLag));

const waiting = (place: Place) =>
  single(
    'Rows waiting',
    'Rows in the log that processors and sinks have not taken yet.',
    place,
    `sum(query:tidemark_processor_lag_rows:sum{${ALL}}) + sum(output:tidemark_sink_lag_rows:sum)`,
  )
    .unit('short')
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .thresholds(
      thresholds(
        above([
          [10_000, colour.notice],
          [100_000, colour.bad],
        ]),
      ),
    );

const disk = (place: Place) =>
  single('Disk free', 'Free share of the disk with the volumes.', place, 'min(instance:tidemark_sink_disk_free:ratio)')
    .unit('percentunit')
    .decimals(0)
    .graphMode(common.BigValueGraphMode.None)
    .min(0)
    .max(1)
    .colorScheme(scheme(FieldColorModeId.Thresholds))
    .thresholds(thresholds(diskFree));

function flow(place: Place) {
  return lines(
    'From device to database',
    'Rows per second at each part. Results are fewer than readings: a window has many readings and one row, which is written again when it changes.',
    place,
    ['lastNotNull', 'mean', 'max'],
  )
    .datasource(PROMETHEUS)
    .withTarget(prom('sum(rate(tidemark_producer_published_total[$__rate_interval]))', 'Readings published', 'A'))
    .withTarget(prom(`sum(rate(tidemark_processor_rows_total{${ALL}}[$__rate_interval]))`, 'Rows processed', 'B'))
    .withTarget(prom(`sum(rate(tidemark_processor_results_total{${ALL}}[$__rate_interval]))`, 'Results', 'C'))
    .withTarget(prom('sum(rate(tidemark_sink_points_written_total[$__rate_interval]))', 'Points written', 'D'))
    .unit(PER_SECOND)
    .min(0)
    .overrideByName('Readings published', [coloured(colour.producer)])
    .overrideByName('Rows processed', [coloured(colour.processor)])
    .overrideByName('Results', [coloured(colour.results)])
    .overrideByName('Points written', [coloured(colour.sink)]);
}

function outcomes(place: Place) {
  const panel = bars('What became of the readings', 'The ledger of the chosen range: each reading is used, late, dead or filtered.', place)
    .datasource(PROMETHEUS)
    .unit(EXACT)
    .decimals(0)
    .min(0)
    .colorScheme(scheme(FieldColorModeId.Fixed).fixedColor(colour.plain));
  OUTCOMES.forEach((outcome, at) =>
    panel.withTarget(
      promNow(`sum(increase(tidemark_processor_rows_total{${ALL}, outcome="${outcome}"}[$__range])) or vector(0)`, outcome, 'ABCD'[at]),
    ),
  );
  byOutcome.forEach(({ outcome, look }) => panel.overrideByName(outcome, look));
  return panel;
}

function lost(place: Place) {
  const panel = lines(
    'Late, dead and filtered',
    'Readings per second that are in no window: too late, unreadable, or not wanted by WHERE. Late and dead ones lie whole in their lanes.',
    place,
  )
    .datasource(PROMETHEUS)
    .withTarget(prom(`sum by (outcome) (rate(tidemark_processor_rows_total{${ALL}, outcome!="used"}[$__rate_interval]))`, '{{outcome}}'))
    .unit(PER_SECOND)
    .min(0)
    .fillOpacity(30)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group('A'));
  byOutcome.slice(1).forEach(({ outcome, look }) => panel.overrideByName(outcome, look));
  return panel;
}

const watermark = (place: Place) =>
  lines(
    'Watermark lag',
    'How far the watermark of each partition is behind the clock on the wall. It stays near the delay of the query while readings come. The alert begins at two minutes.',
    place,
  )
    .datasource(PROMETHEUS)
    .withTarget(prom(`tidemark_processor_watermark_lag_seconds{${ALL}}`, '{{query}} · {{partition}}'))
    .unit('s')
    .min(0)
    .axisSoftMax(30)
    .thresholds(
      thresholds([
        { value: null, color: 'transparent' },
        { value: 120, color: colour.bad },
      ]),
    )
    .thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed));

const backlog = (place: Place) =>
  lines('Consumer lag', 'Rows in the log that have not been committed by a query, or not been read by an output of the sink.', place)
    .datasource(PROMETHEUS)
    .withTarget(prom(`query:tidemark_processor_lag_rows:sum{${ALL}}`, 'query {{query}}', 'A'))
    .withTarget(prom('output:tidemark_sink_lag_rows:sum', 'sink {{output}}', 'B'))
    .unit('short')
    .decimals(0)
    .min(0);

const state = (place: Place) =>
  lines('State', 'Groups that queries hold in memory and in their journals, and their size.', place)
    .datasource(PROMETHEUS)
    .withTarget(prom(`sum(tidemark_processor_state_rows{${ALL}})`, 'Groups', 'A'))
    .withTarget(prom(`sum(tidemark_processor_state_bytes{${ALL}})`, 'Size', 'B'))
    .min(0)
    .overrideByName('Groups', [coloured(colour.processor), property('unit', 'short'), property('decimals', 0)])
    .overrideByName('Size', [
      coloured(colour.results),
      property('unit', 'bytes'),
      property('custom.axisPlacement', 'right'),
      property('custom.fillOpacity', 0),
      property('custom.lineStyle', { fill: 'dash', dash: [6, 4] }),
    ]);

function commits(place: Place) {
  const quantile = (share: number, histogram: string) =>
    `histogram_quantile(${share}, sum by (le) (rate(${histogram}_bucket[$__rate_interval])))`;
  return lines(
    'Commit times',
    'Of one step, from its decode to its results being sent; of one batch in the database; of one reading until the log has acknowledged it.',
    place,
  )
    .datasource(PROMETHEUS)
    .withTarget(prom(quantile(0.5, 'tidemark_processor_step_duration_seconds'), 'Step, median', 'A'))
    .withTarget(prom(quantile(0.99, 'tidemark_processor_step_duration_seconds'), 'Step, 99 %', 'B'))
    .withTarget(prom(quantile(0.99, 'tidemark_sink_write_duration_seconds'), 'Database batch, 99 %', 'C'))
    .withTarget(prom(quantile(0.99, 'tidemark_producer_delivery_seconds'), 'Acknowledgement, 99 %', 'D'))
    .unit('s')
    .min(0)
    .fillOpacity(0)
    .overrideByName('Step, median', [coloured(colour.results)])
    .overrideByName('Step, 99 %', [coloured(colour.processor)])
    .overrideByName('Database batch, 99 %', [coloured(colour.sink)])
    .overrideByName('Acknowledgement, 99 %', [coloured(colour.producer)]);
}

function errors(place: Place) {
  const sum = (metric: string) => `sum(increase(${metric}[$__rate_interval])) or vector(0)`;
  return lines(
    'Errors',
    'What went wrong, in each step of the chart. Retries come right by themselves; rows that were rejected or could not be read are in the dead lane.',
    place,
    // While all is well the chart is empty, and these columns say so.
    ['lastNotNull', 'max'],
  )
    .datasource(PROMETHEUS)
    .withTarget(prom(sum('tidemark_producer_errors_total'), 'Producer errors', 'A'))
    .withTarget(prom(sum('tidemark_producer_dead_total'), 'Unreadable messages', 'B'))
    .withTarget(prom(sum(`tidemark_processor_failed_results_total{${ALL}}`), 'Failed results', 'C'))
    .withTarget(prom(sum('tidemark_sink_retries_total'), 'Sink retries', 'D'))
    .withTarget(prom(sum('tidemark_sink_rejected_total'), 'Rows rejected', 'E'))
    .unit('short')
    .decimals(0)
    .min(0)
    .axisSoftMax(1)
    .drawStyle(common.GraphDrawStyle.Bars)
    .lineWidth(0)
    .fillOpacity(75)
    .gradientMode(common.GraphGradientMode.None)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group('A'))
    .overrideByName('Producer errors', [coloured(colour.producer)])
    .overrideByName('Unreadable messages', [coloured(colour.dead)])
    .overrideByName('Failed results', [coloured(colour.processor)])
    .overrideByName('Sink retries', [coloured(colour.notice)])
    .overrideByName('Rows rejected', [coloured(colour.warning)]);
}

const room = (place: Place) =>
  lines('Disk', 'Free space of the disk with the volumes, and what InfluxDB keeps on it.', place)
    .datasource(PROMETHEUS)
    .withTarget(prom('min(tidemark_sink_disk_free_bytes)', 'Free', 'A'))
    .withTarget(prom('sum(storage_shard_disk_size)', 'InfluxDB', 'B'))
    .unit('bytes')
    .min(0)
    .overrideByName('Free', [coloured(colour.good)])
    .overrideByName('InfluxDB', [coloured(colour.sink), property('custom.axisPlacement', 'right')]);

function parts(place: Place) {
  const names = { job: 'Part', instance: 'Address', Value: 'State' };
  return rows('Parts', 'The programs that are asked for their metrics.', place)
    .datasource(PROMETHEUS)
    .withTarget(promNow('up', '').format('table' as never))
    .withTransformation({
      id: 'organize',
      options: { indexByName: { job: 0, instance: 1, Value: 2 }, renameByName: names, excludeByName: { Time: true, __name__: true } },
    })
    .sortBy([
      new common.TableSortByFieldStateBuilder().displayName('State').desc(false),
      new common.TableSortByFieldStateBuilder().displayName('Part').desc(false),
    ])
    .overrideByName('State', [
      property('mappings', [
        {
          type: 'value',
          options: { '0': { text: 'Down', color: colour.bad, index: 0 }, '1': { text: 'Up', color: colour.good, index: 1 } },
        },
      ]),
      property('custom.cellOptions', { type: 'color-text' }),
      property('custom.width', 90),
    ]);
}

export function pipeline() {
  return page('Pipeline', "The pipeline's own health: flow, time, ledger, backlog, state, errors.", 'now-15m')
    .withVariable(
      variable('query', 'Query', { query: 'label_values(tidemark_processor_rows_total, query)', refId: 'query', qryType: 1 }, PROMETHEUS)
        .description('The queries whose processors are shown.')
        .multi(true)
        .includeAll(true)
        .current({ text: 'All', value: '$__all' }),
    )
    .withPanel(ledger([0, 0, 4, 4]))
    .withPanel(arriving([4, 0, 4, 4]))
    .withPanel(written([8, 0, 4, 4]))
    .withPanel(behind([12, 0, 4, 4]))
    .withPanel(waiting([16, 0, 4, 4]))
    .withPanel(disk([20, 0, 4, 4]))
    .withPanel(flow([0, 4, 16, 9]))
    .withPanel(outcomes([16, 4, 8, 9]))
    .withPanel(watermark([0, 13, 8, 8]))
    .withPanel(lost([8, 13, 8, 8]))
    .withPanel(backlog([16, 13, 8, 8]))
    .withPanel(commits([0, 21, 8, 8]))
    .withPanel(state([8, 21, 8, 8]))
    .withPanel(errors([0, 29, 14, 8]))
    .withPanel(room([16, 21, 8, 8]))
    .withPanel(parts([14, 29, 10, 8]));
}
