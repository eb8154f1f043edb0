// Light, dark, or as the system has it.

const KEY = "gigamask.theme";
const THEMES = ["system", "light", "dark"];

function chosen() {
  return document.documentElement.dataset.theme ?? "system";
}

function choose(theme) {
  if (theme === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem(KEY);
  } else {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(KEY, theme);
  }
}

/** The button tells the theme and moves on to the next. */
export function installTheme(button) {
  const tell = () => {
    button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[chosen()];
    button.setAttribute("aria-label", `Theme: ${button.textContent}. Change`);
  };
  button.addEventListener("click", () => {
    choose(THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length]);
    tell();
  });
  tell();
}
