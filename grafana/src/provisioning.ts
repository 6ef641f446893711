// The alert rules in the two forms that they are needed in.

import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { stringify } from 'yaml';
import { ALERTS, type Alert } from './alerts.js';
import { PROMETHEUS } from './house.js';

const WRITTEN = 'Written by grafana/src/generate.ts: change grafana/src/alerts.ts and run `npm run generate` in grafana/.';

function panelId(pipeline: Dashboard, title: string): string {
  const panel = pipeline.panels?.find((one) => 'title' in one && one.title === title);
  if (panel?.id === undefined) throw new Error(`an alert points to the panel "${title}", which Pipeline does not have`);
  return String(panel.id);
}

function rule(alert: Alert, pipeline: Dashboard) {
  return {
    uid: alert.uid,
    title: alert.title,
    condition: 'C',
    data: [
      {
        refId: 'A',
        relativeTimeRange: { from: 600, to: 0 },
        datasourceUid: PROMETHEUS.uid,
        model: { refId: 'A', expr: alert.expr, instant: true, range: false, intervalMs: 5000, maxDataPoints: 100 },
      },
      {
        refId: 'C',
        relativeTimeRange: { from: 0, to: 0 },
        datasourceUid: '__expr__',
        model: {
          refId: 'C',
          type: 'threshold',
          expression: 'A',
          conditions: [{ evaluator: { type: alert.operator, params: [alert.limit] } }],
        },
      },
    ],
    // No series means that there is nothing to complain of: what has to be there is asked for by "A part is down".
    noDataState: 'OK',
    execErrState: 'Error',
    for: alert.wait,
    labels: { severity: alert.severity, system: 'tidemark' },
    // Grafana knows the values of its rules as $values.A.Value; Prometheus has only $value.
    annotations: {
      summary: alert.summary.replaceAll('$value', '$values.A.Value'),
      runbook: alert.runbook,
      __dashboardUid__: 'tidemark-pipeline',
      __panelId__: panelId(pipeline, alert.panel),
    },
  };
}

/** For `grafana/provisioning/alerting`. */
export function forGrafana(pipeline: Dashboard): string {
  const group = { orgId: 1, name: 'tidemark', folder: 'Tidemark', interval: '10s', rules: ALERTS.map((alert) => rule(alert, pipeline)) };
  return `# ${WRITTEN}\n${stringify({ apiVersion: 1, groups: [group] }, { lineWidth: 140 })}`;
}

/** For Prometheus and its unit tests: the same rules, without Grafana. */
export function forPrometheus(): string {
  const rules = ALERTS.map((alert) => ({
    alert: alert.uid,
    expr: `(${alert.expr}) ${alert.operator === 'gt' ? '>' : '<'} ${alert.limit}`,
    for: alert.wait,
    labels: { severity: alert.severity },
    annotations: { summary: alert.summary, runbook: alert.runbook },
  }));
  return `# ${WRITTEN}
# Grafana has these rules already (grafana/provisioning/alerting). For a Prometheus without Grafana: add this file to \`rule_files\`.
${stringify({ groups: [{ name: 'tidemark-alerts', rules }] }, { lineWidth: 140 })}`;
}
