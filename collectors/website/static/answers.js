// Order and choice among the answers to a question: by model, verdict and tokens, from the form above them.
// An answer has model, verdict, tokens and usd. A page of one question holds its answers; question.js reads them.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("choice"), list = document.getElementById("list"), state = document.getElementById("state");
  const collator = new Intl.Collator("en", {numeric: true});
  const isMissing = value => value == null || Number.isNaN(value);
  // What is missing comes last both ways.
  const by = (key, sign) => (a, b) => isMissing(a[key]) || isMissing(b[key]) ? isMissing(a[key]) - isMissing(b[key]) : sign * (a[key] - b[key]);
  const first = verdict => (a, b) => (b.verdict === verdict) - (a.verdict === verdict);
  const ORDERS = {
    model: (a, b) => collator.compare(a.model, b.model), right: first("right"), wrong: first("wrong"),
    fewest: by("tokens", 1), most: by("tokens", -1), cheapest: by("usd", 1), dearest: by("usd", -1),
  };
  const least = text => text === "" ? -Infinity : Number(text), greatest = text => text === "" ? Infinity : Number(text);

  // Those of `answers` that fit the form, in its order; equal ones stay in theirs.
  function chosen(answers) {
    const {model, verdict, order} = form.elements, from = form.elements.from?.value ?? "", to = form.elements.to?.value ?? "";
    const part = model.value.trim().toLowerCase(), low = least(from), high = greatest(to), isBound = from !== "" || to !== "";
    const kept = answers.filter(one => (!part || one.model.toLowerCase().includes(part)) && (!verdict.value || one.verdict === verdict.value)
      && (!isBound || (!isMissing(one.tokens) && low <= one.tokens && one.tokens <= high)));
    return order.value ? kept.sort(ORDERS[order.value]) : kept;
  }

  // Calls `change` once the hand rests.
  function onChange(change) {
    let waiting;
    form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(change, 250); });
    form.addEventListener("submit", event => event.preventDefault());
  }
  window.site.answers = {form, chosen, onChange};

  const number = text => text === undefined ? NaN : Number(text);
  const whole = Array.from(list.querySelectorAll("article"), article => ({
    article, model: article.querySelector("h3 a").textContent, verdict: article.classList[1],
    tokens: number(article.dataset.tokens), usd: number(article.dataset.usd),
  }));
  if (whole.length < 2) return;
  for (const one of form.querySelectorAll("[data-needs]")) if (whole.every(answer => isMissing(answer[one.dataset.needs]))) one.remove();
  form.hidden = false;
  onChange(() => {
    const kept = chosen(whole);
    list.replaceChildren(...kept.map(one => one.article));
    state.textContent = kept.length < whole.length ? `${kept.length} of ${whole.length} answers fit.` : `All ${whole.length} answers fit.`;
  });
});
