// Dark, light, or as the system has it; remembered in this browser (the one thing that is).
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'tiger-theme';

function stored(): Theme {
  const found = localStorage.getItem(KEY);
  return found === 'light' || found === 'dark' ? found : 'system';
}

export const theme = $state<{ chosen: Theme; dark: boolean }>({ chosen: stored(), dark: false });

const system = matchMedia('(prefers-color-scheme: dark)');

function apply(): void {
  theme.dark = theme.chosen === 'system' ? system.matches : theme.chosen === 'dark';
  if (theme.chosen === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.chosen;
}

/** Chooses a theme and keeps the choice. */
export function chooseTheme(chosen: Theme): void {
  theme.chosen = chosen;
  if (chosen === 'system') localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, chosen);
  apply();
}

system.addEventListener('change', apply);
apply();
