// Wires the page: questions, events, and what people click.

import { get, listen } from './api.js';
import * as questions from './ask.js';
import * as charts from './charts.js';
import { byId, el, perFrame, say } from './dom.js';
import { fleet } from './fleet.js';
import * as format from './format.js';
import { pipeline } from './pipeline.js';
import { RANGES, chooseFirst, newest, now, readAddress, state, toggle, writeAddress } from './state.js';

/** The overview is asked for at most this often while results come in. */
const OVERVIEW_EVERY = 2_500;

let stop = () => {};
let asking = null;
let askedAt = -Infinity;
let timer = null;
let fault = null;
let brokenAt = null;

/** Asks for the overview; questions that come meanwhile share the answer. */
function refresh() {
  clearTimeout(timer);
  timer = null;
  asking ??= ask().catch((error) => { fault = error.message; head(); }).finally(() => { asking = null; });
  return asking;
}

async function ask() {
  askedAt = performance.now();
  const wish = [state.measurement, state.filter];
  const overview = await get('/api/overview', { measurement: state.measurement, filter: state.filter });
  // Something else was chosen meanwhile.
  if (wish[0] !== state.measurement || wish[1] !== state.filter) return ask();
  const fresh = state.overview?.measurement !== overview.measurement;
  state.overview = overview;
  state.skew = overview.now_ms - Date.now();
  fault = null;
  charts.remember(overview);
  // An address may name series of another database.
  if (!overview.more && !state.filter) state.chosen = state.chosen.filter((id) => overview.series.some((one) => one.id === id));
  if (fresh && !state.chosen.length) chooseFirst();
  show();
  if (fresh) rechosen();
}

/** The choice of series or query is another one: its points, and events about it. */
function rechosen() {
  if (state.overview?.measurement) writeAddress();
  charts.load().catch((error) => { fault = error.message; head(); });
  connect();
  show();
}

function connect() {
  stop();
  stop = listen(state.chosen, {
    link(up) {
      // After a cut everything may be different: the server may have been restarted.
      if (up && !state.connected && brokenAt !== null) { refresh(); charts.load().catch(() => {}); }
      if (up) brokenAt = null; else brokenAt ??= performance.now();
      state.connected = up;
      head();
    },
    pipeline(status) { state.pipeline = status; state.skew = status.now_ms - Date.now(); live(); },
    points(event) { fault = null; charts.merge(event); },
    changed() {
      fault = null;
      const wait = state.overview?.series.length ? OVERVIEW_EVERY - (performance.now() - askedAt) : 0;
      timer ??= setTimeout(refresh, Math.max(0, wait));
    },
    fault(event) { fault = event.error; head(); },
  });
}

const live = perFrame(() => { pipeline(); head(); empty(); charts.draw(); });
const show = perFrame(() => { queries(); ranges(); fleet(); head(); empty(); charts.draw(); });

function head() {
  const parts = Object.entries(state.pipeline?.parts ?? {});
  const waiting = parts.filter(([, part]) => !part.ready).map(([name]) => name);
  // A reconnection of a moment is not worth a word.
  const away = !state.connected && brokenAt !== null && performance.now() - brokenAt > 1500;
  const [level, text] = away ? ['bad', 'No connection, trying again']
    : !state.pipeline ? ['wait', 'Connecting']
    : waiting.length ? ['wait', `Not ready: ${waiting.join(', ')}`]
    : ['good', 'Running'];
  byId('health').dataset.level = level;
  say(byId('health'), text);
  byId('fault').hidden = !fault;
  say(byId('fault'), fault ?? '');
  say(byId('upto'), newest() === null ? '' : `Newest window ${format.moment(newest(), now())}`);
}

function empty() {
  const none = state.overview !== null && !state.overview.series.length && !state.filter;
  byId('empty').hidden = !none;
  byId('charts').hidden = byId('fleet').hidden = none;
  if (!none) return;
  const { why, next } = reason(state.pipeline?.parts ?? {});
  say(byId('empty-why'), why);
  const key = next.join();
  if (byId('empty-next').dataset.key !== key) {
    byId('empty-next').dataset.key = key;
    byId('empty-next').replaceChildren(...next.map((text) => el('li', {}, ...code(text))));
  }
}

/** What is missing, and what to do about it: from the start of the pipeline to its end. */
function reason(parts) {
  const producer = parts.producer?.status ?? {};
  const read = (parts.processor?.status?.queries ?? []).flatMap((query) => query.partitions ?? []).reduce((sum, one) => sum + (one.read ?? 0), 0);
  if (!read && !producer.published) {
    return { why: 'No readings have come in so far. As soon as there are some, their windows appear here by themselves.', next: [
      'Start a simulated fleet: `tidemark run --sensors 20 --rate 100`',
      'Replay a file with the columns timestamp and value: `tidemark run --replay FILE.csv --speed max`',
      'Or send your own to the Kafka topic `iot`, as JSON: `{"sensor_id":"s-0001","ts":1700000000123,"value":21.5}`',
    ] };
  }
  if (!read) {
    return { why: `${format.count(producer.published)} readings are in the log, and the processor has not read any yet.`, next: ['It may still be starting; below is what it says of itself.'] };
  }
  return { why: `${format.count(read)} readings have been read, and the first results are on their way.`, next: [
    'In update mode a result follows its readings within a trigger, about a second; in append mode only when its window has closed.',
    'If nothing comes, look at the counts of late and dead readings below: they say what happened to each.',
  ] };
}

const code = (text) => text.split('`').map((part, at) => (at % 2 ? el('code', {}, part) : part));

function queries() {
  const names = (state.overview?.measurements ?? []).map((one) => one.name);
  byId('query-label').hidden = names.length < 2;
  const select = byId('query');
  if ([...select.options].map((option) => option.value).join('\n') !== names.join('\n')) {
    select.replaceChildren(...names.map((name) => el('option', { value: name }, name)));
  }
  if (select.value !== state.overview?.measurement) select.value = state.overview?.measurement ?? '';
}

function ranges() {
  const box = byId('ranges');
  if (!box.children.length) {
    box.append(...RANGES.map(([name, ms]) => el('button', { type: 'button', onclick: () => { state.range = ms; ranges(); rechosen(); } }, name)));
  }
  RANGES.forEach(([, ms], at) => box.children[at].setAttribute('aria-pressed', String(ms === state.range)));
}

function wire() {
  addEventListener('choose', (event) => { toggle(event.detail); rechosen(); });
  addEventListener('themechange', charts.draw);
  byId('query').addEventListener('change', (event) => {
    state.measurement = event.target.value;
    state.chosen = [];
    refresh();
  });
  let typing;
  byId('filter').addEventListener('input', (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => { state.filter = event.target.value.trim(); refresh(); }, 150);
  });
  questions.wire();
  // Ages go on while nothing comes in.
  setInterval(() => { fleet(); head(); }, 5_000);
  say(byId('zone'), `Times in ${format.zone}.`);
  // The library is a script of its own; the charts are drawn when it is there, whoever comes first.
  if (!globalThis.Plotly) document.querySelector('script[src="/assets/plotly.js"]').addEventListener('load', charts.draw);
}

readAddress();
wire();
ranges();
connect();
refresh();
