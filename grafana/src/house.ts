// The house style: what every panel of a kind has in common.

import * as bargauge from '@grafana/grafana-foundation-sdk/bargauge';
import * as cog from '@grafana/grafana-foundation-sdk/cog';
import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as statushistory from '@grafana/grafana-foundation-sdk/statushistory';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import { whole } from './flux.js';
import type { Step } from './palette.js';

export const INFLUXDB = { type: 'influxdb', uid: 'tidemark-influxdb' };
export const PROMETHEUS = { type: 'prometheus', uid: 'tidemark-prometheus' };

/** x, y, width, height on a grid of 24 columns. */
export type Place = [number, number, number, number];

const at = ([x, y, w, h]: Place) => ({ x, y, w, h });

export const thresholds = (steps: Step[]) =>
  new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps as dashboard.Threshold[]);

export const scheme = (mode: dashboard.FieldColorModeId) => new dashboard.FieldColorBuilder().mode(mode);

/** One property of an override. */
export const property = (id: string, value: unknown) => ({ id, value });
export const coloured = (fixedColor: string) => property('color', { mode: 'fixed', fixedColor });
export const stepped = (steps: Step[]) => property('thresholds', { mode: 'absolute', steps });

/** InfluxDB gives the columns of a row in the order of their names. */
export const inOrder = (...names: string[]) => ({
  id: 'organize',
  options: { indexByName: Object.fromEntries(names.map((name, at) => [name, at])), renameByName: {}, excludeByName: {} },
});

interface FluxQuery extends cog.Dataquery {
  refId: string;
  query: string;
}

/** A query for InfluxDB: the library has no builder of its own for it. */
export function flux(query: string, refId = 'A'): cog.Builder<cog.Dataquery> {
  const target = { refId, datasource: INFLUXDB, query: whole(query) };
  return { build: () => target as unknown as FluxQuery };
}

export function prom(expr: string, legend: string, refId = 'A') {
  return new prometheus.DataqueryBuilder().datasource(PROMETHEUS).refId(refId).expr(expr).legendFormat(legend).range();
}

export function promNow(expr: string, legend: string, refId = 'A') {
  return new prometheus.DataqueryBuilder().datasource(PROMETHEUS).refId(refId).expr(expr).legendFormat(legend).instant();
}

/** Names below the chart, or with columns of numbers a table to its right. */
const legend = (calcs: string[]) =>
  new common.VizLegendOptionsBuilder()
    .displayMode(calcs.length > 0 ? common.LegendDisplayMode.Table : common.LegendDisplayMode.List)
    .placement(calcs.length > 0 ? common.LegendPlacement.Right : common.LegendPlacement.Bottom)
    .showLegend(true)
    .calcs(calcs);

const tooltip = (mode = common.TooltipDisplayMode.Multi) =>
  new common.VizTooltipOptionsBuilder().mode(mode).sort(common.SortOrder.Descending);

/** Lines over time. `calcs` are the columns of its legend; none: a plain list. */
export function lines(title: string, description: string, place: Place, calcs: string[] = []) {
  return new timeseries.PanelBuilder()
    .title(title)
    .description(description)
    .gridPos(at(place))
    .lineWidth(2)
    .fillOpacity(8)
    .gradientMode(common.GraphGradientMode.Opacity)
    .lineInterpolation(common.LineInterpolation.Linear)
    .showPoints(common.VisibilityMode.Never)
    .spanNulls(false)
    .axisBorderShow(false)
    .colorScheme(scheme(dashboard.FieldColorModeId.PaletteClassic))
    .legend(legend(calcs))
    .tooltip(tooltip());
}

/** Numbers to see from afar. */
export function numbers(title: string, description: string, place: Place) {
  return new stat.PanelBuilder()
    .title(title)
    .description(description)
    .gridPos(at(place))
    .colorMode(common.BigValueColorMode.Value)
    .graphMode(common.BigValueGraphMode.Area)
    .justifyMode(common.BigValueJustifyMode.Auto)
    .orientation(common.VizOrientation.Auto)
    .textMode(common.BigValueTextMode.Auto)
    .wideLayout(false)
    .showPercentChange(false)
    .percentChangeColorMode(common.PercentChangeColorMode.Standard)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false));
}

export function bars(title: string, description: string, place: Place) {
  return new bargauge.PanelBuilder()
    .title(title)
    .description(description)
    .gridPos(at(place))
    .displayMode(common.BarGaugeDisplayMode.Gradient)
    .valueMode(common.BarGaugeValueMode.Color)
    .namePlacement(common.BarGaugeNamePlacement.Left)
    .orientation(common.VizOrientation.Horizontal)
    .showUnfilled(true)
    .sizing(common.BarGaugeSizing.Auto)
    .minVizWidth(8)
    .minVizHeight(16)
    .maxVizHeight(300)
    .text(new common.VizTextDisplayOptionsBuilder().titleSize(15).valueSize(22))
    .legend(
      new common.VizLegendOptionsBuilder()
        .showLegend(false)
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom)
        .calcs([]),
    )
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false));
}

export function rows(title: string, description: string, place: Place) {
  return new table.PanelBuilder()
    .title(title)
    .description(description)
    .gridPos(at(place))
    .showHeader(true)
    .cellHeight(common.TableCellHeight.Sm)
    .align(common.FieldTextAlignment.Auto)
    .inspect(false);
}

/** A row for each series, a cell for each interval, coloured by the thresholds. */
export function history(title: string, description: string, place: Place) {
  return new statushistory.PanelBuilder()
    .title(title)
    .description(description)
    .gridPos(at(place))
    .rowHeight(0.9)
    .colWidth(0.95)
    .showValue(common.VisibilityMode.Never)
    .fillOpacity(80)
    .lineWidth(0)
    .legend(legend([]))
    .tooltip(tooltip(common.TooltipDisplayMode.Single));
}

const PAGES = [
  { title: 'Fleet', uid: 'tidemark-fleet', tooltip: 'Every sensor at a glance, anomalies first' },
  { title: 'Sensor', uid: 'tidemark-sensor', tooltip: 'One sensor in full' },
  { title: 'Pipeline', uid: 'tidemark-pipeline', tooltip: "The pipeline's own health" },
];

/** A dashboard with links to the other two. */
export function page(name: string, description: string, from: string) {
  const others = PAGES.filter((one) => one.title !== name).map((one) =>
    new dashboard.DashboardLinkBuilder(one.title)
      .type(dashboard.DashboardLinkType.Link)
      .icon('dashboard')
      .tooltip(one.tooltip)
      .url(`/d/${one.uid}`)
      .includeVars(name !== 'Pipeline' && one.title !== 'Pipeline')
      .keepTime(true),
  );
  return new dashboard.DashboardBuilder(`Tidemark · ${name}`)
    .uid(PAGES.find((one) => one.title === name)!.uid)
    .description(description)
    .tags(['tidemark'])
    .timezone('browser')
    .time({ from, to: 'now' })
    .refresh('10s')
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .links(others);
}

/** A variable whose values a query gives. */
export function variable(name: string, label: string, query: string | Record<string, unknown>, datasource: common.DataSourceRef) {
  return new dashboard.QueryVariableBuilder(name)
    .label(label)
    .query(query)
    .datasource(datasource)
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc);
}
