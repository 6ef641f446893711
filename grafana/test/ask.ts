// Sends a panel's queries to the databases, with the variables filled in as Grafana does it.

import { fromFlux, fromPrometheus, type Frame, type PromResult, type Range } from './frames.js';

export interface Servers {
  influxdb: { url: string; org: string; bucket: string; token: string };
  /** `scrape` is `timeInterval` of the data source in milliseconds. */
  prometheus: { url: string; scrape: number };
}

export interface Target {
  refId: string;
  query?: string;
  expr?: string;
  instant?: boolean;
  legendFormat?: string;
  format?: string;
}

/** Values of a dashboard's variables. */
export type Variables = Record<string, string[]>;

/** The shortest bucket of a chart of InfluxDB: `timeInterval` of the data source. */
const SHORTEST_BUCKET = 10_000;

const STEPS: [number, number][] = [
  [15, 10],
  [35, 20],
  [75, 50],
  [150, 100],
  [350, 200],
  [750, 500],
  [1500, 1000],
  [3500, 2000],
  [7500, 5000],
  [12_500, 10_000],
  [17_500, 15_000],
  [25_000, 20_000],
  [45_000, 30_000],
  [90_000, 60_000],
  [210_000, 120_000],
  [450_000, 300_000],
  [750_000, 600_000],
];

/** The length of a chart's buckets: the range over its points, rounded as Grafana rounds it, but not below `least`. */
export function interval(range: Range, points: number, least: number): number {
  const exact = Math.max((range.to - range.from) / points, least);
  if (exact === least) return least;
  return STEPS.find(([limit]) => exact < limit)?.[1] ?? 900_000;
}

const text = (ms: number) => (ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`);

/** Puts `$name`, `${name}` and `${name:json}` in. Several values become an alternative of a regular expression. */
function filled(query: string, variables: Variables): string {
  const escaped = (value: string) => value.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&');
  const value = (values: string[]) => (values.length === 1 ? values[0] : `(${values.map(escaped).join('|')})`);
  return Object.entries(variables).reduce(
    (all, [name, values]) =>
      all
        .replaceAll(`\${${name}:json}`, JSON.stringify(values[0]))
        .replaceAll(`\${${name}}`, value(values))
        .replace(new RegExp(`\\$${name}\\b`, 'g'), value(values)),
    query,
  );
}

/** A query that still has a variable would be sent as it is, and find nothing. */
function whole(query: string): string {
  const left = query.match(/\$\{?\w+|\bv\.\w+/);
  if (left !== null) throw new Error(`nothing is known of ${left[0]} in:\n${query}`);
  return query;
}

export class Databases {
  constructor(private readonly servers: Servers) {}

  async flux(query: string, range: Range, every: number, variables: Variables, refId = 'A'): Promise<Frame[]> {
    const { url, org, bucket, token } = this.servers.influxdb;
    const macros = filled(query, variables)
      .replaceAll('v.timeRangeStart', new Date(range.from).toISOString())
      .replaceAll('v.timeRangeStop', new Date(range.to).toISOString())
      .replaceAll('v.windowPeriod', text(every))
      .replaceAll('v.defaultBucket', JSON.stringify(bucket));
    const answer = await fetch(`${url}/api/v2/query?org=${encodeURIComponent(org)}`, {
      method: 'POST',
      headers: { authorization: `Token ${token}`, 'content-type': 'application/json', accept: 'application/csv' },
      body: JSON.stringify({ query: whole(macros), dialect: { annotations: ['datatype', 'group', 'default'], header: true } }),
    });
    const body = await answer.text();
    if (!answer.ok) throw new Error(`InfluxDB: ${answer.status} ${body}\n${macros}`);
    return fromFlux(body, refId);
  }

  async get<T>(path: string, parameters: Record<string, string>): Promise<T> {
    const answer = await fetch(`${this.servers.prometheus.url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const body = (await answer.json()) as { status: string; error?: string; data: T };
    if (body.status !== 'success') throw new Error(`Prometheus: ${body.error}\n${parameters.query ?? path}`);
    return body.data;
  }

  async prometheus(target: Target, range: Range, every: number, variables: Variables): Promise<Frame[]> {
    const { scrape } = this.servers.prometheus;
    const query = whole(
      filled(target.expr ?? '', variables)
        .replaceAll('$__rate_interval', text(Math.max(every + scrape, 4 * scrape)))
        .replaceAll('$__range', text(Math.ceil((range.to - range.from) / 1000) * 1000)),
    );
    const seconds = (ms: number) => String(ms / 1000);
    const answer = target.instant
      ? await this.get<PromResult>('query', { query, time: seconds(range.to) })
      : // Grafana aligns a range to its steps.
        await this.get<PromResult>('query_range', {
          query,
          start: seconds(Math.floor(range.from / every) * every),
          end: seconds(Math.floor(range.to / every) * every),
          step: seconds(every),
        });
    return fromPrometheus(answer, target.refId, target.legendFormat ?? '', target.format);
  }

  target(target: Target, range: Range, points: number, variables: Variables): Promise<Frame[]> {
    if (target.query !== undefined)
      return this.flux(target.query, range, interval(range, points, SHORTEST_BUCKET), variables, target.refId);
    return this.prometheus(target, range, interval(range, points, this.servers.prometheus.scrape), variables);
  }
}
