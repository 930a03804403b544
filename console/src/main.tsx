import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { applyTheme, currentTheme } from "./ui/Theme";
import "./style.css";

applyTheme(currentTheme());
// React Aria adds a <style> of this id unless it is there; the page's policy allows no styles but its own file, which has that rule.
const sheet = document.querySelector('link[rel="stylesheet"]');
if (sheet) sheet.id = "react-aria-pressable-style";
createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
