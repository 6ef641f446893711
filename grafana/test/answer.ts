// Every query of every dashboard and alert, sent to real databases after a real load: each must have an answer with values in it, and
// what the dashboards say about their fields (overrides, renamed columns, links) must fit the answers.
//
//   node build/test/answer.js SERVERS.json [ANSWERS.json [PIPELINE]]
//
// SERVERS.json has the databases; the answers are written into the second file, for whoever wants to draw them. PIPELINE is the range of the
// dashboard of that name, such as now-5m, when the load has not run for longer.

import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ALERTS } from '../src/alerts.js';
import { Databases, type Servers, type Target, type Variables } from './ask.js';
import type { Frame, PromResult, Range } from './frames.js';

interface Variable {
  name: string;
  query: string | { query: string };
  includeAll?: boolean;
  datasource: { type: string };
}

interface Panel {
  id: number;
  title: string;
  type: string;
  gridPos: { w: number };
  maxDataPoints?: number;
  targets: Target[];
  transformations?: { id: string; options: { renameByName?: Record<string, string> } }[];
  fieldConfig: { overrides: { matcher: { id: string; options: string }; properties: { id: string; value: unknown }[] }[] };
}

interface Dashboard {
  uid: string;
  title: string;
  time: { from: string };
  links: { url: string }[];
  panels: Panel[];
  templating: { list: Variable[] };
}

/** The width of a browser's window on which a column of the grid is measured. */
const WIDTH = 1600;
const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000 };

const [serversFile, answersFile, watched] = process.argv.slice(2);
const servers = JSON.parse(readFileSync(serversFile, 'utf8')) as Servers;
const databases = new Databases(servers);
const folder = join(dirname(fileURLToPath(import.meta.url)), '../../dashboards');
const dashboards = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Dashboard);
const faults: string[] = [];

/** The last `now-15m` and the like, ending at this moment. */
function rangeOf(dashboard: Dashboard): Range {
  const from = dashboard.uid === 'tidemark-pipeline' && watched !== undefined ? watched : dashboard.time.from;
  const [, count, unit] = from.match(/^now-(\d+)([mh])$/) ?? [];
  const to = Date.now();
  return { from: to - Number(count) * UNITS[unit], to };
}

/** Variables in their order, each of which may need those before it. Unless `All` is there, the first value is the chosen one. */
async function variablesOf(dashboard: Dashboard, range: Range): Promise<Variables> {
  const variables: Variables = {};
  for (const { name, query, includeAll, datasource } of dashboard.templating.list) {
    let values: string[];
    if (datasource.type === 'influxdb') {
      const frames = await databases.flux(query as string, range, 10_000, variables);
      values = frames
        .flatMap((frame) => frame.fields.filter((field) => field.name === '_value').flatMap((field) => field.values as string[]))
        .sort();
    } else {
      const [, metric, label] = (query as { query: string }).query.match(/^label_values\((\w+), (\w+)\)$/) ?? [];
      values = await databases.get<string[]>(`label/${label}/values`, { 'match[]': metric });
    }
    if (values.length === 0) throw new Error(`${dashboard.title}: the variable ${name} has no values`);
    variables[name] = includeAll ? values : values.slice(0, 1);
  }
  return variables;
}

const hasValues = (frames: Frame[]) =>
  frames.some((frame) => frame.fields.some((field) => field.type !== 'time' && field.values.some((value) => value !== null)));

/** The names by which overrides can mean the fields of a panel. */
function shownNames(panel: Panel, frames: Frame[]): Set<string> {
  const renamed = panel.transformations?.find(({ id }) => id === 'organize')?.options.renameByName ?? {};
  const names = frames.flatMap((frame) => frame.fields.map((field) => field.shown ?? field.name));
  const trends = panel.transformations?.some(({ id }) => id === 'timeSeriesTable')
    ? panel.targets.map(({ refId }) => `Trend #${refId}`)
    : [];
  const columns = new Set([...names, ...trends]);
  for (const column of Object.keys(renamed)) {
    if (!columns.has(column))
      faults.push(`${panel.title}: renames the column "${column}", which the answer does not have (${[...columns].join(', ')})`);
  }
  return new Set([...columns].map((name) => renamed[name] ?? name));
}

