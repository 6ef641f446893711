// What the page knows and what is chosen. The choice is in the address, so that it survives a reload and can be sent to others.

export const RANGES = [['5 min', 300_000], ['15 min', 900_000], ['1 h', 3_600_000], ['6 h', 21_600_000], ['24 h', 86_400_000], ['All', null]];

/** Charts at a time: as many as there are colours that can be told apart. */
export const MOST_CHOSEN = 8;
const FIRST_CHOSEN = 4;

export const state = {
  /** The answer of /api/overview. */
  overview: null,
  /** Query whose results are shown; null: the server's choice. */
  measurement: null,
  /** Numbers of the chosen series, in the order of their charts. Each keeps its colour while others come and go. */
  chosen: [],
  colours: new Map(),
  /** Length of time shown, ms; null: all. */
  range: RANGES[1][1],
  filter: '',
  /** The parts' state as the last event told it. */
  pipeline: null,
  connected: false,
  /** Server's clock less the browser's, ms. */
  skew: 0,
};

export const now = () => Date.now() + state.skew;

export function readAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  state.measurement = kept.get('query');
  state.chosen = (kept.get('series') ?? '').split(',').map(Number).filter((id) => id > 0).slice(0, MOST_CHOSEN);
  const range = RANGES.find(([name]) => name === kept.get('range'));
  if (range) state.range = range[1];
  state.chosen.forEach(colour);
}

export function writeAddress() {
  const kept = new URLSearchParams();
  if (state.measurement) kept.set('query', state.measurement);
  if (state.chosen.length) kept.set('series', state.chosen.join(','));
  kept.set('range', RANGES.find(([, ms]) => ms === state.range)[0]);
  history.replaceState(null, '', `#${kept}`);
}

/** The colour number of a chosen series. */
export function colour(id) {
  if (!state.colours.has(id)) {
    const used = new Set(state.colours.values());
    state.colours.set(id, [...Array(MOST_CHOSEN).keys()].find((at) => !used.has(at)) ?? 0);
  }
  return state.colours.get(id);
}

/** Puts a series onto the charts or takes it off; with all places taken the oldest makes room. */
export function toggle(id) {
  const at = state.chosen.indexOf(id);
  if (at >= 0) drop(at);
  else {
    if (state.chosen.length >= MOST_CHOSEN) drop(0);
    state.chosen.push(id);
    colour(id);
  }
}

function drop(at) {
  state.colours.delete(state.chosen[at]);
  state.chosen.splice(at, 1);
}

/** Another query: its first series are as good as any. */
export function chooseFirst() {
  state.chosen = (state.overview?.series ?? []).slice(0, FIRST_CHOSEN).map((series) => series.id);
  state.colours.clear();
  state.chosen.forEach(colour);
}

/** Start of the newest window of the shown query, ms. */
export function newest() {
  return state.overview?.measurements.find((one) => one.name === state.overview.measurement)?.newest_ms ?? null;
}

/** Windows that end at or before this are closed; null when the processor does not say. */
export function watermark() {
  const queries = state.pipeline?.parts?.processor?.status?.queries ?? [];
  const query = queries.find((one) => one.name === state.overview?.measurement);
  const marks = (query?.partitions ?? []).map((partition) => partition.watermark_ms).filter((mark) => Number.isFinite(mark));
  return marks.length ? Math.min(...marks) : null;
}
