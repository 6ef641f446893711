// One chart for each chosen series, kept up to date.

import { get } from './api.js';
import { byId, el, perFrame, say } from './dom.js';
import * as format from './format.js';
import { colour, newest, state, watermark } from './state.js';
import { lineFields, local, openFrom, traces } from './traces.js';

/** Points asked for per series: about one for each two pixels. */
const POINTS = 600;
/** How often a chart whose points are folded into buckets is asked for anew. */
const FOLDED_EVERY = 5_000;

/** Per series: its points by start of window, whether they are folded, and a number that grows with each change. */
const series = new Map();
const panels = new Map();
let loading = 0;
let foldedAt = 0;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const title = (id) => format.label(state.overview?.series.find((one) => one.id === id)?.tags ?? known.get(id) ?? {});
/** Tags of chosen series, also of those that the filter hides now. */
const known = new Map();

export function remember(overview) {
  for (const one of overview.series) known.set(one.id, one.tags);
}

/** A chart may be drawn before its place has its size, and its place changes with its neighbours, not only with the window. */
const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    if (target.data && contentRect.width > 0) globalThis.Plotly.Plots.resize(target).catch(() => {});
  }
});

/** Asks for all points of the range. */
export async function load() {
  const turn = ++loading;
  const ids = [...state.chosen];
  const from = state.range === null || newest() === null ? undefined : newest() - state.range;
  if (ids.length) {
    const answer = await get('/api/points', { series: ids.join(','), from, max: POINTS });
    // A later question has overtaken this one.
    if (turn !== loading) return;
    for (const one of answer.series) {
      const version = (series.get(one.id)?.version ?? 0) + 1;
      series.set(one.id, { version, folded: one.bucket_ms !== null, points: new Map(one.points.map((point) => [point.t, point])) });
    }
    foldedAt = performance.now();
  }
  draw();
}

/** Takes new and changed points from an event. */
export function merge(event) {
  for (const one of event.series) {
    const held = series.get(one.id);
    // Among buckets a single window would look like a spike; they are asked for anew instead.
    if (!held || held.folded) continue;
    for (const point of one.points) held.points.set(point.t, point);
    held.version += 1;
  }
  if (state.chosen.some((id) => series.get(id)?.folded) && performance.now() - foldedAt > FOLDED_EVERY) load().catch(() => {});
  draw();
}

export const draw = perFrame(() => {
  const box = byId('panels');
  for (const [id, panel] of panels) {
    if (state.chosen.includes(id)) continue;
    sizes.unobserve(panel.plot);
    globalThis.Plotly?.purge(panel.plot);
    panel.node.remove();
    panels.delete(id);
    series.delete(id);
  }
  box.dataset.count = state.chosen.length;
  byId('panels-hint')?.remove();
  if (!state.chosen.length) {
    const text = state.overview ? 'Choose sensors in the fleet below to see their windows here.' : '';
    box.append(el('p', { id: 'panels-hint', class: 'hint' }, text));
  }
  const bounds = extent();
  for (const id of state.chosen) {
    const panel = panels.get(id) ?? add(box, id);
    fill(panel, id, bounds);
  }
});

function add(box, id) {
  const heading = el('h3');
  const nowLine = el('p', { class: 'now' });
  const close = el('button', { type: 'button', onclick: () => dispatchEvent(new CustomEvent('choose', { detail: id })) }, '✕');
  const plot = el('div', { class: 'plot', role: 'img' });
  const node = el('article', { class: 'panel' }, el('header', {}, heading, nowLine, close), plot);
  box.append(node);
  const panel = { node, heading, nowLine, close, plot, drawn: '' };
  panels.set(id, panel);
  sizes.observe(plot);
  return panel;
}

/** The range of time that all charts show. */
function extent() {
  let [first, last] = [Infinity, newest() ?? -Infinity];
  for (const id of state.chosen) {
    for (const point of series.get(id)?.points.values() ?? []) {
      first = Math.min(first, point.t);
      last = Math.max(last, point.t);
    }
  }
  if (state.range !== null && Number.isFinite(last)) first = last - state.range;
  return first < last ? [first, last] : [last - 60_000, last + 60_000];
}

