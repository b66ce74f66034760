"use strict";
// Tables sort by the column whose heading is pressed: numbers as numbers, empty cells last, ties in their first order.
function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => (row.cells[column] || { dataset: { sort: "" } }).dataset.sort;
  const compare = (a, b) => {
    const [one, other] = [key(a), key(b)];
    if (one === "" || other === "") return (one === "") - (other === "");
    const [x, y] = [Number(one), Number(other)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? one.localeCompare(other) : x - y;
    return descending ? -order : order;
  };
  const rows = Array.from(body.rows);
  rows.forEach((row, index) => { if (!row.dataset.place) row.dataset.place = index; });
  rows.sort((a, b) => compare(a, b) || a.dataset.place - b.dataset.place);
  body.append(...rows);
}
for (const table of document.querySelectorAll("table")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}
