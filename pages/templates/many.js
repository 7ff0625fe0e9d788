"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("cards");
  const cards = [...list.children];
  const find = document.getElementById("find");
  const sort = document.getElementById("sort");
  const count = document.getElementById("count");
  const detail = document.getElementById("detail");
  const texts = data.cards.map((card) =>
    [card.title, card.image, card.caption, ...card.references, ...card.arms.map((arm) => arm.caption)]
      .join("\n").normalize("NFC").toLowerCase());

  // Pictures are set when their cards come near the window, so that the page is there at once.
  const show = (image) => { image.src = data.pictures[image.dataset.picture]; };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { show(entry.target); near.unobserve(entry.target); }
    }
  }, { rootMargin: "800px" });
  const images = [...list.querySelectorAll("img[data-picture]")];
  images.forEach((image) => near.observe(image));
  addEventListener("beforeprint", () => images.forEach(show));

  const filter = () => {
    const words = find.value.normalize("NFC").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, number) => {
      const fits = words.every((word) => texts[number].includes(word));
      card.hidden = !fits;
      shown += fits;
    });
    count.textContent = words.length ? `${shown} of ${cards.length} images` : `${shown} images`;
  };
  find.addEventListener("input", filter);
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());

  const arm = document.getElementById("arm");
  const minus = document.getElementById("minus");
  const metrics = Object.keys(data.measures);
  data.sorts.forEach((order) => sort.add(new Option(order.name)));
  metrics.forEach((metric) => sort.add(new Option(metric)));
  minus.add(new Option("nothing", ""));
  for (const name of Object.keys(data.measures[metrics[0]] ?? {})) {
    arm.add(new Option(name));
    minus.add(new Option(name));
  }
  // An image without a value comes last in either direction.
  const measured = (metric) => {
    const ours = data.measures[metric][arm.value];
    const theirs = minus.value ? data.measures[metric][minus.value] : null;
    return ours.map((value, number) => {
      const other = theirs ? theirs[number] : 0;
      return value === null || other === null ? -Infinity : value - other;
    });
  };
  const arrange = () => {
    const order = data.sorts[sort.selectedIndex];
    document.querySelectorAll(".of").forEach((label) => { label.hidden = Boolean(order); });
    const values = order ? order.values : measured(sort.value);
    const down = order ? order.down : true;
    const places = cards.map((_, number) => number);
    places.sort((one, other) => (down ? values[other] - values[one] : values[one] - values[other]) || one - other);
    list.append(...places.map((place) => cards[place]));
    cards.forEach((card, number) => {
      const value = values[number];
      card.querySelector(".value").textContent = order ? "" : value === -Infinity ? "no value" : value.toFixed(3);
    });
  };
  [sort, arm, minus].forEach((select) => select.addEventListener("change", arrange));

  const element = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text ?? "", ...more });
  const picture = (number, alt) => {
    if (number === null) return element("div", "no picture", { className: "no-picture" });
    return element("img", "", { src: data.pictures[number], alt });
  };
  const texted = (name, text, className) => element(name, text, { className, dir: "auto" });

  const long = (node) => {
    if (node.textContent.length > 600) { node.classList.add("long"); node.tabIndex = 0; }
    return node;
  };

  const neighbor = (one) => {
    const item = element("li");
    item.append(picture(one.picture, one.caption ?? one.image));
    const line = element("p", `${one.similarity.toFixed(3)} `, { className: "similarity" });
    if (one.source) line.append(element("span", one.source, { className: `source ${one.source}` }));
    item.append(line, long(texted("p", one.caption ?? "no caption", "caption")), Object.assign(texted("p", one.file, "file"), { title: one.image }));
    return item;
  };
  const row = (cells) => {
    const line = element("tr");
    cells.forEach((cell, place) => line.append(place ? texted("td", cell) : element("th", cell, { scope: "row" })));
    return line;
  };
  const table = (rows, className, heads) => {
    const made = element("table", "", { className });
    if (heads) {
      const head = element("tr");
      heads.forEach((name) => head.append(element("th", name, { scope: "col" })));
      made.createTHead().append(head);
    }
    made.createTBody().append(...rows.map(row));
    return made;
  };

  const open = (card) => {
    const close = element("button", "Close", { className: "close", type: "button" });
    close.addEventListener("click", () => detail.close());
    const top = element("div", "", { className: "top" });
    const words = element("div");
    words.append(element("p", card.title, { className: "kicker", dir: "auto" }));
    words.append(long(element("h2", card.caption, { id: "detail-title", dir: "auto" })));
    if (card.references.length) {
      words.append(element("h2", card.references.length > 1 ? "References" : "Reference"));
      const references = element("ul", "", { className: "references" });
      references.append(...card.references.map((text) => long(texted("li", text))));
      words.append(references);
    }
    top.append(picture(card.picture, card.alt), words);
    const parts = [close, top];
    if (card.arms.length) {
      parts.push(element("h2", "Arms"));
      const wide = element("div", "", { className: "wide", tabIndex: 0, role: "region", ariaLabel: "Arms" });
      wide.append(table(card.arms.map((arm) => [arm.name, arm.caption, ...arm.scores]), "arms", ["arm", "caption", ...data.metrics]));
      parts.push(wide);
    }
    if (card.neighbors.length) {
      parts.push(element("h2", "The most similar images, nearest first"));
      const neighbors = element("ol", "", { className: "neighbors" });
      neighbors.append(...card.neighbors.map(neighbor));
      parts.push(neighbors);
    }
    if (card.prompt !== null) {
      parts.push(element("h2", "Prompt"), texted("pre", card.prompt));
      parts.at(-1).tabIndex = 0;
    }
    if (card.facts.length) parts.push(element("h2", "How it was made"), table(card.facts, "facts"));
    detail.replaceChildren(...parts);
    detail.showModal();
    detail.scrollTop = 0;
    close.focus();
  };
  list.addEventListener("click", (event) => {
    const card = event.target.closest("[data-card]");
    if (card && event.target.closest("button")) open(data.cards[card.dataset.card]);
  });
  detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
})();
