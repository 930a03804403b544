// Light or dark: as the system has it, unless somebody chooses.

import { useState } from "react";

const KEY = "console.theme";
const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

export function currentTheme(): Theme {
  const found = localStorage.getItem(KEY);
  return found === "light" || found === "dark" ? found : "auto";
}

export function applyTheme(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
}

export function ThemeSwitch() {
  const [theme, setTheme] = useState(currentTheme);
  return (
    <select
      className="quiet"
      aria-label="Theme"
      value={theme}
      onChange={(event) => {
        const chosen = event.currentTarget.value as Theme;
        localStorage.setItem(KEY, chosen);
        applyTheme(chosen);
        setTheme(chosen);
      }}
    >
      {THEMES.map((each) => (
        <option key={each} value={each}>
          {each}
        </option>
      ))}
    </select>
  );
}
