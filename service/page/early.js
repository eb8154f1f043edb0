// The chosen theme, set before anything is painted. A classic script, since modules come after the first paint.
try {
  const theme = localStorage.getItem("gigamask.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // No storage in this browser: the system's theme it is.
}
