// The latent browser: a list with search, filters and order, and the chosen latent, from the block of data alone.
// Corpus text becomes text nodes, never markup. What the data means: latent_pages.py.
(() => {
  const holder = document.getElementById("browser-data");
  if (!holder) return;
  const { strings, dictionaries, latents } = JSON.parse(holder.textContent);
  const form = document.getElementById("browser-search");
  const list = document.getElementById("browser-list");
  const article = document.getElementById("browser-latent");
  const more = document.getElementById("browser-more");
  const STEP = 100;
  let found = [], shown = 0, chosen = null;

  // ---------------------------------------------------------------------------------------------- words

  const TAGS = { reasoning_only: "reasoning only", base_only: "base only" };
  const WHY = { page: "top of its tag", graph: "in an attribution graph", sample: "sampled" };
  const FEW = "n < 6";
  const known = (value) => value !== null && value !== undefined;
  const tagWords = (tag) => TAGS[tag] || tag;
  const number = (value) => {
    if (!known(value)) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en").replace("-", "−");
    const size = Math.abs(value);
    const text = size < 1e-4 ? value.toExponential(1) : size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
    return text.replace("-", "−");
  };
  const fixed = (value, places) => (known(value) ? value.toFixed(places).replace("-", "−") : "–");
  const percent = (value) => (known(value) ? `${number(Number((100 * value).toPrecision(3)))} %` : "–");
  const withEnds = ([value, low, high]) => {
    if (!known(value)) return "–";
    const ends = known(low) && known(high) ? `${fixed(low, 2)} to ${fixed(high, 2)}` : FEW;
    return `${fixed(value, 2)} (${ends})`;
  };
  // white space is made visible, as a whole token of it or at a line's end would not be
  const visible = (token) => token.replace(/\r/g, "␍").replace(/\n/g, "↵").replace(/\t/g, "⇥");
  const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
  const where = (latent) => {
    const of = dictionaries[latent.of];
    return `${of.of}, layer ${latent.layer}, ${of.point}, seed ${of.seed}`;
  };
  const labelWords = (latent) => {
    if (latent.status === "labelled") return latent.label;
    return latent.status === "failed" ? "labelling failed" : "no examples";
  };

  // ---------------------------------------------------------------------------------------------- elements

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (known(value)) element.setAttribute(name, value);
    element.append(...children.filter(known));
    return element;
  };
  const draw = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const chip = (words, look = "") => make("span", { class: `chip ${look}` }, words);
  const terms = (pairs) => make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const table = (heads, rows) => {
    const head = make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col", class: "plain" }, name))));
    const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", { class: "name" }, cell)))));
    return make("div", { class: "scroll" }, make("table", {}, head, body));
  };

  // ---------------------------------------------------------------------------------------------- the list

  const score = (latent, control = "own") => {
    const row = latent.scores.find(([task, negatives, by]) => task === "detection" && negatives === "all" && by === control);
    return row ? row[3] : null;
  };
  const exclusive = (latent) => (latent.owner && known(latent.owner.delta) ? Math.abs(latent.owner.delta - 0.5) : null);
  const outcome = ({ outcomes: [right, wrong] }) => (known(right) && known(wrong) ? Math.abs(right - wrong) : null);
  const SORTS = [
    ["as listed", null],
    ["|Δ − ½|, largest first", exclusive],
    ["firing rate, highest first", (latent) => latent.rate],
    ["firing rate, lowest first", (latent) => (known(latent.rate) ? -latent.rate : null)],
    ["max activation, largest first", (latent) => latent.max],
    ["label score, best first", score],
    ["label score, worst first", (latent) => (known(score(latent)) ? -score(latent) : null)],
    ["correct against incorrect, largest first", outcome],
    ["latent number", (latent) => -latent.latent],
  ];
  const FILTERS = [
    ["of", "pair or model", (latent) => dictionaries[latent.of].of],
    ["layer", "layer", (latent) => latent.layer],
    ["point", "point", (latent) => dictionaries[latent.of].point],
    ["tag", "tag", (latent) => latent.tag],
    ["why", "shown as", (latent) => latent.why],
    ["status", "label is", (latent) => latent.status],
  ];
  const FILTER_WORDS = { tag: tagWords, why: (why) => WHY[why] || why };

  for (const [index, [words]] of SORTS.entries()) form.elements.sort.append(make("option", { value: index }, words));
  for (const [name, words, of] of FILTERS) {
    const values = [...new Set(latents.map(of))];
    if (name === "layer") values.sort((a, b) => a - b);
    const say = FILTER_WORDS[name] || String;
    const options = values.map((value) => make("option", { value }, say(value)));
    const select = make("select", { name }, make("option", { value: "" }, "all"), ...options);
    document.getElementById("browser-filters").append(make("label", values.length < 2 ? { hidden: "" } : {}, words, select));
  }

  // what a search looks through: the label, and the tokens on which the latent fires
  const haystacks = latents.map((latent) => {
    const tokens = new Set();
    for (const example of latent.examples) {
      const fires = example[9];
      for (let place = 0; place < fires.length; place += 2) tokens.add(strings[example[8][fires[place]]]);
    }
    return `${latent.label || ""}\n${[...tokens].join("\n")}`.toLowerCase();
  });
  const matches = (index, words) => words.every((word) => String(latents[index].latent) === word || haystacks[index].includes(word));

  function search() {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = FILTERS.map(([name, , of]) => [of, form.elements[name].value]).filter(([, value]) => value !== "");
    const keeps = (latent) => wanted.every(([of, value]) => String(of(latent)) === value);
    found = [...latents.keys()].filter((index) => keeps(latents[index]) && matches(index, words));
    const by = SORTS[form.elements.sort.value][1];
    if (by) {
      const keys = new Map(found.map((index) => [index, by(latents[index])]));
      found.sort((a, b) => {
        const [one, other] = [keys.get(a), keys.get(b)];
        if (!known(one) || !known(other)) return known(other) - known(one) || a - b; // those without come last
        return other - one || a - b;
      });
    }
    document.getElementById("browser-count").textContent = `${number(found.length)} of ${number(latents.length)} latents`;
    list.replaceChildren();
    list.scrollTop = 0;
    shown = 0;
    showMore();
  }

  function showMore() {
    list.append(...found.slice(shown, shown + STEP).map(row));
    shown = Math.min(found.length, shown + STEP);
    if (!found.length) list.append(make("li", {}, make("a", {}, "none (n = 0)")));
    more.hidden = shown >= found.length;
    more.textContent = `show more (${number(found.length - shown)} left)`;
    mark();
  }

  function row(index) {
    const latent = latents[index];
    const facts = [where(latent)];
    const figures = [`rate ${percent(latent.rate)}`, `max ${number(latent.max)}`];
    if (latent.owner) figures.unshift(`Δ ${fixed(latent.owner.delta, 2)}`);
    if (known(score(latent))) figures.push(`${dictionaries[latent.of].measure} ${fixed(score(latent), 2)}`);
    const link = make("a", { href: `#${latent.id}` }, make("strong", {}, String(latent.latent)), " ", chip(tagWords(latent.tag), latent.tag), ` ${visible(labelWords(latent))}`);
    link.append(make("small", {}, facts.join(", ")), make("small", {}, figures.join(" · ")));
    return make("li", {}, link);
  }

  function mark() {
    for (const link of list.querySelectorAll("a")) {
      if (chosen && link.getAttribute("href") === `#${chosen.id}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  // ---------------------------------------------------------------------------------------------- one latent

  function show(latent) {
    chosen = latent;
    const of = dictionaries[latent.of];
    article.replaceChildren(
      make("h3", {}, `Latent ${latent.latent} `, make("small", { class: "quiet" }, where(latent))),
      make("p", {}, chip(tagWords(latent.tag), latent.tag), " ", chip(WHY[latent.why] || latent.why), " ", make("a", { href: `#${latent.id}` }, "link to this latent")),
      label(latent, of),
      make("div", { class: "columns" }, ownership(latent, of), firing(latent, of)),
      histogram(latent, of),
      logits(latent),
      scores(latent, of),
      ...examples(latent, of),
    );
    mark();
  }

  function label(latent, of) {
    const offline = of.provider === "offline";
    const by = offline ? "pattern found by the offline labeller" : `label by ${of.model || of.provider}`;
    if (latent.status === "failed") {
      return make("div", { class: "said failed" }, make("b", {}, "No label: labelling failed"), make("small", {}, visible(latent.reason || "no reason was given")));
    }
    if (latent.status !== "labelled") {
      return make("div", { class: "said failed" }, make("b", {}, "No label: no examples"), make("small", {}, visible(latent.reason || "it fires nowhere in the text that labellers are shown")));
    }
    return make("div", { class: "said" }, make("b", {}, visible(latent.label)), make("div", {}, visible(latent.explanation || "")), make("small", {}, by));
  }

  function ownership(latent, of) {
    const box = make("div", {}, make("h4", {}, "Whose it is"));
    const owner = latent.owner;
    if (!owner) {
      box.append(make("p", { class: "note" }, `A transcoder reads one model, ${of.models[0]}.`));
      return box;
    }
    const [first, last] = of.models;
    box.append(terms([
      ["Δ", `${fixed(owner.delta, 3)} (0: ${last} only, 1: ${first} only)`],
      ["decoder norm", `${first} ${number(owner.norms[0])}, ${last} ${number(owner.norms[1])}`],
      ["ν reconstruction", withEnds(owner.nu_reconstruction)],
      ["ν error", withEnds(owner.nu_error)],
      ["AUROC", `owner ${fixed(owner.auroc[0], 2)}, other ${fixed(owner.auroc[1], 2)}`],
      ["verdict", owner.verdict + (owner.template ? "; flagged as template" : "")],
    ]));
    return box;
  }

  function firing(latent, of) {
    const [right, wrong, inRight, inWrong] = latent.outcomes;
    const rows = [["of all tokens", `${percent(latent.rate)} (${number(latent.firings)} of ${number(of.tokens)})`]];
    of.phases.forEach((phase, place) => rows.push([`of ${phase} tokens`, `${percent(latent.rates[place])} (n = ${number(of.tokens_by_phase[place])})`]));
    if (of.traces[0] + of.traces[1]) {
      rows.push(["correct traces", `${percent(right)} of tokens; in ${percent(inRight)} of ${number(of.traces[0])} traces`]);
      rows.push(["incorrect traces", `${percent(wrong)} of tokens; in ${percent(inWrong)} of ${number(of.traces[1])} traces`]);
    }
    rows.push(["activation", `mean ${number(latent.mean)}, max ${number(latent.max)}`]);
    if (latent.neighbour) rows.push(["nearest latent", neighbour(latent)]);
    return make("div", {}, make("h4", {}, "How often it fires"), terms(rows));
  }

  function neighbour(latent) {
    const [near, cosine] = latent.neighbour;
    const page = latents.find((other) => other.of === latent.of && other.layer === latent.layer && other.latent === near);
    const words = `latent ${near}`;
    return make("span", {}, page ? make("a", { href: `#${page.id}` }, words) : words, `, decoder cosine ${fixed(cosine, 2)}`);
  }

  function histogram(latent, of) {
    const counts = latent.histogram, most = Math.max(...counts, 1), [width, height] = [420, 84];
    const box = make("div", {}, make("h4", {}, `Activations (n = ${number(latent.firings)} firings)`));
    const used = counts.flatMap((count, bin) => (count ? [bin] : []));
    if (!used.length) {
      box.append(make("p", { class: "note" }, "It never fired here (n = 0)."));
      return box;
    }
    const [from, to] = [used[0], used[used.length - 1]];
    // one bin lies below the first edge, and one above the last
    const low = (bin) => (bin ? of.edges[bin - 1] : 0);
    const high = (bin) => (bin < of.edges.length ? of.edges[bin] : latent.max);
    const step = width / Math.max(8, to - from + 1);
    const bars = [];
    for (let bin = from; bin <= to; bin += 1) {
      const tall = (height * counts[bin]) / most;
      const said = `${number(low(bin))} to ${number(high(bin))}: ${number(counts[bin])}`;
      bars.push(draw("rect", { x: (bin - from) * step, y: height - tall, width: Math.max(1, step - 1), height: tall, fill: "#D55E00" }, draw("title", {}, said)));
    }
    const text = (x, anchor, words) => draw("text", { x, y: height + 13, "text-anchor": anchor }, words);
    const end = (to - from + 1) * step;
    const said = `Activations from ${number(low(from))} to ${number(high(to))}, at most ${number(most)} firings in a bin`;
    const ends = [text(0, "start", number(low(from))), text(Math.max(end, 60), "end", number(high(to)))];
    box.append(draw("svg", { viewBox: `0 0 ${width} ${height + 17}`, role: "img", "aria-label": said }, ...bars, ...ends));
    box.append(make("p", { class: "note" }, `Logarithmic bins; the tallest holds ${number(most)}.`));
    return box;
  }

  function logits(latent) {
    const box = make("div", {}, make("h4", {}, "What it does to the next token"));
    if (!latent.logits.length) {
      box.append(make("p", { class: "note" }, "Not measured."));
      return box;
    }
    box.append(make("p", { class: "note" }, "Logits per unit of activation along the decoder direction; later blocks are left out."));
    for (const one of latent.logits) {
      for (const [end, words] of [["raised", "raises"], ["lowered", "lowers"]]) {
        const tokens = one[end].map((token, place) => make("span", {}, make("span", { class: "token" }, visible(strings[token])), ` ${fixed(one[`${end}_by`][place], 2)} `));
        box.append(make("p", { class: "logits" }, make("b", {}, `${one.model} ${words} `), ...(tokens.length ? tokens : ["none"])));
      }
    }
    return box;
  }

  const CONTROLS = { own: "own", shuffled: "another latent's", top_token: "top token alone" };
  function scores(latent, of) {
    const offline = of.provider === "offline";
    const box = make("div", {}, make("h4", {}, `${capital(of.measure)}: does the ${offline ? "pattern" : "label"} tell where it fires?`));
    if (!latent.scores.length) {
      box.append(make("p", { class: "note" }, "Not scored."));
      return box;
    }
    const rows = latent.scores.map(([task, negatives, control, value, low, high, yes, no, silent]) => [
      CONTROLS[control] || control, task, negatives.replace("_", " "), withEnds([value, low, high]), number(yes), number(no), number(silent),
    ]);
    box.append(table([offline ? "pattern" : "label", "task", "negatives", "balanced accuracy", "n firing", "n silent", "unanswered"], rows));
    if (offline) box.append(make("p", { class: "note" }, "The pattern judges itself, which is circular: this says nothing about interpretability."));
    return box;
  }

  function examples(latent, of) {
    const groups = [["Strongest activations", latent.examples.filter(([quantile]) => !quantile)]];
    const places = [...new Set(latent.examples.filter(([quantile]) => quantile).map((example) => example[1]))];
    for (const place of places) {
      groups.push([`Quantile ${place + 1} of its activations (1: weakest)`, latent.examples.filter((example) => example[0] && example[1] === place)]);
    }
    if (!latent.examples.length) return [make("h4", {}, "Examples"), make("p", { class: "note" }, "none (n = 0)")];
    const top = Math.max(...latent.examples.flatMap((example) => example[9].filter((_, place) => place % 2)));
    return groups.filter(([, some]) => some.length).flatMap(([title, some]) => [
      make("h4", {}, `${title} (n = ${some.length})`), ...some.map((example) => quote(example, top)),
    ]);
  }

  function quote([, , phase, value, correct, text, position, at, tokens, fires], top) {
    const active = new Map();
    for (let place = 0; place < fires.length; place += 2) active.set(fires[place], fires[place + 1]);
    const spans = tokens.map((token, place) => {
      const strength = active.get(place);
      const span = make("span", { class: place === at ? "here" : null, title: known(strength) ? `activation ${number(strength)}` : null }, visible(strings[token]));
      if (known(strength)) span.style.backgroundColor = `rgba(213, 94, 0, ${(0.12 + (0.58 * strength) / top).toFixed(2)})`;
      return span;
    });
    const marks = [chip(phase)];
    if (known(correct)) marks.push(" ", chip(correct ? "correct" : "incorrect", correct ? "right" : "wrong"));
    const line = make("p", {}, ...marks, ` activation ${number(value)} · document ${text}, token ${position}`);
    return make("div", { class: "window" }, line, make("div", { class: "tokens" }, ...spans));
  }

  // ---------------------------------------------------------------------------------------------- what happens when

  const isNarrow = () => window.matchMedia("(max-width: 900px)").matches;

  // a link from elsewhere on the page was followed
  const isOutOfSight = () => {
    const { top, bottom } = article.getBoundingClientRect();
    return bottom < 0 || top > window.innerHeight;
  };

  function follow(atStart) {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const latent = latents.find((one) => one.id === wanted);
    if (latent) {
      show(latent);
      if (atStart || isOutOfSight()) document.getElementById("browser").scrollIntoView();
      if (atStart || isNarrow()) article.focus({ preventScroll: !isNarrow() });
      if (isNarrow()) article.scrollIntoView();
    } else if (wanted.startsWith("latent-")) {
      chosen = null;
      article.replaceChildren(make("p", { class: "note" }, `There is no page of ${wanted}: only latents that were chosen for labels have one.`));
      mark();
      if (atStart) document.getElementById("browser").scrollIntoView();
    }
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", search);
  more.addEventListener("click", showMore);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && document.activeElement.parentElement[step];
    if (!next) return;
    event.preventDefault();
    next.firstElementChild.focus();
  });
  window.addEventListener("hashchange", () => follow(false));

  search();
  if (latents.length) show(latents[found[0]]);
  follow(true);
})();
