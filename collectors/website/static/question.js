// The page of any question of a large version: its text from scripts in data/, its answers from the version's own Parquet,
// a hundred at a time, in the order of its files. Chosen ones lie apart, and each text among a page of others: twenty at
// a time, of which the first texts are read and the others when they are asked for. All texts enter the page as textContent alone.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const {root, element, rounded, shown, fixed, answers: {form, chosen, onChange}} = window.site;
  const STEP = 100, CHOSEN = 20, TEXTS = 3, MOST_PARTS = 3, CELLS = 100, MOST_GAP = 512, CHOSEN_GAP = 32;
  const LONGEST = 20_000, MOST = 500_000; // as in many_pages.py: characters of a text, and of all texts at once
  const VERDICT = ["score", "correct", "outcome", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens", "latency_s", "stated_usd"];
  const ANSWER = ["responses", "loglikelihoods"];
  const of = id => document.getElementById(id);
  let view = null; // of the question that is shown

  // ---- scripts of data/

  const asked = new Map();
  function loaded(name) {
    if (!asked.has(name)) {
      asked.set(name, new Promise((resolve, reject) => {
        const script = element("script");
        script.src = `${root}data/${name}.js`;
        script.onload = resolve;
        script.onerror = () => { asked.delete(name); reject(new Error(`data/${name}.js is missing.`)); };
        document.head.append(script);
      }));
    }
    return asked.get(name);
  }

  // ---- texts

  // As schemas.texts.visible, whose pattern the page has: what would turn a text around or end it is an escape.
  const UNSEEN = new RegExp(of("list").dataset.unseen, "gu");
  function escaped(letter) {
    const code = letter.codePointAt(0), [mark, digits] = code < 256 ? ["\\x", 2] : code < 65536 ? ["\\u", 4] : ["\\U", 8];
    return code === 13 ? "\\r" : mark + code.toString(16).padStart(digits, "0");
  }
  const visible = text => text.replace(UNSEEN, escaped);
  const count = number => fixed(number, 0);

  function link(address, text) {
    const made = element("a"), inner = element("bdi", "", text);
    made.href = root + address;
    made.append(inner);
    return made;
  }
  const queryPage = sql => `${root}query.html#sql=${encodeURIComponent(sql)}`;
  function records(sql, text) {
    const made = element("a", "records", text);
    made.href = queryPage(sql);
    return made;
  }
  function block(text) {
    const made = element("pre", "text", text);
    made.tabIndex = 0;
    return made;
  }
  function cut(text, longest) {
    if (text.length <= longest) return {text};
    const letters = Array.from(text); // a letter may be two units
    return letters.length <= longest ? {text} : {text: letters.slice(0, longest).join(""), length: longest, cut: letters.length};
  }
  const cutNote = ({length, cut}, rest) => element("p", "note", `Cut at ${count(length)} of ${count(cut)} characters${rest}`);

  // ---- the question

  async function show() {
    const [, key, number] = /^#([0-9a-f]{16})\/(\d{1,9})$/.exec(location.hash) ?? [];
    // `turn` counts what the reader asked for; `order`: the chosen answers, null: all as they are stored.
    const mine = view = {item: Number(number), part: 0, found: null, shown: 0, turn: 0, all: null, order: null, texts: new Map()};
    form.reset();
    let table, text;
    if (key) {
      try {
        await loaded(`question-${key}`);
        table = window.siteQuestions[`question-${key}`];
        const chunk = table.firsts.findLastIndex(first => first <= mine.item);
        if (chunk >= 0) await loaded(`question-${key}-${chunk}`);
        text = window.siteTexts?.[`question-${key}-${chunk}`]?.[mine.item];
      } catch { text = undefined; } // no such table: said below
    }
    if (view !== mine) return;
    for (const id of ["question", "answers", "query"]) of(id).hidden = !text;
    of("lost").hidden = Boolean(text);
    for (const id of ["list", "question", "facts", "state"]) of(id).replaceChildren();
    of("more").hidden = form.hidden = true;
    of("title").textContent = text ? `Question ${count(mine.item)}` : "Question";
    if (!text) return;
    mine.table = table;
    mine.text = text;
    describe(table, text, mine.item);
    const isFile = location.protocol === "file:", why = of("why-not");
    of("server").hidden = !isFile || Boolean(why);
    if (isFile || why) return;
    form.hidden = text.answers < 2;
    await more();
  }

  function describe(table, text, item) {
    const [taskPage, questionsPage] = table.above, above = of("above");
    above.replaceChildren(link("leaderboard.html", "Leaderboard"), " › ", link(taskPage, table.task), " › ", link(questionsPage, "Questions"));
    for (const [label, value] of [["task", table.task], ["subject", text.subject]]) {
      if (value === null) continue;
      const fact = element("div"), told = element("dd");
      told.append(element("bdi", "", value));
      fact.append(element("dt", "", label), told);
      of("facts").append(fact);
    }
    const about = of("question");
    about.append(element("h2", "", "Question"));
    if (!text.question) about.append(element("p", "empty", "The lake does not have its text."));
    else {
      about.append(block(text.question.text));
      if (text.question.cut) about.append(cutNote(text.question, "."));
    }
    if (text.choices.length) {
      const list = element("ol", "choices");
      list.start = 0;
      for (const choice of text.choices) { const line = element("li"); line.append(element("bdi", "", choice)); list.append(line); }
      about.append(element("h3", "", "Choices"), list);
    }
    about.append(element("h3", "", "Right answer"), text.gold === null ? element("p", "empty", "Not known.") : block(text.gold));
    const counts = `${text.solved} of ${text.judged} right`;
    of("counts").replaceChildren(table.sql ? records(table.judged.join(item), counts) : counts, ".");
    of("query").hidden = !table.sql;
    if (!table.sql) return;
    const sql = table.sql.join(item);
    of("query").querySelector("code").textContent = sql;
    of("query").querySelector("a").href = queryPage(sql);
  }

  // ---- the answers

  // Shows the next hundred, or those of a few parts where only some cells were asked this question.
  async function more() {
    const mine = view, {table, text, turn} = mine, button = of("more"), state = of("state");
    const isStale = () => view !== mine || mine.turn !== turn;
    button.disabled = true;
    state.className = "";
    state.textContent = "Reading …";
    try {
      const answers = await (mine.order ? nextChosen(mine) : nextStored(mine));
      if (isStale()) return;
      const longest = Math.min(LONGEST, Math.floor(MOST / Math.max(answers.length, 1)));
      of("list").append(...answers.map(answer => article(answer, mine.item, longest)));
      mine.shown += answers.length;
      const most = mine.order?.length ?? text.answers, fit = most < text.answers ? ` that fit, of ${count(text.answers)} in all` : "";
      state.textContent = !most ? "No answer fits." : mine.shown < most ? `${count(mine.shown)} of ${count(most)} answers${fit} are shown.` : fit ? `${count(most)} answers${fit}.` : "";
      button.hidden = mine.order ? mine.shown >= most : mine.part >= table.parts.length;
    } catch (error) {
      if (!isStale()) fail(error);
    } finally {
      if (!isStale()) button.disabled = false;
    }
  }
  function fail(error) {
    of("state").className = "error";
    of("state").textContent = error.message;
    of("more").hidden = true;
  }

  const hasItem = (part, item) => part.items[0] !== null && part.items[0] <= item && item <= part.items[1];

  async function nextStored(mine) {
    const answers = [], {parts} = mine.table;
    for (let read = 0; answers.length < STEP && read < MOST_PARTS && mine.part < parts.length;) {
      const part = parts[mine.part];
      if (hasItem(part, mine.item)) {
        mine.found ??= await found(part, mine.item);
        const some = await answersOf(part, mine.found.splice(0, STEP - answers.length), mine);
        await addTexts(part, some, mine);
        answers.push(...some);
        read++;
      }
      if (!mine.found?.length) { mine.part++; mine.found = null; }
    }
    return answers;
  }

  async function nextChosen(mine) {
    const answers = mine.order.slice(mine.shown, mine.shown + CHOSEN);
    await Promise.all(answers.map(async answer => Object.assign(answer, await cellAt(answer.part, answer.place))));
    for (const part of new Set(answers.map(answer => answer.part))) {
      await addTexts(part, answers.filter(answer => answer.part === part), mine);
    }
    return answers;
  }

  // All answers without their texts, which the form orders and chooses among.
  async function everything(mine) {
    const answers = [];
    for (const part of mine.table.parts) {
      if (!hasItem(part, mine.item)) continue;
      const rows = await found(part, mine.item), names = await namesOf(part);
      answers.push(...await judged(part, rows, mine, rows.map(row => names[row.place])));
    }
    return answers.map(answer => Object.assign(answer, {tokens: answer.completion_tokens, usd: usdOf(answer)}));
  }

  async function arrange() {
    const mine = view, turn = ++mine.turn;
    of("state").className = "";
    of("state").textContent = "Reading …";
    try {
      const all = await (mine.all ??= everything(mine));
      if (view !== mine || mine.turn !== turn) return;
      mine.order = chosen(all);
      mine.shown = 0;
      of("list").replaceChildren();
      await more();
    } catch (error) {
      mine.all = null;
      if (view === mine && mine.turn === turn) fail(error);
    }
  }

  async function found(part, item) {
    const rows = await window.siteReader.find(part.records, ["item", "place"], {item: {$eq: item}, is_primary: {$eq: true}});
    const places = part.places && new Set(part.places);
    return places ? rows.filter(row => places.has(row.place)) : rows;
  }

  async function cellAt(part, place) {
    const name = `cells-${part.key}-${Math.floor(place / CELLS)}`;
    await loaded(name);
    const {kinds, cells} = window.siteCells[name], [id, model, page, kind] = cells[place % CELLS];
    return {id, model, page, ...kinds[kind]};
  }

  // Model and prices of each cell of a part by its place. A name begins with as many letters of the one before as are stated.
  async function namesOf(part) {
    const name = `names-${part.key}`;
    await loaded(name);
    const {kinds, names, runs} = window.siteNames[name], of = runs.flatMap(([kind, number]) => Array(number).fill(kind));
    let model = "";
    return of.map((kind, place) => {
      model = model.slice(0, names[2 * place]) + names[2 * place + 1];
      return {model, ...kinds[kind]};
    });
  }

  const answersOf = async (part, rows, mine) => judged(part, rows, mine, await Promise.all(rows.map(row => cellAt(part, row.place))));

  async function judged(part, rows, mine, cells) {
    if (!rows.length) return [];
    const verdicts = await window.siteReader.read(part.records, VERDICT, rows[0].at, rows.at(-1).at + 1);
    return rows.map((row, i) => {
      const answer = {part, item: mine.item, place: row.place, ...verdicts[row.at - rows[0].at], ...cells[i]};
      return Object.assign(answer, {verdict: answer.correct == null ? "unjudged" : answer.correct ? "right" : "wrong"});
    });
  }

  // Gives answers of a part their texts, which are read together where they lie near each other; `later` reads a chosen one's.
  async function addTexts(part, answers, mine) {
    if (!part.responses) return;
    if (!mine.texts.has(part)) mine.texts.set(part, await window.siteReader.find(part.responses, ["item", "cell_id", "filter", "repeat"], {item: {$eq: mine.item}}));
    const byCell = new Map(answers.map(answer => [answer.id, answer])), runs = [], gap = mine.order ? CHOSEN_GAP : MOST_GAP;
    for (const row of mine.texts.get(part)) {
      if (row.repeat !== 0 || row.filter !== byCell.get(row.cell_id)?.filter) continue;
      if (runs.length && row.at - runs.at(-1).at(-1).at <= gap) runs.at(-1).push(row);
      else runs.push([row]);
    }
    const places = new Map(answers.map((answer, place) => [answer.id, place]));
    if (mine.order) runs.sort((a, b) => places.get(a[0].cell_id) - places.get(b[0].cell_id));
    for (const [number, rows] of runs.entries()) {
      const read = async () => {
        const from = rows[0].at, texts = await window.siteReader.read(part.responses, ANSWER, from, rows.at(-1).at + 1);
        for (const {at, cell_id} of rows) Object.assign(byCell.get(cell_id), texts[at - from], {later: null});
      };
      if (!mine.order || number < TEXTS) await read();
      else for (const {cell_id} of rows) Object.assign(byCell.get(cell_id), {later: read});
    }
  }

  // The terms of CHARGES in question_data.py; the source's own cost stands where no price is known.
  const CHARGES = JSON.parse(of("list").dataset.charges);
  function usdOf(answer) {
    const {prices, answers} = answer, times = (typeof answers === "object" ? answers?.[answer.item] : answers) ?? 1;
    let usd = 0;
    for (const {tokens, price, less, within, beside, each} of CHARGES) {
      const isKnown = answer[tokens] != null && prices[price] != null;
      if (!less && !isKnown) return answer.stated_usd ?? null;
      if (less && !(isKnown && answer[tokens] + (answer[beside] ?? 0) <= answer[within])) continue;
      usd += answer[tokens] * (prices[price] - (less ? prices[less] : 0)) * (each ? times : 1);
    }
    return usd / 1_000_000 + (prices.request ?? 0) * times;
  }

  const number = (value, kind) => value == null ? null : Number.isFinite(value) ? shown(value, kind) : shown(null);
  function measured(answer) {
    const score = number(answer.score, "score");
    const tokens = ["prompt", "completion"].filter(kind => answer[`${kind}_tokens`] != null).map(kind => `${count(answer[`${kind}_tokens`])} ${kind}`);
    return [score && `score ${score}`, tokens.length ? `${tokens.join(" and ")} tokens` : null, number(answer.latency_s, "seconds"), number(usdOf(answer), "usd")].filter(Boolean);
  }

  function article(answer, item, longest) {
    const {verdict} = answer;
    const words = {right: "✓ right", wrong: "✗ wrong", unjudged: "not judged"}[verdict], outcome = answer.outcome;
    const made = element("article", `answer ${verdict}`), head = element("h3"), small = element("p", "small");
    head.append(link(answer.page, answer.model), " ", element("span", "verdict", outcome == null || outcome === "ok" ? words : `${words}, ${outcome}`));
    small.append(records(`FROM matrix WHERE cell_id = '${answer.id}' AND item = ${item}`, measured(answer).join(" · ") || "record"));
    if (answer.setting) small.append(" · ", element("bdi", "", answer.setting));
    made.append(head, small);
    if (!answer.later) made.append(...said(answer, longest));
    else {
      const button = element("button", "", "Show its text");
      button.type = "button";
      button.addEventListener("click", async () => {
        button.disabled = true;
        try { if (answer.later) await answer.later(); button.replaceWith(...said(answer, longest)); } catch (error) { fail(error); }
      });
      made.append(button);
    }
    return made;
  }

  function said(answer, longest) {
    const made = [], texts = (answer.responses ?? []).filter(text => text != null).map(text => cut(text, longest));
    for (const text of texts) {
      made.push(block(visible(text.text)));
      if (text.cut) made.push(cutNote(text, ": the version's responses have all of it."));
    }
    const choices = answer.loglikelihoods ?? [];
    if (!texts.length && choices.length) made.push(likelihoods(choices));
    if (!texts.length && !choices.length) made.push(element("p", "small", "The answer's text is not stored."));
    return made;
  }

  function likelihoods(values) {
    const isNumber = value => value != null && Number.isFinite(value), best = Math.max(...values.filter(isNumber));
    const line = element("p", "small", "Log-likelihood of each choice: ");
    values.forEach((value, i) => line.append(i ? ", " : "", element("span", value === best ? "choice best" : "choice", `${i}: ${isNumber(value) ? rounded(value, 2) : "–"}`)));
    return line;
  }

  of("more").addEventListener("click", more);
  onChange(arrange);
  addEventListener("hashchange", show);
  show();
});
