"use strict";
// A cell as arcs over its nodes in a row: every edge has a place of its own, also where all pairs of nodes are joined.
// spec: {nodes: [names], inputs, outputs: [nodes], output: name, edges: [[source, destination]], fed: [names]}.
Page.arcs = (root, spec) => {
  const pitch = 104, half = 23, tall = 28, step = 33, rows = new Map();
  const last = spec.nodes.length - 1;
  const joined = spec.outputs.length > 1, single = spec.outputs.length === 1 ? spec.outputs[0] : null;
  const left = 12 + half + (spec.fed.length ? pitch * .8 : 0);
  const x = n => left + n * pitch;
  const lanes = spec.edges.map(([s, d]) => {
    const again = rows.get(`${s} ${d}`) || 0;
    rows.set(`${s} ${d}`, again + 1);
    return again;
  });
  const heights = spec.edges.map(([s, d], e) => 14 + step * (d - s) + 15 * lanes[e]);
  const top = Math.max(40, ...heights) + 16, base = top + tall / 2;
  const drop = joined ? 22 + 9 * spec.outputs.length : 12;
  const width = x(joined ? last + 1 : last) + half + 12, height = base + tall / 2 + drop;
  const svg = Page.svg("svg", {class: spec.edges.length > 20 ? "cell arcs crowded" : "cell arcs", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "cell"});
  svg.style.maxWidth = `${width}px`;
  svg.style.minWidth = `${Math.min(width, 620)}px`;   // on a phone it scrolls in its box, and stays legible
  const port = (n, edges, e, side) => {   // ends are spread over the upper side: arrivals left, departures right, the widest arcs in the middle
    const mine = edges.map((edge, i) => [edge, i]).filter(([edge]) => edge[side] === n)
      .sort(([a, i], [b, j]) => (b[1] - b[0]) - (a[1] - a[0]) || i - j).map(([, i]) => i);
    const place = mine.indexOf(e) + .6, room = (half - 3) / (mine.length + .2);
    return x(n) + (side === 0 ? 1 : -1) * place * room;
  };
  const apex = heights.map(h => base - tall / 2 - h - 3);   // a label stands on its edge
  const parts = spec.edges.map(([s, d], e) => {
    const a = port(s, spec.edges, e, 0), b = port(d, spec.edges, e, 1), h = heights[e] * 4 / 3, y = base - tall / 2;
    const lean = Math.min(26, (b - a) / 4);
    const path = Page.svg("path", {d: `M${a} ${y}C${a + lean} ${y - h} ${b - lean} ${y - h} ${b} ${y - 5}`});
    const head = Page.svg("path", {d: `M${b - 3.6} ${y - 7}L${b} ${y}L${b + 3.6} ${y - 7}z`});
    const text = Page.svg("text", {x: (a + b) / 2, "text-anchor": "middle"});
    const hint = Page.svg("title");
    path.append(hint);
    return {path, head, text, hint};
  });
  for (const part of parts) svg.append(part.path, part.head);
  for (const [n, node] of (joined ? spec.outputs : []).entries()) {
    const y = base + tall / 2, deep = y + 12 + 9 * (spec.outputs.length - n);
    svg.append(Page.svg("path", {class: "edge wire", d: `M${x(node)} ${y}C${x(node)} ${deep + 6} ${x(node) + 30} ${deep} ${x(node) + 60} ${deep}`
      + `L${x(last + 1) - 40} ${deep}C${x(last + 1)} ${deep} ${x(last + 1)} ${deep} ${x(last + 1) - 8 + n * 4} ${y}`}));
  }
  for (const [n, name] of spec.fed.entries()) {
    const y = base + (n - (spec.fed.length - 1) / 2) * 36;
    svg.append(Page.svg("path", {class: "edge wire", d: `M${12 + half * 2} ${y}L${x(0) - half} ${base}`}));
    Page.node(svg, 12 + half, y, half, tall, name, "input");
  }
  for (const part of parts) svg.append(part.text);
  for (const [n, name] of spec.nodes.entries()) {
    const role = n === single ? "output" : n < spec.inputs && !spec.fed.length ? "input" : "computed";
    Page.node(svg, x(n), base, half, tall, n === single ? spec.output : name, role);
  }
  if (joined) Page.node(svg, x(last + 1), base, half, tall, spec.output, "output");
  root.append(svg);
  // states: of each edge {family, width, classes, text}, or null where it is not drawn
  return states => states.forEach((state, e) => {
    const {path, head, text, hint} = parts[e];
    for (const part of [path, head, text]) part.style.display = state ? "" : "none";
    if (!state) return;
    path.setAttribute("class", `edge ${state.family} ${state.classes}`);
    path.style.strokeWidth = `${state.width}px`;
    head.setAttribute("class", `head ${state.family} ${state.classes}`);
    text.setAttribute("class", `op ${state.family} ${state.classes}`);
    text.textContent = state.text;
    hint.textContent = state.hint || state.text;
    text.setAttribute("y", apex[e] - state.width / 2);
  });
};

Page.node = (svg, x, y, half, tall, name, role) => {
  svg.append(Page.svg("rect", {class: `node ${role}`, rx: 6, x: x - half, y: y - tall / 2, width: 2 * half, height: tall}));
  const text = Page.svg("text", {class: "name", x, y, dy: ".35em", "text-anchor": "middle"});
  const [base, low] = name.split("_");
  if (low === undefined) text.textContent = name;
  else text.append(Page.svg("tspan", {class: "var"}, base), Page.svg("tspan", {class: "sub", dy: 3}, low.replace(/[{}]/g, "").replace(/-/g, "\u2212")));
  svg.append(text);
};

// A chain of layers: a box each, with the share of what stands in it.
Page.chain = (root, count) => {
  const boxes = Array.from({length: count}, (_, n) => {
    const name = Page.make("b", {}), bar = Page.make("i", {}), track = Page.make("i", {class: "track"}, bar), box =
      Page.make("div", {}, Page.make("small", {}, `layer ${n + 1}`), name, track);
    return {box, name, bar};
  });
  root.append(Page.make("div", {class: "chain"}, ...boxes.map(one => one.box)));
  return states => states.forEach((state, e) => {
    boxes[e].name.textContent = state ? state.text : "\u2013";
    boxes[e].name.title = state ? state.text : "";
    boxes[e].name.style.color = state ? `var(--${state.family})` : "";
    boxes[e].name.style.opacity = state && state.kept ? "" : ".6";
    boxes[e].bar.style.background = state ? `var(--${state.family})` : "";
    boxes[e].bar.style.width = state ? `${Math.round(100 * state.share)}%` : "0";
    boxes[e].bar.style.marginTop = "0";
  });
};
