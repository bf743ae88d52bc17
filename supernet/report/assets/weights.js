"use strict";
// The weights of the ops by epoch: a slider, and for each kind of cell the cell, a heat map and a chart an edge.
Page.draw.weights = (root, first) => {
  let data = first, place = data.epochs.length - 1, timer = null;
  const range = Page.make("input", {type: "range", min: 0, max: place, value: place, step: 1, "aria-label": "epoch", oninput: () => go(+range.value)});
  const play = Page.make("button", {type: "button", onclick: () => timer ? stop() : start()}, "\u25b6");
  play.setAttribute("aria-label", "play");
  const told = Page.make("output", {});
  root.append(Page.make("div", {class: "slider"}, play, range, told));
  const kinds = data.kinds.map(kind => new Kind(root, kind, data));

  function start() {
    if (place >= data.epochs.length - 1) go(0);
    const pause = Math.max(60, Math.min(400, 8000 / data.epochs.length));
    play.textContent = "\u2016";
    timer = setInterval(() => place < data.epochs.length - 1 ? go(place + 1) : stop(), pause);
  }
  function stop() { clearInterval(timer); timer = null; play.textContent = "\u25b6"; }

  function go(n) {
    place = n;
    range.value = n;
    const epoch = data.epochs[n];
    let done = -1;   // the genotype of the last epoch that was finished by then
    data.genotypes.forEach(([after], g) => { if (after <= epoch + 1e-6) done = g; });
    told.textContent = `after ${Page.number(epoch)} of ${Page.number(data.epochs[data.epochs.length - 1])} epochs` +
      (done < 0 ? "" : `; genotype ${data.genotypes[done][1]}`);
    range.setAttribute("aria-valuetext", told.textContent);
    for (const kind of kinds) kind.show(n, done);
    Page.at(epoch);
  }

  go(place);
  Page.toEpoch = epoch => {
    let best = 0;
    data.epochs.forEach((e, n) => { if (Math.abs(e - epoch) < Math.abs(data.epochs[best] - epoch)) best = n; });
    stop(); go(best);
  };
  return {update(fresh) {
    const follows = place === data.epochs.length - 1;
    if (fresh.kinds.length !== data.kinds.length) return false;
    data = fresh;
    range.max = data.epochs.length - 1;
    kinds.forEach((kind, n) => kind.update(data.kinds[n], data));
    go(follows ? data.epochs.length - 1 : Math.min(place, data.epochs.length - 1));
  }};

  function Kind(parent, kind, all) {
    const note = kind.note ? ` (${kind.note})` : "";
    const cell = Page.make("div", {class: "box figure arcbox", tabindex: 0, role: "group", "aria-label": `${kind.kind} cell at this epoch`});
    const table = Page.make("div", {class: "box figure", tabindex: 0, role: "group", "aria-label": `weights of ${kind.kind} at this epoch`});
    const charts = Page.make("div", {});
    parent.append(Page.make("div", {class: "kind"}, Page.make("h3", {}, kind.kind + note), Page.make("div", {class: "stack"}, cell, table), Page.make("h3", {}, `${kind.kind}: every edge over the epochs`), legend(), charts));
    const redraw = kind.chain ? Page.chain(cell, kind.edges.length) : Page.arcs(cell, kind);
    const dense = kind.edges.length * kind.ops.length > 600;
    const cells = kind.edges.map(() => kind.ops.map(() => Page.make("td", dense ? {class: "dense"} : {})));
    table.append(Page.make("table", {class: "heat"},
      Page.make("thead", {}, Page.make("tr", {}, Page.make("th", {}), ...kind.ops.map(op => Page.make("th", {scope: "col"}, op)))),
      Page.make("tbody", {}, ...kind.labels.map((label, e) => Page.make("tr", {}, Page.make("th", {scope: "row"}, label), ...cells[e])))));
    let [lowest, highest] = span(), strongest = widest();
    const scale = Page.make("p", {class: "soft"});
    table.append(scale);
    const small = Page.chartsIn(charts, lines(), {small: true, range: () => limits()});

    function legend() {
      return Page.make("ul", {class: "legend"}, ...kind.ops.map((op, o) => {
        const mark = Page.make("i", {});
        mark.style.background = line(o);
        return Page.make("li", {}, mark, op);
      }));
    }
    function line(o) { return kind.colours[o] === "#000000" ? "var(--ink)" : kind.colours[o]; }
    function lines() {
      return kind.labels.map((label, e) => ({title: label, lines: kind.ops.map((op, o) => ({name: op,
        colour: kind.colours[o] === "#000000" ? Page.colour("--ink") : kind.colours[o],
        x: all.epochs, y: kind.weights.map(table => table[e][o])}))}));
    }
    function limits() {
      const low = lowest < .4 * highest ? Math.min(0, lowest) : lowest, room = .05 * (highest - low);
      return [low === 0 ? 0 : low - room, highest + room];
    }
    function span() {   // of the weights of the whole record
      let low = Infinity, high = -Infinity;
      for (const w of kind.weights.flat(2)) if (Number.isFinite(w)) { low = Math.min(low, w); high = Math.max(high, w); }
      return low < high ? [low, high] : Number.isFinite(low) ? [low - .5, low + .5] : [0, 1];
    }
    function digits() { return Math.max(2, Math.min(4, 2 - Math.floor(Math.log10(highest - lowest)) - 1)); }
    function strength(n, e) { return kind.strengths ? kind.strengths[n][e] : 1; }
    function widest() { return Math.max(1e-9, ...kind.weights.flatMap((t, n) => t.map((row, e) => Math.max(...row) * strength(n, e)))); }

    this.show = (n, done) => {
      const kept = new Map((kind.kept[done] || []));
      const states = kind.edges.map((_, e) => {
        const row = kind.weights[n][e];
        let op = kept.has(e) ? kept.get(e) : -1;
        if (op < 0) row.forEach((w, o) => { if (kind.families[o] !== "none" && (op < 0 || w > row[op])) op = o; });
        if (op < 0) op = 0;
        const weight = Math.max(0, row[op]) * strength(n, e);
        return {family: kind.families[op], text: kind.ops[op], width: .8 + 7 * weight / strongest, kept: kept.has(e),
                hint: `${kind.labels[e]}: ${kind.ops[op]} ${row[op]}${kept.has(e) ? ", kept" : ""}`, share: weight / strongest, classes: kept.has(e) ? "kept" : "left"};
      });
      redraw(states);
      scale.textContent = `Colours run from ${Page.number(lowest)} to ${Page.number(highest)}, the smallest and the largest weight of all epochs.`;
      kind.weights[n].forEach((row, e) => row.forEach((w, o) => {
        const td = cells[e][o], share = (w - lowest) / (highest - lowest);
        td.style.background = `color-mix(in srgb, var(--accent) ${Math.round(100 * share)}%, var(--card))`;
        td.style.color = share > .55 ? "var(--on-accent)" : "";
        td.classList.toggle("best", kept.get(e) === o);
        td.title = `${kind.labels[e]}, ${kind.ops[o]}: ${w}`;
        if (!dense) td.textContent = w === null ? "\u2013" : w.toFixed(digits());
      }));
    };
    this.update = (fresh, whole) => {
      kind = fresh; all = whole;
      [lowest, highest] = span(); strongest = widest();
      small.update(lines());
    };
  }
};

// The stretches of epochs with one genotype; a click moves the slider there.
Page.draw.timeline = (root, first) => {
  const bar = Page.make("div", {class: "stretches"});
  root.append(bar);
  const update = stretches => {
    const names = [...new Set(stretches.map(one => one[2]))];
    bar.replaceChildren(...stretches.map(([from, to, digest]) => {
      const button = Page.make("button", {type: "button", title: `epochs ${from} to ${to}: ${digest}`, onclick: () => Page.toEpoch && Page.toEpoch(to)},
        to - from + 1 > stretches[stretches.length - 1][1] / 12 ? digest : "");
      button.style.flexGrow = to - from + 1;
      button.style.background = `hsl(${(names.indexOf(digest) * 137.5) % 360} 55% 72%)`;
      return button;
    }));
  };
  update(first);
  return {update};
};