function fill(panel, id, [first, last]) {
  panel.node.style.setProperty('--colour', `var(--s${colour(id)})`);
  say(panel.heading, title(id));
  panel.close.setAttribute('aria-label', `Take ${title(id)} off the charts`);
  const held = series.get(id);
  if (!held) return;
  const points = [...held.points.values()].filter((point) => point.t >= first).sort((a, b) => a.t - b.t);
  for (const time of held.points.keys()) if (time < first) held.points.delete(time);
  // The pipeline's state comes each second, and most of the time nothing in the chart is different.
  const drawn = [held.version, points.length, openFrom(points, watermark()), first, last, colour(id), document.documentElement.dataset.theme].join();
  if (panel.drawn === drawn) return;
  describe(panel, id, points);
  if (!globalThis.Plotly) return;
  panel.drawn = drawn;
  const look = looks(id);
  const data = traces(points, watermark(), look);
  const margin = Math.max(1, (last - first) * 0.01);
  const layout = frame(look, [local(first - margin), local(last + margin)], data.some((trace) => trace.showlegend));
  globalThis.Plotly.react(panel.plot, data, layout, { displayModeBar: false, doubleClick: 'reset' });
}

/** The newest value in words, for the panel's head and for who cannot see the chart. */
function describe(panel, id, points) {
  const last = points.at(-1);
  const { lines, band } = lineFields(points);
  const parts = last ? [el('b', {}, lines.map((name) => format.value(last.f[name])).slice(0, 3).join(' / '))] : ['no windows in this range'];
  if (last && band) parts.push(el('span', {}, `  ${format.value(last.f.min)} … ${format.value(last.f.max)}`));
  panel.nowLine.replaceChildren(...parts);
  const words = last ? `latest ${lines.join(', ')} ${lines.map((name) => format.value(last.f[name])).join(', ')}` : 'no windows';
  panel.plot.setAttribute('aria-label', `${title(id)}: ${words}, ${points.length} windows shown`);
}

function looks(id) {
  const palette = [0, 1, 2, 3, 4, 5, 6, 7].map((at) => css(`--s${at}`));
  const own = palette[colour(id)];
  return { palette, colour: own, fade: `${own}33`, muted: css('--muted'), line: css('--line'), ink: css('--ink'), card: css('--card') };
}

const DAY = 86_400_000;

/** The date stands below the time only where a chart is longer than a day. */
function tickFormat(length) {
  if (length < 300_000) return '%H:%M:%S';
  return length <= DAY ? '%H:%M' : '%H:%M\n%d %b %Y';
}

function frame(look, range, legend) {
  const axis = { gridcolor: look.line, linecolor: look.line, zeroline: false, color: look.muted, tickfont: { size: 11 } };
  const oneDay = range[1] - range[0] <= DAY;
  const coarse = matchMedia('(pointer: coarse)').matches;
  return {
    margin: { l: 48, r: 8, t: 6, b: oneDay ? 26 : 40 },
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: 'system-ui, sans-serif', color: look.ink },
    // A zoomed chart stays where it is; another range begins anew.
    uirevision: String(state.range),
    // A finger that drags wants to scroll the page.
    dragmode: coarse ? false : 'zoom',
    hovermode: 'closest', hoverdistance: 40,
    hoverlabel: { bgcolor: look.card, bordercolor: look.colour, font: { color: look.ink, size: 12 }, align: 'left' },
    showlegend: legend, legend: { orientation: 'h', y: 1.15, font: { size: 11 } },
    xaxis: { ...axis, type: 'date', range, nticks: 6, tickformat: tickFormat(range[1] - range[0]) },
    yaxis: { ...axis, fixedrange: true, nticks: 5, automargin: true },
  };
}
