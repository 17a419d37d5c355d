// Additions for those who let scripts run; the page is whole without them.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // The theme: as the system has it, light, or dark. A browser may refuse to remember it.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const apply = (theme) => {
    root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  let saved = null;
  try { saved = localStorage.getItem("nibble-theme"); } catch { /* not kept */ }
  apply(themes.includes(saved) ? saved : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    apply(next);
    try { localStorage.setItem("nibble-theme", next); } catch { /* not kept */ }
  });

  // A candidate that is pointed at stands out in every picture.
  const parts = all("[data-candidate]");
  const highlight = (candidate) => {
    root.classList.toggle("linking", candidate !== null);
    for (const part of parts) part.classList.toggle("on", part.dataset.candidate === candidate);
    for (const detail of all(".detail")) {
      const point = candidate === null ? null : detail.parentElement.querySelector(".point.on");
      detail.textContent = point ? point.getAttribute("aria-label") : "";
    }
  };
  const part_of = (event) => event.target.closest("[data-candidate]");
  document.addEventListener("pointerover", (event) => {
    const part = part_of(event);
    highlight(part && part.closest("figure") ? part.dataset.candidate : null);
  });
  document.addEventListener("focusin", (event) => highlight(part_of(event)?.dataset.candidate ?? null));
  document.addEventListener("focusout", () => highlight(null));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") highlight(null);
  });

  // Columns of the large table sort it: first the best on top, then the other way round.
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    all("thead th", table).forEach((head, column) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.append(...head.childNodes);
      head.append(sorter);
      sorter.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value;
        const compare = (a, b) => {
          if (column === 0) return sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent);
          const x = value(a), y = value(b);
          if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
          return sign * (Number(x) - Number(y));
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }
})();
