"use strict";
// Sorting, filtering and paging of tables. Without it every row is shown, in the order written.
(() => {
  const PAGE_ROWS = 20;
  const FILTER_FROM_ROWS = 8;

  const element = (name, properties) => Object.assign(document.createElement(name), properties);

  function setUp(table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const state = { needle: "", page: 0 };
    const tools = element("div", { className: "tools" });
    const count = element("span", {});
    count.setAttribute("aria-live", "polite");
    const back = element("button", { type: "button", textContent: "Previous" });
    const next = element("button", { type: "button", textContent: "Next" });

    function show() {
      const found = rows.filter((row) => row.textContent.toLowerCase().includes(state.needle));
      const last = Math.max(0, Math.ceil(found.length / PAGE_ROWS) - 1);
      state.page = Math.min(state.page, last);
      const start = state.page * PAGE_ROWS;
      const shown = new Set(found.slice(start, start + PAGE_ROWS));
      for (const row of rows) row.hidden = !shown.has(row);
      const range = shown.size ? `${start + 1} to ${start + shown.size}` : "none";
      count.textContent = `${range} of ${found.length} rows`;
      back.disabled = state.page === 0;
      next.disabled = state.page === last;
      back.hidden = next.hidden = last === 0;
    }

    function sort(head, column) {
      const isUp = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key;
      const word = (row) => row.cells[column].textContent;
      // Cells without a figure stay at the end in both directions.
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x !== undefined && y !== undefined) return isUp ? x - y : y - x;
        if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1;
        if (!word(a) !== !word(b)) return word(a) ? -1 : 1;
        const order = word(a).localeCompare(word(b), undefined, { numeric: true });
        return isUp ? order : -order;
      };
      rows.sort(compare);
      body.append(...rows);
      state.page = 0;
      show();
    }

    if (rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = element("button", { type: "button", textContent: head.textContent });
      button.addEventListener("click", () => sort(head, column));
      head.replaceChildren(button);
    });
    if (rows.length < FILTER_FROM_ROWS) return;
    const filter = element("input", { type: "search", placeholder: "Filter rows" });
    filter.setAttribute("aria-label", "Filter rows");
    filter.addEventListener("input", () => {
      state.needle = filter.value.trim().toLowerCase();
      state.page = 0;
      show();
    });
    back.addEventListener("click", () => { state.page -= 1; show(); });
    next.addEventListener("click", () => { state.page += 1; show(); });
    tools.append(filter, count, back, next);
    table.parentElement.before(tools);
    // Paper cannot be turned to the next page of a table: it gets all rows that match.
    addEventListener("beforeprint", () => {
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(state.needle);
    });
    addEventListener("afterprint", show);
    show();
  }

  document.querySelectorAll("table").forEach(setUp);
})();
