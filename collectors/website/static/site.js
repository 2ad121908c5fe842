// Sorting, filtering and paging of the tables. Without it every page shows the first rows of each table.
// Names come from models and files: they enter the page as textContent alone.
"use strict";
{
  const root = document.body.dataset.root;
  const UNKNOWN = "–";

  // Halves go to the even digit, as in Python: a value ends in a half exactly where so many doublings make it odd.
  function rounded(value, places) {
    const size = Math.abs(value), low = Math.floor(size * 10 ** places);
    if (Math.abs(size * 2 ** (places + 1)) % 2 !== 1 || low % 2) return value.toFixed(places);
    return (value < 0 ? "-" : "") + (low / 10 ** places).toFixed(places);
  }
  const fixed = (value, places) => {
    const [whole, rest] = rounded(value, places).split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return rest ? `${grouped}.${rest}` : grouped;
  };
  const MOST_PLACES = 12; // as in tables.py
  const significant = value => {
    if (value === 0) return "0";
    const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
    return places <= MOST_PLACES ? fixed(value, places) : value.toExponential(2);
  };
  const FORMS = {
    score: value => rounded(value, 3), heat: value => rounded(value, 3), count: value => fixed(value, 0), usd: value => "$" + significant(value),
    number: significant, seconds: value => significant(value) + " s", share: value => significant(100 * value) + " %", billions: value => significant(value / 1e9) + " B",
  };
  const TEXTS = ["text", "name", "page", "prose", "digest"];
  const LONGEST = 200; // LONGEST_NAME of tables.py: a longer name is cut, and no query holds it
  const fits = (sql, row) => Array.from(sql.matchAll(/\{(\w+)\}/g)).every(([, key]) => String(row(key)).length <= LONGEST);
  const shown = (value, kind) => value === null ? UNKNOWN : kind === "digest" ? value.slice(0, 12) : kind in FORMS && typeof value === "number" ? FORMS[kind](value) : String(value);
  const quoted = text => ("'" + text.replaceAll("'", "''") + "'");
  const filled = (sql, row) => sql.replace(/\{(\w+)\}/g, (_, key) => row(key) === null ? "NULL" : typeof row(key) === "number" ? row(key) : quoted(row(key)));

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function interval(low, high, middle) {
    const parts = document.createDocumentFragment();
    if (low >= 0 && high <= 1) {
      const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
      const shape = (name, values) => { const one = document.createElementNS(space, name); for (const key in values) one.setAttribute(key, values[key]); svg.append(one); };
      svg.setAttribute("class", "interval"); svg.setAttribute("viewBox", "0 0 100 10"); svg.setAttribute("aria-hidden", "true");
      shape("rect", {x: 0, y: 4.5, width: 100, height: 1});
      shape("rect", {class: "span", x: low * 100, y: 3, width: (high - low) * 100, height: 4, rx: 2});
      if (middle !== null) shape("circle", {cx: middle * 100, cy: 5, r: 3});
      parts.append(svg);
    }
    parts.append(element("span", "ends", `${rounded(low, 3)}–${rounded(high, 3)}`));
    return parts;
  }

  function cellOf(column, row) {
    const {key, kind, link, sql, high, middle} = column, value = row(key), isText = TEXTS.includes(kind);
    const cell = element(kind === "name" ? "th" : "td", kind === "name" ? "" : kind === "heat" ? "heat " + (value === null ? "none" : "h" + Math.min(9, Math.max(0, Math.floor(value * 10)))) : isText ? "t" : "n");
    if (kind === "name") cell.scope = "row";
    const text = shown(value, kind);
    if (value === null || (kind === "interval" && row(high) === null)) cell.append(element("span", "none", UNKNOWN));
    else if (kind === "interval") cell.append(interval(value, row(high), row(middle)));
    else if (link && row(link) !== null) { const a = element("a"); a.href = root + row(link); a.append(element("bdi", "", text)); cell.append(a); }
    else if (kind === "digest") { const part = element("bdi", "", text); part.title = value; cell.append(part); }
    else if (sql && fits(sql, row)) { const a = element("a", "records", text); a.href = `${root}query.html#sql=${encodeURIComponent(filled(sql, row))}`; cell.append(a); }
    else if (isText) cell.append(element("bdi", "", text));
    else cell.textContent = text;
    return cell;
  }

  // The values of a table that is whole in its page are read back from its cells: numbers from what is shown.
  function readBack(table, columns) {
    const values = {};
    columns.forEach((column, place) => {
      values[column.key] = Array.from(table.tBodies[0].rows, row => {
        const text = row.cells[place].textContent.trim();
        if (text === UNKNOWN) return null;
        if (TEXTS.includes(column.kind)) return text;
        const number = parseFloat(text.replace(/[$,]/g, ""));
        return Number.isNaN(number) ? null : column.kind === "billions" ? number * 1e9 : number;
      });
    });
    return values;
  }

  function enliven(table) {
    const box = table.closest(".table"), form = box.querySelector("form"), status = box.querySelector(".status"), pager = box.querySelector(".pager");
    const heads = Array.from(table.tHead.rows[0].cells), columns = heads.map(head => ({...head.dataset}));
    const all = Number(table.dataset.rows), first = Number(table.dataset.first), given = window.siteRows?.[table.dataset.name];
    const isWhole = all <= first;
    if (!isWhole && !given) return;
    const values = given ?? readBack(table, columns), made = Array.from(table.tBodies[0].rows);
    const collator = new Intl.Collator("en", {numeric: true});
    let order = Uint32Array.from({length: all}, (_, i) => i), kept = order, page = 0;
    const line = i => made[i] ??= (() => { const tr = element("tr"); tr.append(...columns.map(column => cellOf(column, key => values[key][i]))); return tr; })();

    function draw() {
      const from = page * first, until = Math.min(kept.length, from + first);
      table.tBodies[0].replaceChildren(...Array.from(kept.subarray(from, until), line));
      const more = table.caption.querySelector(".more");
      if (more) more.textContent = "";
      status.hidden = kept.length === all && isWhole;
      const count = number => fixed(number, 0);
      status.textContent = kept.length ? `Rows ${count(from + 1)} to ${count(until)} of ${count(kept.length)}` + (kept.length < all ? `, of ${count(all)} before the filter` : "") : "No row fits the filter.";
      pager.hidden = kept.length <= first;
      const [back, forth] = pager.children;
      back.disabled = page === 0; forth.disabled = until >= kept.length;
    }

    function sort(place) {
      const head = heads[place], {key, kind} = columns[place], column = values[key], isText = TEXTS.includes(kind);
      const down = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : !isText && key !== "rank";
      heads.forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      let places = null;
      if (isText) { // compare each text once
        const distinct = [...new Set(column.filter(value => value !== null))].sort(collator.compare);
        places = new Map(distinct.map((text, i) => [text, i]));
      }
      const sign = down ? -1 : 1; // what is missing comes last both ways
      const keys = Float64Array.from(column, value => value === null ? Infinity : sign * (places ? places.get(value) : value));
      order = order.slice().sort((a, b) => keys[a] - keys[b] || a - b);
      filter();
    }

    function filter() {
      const tests = [];
      for (const input of form?.elements ?? []) {
        const {key, bound, scale} = input.dataset, text = input.value?.trim();
        if (!key || !text) continue;
        const column = values[key];
        if (bound) { const limit = Number(text) * Number(scale ?? 1); tests.push(i => column[i] !== null && (bound === "low" ? column[i] >= limit : column[i] <= limit)); }
        else if (input.tagName === "SELECT") tests.push(i => column[i] === text);
        else { const part = text.toLowerCase(); tests.push(i => column[i] !== null && String(column[i]).toLowerCase().includes(part)); }
      }
      kept = tests.length ? order.filter(i => tests.every(test => test(i))) : order;
      page = 0;
      draw();
    }

    heads.forEach((head, place) => {
      const button = element("button", "", head.textContent);
      button.type = "button";
      button.addEventListener("click", () => sort(place));
      head.replaceChildren(button);
    });
    if (form && form.elements.length) {
      form.hidden = false;
      form.addEventListener("input", filter);
      form.addEventListener("submit", event => event.preventDefault());
    }
    for (const button of pager.children) button.addEventListener("click", () => { page += Number(button.dataset.step); draw(); table.scrollIntoView({block: "nearest"}); });
    if (!isWhole) draw();
  }

  document.querySelectorAll("table[data-name]").forEach(enliven);
  window.site = {root, element, rounded, shown, fixed}; // for question.js
}

// The query page: a query in its address, and what a page from a file cannot do.
{
  const sql = document.getElementById("sql");
  const take = () => { if (location.hash.startsWith("#sql=")) sql.value = decodeURIComponent(location.hash.slice(5)); };
  if (sql) {
    take();
    addEventListener("hashchange", take);
    if (location.protocol === "file:") {
      document.getElementById("server").hidden = false;
      document.querySelector("#ask button").disabled = true;
    }
  }
}
