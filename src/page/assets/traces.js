// From points to the lines of a chart.

const BAND = ['avg', 'min', 'max'];
/** So few points are hard to see as a line alone. */
const FEW = 60;

/** Plotly has no time zones: it is given local times as if they were UTC. */
const local = (ms) => ms - new Date(ms).getTimezoneOffset() * 60_000;

const isNumber = (value) => typeof value === 'number';

/** The fields to draw as lines: the mean when there is one, else every number. */
export function lineFields(points) {
  const names = new Set();
  for (const point of points) {
    for (const [name, value] of Object.entries(point.f)) if (isNumber(value)) names.add(name);
  }
  if (BAND.every((name) => names.has(name))) return { lines: ['avg'], band: true };
  for (const name of ['avg', 'mean', 'value']) if (names.has(name)) return { lines: [name], band: false };
  return { lines: [...names].slice(0, 8), band: false };
}

/** Which points may still change: their window is open. Without a watermark only the last can be. */
export function openFrom(points, watermark) {
  const at = points.findIndex((point) => !point.final && (watermark === null ? false : (point.e ?? point.t) > watermark));
  if (watermark !== null) return at < 0 ? points.length : at;
  return points.length - (points.at(-1)?.final ? 0 : 1);
}

/** A hole in the data is a hole in the line: a point without values where windows are missing. */
function withGaps(points) {
  const steps = points.slice(1).map((point, at) => point.t - points[at].t).sort((a, b) => a - b);
  const step = steps[Math.floor(steps.length / 2)] ?? 0;
  const all = [];
  points.forEach((point, at) => {
    if (at > 0 && step > 0 && point.t - points[at - 1].t > 3 * step) all.push({ t: points[at - 1].t + step, f: {}, gap: true });
    all.push(point);
  });
  return all;
}

const clock = (ms) => new Date(ms).toLocaleTimeString('en-GB');
const window = (point) => (point.e ? `${clock(point.t)} – ${clock(point.e)}` : clock(point.t));

/** Plotly's traces for one series. `look` has `colour`, `fade` (the colour as a light fill) and `muted`. */
export function traces(points, watermark, look) {
  const { lines, band } = lineFields(points);
  const open = openFrom(points, watermark);
  const openTime = points[open]?.t ?? Infinity;
  const all = withGaps(points);
  const x = all.map((point) => local(point.t));
  const at = (name) => all.map((point) => (isNumber(point.f[name]) ? point.f[name] : null));
  const drawn = [];
  if (band) {
    const edge = { x, mode: 'lines', line: { width: 0 }, hoverinfo: 'skip', type: 'scatter', connectgaps: false };
    // Each stretch between gaps is filled by itself: a fill knows no gaps.
    for (const [from, to] of stretches(all)) {
      const cut = (name) => ({ ...edge, x: x.slice(from, to), y: at(name).slice(from, to) });
      drawn.push(cut('min'), { ...cut('max'), fill: 'tonexty', fillcolor: look.fade });
    }
  }
  lines.forEach((name, index) => drawn.push(...line(name, index, { all, x, y: at(name), openTime, band, look, several: lines.length > 1 })));
  return drawn;
}

function stretches(all) {
  const cuts = [];
  let from = 0;
  all.forEach((point, at) => { if (point.gap) { cuts.push([from, at]); from = at + 1; } });
  cuts.push([from, all.length]);
  return cuts.filter(([begin, end]) => end > begin);
}

/** A line, solid for closed windows and dashed for open ones. */
function line(name, index, { all, x, y, openTime, band, look, several }) {
  const text = all.map((point, at) => hover(point, name, y[at], band, point.t >= openTime));
  const colour = several ? look.palette[index % look.palette.length] : look.colour;
  const base = { x, type: 'scatter', name, text, hoverinfo: 'text', connectgaps: false, showlegend: several };
  const few = all.length <= FEW;
  const closed = {
    ...base, y: y.map((value, at) => (all[at].t < openTime ? value : null)),
    mode: few ? 'lines+markers' : 'lines', line: { color: colour, width: 2 }, marker: { color: colour, size: 4 },
  };
  if (openTime === Infinity) return [closed];
  // The dashed part begins at the last closed point, so that the line does not break.
  const from = all.reduce((last, point, at) => (point.t < openTime && !point.gap ? at : last), -1);
  const still = {
    ...base, showlegend: false, y: y.map((value, at) => (at >= from ? value : null)),
    text: text.map((one, at) => (at > from ? one : '')), mode: 'lines+markers', opacity: 0.75,
    line: { color: colour, width: 2, dash: 'dot' }, marker: { color: look.card, size: 6, line: { color: colour, width: 1.5 } },
  };
  still.marker.opacity = all.map((_, at) => (at > from ? 1 : 0));
  return [closed, still];
}

function hover(point, name, value, band, open) {
  if (value === null) return '';
  const figure = (number) => Number(number.toPrecision(6)).toLocaleString('en', { maximumFractionDigits: 6 });
  const range = band && isNumber(point.f.min) ? `<br>${figure(point.f.min)} … ${figure(point.f.max)}` : '';
  const rows = isNumber(point.f.n) ? `<br>${point.f.n.toLocaleString('en')} readings` : '';
  return `<b>${name} ${figure(value)}</b>${range}${rows}<br>${window(point)}${open ? '<br>window still open' : ''}`;
}

export { local };
