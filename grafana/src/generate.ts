// Writes the dashboards and the alert rules; with --check it only says whether the files are as they would be written.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { fleet } from './fleet.js';
import { pipeline } from './pipeline.js';
import { forGrafana, forPrometheus } from './provisioning.js';
import { sensor } from './sensor.js';

// build/src/generate.js
const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');

/** Numbers the panels in their order, so that links to them last, and takes out what the library adds and Grafana's types do not have. */
function finished(dashboard: Dashboard): Dashboard {
  dashboard.panels?.forEach((panel, at) => {
    panel.id = at + 1;
    if ('options' in panel && panel.type === 'table') delete panel.options.footer;
  });
  for (const variable of dashboard.templating?.list ?? []) {
    for (const extra of ['auto', 'auto_min', 'auto_count'] as const) delete variable[extra];
  }
  // It would hide the links in a menu.
  for (const link of dashboard.links ?? []) delete (link as Partial<typeof link>).placement;
  return dashboard;
}

const json = (dashboard: Dashboard) => `${JSON.stringify(dashboard, null, 2)}\n`;
const pages = { fleet: finished(fleet().build()), sensor: finished(sensor().build()), pipeline: finished(pipeline().build()) };

const files: Record<string, string> = {
  'grafana/dashboards/fleet.json': json(pages.fleet),
  'grafana/dashboards/sensor.json': json(pages.sensor),
  'grafana/dashboards/pipeline.json': json(pages.pipeline),
  'grafana/provisioning/alerting/tidemark.yaml': forGrafana(pages.pipeline),
  'deploy/prometheus/alerts.yml': forPrometheus(),
};

const check = process.argv.includes('--check');
let stale = 0;
for (const [name, text] of Object.entries(files)) {
  const path = join(root, name);
  if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
  stale += 1;
  if (!check) writeFileSync(path, text);
  console.log(check ? `${name} is not what the sources give: run \`npm run generate\` in grafana/` : `${name} written`);
}
process.exit(check && stale > 0 ? 1 : 0);
