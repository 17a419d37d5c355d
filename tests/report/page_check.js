// What tools/check-report-page appends to a copy of the page: looks at the page as the browser has laid it
// out, and tells the page that holds it as a frame what is wrong: one line each, "ok" if nothing is.
(() => {
  "use strict";
  const problems = [];
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const visible = (element) => element.getClientRects().length > 0;
  const name = (element) => `<${element.tagName}> "${element.textContent.trim().slice(0, 40)}"`;
  const wanted = new URLSearchParams(location.hash.slice(1));  // "width=360&dark"

  // The page is as wide as the window. What scrolls by itself may hold more.
  const root = document.documentElement;
  const width = Number(wanted.get("width"));
  if (width && innerWidth !== width) problems.push(`the window is ${innerWidth} wide, not ${width}`);
  if (root.scrollWidth > root.clientWidth) {
    problems.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
    const too_wide = all("body *").filter((element) =>
      element.getBoundingClientRect().right > root.clientWidth + 1 && !element.closest(".scroll, .sr, svg"));
    for (const element of too_wide.slice(-3)) problems.push(`too wide: ${name(element)}`);
  }

  // Letters of pictures: not cut, not on each other, not on the mark of another point, large enough.
  const overlap = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  const charts = all("svg.chart").filter(visible);
  for (const chart of charts) {
    const frame = chart.getBoundingClientRect();
    const texts = all("text", chart).map((element) => ({ element, box: element.getBoundingClientRect() }));
    texts.forEach(({ element, box }, i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) {
        problems.push(`outside of its picture: ${name(element)} in ${chart.textContent.slice(0, 30)}`);
      }
      const pixels = parseFloat(getComputedStyle(element).fontSize) * frame.width / chart.viewBox.baseVal.width;
      if (pixels < 9) problems.push(`${name(element)} is ${pixels} pixels high`);
      for (const other of texts.slice(0, i)) {
        if (overlap(box, other.box)) problems.push(`${name(element)} covers ${name(other.element)} in ${chart.textContent.slice(0, 30)}`);
      }
      if (!element.classList.contains("label")) return;
      for (const mark of all(".point .mark", chart)) {
        if (overlap(box, mark.getBoundingClientRect())) problems.push(`${name(element)} covers a point`);
      }
    });
  }
  if (charts.length === 0) problems.push("no picture is visible");

  // The theme that was asked for.
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  if (wanted.has("dark") && !dark) problems.push("the browser does not prefer dark");
  const background = () => getComputedStyle(document.body).backgroundColor;
  const is_dark = () => background().match(/\d+/g).slice(0, 3).every((channel) => Number(channel) < 64);
  if (is_dark() !== dark) problems.push(`prefers dark: ${dark}, but the background is ${background()}`);

  // The script: theme, sorting, names of points.
  const theme = document.getElementById("theme");
  if (!visible(theme)) problems.push("no switch for the theme");
  theme.click();
  if (is_dark()) problems.push("the theme is light, the page dark");
  theme.click();
  if (!is_dark()) problems.push("the theme is dark, the page light");
  theme.click();
  const table = document.querySelector("table.sortable");
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith("KL divergence"));
  const sorted = (sign) => {
    table.tHead.rows[0].cells[column].querySelector("button").click();
    const values = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.value).filter((value) => value !== undefined).map(Number);
    if (values.length < 2 || values.some((value, i) => i > 0 && sign * (values[i - 1] - value) > 0)) problems.push(`not sorted: ${values}`);
  };
  sorted(1);
  sorted(-1);
  const points = all("svg .point").filter(visible);
  if (points.length === 0) problems.push("no point can be reached");
  for (const point of points) {
    point.focus();
    if (document.activeElement !== point) problems.push(`${point.getAttribute("aria-label")} takes no focus`);
    const detail = point.closest("figure").querySelector(".detail");
    if (detail.textContent !== point.getAttribute("aria-label")) problems.push(`${name(point)} is not told below its picture`);
  }

  // This copy has no policy that would stop them.
  for (const entry of performance.getEntriesByType("resource")) problems.push(`the page asked for ${entry.name}`);

  const lines = problems.length > 0 ? problems.map((problem) => `problem: ${problem}`) : ["ok"];
  parent.document.querySelector("pre").append(...lines.map((line) => `${location.hash} ${line}\n`));
})();
