"use strict";
(() => {
  const table = document.getElementById("all"), body = table.tBodies[0];
  const rows = [...body.rows], find = document.getElementById("find"), only = document.getElementById("only");
  const regionColumn = [...table.tHead.rows[1].cells].findIndex((cell) => cell.textContent === "Region");
  const text = (row, column) => row.cells[column].textContent;
  const number = (s) => {
    const plain = s.replace(/[\u202f<>]/g, "").replace("−", "-").replace("∞", "Infinity");
    return plain === "" || plain === "–" ? NaN : Number(plain);
  };
  const compare = (a, b, up) => { // words alphabetically, numbers by value, unknown values last
    const x = number(a), y = number(b);
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    const order = Number.isNaN(x) ? a.localeCompare(b, "en", { numeric: true }) : x === y ? 0 : x - y;
    return up ? order : -order;
  };
  const filter = () => {
    const wanted = find.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = (!only.value || text(row, regionColumn) === only.value) &&
        row.textContent.toLowerCase().includes(wanted);
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length} rows`;
  };
  [...table.tHead.rows[1].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[1].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const ordered = [...rows].sort((a, b) => compare(text(a, column), text(b, column), up));
      body.append(...ordered);
    });
  });
  find.addEventListener("input", filter);
  only.addEventListener("change", filter);
  document.querySelector(".filters").hidden = false;
  filter();
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
})();
