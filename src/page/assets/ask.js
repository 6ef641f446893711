// Questions in SQL. The server reads and never writes; what it says about a mistake is shown as it is.

import { get, post } from './api.js';
import { byId, el, say } from './dom.js';
import * as format from './format.js';

/** Rows that are drawn: more than anybody reads here; the command has no such limit. */
const SHOWN = 200;
const RIGHT = new Set(['BIGINT', 'DOUBLE', 'DECIMAL']);

let asking = 0;

async function run() {
  const statement = byId('statement').value.trim();
  if (!statement) return;
  const mine = ++asking;
  byId('run').disabled = true;
  try {
    const answer = await post('/api/sql', { sql: statement });
    if (mine === asking) show(answer);
  } catch (error) {
    if (mine === asking) { byId('answer').replaceChildren(); tell(error.message, 'bad'); }
  } finally {
    if (mine === asking) byId('run').disabled = false;
  }
}

function show({ columns, types, rows, truncated, elapsed_ms }) {
  const side = (at) => (RIGHT.has(types[at]) ? undefined : 'left');
  const head = el('thead', {}, el('tr', {}, ...columns.map((name, at) => el('th', { scope: 'col', class: side(at) }, name))));
  const cell = (value, at) => el('td', { class: [side(at), value === null && 'null'].filter(Boolean).join(' ') }, value === null ? 'NULL' : String(value));
  const body = el('tbody', {}, ...rows.slice(0, SHOWN).map((row) => el('tr', {}, ...row.map(cell))));
  byId('answer').replaceChildren(el('table', {}, head, body));
  const count = `${format.count(rows.length)} ${rows.length === 1 ? 'row' : 'rows'}`;
  const part = rows.length > SHOWN ? `, the first ${SHOWN} are shown` : '';
  tell(`${truncated ? `The first ${count} of more` : count}${part}, ${format.count(elapsed_ms)} ms.`, '');
}

function tell(text, level) {
  byId('asked').dataset.level = level;
  say(byId('asked'), text);
}

/** The tables as buttons: each begins a question about itself. */
async function tables() {
  try {
    const { tables: found } = await get('/api/sql/tables', {});
    byId('tables').replaceChildren(...found.map((table) => el('button', {
      type: 'button', title: table.columns.map((column) => `${column.name} ${column.type}`).join('\n'),
      onclick: () => { byId('statement').value = `SELECT * FROM ${table.name} LIMIT 20`; byId('statement').focus(); run(); },
    }, table.name, el('small', {}, table.rows === null ? '' : format.compact(table.rows)))));
    if (!found.length) tell('There are no tables yet: a query has one when it has begun.', '');
  } catch (error) {
    tell(error.message, 'bad');
  }
}

export function wire() {
  byId('ask').addEventListener('toggle', () => { if (byId('ask').open) tables(); });
  byId('run').addEventListener('click', run);
  byId('statement').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    run();
  });
}
