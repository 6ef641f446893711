// The pipeline's own state: what flows, how far time has come, and whether every reading is accounted for.

import { byId, el, say } from './dom.js';
import * as format from './format.js';
import { now, state } from './state.js';

const ORDER = ['producer', 'broker', 'processor', 'sink'];
const TITLES = { producer: 'Producer', broker: 'Log', processor: 'Processor', sink: 'Sink' };

/** Totals at the last event: what the parts do not tell as a rate is measured here. */
const before = new Map();
const rates = new Map();

function measure(name, total, at) {
  if (!Number.isFinite(total)) return;
  const last = before.get(name);
  if (last && at > last.at) {
    const fresh = Math.max(0, (total - last.total) * 1000 / (at - last.at));
    // Smoothed over a few seconds: a database is written in batches.
    rates.set(name, rates.has(name) ? rates.get(name) * 0.7 + fresh * 0.3 : fresh);
  }
  if (!last || at > last.at) before.set(name, { total, at });
}

/** The ledger over all queries and partitions. */
function ledger(queries) {
  const sum = { read: 0, used: 0, late: 0, dead: 0, filtered: 0 };
  for (const query of queries) {
    for (const partition of query.partitions ?? []) {
      for (const key of Object.keys(sum)) sum[key] += partition[key] ?? 0;
    }
  }
  return sum;
}

export function pipeline() {
  const status = state.pipeline;
  if (!status) return;
  const part = (name) => status.parts[name]?.status ?? {};
  measure('log', part('broker').records_in, status.now_ms);
  measure('sink', part('sink').points, status.now_ms);
  const queries = part('processor').queries ?? [];
  glance(part, queries);
  stages(status.parts, queries);
  keyed(byId('queries'), queries, (query) => query.name, (node, query) => node.replaceChildren(...table(query)), 'query');
}

function glance(part, queries) {
  const sum = ledger(queries);
  const marks = queries.flatMap((query) => (query.partitions ?? []).map((one) => one.watermark_ms)).filter((mark) => Number.isFinite(mark));
  const behind = marks.length ? now() - Math.min(...marks) : null;
  const used = queries.reduce((all, query) => all + (query.rows_per_second ?? 0), 0);
  const figures = [
    ['Readings in', format.rate(part('producer').rate ?? rates.get('log')), '/s'],
    ['Read by queries', queries.length ? format.rate(used) : '–', '/s'],
    ['Points written', format.rate(rates.get('sink')), '/s'],
    ['Watermark behind', format.span(behind), ''],
    ['Late', format.compact(sum.late), 'readings', sum.late ? 'wait' : ''],
    ['Dead', format.compact(sum.dead), 'readings', sum.dead ? 'wait' : ''],
  ];
  keyed(byId('glance'), figures, ([name]) => name, (node, [name, figure, unit, level]) => {
    node.dataset.level = level ?? '';
    if (!node.firstChild) node.append(el('dt', {}, name), el('dd', {}, el('span'), el('small', {}, unit)));
    say(node.querySelector('span'), figure);
  });
}

/** What each part says in its own words; what is not named here is shown as it comes. */
const TELLS = {
  producer: (status) => ({ rate: [status.rate, 'readings/s'], facts: [['Source', status.source], ['Published', format.count(status.published)], ['In flight', format.count(status.in_flight)], ['Unreadable', format.count(status.dead)]],
    trouble: status.log_away ? 'The log does not answer; waiting.' : status.failed ? `${format.count(status.failed)} readings were not delivered.` : null,
    done: ['rate', 'source', 'published', 'in_flight', 'dead', 'failed', 'log_away'], note: status.ended ? 'source has ended' : null }),
  broker: (status) => ({ rate: [rates.get('log'), 'records/s'], facts: [['On disk', format.bytes(status.log_bytes)], ['Records', format.count(status.records_in)], ['Topics', format.count(status.topics)], ['Connections', format.count(status.connections)]],
    done: ['log_bytes', 'records_in', 'topics', 'connections'] }),
  processor: (status, queries) => {
    const partitions = queries.flatMap((query) => query.partitions ?? []);
    const backlog = partitions.reduce((sum, one) => sum + Math.max(0, (one.end ?? one.offset ?? 0) - (one.offset ?? 0)), 0);
    const speed = queries.reduce((sum, query) => sum + (query.rows_per_second ?? 0), 0);
    return { rate: [queries.length ? speed : null, 'rows/s'], facts: [['Queries', format.count(queries.length)], ['Still to read', format.count(backlog)], ['State', `${format.count(queries.reduce((sum, query) => sum + (query.state_rows ?? 0), 0))} rows`]], done: ['queries'] };
  },
  sink: (status) => ({ rate: [rates.get('sink'), 'points/s'], facts: [['Points', format.count(status.points)], ['Still to write', format.count(status.lag)], ['Last write', Number.isFinite(status.last_write_ms) ? `${format.span(Math.max(0, now() - status.last_write_ms))} ago` : '–'], ['Unreadable', format.count(status.rejected)]],
    trouble: status.error, done: ['points', 'lag', 'last_write_ms', 'rejected', 'error'], note: status.database }),
};

