// The query page's engine: DuckDB-WASM over the site's own database, which it reads by ranges. esbuild bundles this file.
import { AsyncDuckDB, DuckDBDataProtocol, VoidLogger } from "@duckdb/duckdb-wasm";

const here = document.currentScript.src;
const MOST_ROWS = 1000;
const form = document.getElementById("ask"), sql = document.getElementById("sql"), state = document.getElementById("state"), result = document.getElementById("result");
let opened = null;

async function open() {
  const db = new AsyncDuckDB(new VoidLogger(), new Worker(new URL("duckdb-browser-eh.worker.js", here)));
  await db.instantiate(new URL("duckdb-eh.wasm", here).href);
  // By default it would fetch the whole file.
  await db.open({
    filesystem: { reliableHeadRequests: true, allowFullHTTPReads: false, forceFullHTTPReads: false },
    query: { castBigIntToDouble: true, castDecimalToDouble: true },
  });
  await db.registerFileURL("site.duckdb", new URL("../site.duckdb", here).href, DuckDBDataProtocol.HTTP, false);
  const con = await db.connect();
  await con.query("SET autoinstall_known_extensions = false");
  await con.query("SET autoload_known_extensions = false"); // its extensions lie on a server of its own
  await con.query("ATTACH 'site.duckdb' AS site (READ_ONLY)");
  await con.query("USE site");
  return con;
}

function text(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "object") return JSON.stringify(value, (_, one) => (typeof one === "bigint" ? Number(one) : one));
  return String(value);
}

function shown(answer) {
  const made = document.createElement("table"), names = answer.schema.fields.map(field => field.name);
  const line = (tag, values, into) => {
    const row = document.createElement("tr");
    for (const value of values) {
      const cell = document.createElement(tag);
      cell.textContent = tag === "th" ? value : text(value);
      if (typeof value === "number") cell.className = "n";
      row.append(cell);
    }
    into.append(row);
  };
  line("th", names, made.createTHead());
  const body = made.createTBody();
  for (const row of answer.toArray().slice(0, MOST_ROWS)) line("td", row.toArray(), body);
  return made;
}

async function run() {
  state.className = "";
  try {
    state.textContent = opened ? "Asking …" : "Loading the engine …";
    const con = await (opened ??= open());
    const started = performance.now(), answer = await con.query(sql.value);
    result.replaceChildren(shown(answer));
    const rest = answer.numRows > MOST_ROWS ? `, the first ${MOST_ROWS} are shown` : "";
    state.textContent = `${answer.numRows} row${answer.numRows === 1 ? "" : "s"} in ${((performance.now() - started) / 1000).toFixed(2)} s${rest}`;
  } catch (error) {
    result.replaceChildren();
    state.className = "error";
    state.textContent = error.message;
  }
}

form.addEventListener("submit", event => { event.preventDefault(); run(); });
sql.addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); } });
