// Draws the answers of `test/answer.ts` as pictures, one for each dashboard. This is not Grafana: it lays Grafana's published components out
// as the dashboard says, and draws by itself what is not published.
//
//   node draw.mjs ANSWERS.json FOLDER

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';

const [answersFile, folder] = process.argv.slice(2);
const answers = JSON.parse(readFileSync(answersFile, 'utf8'));
const work = mkdtempSync(join(tmpdir(), 'tidemark-draw-'));
const WIDTH = 1480;
/** A row of the grid and the gap to the next, in pixels, as in Grafana. */
const ROW = 38;
const HEAD = 64;

try {
  await build({
    entryPoints: [join(import.meta.dirname, 'page.tsx')],
    bundle: true,
    outfile: join(work, 'page.js'),
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
    loader: { '.svg': 'text', '.ttf': 'empty', '.woff': 'empty', '.woff2': 'dataurl' },
    logLevel: 'error',
  });
  mkdirSync(folder, { recursive: true });
  for (const answer of answers) {
    const name = answer.dashboard.uid.replace('tidemark-', '');
    const html = join(work, `${name}.html`);
    const data = JSON.stringify(answer).replaceAll('<', '\\u003c');
    writeFileSync(
      html,
      `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><body><div id="root"></div><script>window.answer=${data}</script><script src="page.js"></script>`,
    );
    const height = HEAD + 8 + ROW * Math.max(...answer.dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
    const picture = resolve(folder, `dashboard-${name}.png`);
    const shot = spawnSync(
      'chromium',
      [
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--hide-scrollbars',
        '--allow-file-access-from-files',
        `--user-data-dir=${join(work, 'profile')}`,
        `--window-size=${WIDTH},${height}`,
        '--virtual-time-budget=15000',
        `--screenshot=${picture}`,
        `file://${html}`,
      ],
      { encoding: 'utf8' },
    );
    if (shot.status !== 0) throw new Error(`chromium: ${shot.stderr}`);
    console.log(picture);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
