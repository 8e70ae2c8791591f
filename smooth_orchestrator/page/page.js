// Search and sort the table of databases. Without this the table is whole, in the plan's order.
"use strict";
(() => {
  const table = document.getElementById("fleet");
  const body = table.tBodies[0];
  const search = document.getElementById("search");
  const outcome = document.getElementById("outcome");
  const shown = document.getElementById("shown");
  const count = new Intl.NumberFormat("en");
  const rows = Array.from(body.rows, (row, place) => ({
    row,
    place,
    // The timeline's own words would be found under almost everything.
    words: Array.from(row.cells)
      .filter((cell) => !cell.matches(".time"))
      .map((cell) => cell.textContent)
      .join(" ")
      .toLowerCase(),
  }));

  function filter() {
    const wanted = search.value.toLowerCase().split(/\s+/);
    let left = 0;
    for (const { row, words } of rows) {
      const fits =
        (!outcome.value || row.dataset.o === outcome.value) && wanted.every((word) => words.includes(word));
      row.hidden = !fits;
      left += fits;
    }
    shown.textContent = `${count.format(left)} of ${count.format(rows.length)} shown`;
  }

  const collator = new Intl.Collator("en", { numeric: true });

  function compare(column) {
    return (one, other) => {
      const [left, right] = [one.row.cells[column], other.row.cells[column]];
      if (left.dataset.n === undefined) return collator.compare(left.textContent, right.textContent);
      // What is unknown comes last.
      const number = (cell) => (cell.dataset.n === "" ? Infinity : Number(cell.dataset.n));
      return number(left) === number(right) ? 0 : number(left) - number(right);
    };
  }

  // Each press goes one step on: up, down, and back to the plan's order.
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  function sort(heading) {
    const direction = NEXT[heading.ariaSort || "none"];
    for (const each of table.tHead.rows[0].cells) each.ariaSort = each === heading ? direction : "none";
    const ordered = [...rows];
    if (direction !== "none") {
      const by = compare(heading.cellIndex);
      const sign = direction === "ascending" ? 1 : -1;
      ordered.sort((one, other) => sign * by(one, other) || one.place - other.place);
    }
    body.append(...ordered.map(({ row }) => row));
  }

  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    const title = heading.querySelector("span") || heading;
    button.append(...title.childNodes);
    title.append(button);
    heading.ariaSort = "none";
    button.addEventListener("click", () => sort(heading));
  }
  search.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
  document.getElementById("controls").hidden = false;
  // A browser may have kept what was typed before the page was loaded again.
  filter();
})();
