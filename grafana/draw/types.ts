// What `test/answer.ts` writes.

import type { FieldConfigSource } from '@grafana/data';

export interface RawFrame {
  refId: string;
  name?: string;
  fields: {
    name: string;
    type: 'time' | 'number' | 'string';
    values: (number | string | null)[];
    labels?: Record<string, string>;
    shown?: string;
  }[];
}

export interface PanelModel {
  id: number;
  type: string;
  title: string;
  description: string;
  gridPos: { x: number; y: number; w: number; h: number };
  // Each panel's own; checked against Grafana's types elsewhere.
  options: any;
  fieldConfig: FieldConfigSource;
  transformations?: { id: string; options: any }[];
}

export interface Answer {
  dashboard: {
    title: string;
    refresh: string;
    time: { from: string };
    links: { title: string }[];
    templating: { list: { name: string; label: string; includeAll?: boolean }[] };
    panels: PanelModel[];
  };
  range: { from: number; to: number };
  variables: Record<string, string[]>;
  panels: Record<string, RawFrame[]>;
}
