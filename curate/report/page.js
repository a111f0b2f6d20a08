"use strict";
/* The page works without script. With it, the theme can be switched, large tables searched and sorted, and pictures enlarged; links
   open the part that they lead to, and the folder that the page lies in is named. */

const root = document.documentElement;
const button = document.getElementById("theme");
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const label = () => { button.textContent = dark() ? "light theme" : "dark theme"; };
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
label();

const folder = document.getElementById("folder");
if (folder) folder.textContent = decodeURIComponent(location.pathname.split("/").at(-2) || "");

const unfold = () => {
  const part = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const details = part && part.querySelector(":scope > details.part");
  if (details) details.open = true;
};
addEventListener("hashchange", unfold);
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(unfold));
unfold();

const large = document.body.appendChild(document.createElement("dialog"));
large.addEventListener("click", () => large.close());
for (const image of document.querySelectorAll(".frame img")) {
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.setAttribute("aria-label", "enlarge");
  const enlarge = () => {
    large.replaceChildren(Object.assign(document.createElement("img"), { src: image.src, alt: "" }));
    large.showModal();
  };
  image.addEventListener("click", enlarge);
  image.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(); });
}

/* A large table is a <div class="finder" data-rows="ID">, and a <script type="application/json" id="ID"> with
   {"columns": [{"name", "number": true|false}, …], "rows": [[…], …]}. Text goes in as text, never as markup. */
for (const place of document.querySelectorAll(".finder")) {
  const { columns, rows } = JSON.parse(document.getElementById(place.dataset.rows).textContent);
  const step = 50;
  const numbers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });
  let shown = step, by = Number(place.dataset.by || 1), down = true;

  const make = (tag, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(tag), properties));
  const search = make("input", place, { type: "search", placeholder: place.dataset.hint || "search" });
  search.setAttribute("aria-label", search.placeholder);
  const count = make("span", place, { className: "soft small found" });
  const scroll = make("div", place, { className: "scroll" });
  const table = make("table", scroll);
  const head = make("tr", make("thead", table));
  const body = make("tbody", table);
  const more = make("button", place, { type: "button", textContent: "more" });

  const heads = columns.map((column, i) => {
    const cell = make("th", head, { scope: "col" });
    const sort = make("button", cell, { type: "button" });
    make("bdi", sort, { textContent: column.name });
    sort.addEventListener("click", () => {
      down = by === i ? !down : Boolean(column.number);
      by = i;
      draw();
    });
    return cell;
  });

  const compare = (a, b) => {
    const [x, y] = [a[by], b[by]];
    const order = columns[by].number ? (x ?? -Infinity) - (y ?? -Infinity) : x < y ? -1 : x > y ? 1 : 0;
    return (down ? -order : order) || (a[0] < b[0] ? -1 : 1);
  };

  function draw() {
    const wanted = search.value.trim().toLowerCase();
    const found = rows.filter((row) => row[0].toLowerCase().includes(wanted)).sort(compare);
    count.textContent = `${numbers.format(found.length)} of ${numbers.format(rows.length)}`;
    heads.forEach((cell, i) => cell.setAttribute("aria-sort", i === by ? (down ? "descending" : "ascending") : "none"));
    body.replaceChildren(...found.slice(0, shown).map((row) => {
      const line = document.createElement("tr");
      row.forEach((value, i) => {
        const cell = make("td", line);
        if (columns[i].number) make("data", cell, { value: value ?? "", textContent: value === null ? "" : numbers.format(value) });
        else make("bdi", cell, { textContent: value });
      });
      return line;
    }));
    more.hidden = found.length <= shown;
  }

  search.addEventListener("input", () => { shown = step; draw(); });
  more.addEventListener("click", () => { shown += 4 * step; draw(); });
  draw();
}
