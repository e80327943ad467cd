// The theme, set before anything is drawn, and the menu at phone width. A classic script: it must run at once.

(() => {
  "use strict";
  const KEY = "conclave.theme";
  const CHOICES = ["auto", "light", "dark"];

  function stored() {
    try {
      const value = localStorage.getItem(KEY);
      return CHOICES.includes(value) ? value : "auto";
    } catch {
      return "auto";
    }
  }

  function apply(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  function setUpTheme(button) {
    let theme = stored();
    const show = () => {
      button.textContent = `Theme: ${theme}`;
    };
    show();
    button.addEventListener("click", () => {
      theme = CHOICES[(CHOICES.indexOf(theme) + 1) % CHOICES.length];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // Without storage the choice lasts as long as the page.
      }
      apply(theme);
      show();
    });
  }

  function setUpMenu(button, side) {
    button.addEventListener("click", () => {
      const open = side.classList.toggle("is-open");
      button.setAttribute("aria-expanded", String(open));
    });
  }

  // It names the cluster of this page for as long as this page is shown: a browser that comes back to it, or does not get
  // away, would show it with the name of another.
  function setUpClusters(select) {
    const here = select.value;
    select.addEventListener("change", () => {
      const there = select.value;
      select.value = here;
      location.assign(there);
    });
  }

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.getElementById("theme-button");
    if (theme) setUpTheme(theme);
    const menu = document.getElementById("menu-button");
    if (menu) setUpMenu(menu, document.getElementById("side"));
    const cluster = document.getElementById("cluster-select");
    if (cluster) setUpClusters(cluster);
  });
})();
