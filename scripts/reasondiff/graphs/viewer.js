// The graph viewer: Neuronpedia's JSON in, a drawing by layer and position out, with the paths through each node.
// Text of files becomes text nodes, never markup. What the page is given: viewer.py.
"use strict";

// ------------------------------------------------------------------------------------------------ without a page

const attributionGraph = (() => {
  const KINDS = { latent: "latent", error: "error", embedding: "embedding", logit: "logit" };
  const PATHS = 3;

  class GraphError extends Error {}

  const kindOf = (type) => {
    if (/error/.test(type)) return KINDS.error;
    if (/embed/.test(type)) return KINDS.embedding;
    return type === "logit" ? KINDS.logit : KINDS.latent;
  };

  // What a text file holds; JSON knows no NaN, but Python writes one.
  function parse(text, where) {
    try {
      return JSON.parse(text);
    } catch (error) {
      if (/[:[,]\s*-?(NaN|Infinity)\b/.test(text)) {
        throw new GraphError(`${where} holds NaN or Infinity where a number should be, so some weights of this graph are unknown. Trace it again, or leave those links out.`);
      }
      throw new GraphError(`${where} is not JSON (${error.message}). Choose a graph in Neuronpedia's or circuit-tracer's JSON.`);
    }
  }

  // A graph from Neuronpedia's JSON: nodes, edges as columns, and what follows from them.
  function read(content, where) {
    const { nodes: rows, links, metadata } = checked(content, where);
    const tokens = metadata.prompt_tokens.map(String);
    const index = new Map();
    const nodes = rows.map((row, number) => {
      if (index.has(row.node_id)) throw new GraphError(`${where}: two nodes are called ${row.node_id}, so its links are ambiguous. Export the graph with distinct ids.`);
      index.set(row.node_id, number);
      return node(row, number, tokens);
    });
    const edges = readLinks(links, index, where);
    const graph = { where, metadata, tokens, nodes, edges };
    graph.order = inOrder(graph, where);
    graph.share = sharesOf(graph);
    // the whole graph's where the file has it, else along the edges of the file
    graph.isWhole = nodes.length > 0 && nodes.every((one) => one.kind === KINDS.logit || one.influence !== null);
    graph.influence = graph.isWhole ? Float64Array.from(nodes, (one) => one.influence || 0) : influenceOf(graph);
    graph.before = sharesBefore(graph);
    return graph;
  }

  function checked(content, where) {
    const wrong = (words) => new GraphError(`${where} is no attribution graph: ${words}. Choose a graph in Neuronpedia's or circuit-tracer's JSON.`);
    const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
    if (!isObject(content)) throw wrong("it holds no JSON object");
    const missing = ["metadata", "nodes", "links"].filter((key) => !(key in content));
    if (missing.length) throw wrong(`it lacks ${missing.join(", ")}`);
    if (!Array.isArray(content.nodes) || !Array.isArray(content.links)) throw wrong("nodes and links are not both lists");
    if (!isObject(content.metadata) || !Array.isArray(content.metadata.prompt_tokens)) throw wrong("metadata lacks prompt_tokens");
    content.nodes.forEach((row, number) => {
      const lacks = isObject(row) ? ["node_id", "layer", "ctx_idx", "feature_type"].filter((key) => !(key in row)) : ["everything"];
      if (lacks.length) throw wrong(`node ${number} lacks ${lacks.join(", ")}`);
      if (!Number.isInteger(row.ctx_idx) || row.ctx_idx < 0) throw wrong(`node ${row.node_id} has the position ${row.ctx_idx}`);
      if (row.layer !== "E" && !Number.isFinite(Number(row.layer))) throw wrong(`node ${row.node_id} has the layer ${row.layer}`);
    });
    return content;
  }

  function node(row, number, tokens) {
    const kind = kindOf(String(row.feature_type));
    const parts = String(row.node_id).split("_");
    // in circuit-tracer's files `feature` pairs layer and latent in one number; the id holds the latent alone
    const latent = kind === KINDS.latent ? (parts.length === 3 && parts[0] === String(row.layer) ? parts[1] : String(row.feature)) : null;
    const token = tokens[row.ctx_idx] ?? "";
    const clerp = typeof row.clerp === "string" ? row.clerp.trim() : "";
    const standIns = { latent: `latent ${latent}`, error: "what the transcoder misses", embedding: token, logit: `output ${row.node_id}` };
    const finite = (value) => (Number.isFinite(value) ? value : null);
    return {
      number, kind, latent, token, type: String(row.feature_type), id: String(row.node_id),
      layer: row.layer === "E" ? -1 : Number(row.layer), position: row.ctx_idx,
      label: clerp || standIns[kind], hasLabel: Boolean(clerp) && clerp !== standIns[kind],
      activation: kind === KINDS.latent ? finite(row.activation) : null,
      probability: kind === KINDS.logit ? finite(row.token_prob) : null, influence: finite(row.influence_share),
      isTarget: Boolean(row.is_target_logit), in: [], out: [],
    };
  }

  function readLinks(links, index, where) {
    const edges = { source: new Int32Array(links.length), target: new Int32Array(links.length), weight: new Float64Array(links.length) };
    let dangling = 0, first = null, unknown = 0;
    links.forEach((link, number) => {
      const [source, target] = [index.get(link?.source), index.get(link?.target)];
      if (source === undefined || target === undefined) {
        dangling += 1;
        first ??= source === undefined ? link?.source : link?.target;
        return;
      }
      if (typeof link.weight !== "number" || !Number.isFinite(link.weight)) unknown += 1;
      [edges.source[number], edges.target[number], edges.weight[number]] = [source, target, link.weight];
    });
    if (dangling) throw new GraphError(`${where}: ${dangling} of ${links.length} links lead to or from a node that is not there, ${String(first)} for one. The file is cut off, or was put together from two graphs: export it again.`);
    if (unknown) throw new GraphError(`${where}: the weights of ${unknown} of ${links.length} links are no finite numbers. Trace the graph again, or leave those links out.`);
    return edges;
  }

  // Nodes so that each comes after all that lead to it; fills in the edges at each node.
  function inOrder({ nodes, edges }, where) {
    edges.source.forEach((source, edge) => {
      nodes[source].out.push(edge);
      nodes[edges.target[edge]].in.push(edge);
    });
    const waits = nodes.map((one) => one.in.length);
    const order = nodes.flatMap((one) => (waits[one.number] ? [] : [one.number]));
    for (let place = 0; place < order.length; place += 1) {
      for (const edge of nodes[order[place]].out) {
        waits[edges.target[edge]] -= 1;
        if (!waits[edges.target[edge]]) order.push(edges.target[edge]);
      }
    }
    if (order.length < nodes.length) {
      const stuck = nodes.find((one) => waits[one.number]);
      throw new GraphError(`${where}: its links run in a circle, through ${stuck.id} for one. An attribution graph has no cycles: export it again.`);
    }
    return order;
  }

  // Of each edge: its |weight| as a share of all that enters its target.
  function sharesOf({ nodes, edges }) {
    const share = new Float64Array(edges.weight.length);
    for (const one of nodes) {
      const sum = one.in.reduce((total, edge) => total + Math.abs(edges.weight[edge]), 0);
      for (const edge of one.in) share[edge] = sum ? Math.abs(edges.weight[edge]) / sum : 0;
    }
    return share;
  }

  const startOf = ({ nodes }) => {
    const logits = nodes.filter((one) => one.kind === KINDS.logit);
    const known = logits.every((one) => one.probability > 0);
    const sum = logits.reduce((total, one) => total + (known ? one.probability : 1), 0);
    return new Map(logits.map((one) => [one.number, (known ? one.probability : 1) / sum]));
  };

  // Of each node: the share of the influence on the logits that passes through it, along the edges of the file.
  function influenceOf(graph) {
    const found = new Float64Array(graph.nodes.length);
    for (const [number, value] of startOf(graph)) found[number] = value;
    for (let place = graph.order.length - 1; place >= 0; place -= 1) {
      const number = graph.order[place];
      for (const edge of graph.nodes[number].in) found[graph.edges.source[edge]] += graph.share[edge] * found[number];
    }
    return found;
  }

  // Of each node: the share of all nodes' influence that the more influential ones carry without it.
  function sharesBefore({ nodes, influence }) {
    const inner = nodes.filter((one) => one.kind !== KINDS.logit).map((one) => one.number);
    inner.sort((a, b) => influence[b] - influence[a] || a - b);
    const total = inner.reduce((sum, number) => sum + influence[number], 0);
    const before = new Float64Array(nodes.length);
    let sum = 0;
    for (const number of inner) {
      before[number] = total ? sum / total : 0;
      sum += influence[number];
    }
    return before;
  }

  // The strongest paths of each node in one direction: [{value, edge, next}], best first; a path's value is the
  // product of its edges' shares (and of the logit's probability).
  function strongest(graph, starts, upwards) {
    const { nodes, edges, share, order } = graph;
    const best = nodes.map(() => []);
    const places = upwards ? [...order].reverse() : order;
    for (const number of places) {
      if (starts.has(number)) {
        best[number] = [{ value: starts.get(number), edge: -1, next: 0 }];
        continue;
      }
      const found = [];
      for (const edge of upwards ? nodes[number].out : nodes[number].in) {
        const other = upwards ? edges.target[edge] : edges.source[edge];
        best[other].forEach((path, next) => {
          const value = path.value * share[edge];
          if (value > 0 && (found.length < PATHS || value > found[found.length - 1].value)) {
            found.push({ value, edge, next });
            found.sort((a, b) => b.value - a.value || a.edge - b.edge);
            found.length = Math.min(found.length, PATHS);
          }
        });
      }
      best[number] = found;
    }
    return best;
  }

  // The strongest paths through a node: up to the logits and down to the embeddings (to errors where no embedding
  // leads to it), each a list of edges that starts at the node.
  function paths(graph, number) {
    if (!graph.best) {
      const ofKind = (kind) => new Map(graph.nodes.filter((one) => one.kind === kind).map((one) => [one.number, 1]));
      graph.best = {
        up: strongest(graph, startOf(graph), true),
        down: strongest(graph, ofKind(KINDS.embedding), false),
        fallback: strongest(graph, ofKind(KINDS.error), false),
      };
    }
    const { up, down, fallback } = graph.best;
    const below = down[number].length ? down : fallback;
    const follow = (best, rank, upwards) => {
      const edges = [];
      let at = number;
      for (let step = best[at][rank]; step && step.edge >= 0; step = best[at][rank]) {
        edges.push(step.edge);
        at = upwards ? graph.edges.target[step.edge] : graph.edges.source[step.edge];
        rank = step.next;
      }
      return edges;
    };
    const all = (best, upwards) => best[number].map((step, rank) => ({ value: step.value, edges: follow(best, rank, upwards) }));
    return { up: all(up, true), down: all(below, false), fromErrors: !down[number].length && below[number].length > 0 };
  }

  // What is left when only nodes that carry a share of the influence are kept (logits always, embeddings while an
  // edge leaves them): {nodes: [bool], edges: [number], strongest first}.
  function filtered(graph, keptShare, withErrors) {
    const { nodes, edges, before } = graph;
    const stays = nodes.map((one) => {
      if (one.kind === KINDS.logit) return true;
      if (one.kind === KINDS.error && !withErrors) return false;
      return keptShare >= 1 || one.kind === KINDS.embedding || before[one.number] < keptShare;
    });
    const left = [];
    edges.source.forEach((source, edge) => {
      if (stays[source] && stays[edges.target[edge]]) left.push(edge);
    });
    if (keptShare < 1 || !withErrors) {
      const leads = new Set(left.map((edge) => edges.source[edge]));
      for (const one of nodes) if (one.kind === KINDS.embedding) stays[one.number] = leads.has(one.number);
    }
    left.sort((a, b) => Math.abs(edges.weight[b]) - Math.abs(edges.weight[a]) || a - b);
    return { nodes: stays, edges: left };
  }

  return { GraphError, KINDS, parse, read, paths, filtered };
})();

if (typeof module !== "undefined") module.exports = attributionGraph; // for tests outside a browser

// ------------------------------------------------------------------------------------------------ on the page

if (typeof document !== "undefined") (() => {
  const { GraphError, KINDS, parse, read, paths, filtered } = attributionGraph;
  const byId = (id) => document.getElementById(id);
  const index = JSON.parse(byId("graph-index").textContent);
  const rowOf = new Map(index.map((row) => [row.name, row]));
  const [box, sheet, canvas, panel, tip] = ["box", "sheet", "edges", "panel", "tip"].map(byId);
  const [controls, finder] = [byId("controls"), byId("find")];
  const COLOURS = { more: "0,114,178", less: "213,94,0" };
  const [AXIS, PITCH, RADIUS, REACH] = [46, 16, 5.2, 14];
  const [ROWS_SHOWN, LIST_SHOWN, AREA, TRAIL] = [8, 14, 16e6, 14];
  let graph = null, name = null, view = null, place = null, shapes = [], pinned = null, shown = null, found = null, trail = [];

  // ---------------------------------------------------------------------------------------------- words

  const known = (value) => value !== null && value !== undefined && value !== "";
  const number = (value) => {
    if (!known(value)) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en").replace("-", "−");
    const size = Math.abs(value);
    const text = size < 1e-3 ? value.toExponential(1) : size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
    return text.replace("-", "−");
  };
  const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
  const fixed = (value) => (known(value) ? value.toFixed(2) : "–");
  const percent = (value) => (known(value) ? (value > 0 && value < 0.001 ? "< 0.1 %" : `${number(Number((100 * value).toPrecision(value < 0.01 ? 1 : 3)))} %`) : "–");
  // white space is made visible, as a whole token of it or at a line's end would not be
  const inOneLine = (text) => text.replace(/\r/g, "␍").replace(/\n/g, "↵").replace(/\t/g, "⇥");
  const visible = (token) => {
    const shownAs = inOneLine(token);
    return /^ *$/.test(shownAs) ? "␣".repeat(shownAs.length) || "∅" : shownAs;
  };
  const layerWords = (one) => ({ embedding: "embeddings", logit: "next token" })[one.kind] || `layer ${one.layer}`;
  const where = (one) => (one.kind === KINDS.logit ? layerWords(one) : `${layerWords(one)} · “${visible(one.token)}”`);
  const labelOf = (one) => visible((!one.hasLabel && latentFacts(one)?.label) || one.label);
  const latentFacts = (one) => (one.kind === KINDS.latent && graph.latents ? graph.latents[`${one.layer}/${one.latent}`] : undefined);

  // ---------------------------------------------------------------------------------------------- elements

  const fill = (element, attributes, children) => {
    for (const [key, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const draw = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const token = (text) => make("span", { class: "token" }, visible(text));
  const chip = (words, look = "") => make("span", { class: `chip ${look}` }, words);
  const terms = (pairs) => make("dl", {}, ...pairs.filter(([, value]) => known(value)).flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  const say = (words, isWrong = false) => {
    byId("said").textContent = words;
    byId("said").className = isWrong ? "wrong" : "note";
    byId("said").hidden = !words;
  };

  // ---------------------------------------------------------------------------------------------- addresses

  // #model/seed0/prompt/target, and ?node=id of a node that is pinned
  const address = (graphName, id) => `#${graphName.split("/").map(encodeURIComponent).join("/")}${known(id) ? `?node=${encodeURIComponent(id)}` : ""}`;
  function wanted() {
    const decoded = (text) => {
      try {
        return decodeURIComponent(text);
      } catch {
        return text;
      }
    };
    const [path, query] = location.hash.slice(1).split("?node=");
    return { name: decoded(path), id: query === undefined ? null : decoded(query) };
  }

  // ---------------------------------------------------------------------------------------------- loading

  const graphs = new Map(), latents = new Map(), waiting = new Map();
  window.attributionGraphs = { graph: (key, content) => graphs.set(key, { content }), latents: (key, content) => latents.set(key, content) };

  // Pages opened from disk may not fetch, but they may run scripts that lie beside them.
  function load(path) {
    if (!waiting.has(path)) {
      const done = new Promise((resolve, reject) => {
        const failed = () => {
          waiting.delete(path);
          reject(new GraphError(`${path} is not beside this page. Keep the folder data next to viewer.html, or make the page again.`));
        };
        const script = make("script", { src: path.split("/").map(encodeURIComponent).join("/") });
        script.addEventListener("load", () => resolve());
        script.addEventListener("error", failed);
        document.head.append(script);
      });
      waiting.set(path, done);
    }
    return waiting.get(path);
  }

  async function open(graphName) {
    const row = rowOf.get(graphName);
    if (!graphs.has(graphName)) {
      if (graphName.startsWith("file:")) throw new GraphError(`${graphName.slice(5)} was opened from a file, which a link cannot do: choose the file again.`);
      if (!row) throw new GraphError(`There is no graph ${graphName} in this study.`);
      say(`Loading ${graphName} …`);
      await load(`data/${graphName}.js`);
    }
    const kept = graphs.get(graphName);
    if (!kept) throw new GraphError(`data/${graphName}.js holds another graph: make the page again.`);
    kept.graph ??= read(kept.content, graphName);
    kept.content = null;
    return kept.graph;
  }

  async function follow() {
    const { name: to, id } = wanted();
    if (!to) return showIndex();
    try {
      if (to !== name) {
        const opened = await open(to);
        if (wanted().name !== to) return; // another one was asked for meanwhile
        showGraph(opened, to);
      }
      pin(id);
    } catch (error) {
      if (!(error instanceof GraphError)) throw error;
      showIndex();
      say(error.message, true);
    }
  }

  async function openFile(file) {
    const called = `file:${file.name}`;
    try {
      const opened = read(parse(await file.text(), file.name), file.name);
      graphs.set(called, { graph: opened });
      if (name === called) name = null; // the same file, opened again
      if (location.hash === address(called)) await follow();
      else location.hash = address(called);
    } catch (error) {
      if (!(error instanceof GraphError)) throw error;
      say(error.message, true);
    }
  }

  // ---------------------------------------------------------------------------------------------- the list of graphs

  const gate = (row) => {
    if (row.status !== "traced") return chip(row.status === "none" ? "no such target" : row.status, "wrong");
    return row.explains ? chip("passes", "right") : chip("refused", "wrong");
  };
  const COLUMNS = [
    ["graph", (row) => row.name, (row) => make("a", { href: address(row.name) }, row.name)],
    ["category", (row) => row.category],
    ["says", (row) => row.target_token, (row) => (known(row.target_token) ? token(row.target_token) : "–")],
    ["p", (row) => row.probability, (row) => fixed(row.probability)],
    ["latents", (row) => row.features_pruned, (row) => number(row.features_pruned)],
    ["edges", (row) => row.edges, (row) => number(row.edges)],
    ["replacement", (row) => row.replacement, (row) => fixed(row.replacement)],
    ["completeness", (row) => row.completeness, (row) => fixed(row.completeness)],
    ["feature share", (row) => row.feature_share, (row) => fixed(row.feature_share)],
    ["coverage", (row) => row.coverage, (row) => fixed(row.coverage)],
    ["gate", (row) => `${row.status} ${row.explains}`, gate],
    ["why", (row) => row.refused || row.reason],
  ];
  let sorted = { column: null, falls: false };

  function listGraphs() {
    const words = finder.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keep = ["model", "target"].map((key) => [key, finder.elements[key].value]).filter(([, value]) => value);
    const rows = index.filter((row) => {
      const text = `${row.name} ${row.category ?? ""} ${row.target_token ?? ""} ${row.refused ?? ""} ${row.reason ?? ""}`.toLowerCase();
      return words.every((word) => text.includes(word)) && keep.every(([key, value]) => String(row[key]) === value);
    });
    if (sorted.column !== null) {
      const of = COLUMNS[sorted.column][1];
      rows.sort((a, b) => {
        const [one, other] = [of(a), of(b)];
        if (!known(one) || !known(other)) return known(other) - known(one);
        const order = typeof one === "number" ? one - other : String(one).localeCompare(String(other));
        return sorted.falls ? -order : order;
      });
    }
    const cell = (row) => ([, of, show]) => make("td", {}, show ? show(row) : known(of(row)) ? inOneLine(String(of(row))) : "");
    byId("rows").replaceChildren(...rows.map((row) => make("tr", {}, ...COLUMNS.map(cell(row)))));
    byId("count").textContent = index.length ? `${number(rows.length)} of ${number(index.length)} graphs` : "This page came without graphs of its own: open a file.";
  }

  function makeIndex() {
    const heads = COLUMNS.map(([title], column) => {
      const button = make("button", { type: "button" }, title);
      const head = make("th", { scope: "col" }, button);
      button.addEventListener("click", () => {
        sorted = { column, falls: sorted.column === column && !sorted.falls };
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sorted.falls ? "descending" : "ascending");
        listGraphs();
      });
      return head;
    });
    byId("heads").replaceChildren(...heads);
    for (const key of ["model", "target"]) {
      const values = [...new Set(index.map((row) => String(row[key])))];
      finder.elements[key].append(make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
    }
    listGraphs();
  }

  function showIndex() {
    [graph, name, pinned, shown, trail] = [null, null, null, null, []];
    byId("list").hidden = false;
    byId("graph").hidden = true;
    tip.hidden = true;
    document.title = "Attribution graphs";
    say("");
  }

  // ---------------------------------------------------------------------------------------------- one graph

  function showGraph(opened, called) {
    [graph, name, pinned, shown, trail, found] = [opened, called, null, null, [], null];
    byId("list").hidden = true;
    byId("graph").hidden = false;
    controls.elements.words.value = "";
    const row = rowOf.get(called);
    const title = row ? called : graph.metadata.slug || graph.where;
    byId("title").textContent = visible(String(title));
    document.title = `${title} · attribution graph`;
    say("");
    introduce(row);
    redraw(true);
    if (row?.latents) loadLatents(row.latents, opened);
  }

  async function loadLatents(key, of) {
    try {
      await load(`data/latents_${key}.js`);
    } catch (error) {
      if (graph === of) say(error.message, true);
    }
    of.latents = latents.get(key) || {};
    if (graph === of) tell();
  }

  function introduce(row) {
    const facts = byId("facts");
    const targets = graph.nodes.filter((one) => one.kind === KINDS.logit).sort((a, b) => b.isTarget - a.isTarget || b.probability - a.probability);
    const count = (kind) => graph.nodes.filter((one) => one.kind === kind).length;
    const pairs = [
      ["says", row && known(row.target_token) ? token(row.target_token) : targets.length ? labelOf(targets[0]) : null],
      ["p", row ? fixed(row.probability) : targets.length ? fixed(targets[0].probability) : null],
      ["latents", number(count(KINDS.latent))], ["edges", number(graph.edges.weight.length)],
    ];
    for (const key of ["replacement", "completeness", "feature_share", "coverage"]) if (row) pairs.push([key.replace("_", " "), fixed(row[key])]);
    facts.replaceChildren(...pairs.filter(([, value]) => known(value)).map(([key, value]) => make("span", {}, `${key} `, make("b", {}, value))));
    if (row) facts.append(make("span", {}, gate(row)));
    const warning = !graph.nodes.length ? `This graph is empty: ${graph.metadata.reasondiff?.facts?.reason || row?.reason || "its file does not say why"}.`
      : row && !row.explains && known(row.refused) ? `Not called an explanation: ${row.refused}.`
      : !count(KINDS.latent) ? "This graph has no latents: it explains nothing by them." : "";
    byId("warning").textContent = inOneLine(warning);
    byId("warning").hidden = !warning;
    const prompt = graph.tokens.join("") || graph.metadata.prompt || "";
    byId("prompt").textContent = prompt;
    byId("prompt-title").textContent = `context (${number(graph.tokens.length)} tokens)`;
    const others = row ? index.filter((other) => other.prompt_id === row.prompt_id) : [];
    const link = (other) => make("a", { href: address(other.name), "aria-current": other === row ? "true" : null }, `${other.model} ${other.seed} · ${other.target}`);
    byId("others").hidden = others.length < 2;
    byId("others").replaceChildren("same prompt: ", ...others.flatMap((other) => [link(other), " "]));
  }

  // ---------------------------------------------------------------------------------------------- where things stand

  // Columns are positions and rows are layers; the nodes of a cell stand in lines, the most influential first.
  function layOut() {
    const stays = graph.nodes.filter((one) => view.nodes[one.number]);
    const rowOfNode = (one) => (one.kind === KINDS.logit ? Infinity : one.layer);
    const layers = new Set(stays.map(rowOfNode));
    const blocks = stays.filter((one) => one.layer >= 0 && one.kind !== KINDS.logit).map((one) => one.layer);
    for (let layer = Math.min(...blocks); layer < Math.max(...blocks); layer += 1) layers.add(layer);
    const rows = [...layers].sort((a, b) => b - a).map((layer) => ({ layer, cells: new Map() }));
    const rowAt = new Map(rows.map((row) => [row.layer, row]));
    for (const one of stays) {
      const { cells } = rowAt.get(rowOfNode(one));
      if (!cells.has(one.position)) cells.set(one.position, []);
      cells.get(one.position).push(one);
    }
    const positions = [...new Set(stays.map((one) => one.position))].sort((a, b) => a - b);
    for (const { cells } of rows) for (const cell of cells.values()) cell.sort((a, b) => b.isTarget - a.isTarget || graph.influence[b.number] - graph.influence[a.number] || a.number - b.number);
    const columns = columnsOf(positions, rows);
    const height = rowHeights(rows, columns);
    return { rows, ...columns, height, ...spots(rows, columns) };
  }

  // What is left of the window under the top of the drawing, in pixels.
  const isNarrow = () => window.matchMedia("(max-width: 900px)").matches;
  const roomBelow = () => Math.max(340, (isNarrow() ? 0.7 * window.innerHeight : window.innerHeight - box.getBoundingClientRect().top - window.scrollY - 44));

  // The widest setting that fits: token strings across, then upright and ever smaller, with fewer nodes in a line.
  function columnsOf(positions, rows) {
    const room = box.offsetWidth - AXIS - 18; // a scroll bar may come
    const most = new Map(positions.map((position) => [position, Math.max(...rows.map((row) => row.cells.get(position)?.length || 0))]));
    const scales = controls.elements.fit.checked ? [[1, false], [1, true], [0.85, true], [0.7, true], [0.55, true]] : [[1, false]];
    for (const [scale, upright] of scales) {
      for (const perLine of [14, 10, 7, 5, 4, 3, 2].filter((lines) => lines > 3 || scale < 0.6)) {
        const columns = positions.map((position) => {
          const words = upright ? 13 : Math.max(34, Math.min(96, 16 + 6.7 * [...visible(graph.tokens[position] ?? "?")].length));
          return { position, width: Math.max(words, Math.min(perLine, most.get(position)) * PITCH * scale + (upright ? 5 : 14)) };
        });
        const width = columns.reduce((sum, column) => sum + column.width, 0);
        const isLast = scales[scales.length - 1][0] === scale && scales[scales.length - 1][1] === upright && perLine === (scale < 0.6 ? 2 : 4);
        if (width <= room || isLast) return inARow({ columns, perLine, scale, upright }, Math.max(0, room - width));
      }
    }
  }

  function inARow(setting, spare) {
    const { columns } = setting;
    const more = Math.min(60, spare / Math.max(1, columns.length));
    let x = 0;
    for (const column of columns) {
      column.width += more;
      column.x = x;
      x += column.width;
    }
    return { ...setting, width: Math.max(10, Math.floor(x)) };
  }

  function rowHeights(rows, { perLine, scale }) {
    for (const row of rows) row.lines = Math.max(0, ...[...row.cells.values()].map((cell) => Math.ceil(cell.length / perLine)));
    const used = rows.filter((row) => row.lines).length;
    const needed = rows.reduce((sum, row) => sum + row.lines * PITCH * scale, 0);
    const gap = Math.max(12 * scale, Math.min(64, (roomBelow() - 128 - needed) / Math.max(1, used)));
    let y = 4;
    for (const row of rows) {
      row.y = y;
      row.height = row.lines ? row.lines * PITCH * scale + gap : 8;
      y += row.height;
    }
    return Math.ceil(y + 4);
  }

  function spots(rows, { columns, perLine, scale }) {
    const x = new Float64Array(graph.nodes.length), y = new Float64Array(graph.nodes.length);
    for (const row of rows) {
      for (const column of columns) {
        const cell = row.cells.get(column.position) || [];
        const lines = Math.ceil(cell.length / perLine);
        cell.forEach((one, place) => {
          const line = Math.floor(place / perLine);
          const inLine = Math.min(perLine, cell.length - line * perLine);
          x[one.number] = column.x + column.width / 2 + ((place % perLine) - (inLine - 1) / 2) * PITCH * scale;
          y[one.number] = row.y + row.height / 2 + (line - (lines - 1) / 2) * PITCH * scale;
        });
      }
    }
    return { x, y };
  }

  // ---------------------------------------------------------------------------------------------- drawing

  function redraw(isNew = false) {
    const share = Number(controls.elements.keep.value) / 100;
    view = filtered(graph, share, controls.elements.errors.checked);
    place = layOut();
    if (pinned && !view.nodes[pinned.number]) pinned = null;
    if (shown && !view.nodes[shown.number]) shown = pinned;
    box.style.maxHeight = `${roomBelow()}px`;
    sheet.style.width = `${place.width}px`;
    sheet.style.height = `${place.height}px`;
    drawAxes();
    drawEdges();
    drawNodes();
    search();
    countNodes(share);
    if (isNew) box.scrollTo(box.scrollWidth, 0); // the token that is said stands at the upper right
  }

  function countNodes(share) {
    const count = view.nodes.filter(Boolean).length;
    byId("kept").textContent = percent(share);
    byId("nodes-shown").textContent = `${number(count)} of ${number(graph.nodes.length)} nodes`;
  }

  function drawAxes() {
    const layerOf = (row) => (row.layer === Infinity ? "next" : row.layer === -1 ? "emb." : row.layer);
    byId("layers").replaceChildren(...place.rows.filter((row) => row.lines).map((row) => {
      const words = make("span", {}, String(layerOf(row)));
      words.style.top = `${row.y + row.height / 2}px`;
      return words;
    }));
    byId("tokens").style.width = `${place.width}px`;
    byId("tokens").replaceChildren(...place.columns.map((column) => {
      const words = visible(graph.tokens[column.position] ?? "?");
      const cell = make("span", { title: `${words} (token ${column.position})` }, words, make("small", {}, String(column.position)));
      cell.style.left = `${column.x}px`;
      cell.style.width = `${column.width}px`;
      return cell;
    }));
    byId("tokens").classList.toggle("upright", place.upright);
    const stripes = place.columns.map(({ x, width }, number) => `${number % 2 ? "#fff" : "#f6f8fa"} ${x.toFixed(1)}px ${(x + width).toFixed(1)}px`);
    sheet.style.background = stripes.length ? `linear-gradient(90deg, ${stripes.join(", ")})` : "";
  }

  // A curve that leaves its source upwards and enters its target from below.
  function ends(edge) {
    const [source, target] = [graph.edges.source[edge], graph.edges.target[edge]];
    const [x0, y0, x1, y1] = [place.x[source], place.y[source] - RADIUS * place.scale, place.x[target], place.y[target] + RADIUS * place.scale];
    const bend = Math.max(8, 0.42 * Math.abs(y0 - y1));
    return [x0, y0, x0, y0 - bend, x1, y1 + bend, x1, y1];
  }

  // from 0 to 1, which the strongest hundredth of the edges has
  const strength = (edge) => {
    const full = view.edges.length ? Math.abs(graph.edges.weight[view.edges[Math.floor(view.edges.length / 100)]]) : 1;
    return Math.min(1, Math.abs(graph.edges.weight[edge]) / (full || 1)) ** 0.8;
  };
  const colourOf = (edge) => (graph.edges.weight[edge] < 0 ? COLOURS.less : COLOURS.more);

  function drawEdges() {
    const limit = controls.elements.edges.value === "all" ? Infinity : Number(controls.elements.edges.value);
    const drawn = view.edges.slice(0, limit);
    const ink = Math.min(1, (300 / Math.max(1, drawn.length)) ** 0.4);
    const scale = Math.min(window.devicePixelRatio || 1, Math.sqrt(AREA / (place.width * place.height)), 16000 / Math.max(place.width, place.height));
    canvas.width = Math.max(1, Math.floor(place.width * scale));
    canvas.height = Math.max(1, Math.floor(place.height * scale));
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    for (let at = drawn.length - 1; at >= 0; at -= 1) { // the strongest on top
      const by = strength(drawn[at]), [x0, y0, ...curve] = ends(drawn[at]);
      pen.strokeStyle = `rgba(${colourOf(drawn[at])},${(ink * (0.1 + 0.6 * by)).toFixed(3)})`;
      pen.lineWidth = (0.5 + 2.4 * by) * Math.max(0.6, place.scale);
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.bezierCurveTo(...curve);
      pen.stroke();
    }
    const left = view.edges.length - drawn.length;
    const least = drawn.length ? number(Math.abs(graph.edges.weight[drawn[drawn.length - 1]])) : "0";
    byId("edges-shown").textContent = left
      ? `the ${number(drawn.length)} strongest edges are drawn, those with |weight| of at least ${least}; ${number(left)} weaker ones are not`
      : `all ${number(drawn.length)} edges are drawn`;
  }

  const SHAPES = {
    latent: () => draw("circle", { r: RADIUS }),
    error: () => draw("path", { d: "M0-6 6 0 0 6-6 0Z" }),
    embedding: () => draw("rect", { x: -4.8, y: -4.8, width: 9.6, height: 9.6, rx: 1 }),
    logit: () => draw("path", { d: "M0-6.4 6.6 5H-6.6Z" }),
  };

  function drawNodes() {
    const most = Math.max(...graph.nodes.map((one) => (one.kind === KINDS.latent ? graph.influence[one.number] : 0)), 1e-12);
    shapes = [];
    const inPlace = place.rows.flatMap((row) => place.columns.flatMap((column) => row.cells.get(column.position) || []));
    byId("nodes").replaceChildren(...inPlace.map((one) => {
      const said = `${one.kind}, ${layerWords(one)}, token ${one.position} ${visible(one.token)}: ${labelOf(one)}`;
      const shape = SHAPES[one.kind]();
      shape.setAttribute("class", "shape");
      if (one.kind === KINDS.latent) shape.style.fill = shade(Math.sqrt(graph.influence[one.number] / most));
      const group = draw("g", {
        class: `node ${one.kind}${one.isTarget ? " target" : ""}`, transform: `translate(${place.x[one.number].toFixed(1)} ${place.y[one.number].toFixed(1)}) scale(${place.scale})`,
        role: "button", tabindex: -1, "aria-label": said, "aria-pressed": "false", "data-node": one.number,
      }, draw("circle", { r: 8, class: "hit" }), shape);
      shapes[one.number] = group;
      return group;
    }));
    const first = pinned || inPlace[0];
    if (first) shapes[first.number].setAttribute("tabindex", 0);
    mark();
  }

  // from near white to dark slate
  const shade = (by) => `rgb(${[236, 240, 244].map((light, at) => Math.round(light + ([32, 52, 74][at] - light) * by)).join(",")})`;

  // What is lit: the pinned node's paths and edges, or the edges of the node under the pointer.
  function mark() {
    const focus = pinned || shown;
    const lit = byId("lit");
    lit.replaceChildren();
    byId("drawing").classList.toggle("dimmed", Boolean(focus));
    for (const one of graph.nodes) shapes[one.number]?.classList.remove("lit", "near", "shown", "pinned");
    if (shown && shapes[shown.number]) shapes[shown.number].classList.add("shown");
    if (!focus || !shapes[focus.number]) return;
    const visibleEdge = (edge) => view.nodes[graph.edges.source[edge]] && view.nodes[graph.edges.target[edge]];
    const near = [...focus.in, ...focus.out].filter(visibleEdge);
    near.sort((a, b) => Math.abs(graph.edges.weight[a]) - Math.abs(graph.edges.weight[b]));
    near.forEach((edge) => lit.append(curve(edge, "near")));
    for (const edge of near.slice(-24)) for (const end of [graph.edges.source[edge], graph.edges.target[edge]]) shapes[end].classList.add("near");
    shapes[focus.number].classList.add("lit", pinned ? "pinned" : "near");
    if (pinned) light(paths(graph, pinned.number), visibleEdge);
  }

  function light({ up, down }, visibleEdge) {
    const ranks = new Map();
    for (const way of [up, down]) way.forEach((path, rank) => path.edges.forEach((edge) => ranks.set(edge, Math.min(rank, ranks.get(edge) ?? rank))));
    for (const [edge, rank] of [...ranks].sort((a, b) => b[1] - a[1]).filter(([one]) => visibleEdge(one))) {
      byId("lit").append(curve(edge, rank ? "path" : "path best"));
      for (const end of [graph.edges.source[edge], graph.edges.target[edge]]) shapes[end].classList.add("lit");
    }
  }

  function curve(edge, look) {
    const [x0, y0, ...rest] = ends(edge).map((value) => value.toFixed(1));
    const line = draw("path", { d: `M${x0} ${y0}C${rest.join(" ")}`, class: look, stroke: `rgb(${colourOf(edge)})`, "data-edge": edge });
    if (look === "near") {
      line.style.strokeWidth = (0.6 + 2.6 * strength(edge)).toFixed(2);
      line.style.opacity = (0.25 + 0.6 * strength(edge)).toFixed(2);
    }
    return line;
  }

  // ---------------------------------------------------------------------------------------------- one node

  function pin(id) {
    const before = pinned;
    pinned = known(id) ? graph.nodes.find((one) => one.id === id) || null : null;
    say(known(id) && !pinned ? `This graph has no node ${id}.` : "", true);
    if (pinned && !view.nodes[pinned.number]) { // a filter hides what a link asks for
      controls.elements.keep.value = 100;
      controls.elements.errors.checked = true;
      redraw();
    }
    shown = pinned;
    if (pinned !== before) walk();
    for (const shape of shapes) shape?.setAttribute("aria-pressed", String(shape === shapes[pinned?.number]));
    if (pinned) {
      focusable(pinned);
      bringIntoSight(pinned);
    }
    mark();
    tell();
  }

  // The trail grows while edges are followed, and is cut back where a node is visited again.
  function walk() {
    if (pinned) {
      const at = trail.indexOf(pinned);
      trail = at < 0 ? [...trail, pinned].slice(-TRAIL) : trail.slice(0, at + 1);
    } else trail = [];
    byId("trail").hidden = trail.length < 2;
    byId("steps").replaceChildren(...trail.map((one) => make("li", {}, make("a", { href: address(name, one.id), "aria-current": one === pinned ? "true" : null }, labelOf(one)), make("small", {}, ` ${where(one)}`))));
  }

  function focusable(one) {
    for (const shape of shapes) shape?.setAttribute("tabindex", -1);
    shapes[one.number]?.setAttribute("tabindex", 0);
  }

  function bringIntoSight(one) {
    const [left, top] = [place.x[one.number] + AXIS, place.y[one.number]];
    const [width, height, edge] = [box.clientWidth, box.clientHeight - 40, 60];
    const isIn = left > box.scrollLeft + edge && left < box.scrollLeft + width - 20 && top > box.scrollTop + 10 && top < box.scrollTop + height - 20;
    if (!isIn) box.scrollTo({ left: left - width / 2, top: top - height / 2 });
  }

  function tell() {
    panel.replaceChildren(...(shown ? nodeCard(shown) : overview()));
  }

  function nodeCard(one) {
    const isPinned = one === pinned;
    const button = make("button", { type: "button", class: "pin" }, isPinned ? "unpin (Esc)" : "pin");
    button.addEventListener("click", () => go(isPinned ? null : one));
    const parts = [
      make("div", { class: "head" }, chip(one.kind, one.kind), button),
      make("h3", {}, labelOf(one)),
      terms([
        ["place", make("span", {}, `${layerWords(one)}, token ${one.position} `, token(one.token))],
        ["latent", one.latent],
        ["activation", one.activation === null ? null : number(one.activation)],
        ["probability", one.probability === null ? null : fixed(one.probability)],
        ["influence", one.kind === KINDS.logit ? null : `${percent(graph.influence[one.number])} of what reaches the logits passes through it`],
        ["kind in the file", ["cross layer transcoder", "mlp reconstruction error", "embedding", "logit"].includes(one.type) ? null : one.type],
      ]),
    ];
    if (isPinned) parts.push(...pathCard(one));
    parts.push(...edgeList(one, "in"), ...edgeList(one, "out"), ...exampleList(one));
    return parts;
  }

  function pathCard(one) {
    const { up, down, fromErrors } = paths(graph, one.number);
    if (!up.length && !down.length) return [];
    const at = (edge, end) => graph.nodes[graph.edges[end][edge]];
    const row = (step, edge) => {
      const weight = edge === undefined ? null : graph.edges.weight[edge];
      const gives = weight === null ? null : make("b", { class: weight < 0 ? "less" : "more", title: "what it gives to the node above" }, signed(weight));
      return make("li", { class: step === one ? "here" : null }, make("a", { href: address(name, step.id) }, labelOf(step)), make("small", {}, ` ${where(step)} `), gives);
    };
    // from the token down: each node with the edge that leads up from it
    const chain = [];
    if (up.length && up[0].edges.length) chain.push(row(at(up[0].edges[up[0].edges.length - 1], "target")));
    if (up.length) chain.push(...[...up[0].edges].reverse().map((edge) => row(at(edge, "source"), edge)));
    if (!chain.length) chain.push(row(one));
    if (down.length) chain.push(...down[0].edges.map((edge) => row(at(edge, "source"), edge)));
    const said = [
      !up.length ? "No path leads from it to a token." : "",
      !down.length ? "No path leads to it from an embedding or an error." : fromErrors ? "No path leads to it from an embedding: it starts at an error." : "",
    ].filter(Boolean).join(" ");
    return [
      make("h4", {}, "Strongest path through it"),
      make("ol", { class: "chain" }, ...chain),
      make("p", { class: "note" }, said || "By the product of the shares its edges have of all that enters a node; the two next best are drawn thinner."),
    ];
  }

  function edgeList(one, way) {
    const all = one[way].filter((edge) => view.nodes[graph.edges[way === "in" ? "source" : "target"][edge]]);
    all.sort((a, b) => Math.abs(graph.edges.weight[b]) - Math.abs(graph.edges.weight[a]) || a - b);
    const hidden = one[way].length - all.length;
    const title = make("h4", {}, `${way === "in" ? "What it gets" : "What it gives"} (${number(all.length)} edges) `, make("small", {}, `% of all that enters ${way === "in" ? "here" : "there"}`));
    const list = make("ul", { class: "edges" });
    const most = all.length ? Math.abs(graph.edges.weight[all[0]]) : 1;
    const add = (from, to) => list.append(...all.slice(from, to).map((edge) => edgeRow(edge, way, most)));
    add(0, ROWS_SHOWN);
    const parts = [title, list];
    if (!all.length) list.append(make("li", { class: "note" }, "none (n = 0)"));
    if (all.length > ROWS_SHOWN) {
      const more = make("button", { type: "button" }, `show all ${number(all.length)}`);
      more.addEventListener("click", () => {
        add(ROWS_SHOWN, all.length);
        more.remove();
      });
      parts.push(more);
    }
    if (hidden) parts.push(make("p", { class: "note" }, `${number(hidden)} more end at nodes that the filters hide.`));
    return parts;
  }

  function edgeRow(edge, way, most) {
    const weight = graph.edges.weight[edge];
    const other = graph.nodes[graph.edges[way === "in" ? "source" : "target"][edge]];
    const bar = make("i", { class: weight < 0 ? "less" : "more" });
    bar.style.width = `${Math.max(2, (100 * Math.abs(weight)) / most)}%`;
    return make("li", {}, make("a", { href: address(name, other.id), "data-edge": edge },
      make("b", { class: weight < 0 ? "less" : "more" }, signed(weight)), make("span", { class: "bar" }, bar),
      make("span", { class: "words" }, labelOf(other), make("small", {}, `${where(other)} · ${percent(graph.share[edge])}`))));
  }

  function exampleList(one) {
    if (one.kind !== KINDS.latent) return [];
    const title = make("h4", {}, "Where it fires most");
    if (rowOf.get(name)?.latents && !graph.latents) return [title, make("p", { class: "note" }, "loading …")];
    const examples = latentFacts(one)?.examples || [];
    if (!examples.length) return [title, make("p", { class: "note" }, "No examples are stored with this graph (n = 0).")];
    const quote = ([before, fires, after]) => make("li", {}, inOneLine(before), make("mark", {}, visible(fires)), inOneLine(after));
    return [title, make("ul", { class: "examples" }, ...examples.map(quote))];
  }

  // What the panel says while no node is chosen.
  function overview() {
    const strongestFirst = graph.nodes.filter((one) => one.kind === KINDS.latent && view.nodes[one.number]);
    strongestFirst.sort((a, b) => graph.influence[b.number] - graph.influence[a.number] || a.number - b.number);
    const errors = graph.nodes.filter((one) => one.kind === KINDS.error).length;
    const listed = found ? found : strongestFirst;
    const parts = [make("h3", {}, found ? `Found: ${number(found.length)} nodes` : "Most influential latents")];
    parts.push(make("ul", { class: "plain" }, ...listed.slice(0, found ? 60 : LIST_SHOWN).map((one) => {
      const small = make("small", {}, `${where(one)}${one.kind === KINDS.logit ? "" : ` · ${percent(graph.influence[one.number])}`}`);
      return make("li", {}, make("a", { href: address(name, one.id) }, labelOf(one), small));
    })));
    if (!listed.length) parts.push(make("p", { class: "note" }, "none (n = 0)"));
    parts.push(make("p", { class: "note" }, `Percentages: the share of the influence on the logits that passes through a node, ${graph.isWhole ? "in the graph before pruning" : "along the edges of this file"}. ${errors ? "Errors stand for what the transcoders miss." : ""}`));
    parts.push(make("p", { class: "note" }, "Point at a node to see its edges; choose it to see its strongest paths. With the keyboard: Tab to the drawing, arrows to move, Enter to choose, Escape to let go."));
    return parts;
  }

  // ---------------------------------------------------------------------------------------------- search

  const haystack = (one) => `${labelOf(one)}\n${visible(one.token)}\n${one.latent ?? ""}\n${layerWords(one)}`.toLowerCase();

  function search() {
    const words = controls.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = words.length ? graph.nodes.filter((one) => view.nodes[one.number] && words.every((word) => haystack(one).includes(word))) : null;
    found?.sort((a, b) => graph.influence[b.number] - graph.influence[a.number] || a.number - b.number);
    const are = new Set(found);
    byId("drawing").classList.toggle("searched", Boolean(found));
    for (const one of graph.nodes) shapes[one.number]?.classList.toggle("found", are.has(one));
    byId("found").textContent = found ? `${number(found.length)} found` : "";
    tell();
  }

  // ---------------------------------------------------------------------------------------------- what happens when

  const nodeAt = (element) => graph?.nodes[element?.closest?.("[data-node]")?.dataset.node];
  function go(one) {
    const to = address(name, one?.id);
    if (location.hash !== to) location.hash = to;
  }

  function look(one) {
    if (shown === one) return;
    shown = one;
    mark();
    tell();
  }

  function showTip(one, x, y) {
    const to = pinned && one !== pinned ? one.out.find((edge) => graph.edges.target[edge] === pinned.number) : undefined;
    const from = pinned && one !== pinned ? one.in.find((edge) => graph.edges.source[edge] === pinned.number) : undefined;
    const facts = [where(one)];
    if (one.activation !== null) facts.push(`activation ${number(one.activation)}`);
    if (one.probability !== null) facts.push(`p ${fixed(one.probability)}`);
    if (one.kind !== KINDS.logit) facts.push(`influence ${percent(graph.influence[one.number])}`);
    tip.replaceChildren(make("b", {}, labelOf(one)), make("span", {}, facts.join(" · ")));
    if (to !== undefined) tip.append(make("span", {}, `gives ${signed(graph.edges.weight[to])} to the pinned node`));
    if (from !== undefined) tip.append(make("span", {}, `gets ${signed(graph.edges.weight[from])} from the pinned node`));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, window.innerWidth - width - 8))}px`;
    tip.style.top = `${y + 18 + height > window.innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
  }

  // a finger is wider than a node
  function nearest(x, y) {
    const { left, top } = sheet.getBoundingClientRect();
    const apart = (one) => Math.hypot(place.x[one.number] + left - x, place.y[one.number] + top - y);
    const near = graph.nodes.filter((one) => view.nodes[one.number] && apart(one) < REACH);
    return near.sort((a, b) => apart(a) - apart(b))[0];
  }

  const svg = byId("drawing");
  svg.addEventListener("pointerover", (event) => {
    const one = nodeAt(event.target);
    if (!one || event.pointerType === "touch") return;
    look(one);
    showTip(one, event.clientX, event.clientY);
  });
  svg.addEventListener("pointerout", (event) => {
    if (!nodeAt(event.target) || nodeAt(event.relatedTarget)) return;
    tip.hidden = true;
    if (pinned) look(pinned);
  });
  svg.addEventListener("click", (event) => {
    const one = nodeAt(event.target) || nearest(event.clientX, event.clientY);
    tip.hidden = true;
    go(one && one !== pinned ? one : null);
  });
  // on the sheet: Chromium lets Tab stop at an SVG that listens for focus
  sheet.addEventListener("focusin", (event) => {
    const one = nodeAt(event.target);
    if (!one || !event.target.matches(":focus-visible")) return;
    look(one);
  });
  sheet.addEventListener("keydown", (event) => {
    const one = nodeAt(event.target);
    if (!one) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      go(one === pinned ? null : one);
      return;
    }
    const next = neighbour(one, event.key);
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    if (!next) return;
    focusable(next);
    bringIntoSight(next);
    shapes[next.number].focus({ preventScroll: true });
  });

  // The next node of the row, or the nearest one of the next row that has any.
  function neighbour(one, key) {
    const at = place.rows.findIndex((row) => row.cells.get(one.position)?.includes(one));
    const nodesOf = (row) => [...row.cells.values()].flat().sort((a, b) => place.x[a.number] - place.x[b.number] || place.y[a.number] - place.y[b.number]);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const row = nodesOf(place.rows[at]);
      return row[row.indexOf(one) + (key === "ArrowRight" ? 1 : -1)];
    }
    const rows = key === "ArrowUp" ? place.rows.slice(0, at).reverse() : key === "ArrowDown" ? place.rows.slice(at + 1) : [];
    const row = rows.find((other) => other.lines);
    const apart = (other) => Math.abs(place.x[other.number] - place.x[one.number]);
    return row && nodesOf(row).reduce((best, other) => (apart(other) < apart(best) ? other : best));
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !graph) return;
    if (controls.elements.words.value && document.activeElement === controls.elements.words) {
      controls.elements.words.value = "";
      search();
    } else if (pinned) go(null);
    else if (shown) look(null);
    tip.hidden = true;
  });
  panel.addEventListener("pointerover", (event) => {
    const edge = event.target.closest("[data-edge]")?.dataset.edge;
    for (const line of byId("lit").children) line.classList.toggle("strong", line.dataset.edge === edge);
  });

  let asked = 0;
  const soon = (then) => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(then);
  };
  controls.addEventListener("submit", (event) => event.preventDefault());
  finder.addEventListener("submit", (event) => event.preventDefault());
  finder.addEventListener("input", listGraphs);
  controls.addEventListener("input", (event) => {
    const { name: changed } = event.target;
    soon(changed === "words" ? search : changed === "edges" ? drawEdges : () => redraw());
  });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (graph && window.innerWidth !== width) soon(() => redraw());
    width = window.innerWidth;
  });

  const picker = byId("file");
  byId("choose").addEventListener("click", () => picker.click());
  picker.addEventListener("change", () => {
    const [file] = picker.files;
    if (file) openFile(file);
    picker.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    window.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      const file = kind === "drop" ? event.dataTransfer?.files[0] : null;
      if (file) openFile(file);
    });
  }
  window.addEventListener("hashchange", follow);

  makeIndex();
  follow();
})();
