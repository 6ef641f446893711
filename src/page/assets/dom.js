// Small things for building elements. Text always goes in as text, never as markup: names come from devices.

/** An element with properties and children; `data` and `aria` names are set as attributes. */
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key === 'class') node.className = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.includes('-')) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets text only when it differs: no work for the browser, no repeated words for a screen reader. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const byId = (id) => document.getElementById(id);

/** Calls `work` at most once per animation frame. */
export function perFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A hidden tab has no frames; its work waits until it is looked at.
    requestAnimationFrame(() => { asked = false; work(); });
  };
}