/** Outcomes of the ledger that this load may not have had. */
const RARE = ['dead', 'filtered', 'late'];

function checkNames(panel: Panel, frames: Frame[]) {
  const names = shownNames(panel, frames);
  for (const { matcher, properties } of panel.fieldConfig.overrides) {
    if (matcher.id === 'byName' && !names.has(matcher.options) && !RARE.includes(matcher.options)) {
      faults.push(`${panel.title}: the settings for "${matcher.options}" mean no field of the answer (${[...names].join(', ')})`);
    }
    for (const { id, value } of properties) {
      if (id === 'custom.fillBelowTo' && !names.has(value as string))
        faults.push(`${panel.title}: fills down to "${value}", which is not there`);
    }
  }
}

/** A link to a dashboard that is not there, or that gives it a variable which it does not have. */
function checkLinks(dashboard: Dashboard) {
  const urls = JSON.stringify(dashboard).match(/\/d\/[^"]*/g) ?? [];
  for (const url of urls) {
    const [path, query] = url.split('?');
    const target = dashboards.find(({ uid }) => `/d/${uid}` === path);
    if (target === undefined) faults.push(`${dashboard.title}: links to ${path}, which is not there`);
    for (const [, name] of (query ?? '').matchAll(/var-(\w+)=/g)) {
      if (!target?.templating.list.some((variable) => variable.name === name))
        faults.push(`${dashboard.title}: gives ${path} the variable ${name}, which it does not have`);
    }
  }
}

/** A chart takes the first time that it finds as its axis, and every number as a line. */
function checkSeries(panel: Panel, frames: Frame[]) {
  if (!['timeseries', 'status-history'].includes(panel.type)) return;
  for (const { fields } of frames) {
    const types = fields.map(({ name, type }) => `${name} (${type})`).join(', ');
    if (fields[0].type !== 'time' || fields.slice(1).some(({ type }) => type !== 'number'))
      faults.push(`${panel.title}: no series of numbers: ${types}`);
  }
}

async function answer(dashboard: Dashboard) {
  checkLinks(dashboard);
  const range = rangeOf(dashboard);
  const variables = await variablesOf(dashboard, range);
  const panels: Record<number, Frame[]> = {};
  for (const panel of dashboard.panels) {
    const points = panel.maxDataPoints ?? Math.round((WIDTH / 24) * panel.gridPos.w);
    const frames: Frame[] = [];
    for (const target of panel.targets) {
      try {
        const found = await databases.target(target, range, points, variables);
        if (!hasValues(found)) faults.push(`${dashboard.title} / ${panel.title}: query ${target.refId} finds nothing`);
        frames.push(...found);
      } catch (error) {
        faults.push(`${dashboard.title} / ${panel.title}: query ${target.refId}: ${(error as Error).message}`);
      }
    }
    checkNames(panel, frames);
    checkSeries(panel, frames);
    panels[panel.id] = frames;
  }
  console.log(
    `${dashboard.title}: ${dashboard.panels.length} panels, ${dashboard.panels.flatMap(({ targets }) => targets).length} queries; ${JSON.stringify(variables)}`,
  );
  return { dashboard, range, variables, panels };
}

/** The pipeline is well, so no alert may be near: each is asked, and none may have a series beyond its limit. */
async function askAlerts() {
  for (const { uid, title, expr, operator, limit } of ALERTS) {
    try {
      const { result } = await databases.get<PromResult>('query', { query: `(${expr}) ${operator === 'gt' ? '>' : '<'} ${limit}` });
      // How full this machine's disk is, is not the pipeline's doing.
      if (result.length > 0 && !uid.startsWith('tidemark-disk')) faults.push(`the alert "${title}" would fire: ${JSON.stringify(result)}`);
    } catch (error) {
      faults.push(`the alert "${title}": ${(error as Error).message}`);
    }
  }
  console.log(`${ALERTS.length} alerts asked`);
}

const answers = [];
for (const dashboard of dashboards) answers.push(await answer(dashboard));
await askAlerts();
if (answersFile !== undefined) writeFileSync(answersFile, JSON.stringify(answers));
for (const fault of faults) console.error(`FAULT ${fault}`);
console.log(faults.length === 0 ? 'every query has an answer' : `${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);
