// The answers of the two databases as Grafana's data sources give them to panels: frames with fields.

export interface Field {
  name: string;
  type: 'time' | 'number' | 'string';
  values: (number | string | null)[];
  labels?: Record<string, string>;
  /** The name that the data source wants shown, from the legend of a Prometheus query. */
  shown?: string;
}

export interface Frame {
  refId: string;
  name?: string;
  fields: Field[];
}

export interface Range {
  from: number;
  to: number;
}

/** One line of RFC 4180. Line breaks within quotes do not occur: no value here has one. */
function cells(line: string): string[] {
  const found = [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(,|$)/g)].map((match) => match[1]);
  // The end of the line matches once more.
  if (!line.endsWith(',')) found.pop();
  return found.map((cell) => (cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell));
}

function typed(datatype: string): Field['type'] {
  if (datatype.startsWith('dateTime')) return 'time';
  return datatype === 'string' || datatype === 'boolean' ? 'string' : 'number';
}

function value(text: string, type: Field['type']): number | string | null {
  if (text === '') return null;
  if (type === 'time') return Date.parse(text);
  return type === 'number' ? Number(text) : text;
}

interface Column {
  name: string;
  at: number;
  type: Field['type'];
}

/**
 * InfluxDB's annotated CSV. A table of its answer is a frame: columns of the group key are labels, and a table with nothing but `_time`
 * and `_value` is a series with the fields `Time` and `Value`.
 */
export function fromFlux(csv: string, refId: string): Frame[] {
  const frames: Frame[] = [];
  for (const block of csv.replaceAll('\r', '').split('\n\n')) {
    const lines = block.split('\n').filter((line) => line !== '');
    const note = (name: string) => cells(lines.find((line) => line.startsWith(name)) ?? '');
    const types = note('#datatype');
    const groups = note('#group');
    const [header, ...rows] = lines.filter((line) => !line.startsWith('#')).map(cells);
    if (header === undefined) continue;
    if (header.includes('error')) throw new Error(rows[0]?.join(' ') ?? 'InfluxDB reports an error');
    // The first column is the annotation's own, then `result` and `table`.
    const columns = header.map((name, at): Column => ({ name, at, type: typed(types[at]) })).slice(3);
    const labels = columns.filter(({ at }) => groups[at] === 'true');
    const data = columns.filter(({ at }) => groups[at] !== 'true');
    const tables = new Map<string, string[][]>();
    for (const row of rows) {
      const key = JSON.stringify(labels.map(({ at }) => row[at]));
      const table = tables.get(key);
      if (table === undefined) tables.set(key, [row]);
      else table.push(row);
    }
    for (const table of tables.values()) frames.push(fluxFrame(table, labels, data, refId));
  }
  return frames;
}

function fluxFrame(rows: string[][], groups: Column[], data: Column[], refId: string): Frame {
  const labels = Object.fromEntries(groups.filter(({ at }) => rows[0][at] !== '').map(({ name, at }) => [name, rows[0][at]]));
  const frame: Frame = { refId, fields: [] };
  if (labels._measurement !== undefined) frame.name = labels._measurement;
  delete labels._measurement;
  const times = data.filter(({ type }) => type === 'time');
  const others = data.filter(({ type }) => type !== 'time');
  const timed = times.length === 1 && times[0].name === '_time';
  const simple = timed && others.length === 1 && others[0].name === '_value';
  if (simple) {
    delete labels._start;
    delete labels._stop;
  }
  for (const { name, at, type } of [...times, ...others]) {
    const shown = simple ? (type === 'time' ? 'Time' : (labels._field ?? 'Value')) : name;
    const field: Field = { name: shown, type, values: rows.map((row) => value(row[at], type)) };
    if (!(timed && type === 'time')) field.labels = labels;
    frame.fields.push(field);
  }
  return frame;
}

export interface PromResult {
  resultType: string;
  result: { metric: Record<string, string>; values?: [number, string][]; value?: [number, string] }[];
}

const number = (text: string) => (Number.isFinite(Number(text)) ? Number(text) : null);

/** `{{name}}` in a legend is the label's value. */
const named = (legend: string, metric: Record<string, string>) =>
  legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name: string) => metric[name] ?? '');

/** Prometheus' answer: a frame for each series; in the format `table` one frame with a column for each label. */
export function fromPrometheus(answer: PromResult, refId: string, legend: string, format?: string): Frame[] {
  const series = answer.result.map(({ metric, values, value }) => ({ metric, values: values ?? (value ? [value] : []) }));
  if (format === 'table') {
    const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].sort();
    const last = series.map(({ values }) => values[values.length - 1]);
    return [
      {
        refId,
        fields: [
          { name: 'Time', type: 'time', values: last.map(([time]) => time * 1000) },
          ...labels.map((name): Field => ({ name, type: 'string', values: series.map(({ metric }) => metric[name] ?? null) })),
          { name: 'Value', type: 'number', values: last.map(([, text]) => number(text)) },
        ],
      },
    ];
  }
  return series.map(({ metric, values }) => ({
    refId,
    fields: [
      { name: 'Time', type: 'time', values: values.map(([time]) => time * 1000) },
      {
        name: 'Value',
        type: 'number',
        values: values.map(([, text]) => number(text)),
        labels: metric,
        ...(legend === '' ? {} : { shown: named(legend, metric) }),
      },
    ],
  }));
}
