// One panel of each kind, from Grafana's published components.

import {
  type DataFrame,
  type GrafanaTheme2,
  FieldType,
  VizOrientation,
  dateTime,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
} from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import type { PanelModel } from './types';

interface Props {
  panel: PanelModel;
  frames: DataFrame[];
  width: number;
  height: number;
  range: { from: number; to: number };
  theme: GrafanaTheme2;
}

function displayed({ panel, frames, theme }: Props, sparkline: boolean) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text,
    theme,
    data: frames,
    sparkline,
    timeZone: 'utc',
  });
}

function Stat(props: Props) {
  const { panel, width, height, theme } = props;
  const { graphMode, colorMode, justifyMode, textMode, wideLayout, text } = panel.options;
  return (
    <VizRepeater
      source={props.frames}
      getValues={() => displayed(props, graphMode !== 'none')}
      width={width}
      height={height}
      orientation={width > height ? VizOrientation.Vertical : VizOrientation.Horizontal}
      renderCounter={0}
      itemSpacing={3}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, count, alignmentFactors }: any) => (
        <BigValue
          value={textMode === 'auto' && count === 1 ? { ...value.display, title: undefined } : value.display}
          sparkline={value.sparkline}
          width={width}
          height={height}
          count={count}
          disableWideLayout={!wideLayout}
          {...{ alignmentFactors, graphMode, colorMode, justifyMode, textMode, text, theme }}
        />
      )}
    />
  );
}

function Bars(props: Props) {
  const { panel, width, height, theme } = props;
  const { displayMode, showUnfilled, valueMode, namePlacement, text } = panel.options;
  return (
    <VizRepeater
      source={props.frames}
      getValues={() => {
        const values = displayed(props, false);
        // Bars without a maximum of their own share the largest one.
        const max = Math.max(...values.map(({ display }) => display.numeric));
        return values.map((value) => ({ ...value, field: { ...value.field, min: 0, max } }));
      }}
      width={width}
      height={height}
      orientation={VizOrientation.Horizontal}
      renderCounter={0}
      itemSpacing={10}
      maxVizHeight={300}
      minVizHeight={16}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, alignmentFactors }: any) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          width={width}
          height={height}
          orientation={VizOrientation.Horizontal}
          valueDisplayMode={valueMode}
          {...{ alignmentFactors, displayMode, showUnfilled, namePlacement, text, theme }}
        />
      )}
    />
  );
}

/** Status history is not among the published components. */
function History({ panel, frames, width, height, range, theme }: Props) {
  const LEFT = 62;
  const FOOT = 22;
  const row = (height - FOOT) / frames.length;
  const x = (time: number) => LEFT + ((time - range.from) / (range.to - range.from)) * (width - LEFT);
  const times = frames[0]?.fields.find(({ type }) => type === FieldType.time)?.values ?? [];
  const step = times[1] - times[0];
  const ticks = [0.1, 0.3, 0.5, 0.7, 0.9].map((share) => range.from + share * (range.to - range.from));
  const text = { fill: theme.colors.text.primary, fontSize: 12, fontFamily: theme.typography.fontFamily };
  return (
    <svg width={width} height={height}>
      {frames.map((frame, at) => {
        const time = frame.fields.find(({ type }) => type === FieldType.time)!;
        const field = frame.fields.find(({ type }) => type === FieldType.number)!;
        return (
          <g key={at} transform={`translate(0 ${at * row})`}>
            <text x={LEFT - 8} y={row / 2 + 4} textAnchor="end" {...text}>
              {getFieldDisplayName(field, frame, frames)}
            </text>
            {time.values.map((from, index) => (
              <rect
                key={index}
                x={Math.max(x(from), LEFT)}
                y={(row * (1 - panel.options.rowHeight)) / 2}
                width={Math.max((x(from + step) - x(from)) * panel.options.colWidth, 1)}
                height={row * panel.options.rowHeight}
                fill={field.display!(field.values[index]).color}
                opacity={panel.fieldConfig.defaults.custom.fillOpacity / 100}
              />
            ))}
          </g>
        );
      })}
      {ticks.map((time) => (
        <text key={time} x={x(time)} y={height - 5} textAnchor="middle" {...text}>
          {dateTime(time).utc().format('HH:mm')}
        </text>
      ))}
    </svg>
  );
}

export function Panel(props: Props) {
  const { panel, frames, width, height, range, theme } = props;
  switch (panel.type) {
    case 'stat':
      return <Stat {...props} />;
    case 'bargauge':
      return <Bars {...props} />;
    case 'status-history':
      return <History {...props} />;
    case 'table':
      return (
        <TableNG
          data={frames[0]}
          width={width}
          height={height}
          initialSortBy={panel.options.sortBy}
          cellHeight={panel.options.cellHeight}
          noHeader={false}
          fieldConfig={panel.fieldConfig}
          structureRev={1}
        />
      );
    case 'timeseries': {
      const times = { from: dateTime(range.from), to: dateTime(range.to), raw: { from: dateTime(range.from), to: dateTime(range.to) } };
      return (
        <TimeSeries
          frames={frames}
          width={width}
          height={height}
          timeRange={times}
          timeZone="utc"
          legend={panel.options.legend}
          options={panel.options}
          theme={theme}
        />
      );
    }
    default:
      return <div>{panel.type} is not known here</div>;
  }
}
