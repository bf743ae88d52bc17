"use strict";
// Points: {title, x, y, points: [[x, y, name]]}; the nearest to the pointer is named. strong, chosen: further points, drawn above the others, the
// chosen with a ring. front: corners of a line. limits: {x: [], y: []}, drawn dashed.
// from, better: what is worse than `from` in y is left out until asked for; better says which side that is.
Page.scatter = (root, data, options = {}) => {
  const holder = Page.make("div", {}), tip = Page.make("div", {class: "tip", hidden: true});
  let whole = false;
  const more = Page.make("button", {type: "button", hidden: true, onclick: () => { whole = !whole; build(); }});
  root.append(Page.make("div", {class: "title"}, Page.make("b", {}, data.title), Page.make("span", {}), more), holder);
  let plot = null, width = 0, shown = null, points = [];
  const height = options.height || 260;
  const axis = label => ({stroke: () => Page.colour("--soft"), font: "11px system-ui, sans-serif", label, labelFont: "12px system-ui, sans-serif", labelSize: 20, labelGap: 2,
                          grid: {stroke: () => Page.colour("--line"), width: 1}, ticks: {stroke: () => Page.colour("--line"), width: 1, size: 4}});
  const positive = n => points.length && points[0][n] > 0 && points.every(p => p[n] > 0);
  const wide = n => positive(n) && Math.max(...span(n)) > 1e3 * Math.min(...span(n));
  function span(n) {
    let low = Infinity, high = -Infinity;
    for (const p of points) { low = Math.min(low, p[n]); high = Math.max(high, p[n]); }
    return [low, high];
  }
  function build() {
    if (plot) plot.destroy();
    const finite = some => (some || []).filter(p => Number.isFinite(p[0]) && Number.isFinite(p[1]));
    const near = p => whole || !Number.isFinite(data.from) || data.better * p[1] >= data.better * data.from;
    const few = finite(data.strong).filter(near), ringed = finite(data.chosen).filter(near);
    points = [...finite(data.points).filter(near), ...few, ...ringed].sort((a, b) => a[0] - b[0]);
    more.hidden = !Number.isFinite(data.from);
    if (!more.hidden) {
      const away = [...finite(data.points), ...finite(data.strong)].filter(p => data.better * p[1] < data.better * data.from).length;
      more.textContent = whole ? "closer" : `+ ${away} ${data.better > 0 ? "below" : "above"} ${Page.number(+data.from.toPrecision(3))}`;
      more.title = whole ? "the good ones alone" : "all points";
    }
    width = Math.max(160, holder.clientWidth);
    if (!points.length) { holder.textContent = "no finite points"; return; }
    const size = points.length > 3000 ? 2.5 : points.length > 300 ? 4 : 7;
    const values = (u, ticks) => ticks.map(Page.tick);
    const room = few.length + ringed.length ? .06 : .03;   // a ring takes more
    const padded = (u, low, high) => low === high ? [low - 1, high + 1] : [low - room * (high - low), high + room * (high - low)];
    const strength = few.length ? 40 : points.length > 3000 ? 55 : 75;
    const disc = (u, p, radius) => {
      u.ctx.beginPath();
      u.ctx.arc(u.valToPos(p[0], "x", true), u.valToPos(p[1], "y", true), radius * devicePixelRatio, 0, 7);
    };
    const rule = (u, along, at) => {
      const {left, top, width: w, height: h} = u.bbox, place = u.valToPos(at, along, true);
      u.ctx.beginPath();
      u.ctx.moveTo(along === "x" ? place : left, along === "x" ? top : place);
      u.ctx.lineTo(along === "x" ? place : left + w, along === "x" ? top + h : place);
      u.ctx.stroke();
    };
    const paint = (u, si) => {   // far faster than a path a point
      const context = u.ctx, size2 = size * devicePixelRatio;
      context.save();
      context.beginPath();
      context.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      context.clip();
      context.fillStyle = Page.colour("--s0");
      context.globalAlpha = strength / 100;
      for (const p of points) {
        const x = u.valToPos(p[0], "x", true), y = u.valToPos(p[1], "y", true);
        if (points.length > 3000) context.fillRect(x - size2 / 2, y - size2 / 2, size2, size2);
        else { context.beginPath(); context.arc(x, y, size2 / 2, 0, 7); context.fill(); }
      }
      if (data.front) {
        context.globalAlpha = 1; context.strokeStyle = Page.colour("--s1"); context.lineWidth = 2 * devicePixelRatio;
        context.beginPath();
        data.front.forEach((p, n) => context[n ? "lineTo" : "moveTo"](u.valToPos(p[0], "x", true), u.valToPos(p[1], "y", true)));
        context.stroke();
      }
      context.globalAlpha = 1;
      context.fillStyle = Page.colour("--s1");
      for (const p of few) { disc(u, p, 4); context.fill(); }
      context.lineWidth = 2.2 * devicePixelRatio;
      context.strokeStyle = Page.colour("--ink");
      for (const p of ringed) { disc(u, p, 8); context.stroke(); }
      context.lineWidth = 1.4 * devicePixelRatio;
      context.strokeStyle = Page.colour("--warn");
      context.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      for (const along of ["x", "y"]) for (const at of (data.limits || {})[along] || []) rule(u, along, at);
      context.restore();
      return null;
    };
    plot = new uPlot({
      width, height, legend: {show: false}, padding: [10, 12, 0, 0], cursor: {points: {show: false}, drag: {x: true, y: true, uni: 20}},
      scales: {x: {time: false, ...(wide(0) ? {distr: 3} : {range: padded})}, y: wide(1) ? {distr: 3} : {range: padded}},
      axes: [{...axis(data.x), size: 34, values}, {...axis(data.y), size: 52, values}],
      series: [{}, {paths: paint, points: {show: false}}],
      hooks: {setCursor: [near], ready: [u => u.over.append(tip)]},
    }, [points.map(p => p[0]), points.map(p => p[1])], holder);
  }
  function near(u) {
    const {left, top} = u.cursor;
    tip.hidden = true;
    if (left === undefined || left < 0) return;
    let best = null, least = 24 * 24;
    for (const p of points) {
      const dx = u.valToPos(p[0], "x") - left, dy = u.valToPos(p[1], "y") - top, d = dx * dx + dy * dy;
      if (d < least) { least = d; best = p; }
    }
    if (!best) return;
    tip.hidden = false;
    tip.textContent = `${options.name ? options.name(best[2]) : best[2]}\n${Page.number(best[0])}, ${Page.number(best[1])}`;
    const x = u.valToPos(best[0], "x"), y = u.valToPos(best[1], "y");
    tip.style.left = x > width / 2 ? "" : `${x + 8}px`;
    tip.style.right = x > width / 2 ? `${u.over.clientWidth - x + 8}px` : "";
    tip.style.top = `${Math.min(y, height - 110)}px`;
  }
  const chart = {
    mark() {}, rebuild: () => plot && build(),
    update(fresh) { data = fresh; if (plot) build(); },
    fit() { if (plot && holder.clientWidth && Math.abs(holder.clientWidth - width) > 1) { width = holder.clientWidth; plot.setSize({width, height}); } },
    gone() { Page.charts.delete(chart); if (plot) plot.destroy(); root.remove(); },
  };
  Page.charts.add(chart);
  Page.seen(root, build);
  return chart;
};

Page.draw.scatters = (root, first) => {
  const grid = Page.make("div", {class: "charts"});
  root.append(grid);
  let made = [];
  const update = data => {
    for (const chart of made.splice(data.length)) chart.gone();
    data.forEach((one, n) => {
      if (made[n]) made[n].update(one);
      else { const place = Page.make("div", {}); grid.append(place); made.push(Page.scatter(place, one)); }
    });
  };
  update(first);
  return {update};
};
