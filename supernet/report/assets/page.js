"use strict";
// Draws what the page's blocks of data hold; where it is served, looks for newer data and takes it in without a reload.
{
  const drawn = new Map();   // section and name -> {root, text, update}

  const blockOf = section => section.querySelector(':scope > script[type="application/json"]');
  const take = section => {
    const block = blockOf(section);
    return block ? JSON.parse(block.textContent) : {};
  };
  const drawSection = section => {
    const data = take(section);
    for (const root of section.querySelectorAll("[data-draw]")) {
      const name = root.dataset.from, draw = Page.draw[root.dataset.draw];
      if (!draw || data[name] === undefined) continue;
      const known = drawn.get(`${section.id} ${name}`), text = JSON.stringify(data[name]);
      if (known && known.root.isConnected) continue;
      drawn.set(`${section.id} ${name}`, {root, text, handle: draw(root, data[name], data)});
    }
  };
  for (const section of document.querySelectorAll("section")) drawSection(section);

  // HTML is only taken over where it changed, and drawings are told of new data, so that what a reader has set stays.
  const shape = section => {
    const copy = section.cloneNode(true);
    for (const part of copy.querySelectorAll("[data-draw]")) part.replaceChildren();
    for (const part of copy.querySelectorAll(':scope > script')) part.remove();
    for (const part of copy.querySelectorAll("details")) part.removeAttribute("open");
    return copy.innerHTML;
  };
  const shapes = new Map([...document.querySelectorAll("section")].map(section => [section.id, null]));

  const renew = fresh => {
    const header = document.querySelector("header"), other = fresh.querySelector("header");
    if (header && other && header.innerHTML !== other.innerHTML) header.replaceWith(document.importNode(other, true));
    const nav = document.querySelector("nav"), links = fresh.querySelector("nav");
    if (nav && links && nav.innerHTML !== links.innerHTML) nav.innerHTML = links.innerHTML;
    let before = nav;
    for (const theirs of fresh.querySelectorAll("section")) {
      const ours = document.getElementById(theirs.id), now = shape(theirs);
      if (ours && shapes.get(theirs.id) === null) shapes.set(theirs.id, shape(ours));
      if (!ours) {
        const made = document.importNode(theirs, true);
        before.after(made);
        drawSection(made);
        before = made;
      } else {
        if (shapes.get(theirs.id) !== now) renewSection(ours, theirs);
        else if (blockOf(ours) && blockOf(theirs)) blockOf(ours).textContent = blockOf(theirs).textContent;
        const data = take(theirs);
        for (const root of ours.querySelectorAll("[data-draw]")) {
          const known = drawn.get(`${ours.id} ${root.dataset.from}`), value = data[root.dataset.from];
          if (!known || value === undefined || known.text === JSON.stringify(value)) continue;
          known.text = JSON.stringify(value);
          if (known.handle.update(value, data) === false) { root.replaceChildren(); known.handle = Page.draw[root.dataset.draw](root, value, data); }
        }
        before = ours;
      }
      shapes.set(theirs.id, now);
    }
    for (const ours of document.querySelectorAll("section")) if (!fresh.getElementById(ours.id)) ours.remove();
  };
  const renewSection = (ours, theirs) => {
    // keep the drawings that both have: they are moved into the new HTML
    const kept = new Map([...ours.querySelectorAll("[data-draw]")].map(root => [root.dataset.from, root]));
    const open = ours.querySelector("details") && ours.querySelector("details").open;
    const made = document.importNode(theirs, true);
    for (const root of made.querySelectorAll("[data-draw]")) if (kept.has(root.dataset.from)) root.replaceWith(kept.get(root.dataset.from));
    ours.replaceChildren(...made.childNodes);
    if (open) ours.querySelector("details").open = true;
    drawSection(ours);
  };

  if (document.documentElement.dataset.live) {
    let tag = null, waits = 1500;
    const look = async () => {
      try {
        const answer = await fetch(location.pathname + location.search, {cache: "no-store", headers: tag ? {"If-None-Match": tag} : {}});
        if (answer.status === 200) {
          const first = tag === null;
          tag = answer.headers.get("ETag");
          const text = await answer.text();
          renew(new DOMParser().parseFromString(text, "text/html"));
          waits = first ? 1500 : 1000;
        } else waits = Math.min(10000, waits * 1.3);
        document.documentElement.classList.remove("lost");
      } catch (error) {
        waits = 5000;
        document.documentElement.classList.add("lost");
      }
      setTimeout(look, waits);
    };
    setTimeout(look, 1000);
  }
}
