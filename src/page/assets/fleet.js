// Every series as a tile.

import { byId, el, say } from './dom.js';
import * as format from './format.js';
import { colour, newest, now, state } from './state.js';

const tiles = new Map();
const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 100, HEIGHT = 22;
/** A day-old replay has no age that says anything; its times do. */
const LIVE = 86_400_000;

const order = new Intl.Collator('en', { numeric: true });

export function fleet() {
  const overview = state.overview;
  if (!overview) return;
  const sorted = [...overview.series].sort((a, b) => order.compare(format.label(a.tags), format.label(b.tags)));
  const shown = new Set(sorted.map((one) => one.id));
  for (const [id, tile] of tiles) {
    if (!shown.has(id)) { tile.node.remove(); tiles.delete(id); }
  }
  const box = byId('tiles');
  sorted.forEach((one, at) => {
    const tile = tiles.get(one.id) ?? add(one.id);
    // Only what is out of place moves, so that the focus stays where it is.
    if (box.children[at] !== tile.node) box.insertBefore(tile.node, box.children[at] ?? null);
    fill(tile, one);
  });
  box.classList.toggle('large', sorted.length > 48);
  tell(sorted.length);
}

function tell(shown) {
  const total = state.overview.measurements.find((one) => one.name === state.overview.measurement)?.series ?? 0;
  const filtered = state.filter ? ` match “${state.filter}”` : '';
  const more = state.overview.more ? `the first ${format.count(shown)} of ` : '';
  const text = !total ? '' : state.filter && !state.overview.more ? `${format.count(shown)}${filtered}` : `${more}${format.count(total)} series`;
  say(byId('fleet-count'), text);
}

function add(id) {
  const name = el('span', { class: 'id' });
  const age = el('span', { class: 'age' });
  const value = el('span', { class: 'value' });
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  svg.append(path);
  const click = () => dispatchEvent(new CustomEvent('choose', { detail: id }));
  const node = el('button', { type: 'button', class: 'tile', onclick: click }, name, age, value, svg);
  const tile = { node, name, age, value, path };
  tiles.set(id, tile);
  return tile;
}

function fill(tile, one) {
  const chosen = state.chosen.includes(one.id);
  tile.node.setAttribute('aria-pressed', String(chosen));
  tile.node.style.setProperty('--colour', chosen ? `var(--s${colour(one.id)})` : 'var(--accent)');
  say(tile.name, format.label(one.tags));
  tile.node.title = Object.entries(one.tags).map(([name, text]) => `${name}: ${text}`).join('\n');
  const figure = format.value(one.latest?.f[one.field]);
  if (tile.figure !== figure || tile.field !== one.field) {
    tile.value.replaceChildren(figure, el('small', {}, one.field ?? ''));
    Object.assign(tile, { figure, field: one.field });
  }
  const end = one.latest?.e ?? one.newest_ms;
  const width = one.latest?.e ? one.latest.e - one.newest_ms : 10_000;
  // Silent: others of the fleet have gone on without it.
  const silent = (newest() ?? 0) - one.newest_ms > 3 * width;
  tile.node.classList.toggle('silent', silent);
  const age = now() - end;
  say(tile.age, age > LIVE ? format.time(one.newest_ms) : age < 0 ? 'now' : format.span(Math.max(1000, Math.round(age / 1000) * 1000)).replace('.0', ''));
  tile.path.setAttribute('d', line(one.spark));
}

function line(values) {
  const numbers = values.filter((value) => typeof value === 'number');
  if (numbers.length < 2) return '';
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const step = WIDTH / (values.length - 1);
  let pen = 'M';
  let path = '';
  values.forEach((value, at) => {
    if (typeof value !== 'number') { pen = 'M'; return; }
    const y = high > low ? HEIGHT - 1 - ((value - low) / (high - low)) * (HEIGHT - 2) : HEIGHT / 2;
    path += `${pen}${(at * step).toFixed(1)} ${y.toFixed(1)}`;
    pen = 'L';
  });
  return path;
}
