// Light or dark, before anything is drawn: the system's wish, unless somebody has chosen here.
"use strict";

const THEMES = ["auto", "light", "dark"];

function chosenTheme() {
  try {
    const theme = localStorage.getItem("taskserver-theme");
    return THEMES.includes(theme) ? theme : "auto";
  } catch {
    return "auto"; // storage is switched off
  }
}

function chooseTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("taskserver-theme", theme);
  } catch {
    // it holds until the page is left
  }
}

document.documentElement.dataset.theme = chosenTheme();

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const label = () => {
    button.textContent = `Theme: ${document.documentElement.dataset.theme}`;
  };
  button.addEventListener("click", () => {
    const now = THEMES.indexOf(document.documentElement.dataset.theme);
    chooseTheme(THEMES[(now + 1) % THEMES.length]);
    label();
  });
  label();
});