function stages(parts, queries) {
  const names = [...ORDER.filter((name) => parts[name]), ...Object.keys(parts).filter((name) => !ORDER.includes(name))];
  keyed(byId('stages'), names, (name) => name, (node, name) => {
    const status = parts[name].status ?? {};
    const told = TELLS[name]?.(status, queries) ?? { facts: [], done: [] };
    node.dataset.level = parts[name].ready ? 'good' : 'wait';
    const rest = Object.entries(status).filter(([key]) => !told.done.includes(key));
    // Kept open across updates when somebody reads in it.
    const open = node.querySelector('details')?.open ?? false;
    const focused = node.contains(document.activeElement);
    const more = rest.length ? el('details', { open }, el('summary', {}, 'More'), facts(rest.map(([key, one]) => [words(key), generic(key, one)]))) : null;
    node.replaceChildren(...[
      el('h3', {}, el('span', { class: 'dot' }), TITLES[name] ?? words(name), el('span', {}, parts[name].ready ? told.note ?? '' : 'not ready')),
      told.rate ? el('p', { class: 'rate' }, format.rate(told.rate[0]), ' ', el('small', {}, told.rate[1])) : null,
      told.trouble ? el('p', { class: 'trouble' }, told.trouble) : null,
      facts(told.facts),
      more,
    ].filter(Boolean));
    if (focused) node.querySelector('summary')?.focus({ preventScroll: true });
  }, 'stage');
}

const words = (key) => { const text = key.replaceAll('_', ' ').replace(/ ms$/, ''); return text[0].toUpperCase() + text.slice(1); };

function generic(key, one) {
  if (one === null || one === undefined) return '–';
  if (Array.isArray(one) && one.every((item) => typeof item !== 'object')) return one.join(', ') || '–';
  if (typeof one === 'object') return JSON.stringify(one);
  if (typeof one === 'boolean') return one ? 'yes' : 'no';
  if (typeof one !== 'number') return String(one);
  if (key.endsWith('_ms') && one > 1e11) return format.moment(one, now());
  if (key.includes('bytes')) return format.bytes(one);
  return Number.isInteger(one) ? format.count(one) : format.value(one);
}

function facts(pairs) {
  return el('dl', { class: 'facts' }, ...pairs.flatMap(([name, text]) => [el('dt', {}, name), el('dd', {}, text ?? '–')]));
}

function table(query) {
  const heads = ['Partition', 'Watermark', 'Behind', 'Still to read', 'Read', 'Used', 'Late', 'Dead', 'Filtered'];
  const rows = (query.partitions ?? []).map((one) => [
    String(one.partition), format.moment(one.watermark_ms, now()), Number.isFinite(one.watermark_ms) ? format.span(now() - one.watermark_ms) : '–',
    Number.isFinite(one.end) && Number.isFinite(one.offset) ? format.count(Math.max(0, one.end - one.offset)) : '–',
    ...['read', 'used', 'late', 'dead', 'filtered'].map((key) => format.count(one[key])),
  ]);
  const head = el('thead', {}, el('tr', {}, ...heads.map((name) => el('th', { scope: 'col' }, name))));
  const body = el('tbody', {}, ...rows.map((cells) => el('tr', {}, ...cells.map((cell) => el('td', {}, cell)))));
  return [
    el('div', { class: 'bar' }, el('h3', {}, query.name), el('span', { class: 'muted' }, `${format.rate(query.rows_per_second)} rows/s, ${format.count(query.state_rows)} rows of state`)),
    el('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': `Partitions of ${query.name}` }, el('table', {}, head, body)),
    balance(query),
  ];
}

/** read = used + late + dead + filtered, in words. */
function balance(query) {
  const sum = ledger([query]);
  const accounted = sum.used + sum.late + sum.dead + sum.filtered;
  const parts = [`${format.count(sum.used)} used`, `${format.count(sum.late)} late`, `${format.count(sum.dead)} dead`, `${format.count(sum.filtered)} filtered out`].join(' + ');
  const missing = sum.read - accounted;
  if (!sum.read && !accounted) return el('p', { class: 'balance' }, 'No readings have been read yet.');
  if (missing === 0) return el('p', { class: 'balance', 'data-level': 'good' }, `Every reading is accounted for: ${format.count(sum.read)} read = ${parts}.`);
  const what = missing > 0 ? `${format.count(missing)} readings are not accounted for` : `${format.count(-missing)} readings are counted twice`;
  return el('p', { class: 'balance', 'data-level': 'bad' }, `The ledger does not balance: ${what} (${format.count(sum.read)} read, ${parts}).`);
}

/** Keeps one child per item, made once and filled again: nothing jumps, and the focus stays. */
function keyed(box, items, key, fill, className) {
  const wanted = new Set(items.map((item) => String(key(item))));
  for (const child of [...box.children]) if (!wanted.has(child.dataset.key)) child.remove();
  items.forEach((item, at) => {
    let node = [...box.children].find((child) => child.dataset.key === String(key(item)));
    if (!node) {
      node = el('div', { class: className });
      node.dataset.key = key(item);
    }
    if (box.children[at] !== node) box.insertBefore(node, box.children[at] ?? null);
    // Rebuilding what somebody is scrolling in would throw them back.
    const scrolled = node.querySelector('.wide')?.scrollLeft ?? 0;
    fill(node, item);
    if (scrolled) node.querySelector('.wide').scrollLeft = scrolled;
  });
}
