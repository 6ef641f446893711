// The server's answers and its stream of events.

export async function get(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== '') query.set(name, value);
  }
  return read(await fetch(`${path}?${query}`));
}

export async function post(path, body) {
  return read(await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }));
}

async function read(answer) {
  // What is no JSON comes from something between: a proxy, say.
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(json.error ?? `the server answered ${answer.status}`);
  return json;
}

/**
 * Events about `series` (their numbers). `on` has a function per event, and `on.link(up)` for the connection itself.
 * Returns a function that ends it.
 */
export function listen(series, on) {
  let source, timer;
  const open = () => {
    source = new EventSource(`/api/events?series=${series.join(',')}`);
    source.onopen = () => on.link(true);
    source.onerror = () => {
      on.link(false);
      // The browser comes back by itself after a cut, but not after an answer that is no stream: a proxy without its server, say.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 2000);
    };
    for (const name of ['pipeline', 'points', 'changed', 'fault']) {
      source.addEventListener(name, (event) => on[name](JSON.parse(event.data)));
    }
  };
  open();
  return () => { clearTimeout(timer); source.close(); };
}
