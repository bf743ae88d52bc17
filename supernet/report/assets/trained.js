"use strict";
// The page of a table: histograms, any two columns against each other, the best cells.
Page.unpack = text => new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);

Page.draw.bars = (root, data) => {
  const grid = Page.make("div", {class: "charts"});
  root.append(grid);
  for (const one of data) {
    const place = Page.make("div", {}), holder = Page.make("div", {});
    place.append(Page.make("div", {class: "title"}, Page.make("b", {}, one.title), Page.make("span", {}, one.x)), holder);
    grid.append(place);
    let plot = null, width = 0;
    const axis = {stroke: () => Page.colour("--soft"), font: "11px system-ui, sans-serif", grid: {stroke: () => Page.colour("--line"), width: 1},
                  ticks: {stroke: () => Page.colour("--line"), width: 1, size: 4}};
    const build = () => {
      if (plot) plot.destroy();
      width = Math.max(160, holder.clientWidth);
      const centre = one.counts.map((_, n) => (one.edges[n] + one.edges[n + 1]) / 2);
      plot = new uPlot({
        width, height: 200, padding: [8, 10, 0, 0], legend: {live: true}, cursor: {points: {show: false}},
        scales: {x: {time: false, range: () => [one.edges[0], one.edges[one.edges.length - 1]]}, y: {range: (u, low, high) => [0, high * 1.05 || 1]}},
        axes: [{...axis, size: 30}, {...axis, size: 52}],
        series: [{label: one.x, value: (u, v, s, i) => i === null || i === undefined ? "\u2013" : `${Page.number(one.edges[i])} to ${Page.number(one.edges[i + 1])}`},
                 {label: "architectures", paths: uPlot.paths.bars({size: [1, Infinity], gap: 1}), fill: () => Page.colour("--s0"), stroke: () => Page.colour("--s0"),
                  width: 0, points: {show: false}, value: (u, v) => Page.number(v)}],
      }, [centre, one.counts], holder);
    };
    const chart = {mark() {}, rebuild: () => plot && build(), gone() {},
                   fit() { if (plot && holder.clientWidth && Math.abs(holder.clientWidth - width) > 1) { width = holder.clientWidth; plot.setSize({width, height: 200}); } }};
    Page.charts.add(chart);
    Page.seen(place, build);
  }
};

Page.draw.table = (root, data) => {
  const columns = data.columns.map(() => null), column = name => {
    const n = data.names.indexOf(name);
    return columns[n] ?? (columns[n] = Page.unpack(data.columns[n]));
  };
  const choice = (label, value) => {
    const made = Page.make("select", {"aria-label": label, onchange: () => draw()}, ...data.names.map(name => Page.make("option", {value: name}, name)));
    made.value = value;
    return made;
  };
  const x = choice("x axis", data.x), y = choice("y axis", data.y), place = Page.make("div", {class: "chart"});
  const front = Page.make("input", {type: "checkbox", checked: true, onchange: () => draw()});
  root.append(Page.make("div", {class: "controls"}, Page.make("label", {}, "x ", x), Page.make("label", {}, "y ", y), Page.make("label", {}, front, "best of both")), place);
  let chart = null;
  function draw() {
    const a = column(x.value), b = column(y.value), points = [];
    for (let n = 0; n < data.rows; n++) if (Number.isFinite(a[n]) && Number.isFinite(b[n])) points.push([a[n], b[n], n]);
    const made = {title: `${y.value} against ${x.value}`, x: x.value, y: y.value, points, front: front.checked ? best(points) : null};
    if (chart) chart.update(made);
    else chart = Page.scatter(place, made, {height: 380, name: n => data.texts[n]});
  }
  function best(points) {   // smaller x, larger y
    const found = [];
    for (const p of [...points].sort((p, q) => p[0] - q[0] || q[1] - p[1])) if (!found.length || p[1] > found[found.length - 1][1]) found.push(p);
    return found;
  }
  draw();
};

Page.draw.found = (root, data) => {
  for (const one of data) {
    for (const cell of one.cells) {
      const box = Page.make("div", {class: "box figure arcbox", tabindex: 0});
      root.append(Page.make("h3", {}, one.cells.length > 1 ? `${one.title}, ${cell.kind}` : one.title), box);
      const states = cell.ops.map((text, e) => ({family: cell.families[e], text, width: cell.families[e] === "none" ? 1 : 2.2, share: 1, kept: true,
                                                classes: cell.families[e] === "none" ? "left" : "kept"}));
      (cell.chain ? Page.chain(box, cell.edges.length) : Page.arcs(box, cell))(states);
    }
  }
};
