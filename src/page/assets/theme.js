// Runs before the first paint, so that nothing flashes in the wrong colours.
(() => {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const kept = () => { try { return localStorage.getItem('tidemark-theme'); } catch { return null; } };
  const apply = () => {
    document.documentElement.dataset.theme = kept() ?? (system.matches ? 'dark' : 'light');
    dispatchEvent(new Event('themechange'));
  };
  system.addEventListener('change', apply);
  apply();
  addEventListener('DOMContentLoaded', () => {
    document.getElementById('theme').addEventListener('click', () => {
      const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
      // The system's own choice is not kept: the page then follows it again.
      const same = next === (system.matches ? 'dark' : 'light');
      try { same ? localStorage.removeItem('tidemark-theme') : localStorage.setItem('tidemark-theme', next); } catch { /* private mode */ }
      document.documentElement.dataset.theme = next;
      dispatchEvent(new Event('themechange'));
    });
  });
})();
