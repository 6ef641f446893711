// From answers to frames as panels get them: transformations, then units, colours, thresholds and overrides.

import {
  type DataFrame,
  type FieldConfigPropertyItem,
  type FieldConfigSource,
  type GrafanaTheme2,
  type ScopedVars,
  FieldType,
  Registry,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  displayNameOverrideProcessor,
  isTimeSeriesFrame,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';
import type { PanelModel, RawFrame } from './types';

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links', 'fieldMinMax'];
const item = (id: string, path: string, isCustom: boolean) =>
  ({
    id,
    path,
    isCustom,
    name: id,
    process: id === 'displayName' ? displayNameOverrideProcessor : (value: unknown) => value,
    shouldApply: () => true,
    settings: { expandTemplateVars: true },
  }) as unknown as FieldConfigPropertyItem;

standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((id) => item(id, id, false)));
// One of them is listed twice.
const transformers = new Map(Object.values(standardTransformers).map((one: any) => [one.id, one]));
standardTransformersRegistry.setInit(
  () =>
    [...transformers.values()].map((one) => ({
      id: one.id,
      name: one.name,
      transformation: () => Promise.resolve(one),
      editor: () => null,
    })) as any,
);

/** The settings that this panel uses of its plugin's own. */
function registry(panel: PanelModel) {
  const used = new Set(Object.keys(panel.fieldConfig.defaults.custom ?? {}));
  for (const { properties } of panel.fieldConfig.overrides)
    properties.filter(({ id }) => id.startsWith('custom.')).forEach(({ id }) => used.add(id.slice(7)));
  return new Registry(() => [...STANDARD.map((id) => item(id, id, false)), ...[...used].map((id) => item(`custom.${id}`, id, true))]);
}

function framesOf(raw: RawFrame[]): DataFrame[] {
  return raw.map(({ refId, name, fields }) => {
    const typed = fields.map(({ name, type, values, labels, shown }) => ({
      name,
      type: type as FieldType,
      values,
      labels,
      config: shown === undefined ? {} : { displayNameFromDS: shown },
    }));
    return toDataFrame({ refId, name, fields: typed });
  });
}

/** Grafana's transformation of this name is not published: series become rows with their course in a cell. */
function timeSeriesTable(frames: DataFrame[]): DataFrame[] {
  const series = frames.filter(isTimeSeriesFrame);
  if (series.length === 0) return frames;
  const number = (frame: DataFrame) => frame.fields.find(({ type }) => type === FieldType.number)!;
  const labels = Object.keys(number(series[0]).labels ?? {});
  const table: DataFrame = {
    refId: series[0].refId,
    length: series.length,
    fields: [
      ...labels.map((name) => ({ name, type: FieldType.string, config: {}, values: series.map((frame) => number(frame).labels?.[name]) })),
      {
        name: `Trend #${series[0].refId}`,
        type: FieldType.frame,
        config: {},
        values: series.map((frame) => ({
          fields: [frame.fields[0], number(frame)],
          length: frame.length,
          value: number(frame).values.at(-1),
        })),
      },
    ],
  };
  return [...frames.filter((frame) => !isTimeSeriesFrame(frame)), table];
}

async function transformed(panel: PanelModel, frames: DataFrame[]): Promise<DataFrame[]> {
  let result = frames;
  for (const one of panel.transformations ?? []) {
    result = one.id === 'timeSeriesTable' ? timeSeriesTable(result) : await firstValueFrom(transformDataFrame([one], result));
  }
  return result;
}

/** JSON has no infinity: the first step of thresholds is written as null, and Grafana puts it right when it loads a dashboard. */
function boundless(config: FieldConfigSource): FieldConfigSource {
  return JSON.parse(JSON.stringify(config), (key, value) =>
    key === 'steps' ? value.map((step: any) => ({ ...step, value: step.value ?? -Infinity })) : value,
  );
}

export async function prepare(panel: PanelModel, raw: RawFrame[], theme: GrafanaTheme2): Promise<DataFrame[]> {
  const label = (scoped: ScopedVars | undefined, name: string) => scoped?.__dataContext?.value?.field?.labels?.[name] ?? '';
  const prepared = applyFieldOverrides({
    data: await transformed(panel, framesOf(raw)),
    fieldConfig: boundless(panel.fieldConfig),
    fieldConfigRegistry: registry(panel),
    replaceVariables: (text, scoped) => text.replace(/\$\{__field\.labels\.(\w+)\}/g, (_, name: string) => label(scoped, name)),
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(prepared);
  return prepared;
}
