// The page of one dashboard: its head, and its panels on the grid.

import { type DataFrame, ThemeContext, createTheme } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { createRoot } from 'react-dom/client';
import { prepare } from './fields';
import { Panel } from './panels';
import type { Answer } from './types';

declare global {
  interface Window {
    answer: Answer;
  }
}

const theme = createTheme({ colors: { mode: 'dark' } });
const { dashboard, range, variables, panels } = window.answer;
// "A few seconds ago" is meant from the time of the answers.
Date.now = () => range.to;
const GAP = 8;
const ROW = 30 + GAP;
const column = (document.documentElement.clientWidth - 2 * GAP) / 24;

function Head() {
  const values = dashboard.templating.list.map(({ name, label, includeAll }) => [label, includeAll ? 'All' : variables[name].join(' + ')]);
  const pill = {
    border: `1px solid ${theme.colors.border.medium}`,
    borderRadius: 2,
    padding: '4px 8px',
    background: theme.colors.background.primary,
  };
  return (
    <header style={{ display: 'flex', alignItems: 'center', gap: 12, padding: '12px 16px', height: 64, boxSizing: 'border-box' }}>
      <h1 style={{ fontSize: 20, margin: 0, marginRight: 12 }}>{dashboard.title}</h1>
      {values.map(([label, value]) => (
        <span key={label} style={{ display: 'flex' }}>
          <span style={{ ...pill, borderRight: 0, color: theme.colors.text.secondary }}>{label}</span>
          <span style={pill}>{value} ▾</span>
        </span>
      ))}
      <span style={{ flex: 1 }} />
      {dashboard.links.map(({ title }) => (
        <span key={title} style={pill}>
          ▦ {title}
        </span>
      ))}
      <span style={{ ...pill, color: theme.colors.text.secondary }}>
        Last {Math.round((range.to - range.from) / 60_000)} min · every {dashboard.refresh}
      </span>
    </header>
  );
}

function Page({ prepared }: { prepared: DataFrame[][] }) {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles hackNoBackdropBlur={false} isExtensionSidebarOpen={false} />
      <Head />
      <div style={{ position: 'relative' }}>
        {dashboard.panels.map((panel, at) => {
          const { x, y, w, h } = panel.gridPos;
          const [width, height] = [w * column - GAP, h * ROW - GAP];
          return (
            <div key={panel.id} style={{ position: 'absolute', left: x * column + GAP + GAP / 2, top: y * ROW, width, height }}>
              <PanelChrome
                title={panel.title.replace(/\$\{(\w+)\}/g, (_, name: string) => variables[name]?.join(', '))}
                description={panel.description}
                width={width}
                height={height}
              >
                {(innerWidth, innerHeight) => (
                  <Panel panel={panel} frames={prepared[at]} width={innerWidth} height={innerHeight} range={range} theme={theme} />
                )}
              </PanelChrome>
            </div>
          );
        })}
      </div>
    </ThemeContext.Provider>
  );
}

document.body.style.background = theme.colors.background.canvas;
// Sizes of texts are measured, so the letters have to be there first.
const fonts = Promise.all(['400', '500'].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
Promise.all([fonts, ...dashboard.panels.map((panel) => prepare(panel, panels[panel.id], theme))]).then(([, ...prepared]) =>
  createRoot(document.getElementById('root')!).render(<Page prepared={prepared} />),
);
