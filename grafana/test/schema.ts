// Compiles every dashboard against Grafana's published types, in TypeScript's strict mode: the dashboard as a whole, and each panel's
// options and field settings against those of its plugin. A field that Grafana does not know, a wrong type or a wrong word is an error.

import { readFileSync, readdirSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

// build/test/schema.js
const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const dashboards = join(root, 'dashboards');
const work = join(root, 'build/schema');

const CONFIG: Record<string, string> = {
  bargauge: 'BarGauge',
  stat: 'Stat',
  'status-history': 'StatusHistory',
  table: 'Table',
  timeseries: 'TimeSeries',
};
/** Plugins that have no field settings of their own. */
const PLAIN = ['stat', 'bargauge'];

interface Panel {
  type: string;
  title: string;
  options: object;
  fieldConfig: { defaults: { custom?: object }; overrides: { properties: { id: string; value: unknown }[] }[] };
}

function checks(panel: Panel, at: number): string[] {
  const name = CONFIG[panel.type];
  if (name === undefined) throw new Error(`no types are known here for the panel "${panel.title}" (${panel.type})`);
  const file = `@grafana/schema/dist/esm/raw/composable/${panel.type.replace('-', '')}/panelcfg/x/${name}PanelCfg_types.gen`;
  const lines = [
    `import type * as p${at} from '${file}';`,
    `export const options${at}: Partial<p${at}.Options> = ${JSON.stringify(panel.options, null, 1)};`,
  ];
  if (PLAIN.includes(panel.type)) {
    if (Object.keys(panel.fieldConfig.defaults.custom ?? {}).length > 0)
      throw new Error(`"${panel.title}": ${panel.type} has no settings of its own for fields`);
    return lines;
  }
  // An override's `custom.lineWidth` is the setting `lineWidth`.
  const customs = panel.fieldConfig.overrides.map((one) =>
    Object.fromEntries(
      one.properties.filter(({ id }) => id.startsWith('custom.')).map(({ id, value }) => [id.slice('custom.'.length), value]),
    ),
  );
  [panel.fieldConfig.defaults.custom ?? {}, ...customs].forEach((custom, index) =>
    lines.push(`export const field${at}x${index}: Partial<p${at}.FieldConfig> = ${JSON.stringify(custom, null, 1)};`),
  );
  return lines;
}

/** Enumerations take their members and not texts; in JSON they are texts. */
const RELAX = `
type Plain<T> = T extends (infer E)[] ? Plain<E>[] : T extends string ? \`\${T}\` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
`;

mkdirSync(work, { recursive: true });
const sources = readdirSync(dashboards)
  .filter((name) => name.endsWith('.json'))
  .map((name) => {
    const text = readFileSync(join(dashboards, name), 'utf8');
    const panels = (JSON.parse(text).panels as Panel[]).map(checks);
    const lines = [
      "import type { Dashboard } from '@grafana/schema';",
      RELAX,
      `export const dashboard: Plain<Partial<Dashboard>> = ${text};`,
      ...panels.flat().map((line) => line.replace(/: (Partial<p\d+\.(Options|FieldConfig)>) =/, ': Plain<$1> =')),
    ];
    const path = join(work, name.replace('.json', '.ts'));
    writeFileSync(path, lines.join('\n'));
    return path;
  });

const program = ts.createProgram(sources, {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  target: ts.ScriptTarget.ES2022,
  types: [],
});
const faults = ts.getPreEmitDiagnostics(program);
console.log(
  ts.formatDiagnostics(faults, { getCanonicalFileName: (name) => name, getCurrentDirectory: () => work, getNewLine: () => '\n' }),
);
console.log(`${sources.length} dashboards against Grafana's types: ${faults.length === 0 ? 'they fit' : `${faults.length} faults`}`);
process.exit(faults.length === 0 ? 0 : 1);
