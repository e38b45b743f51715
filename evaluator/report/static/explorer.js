/* The frames: a list with thumbnails, filters and orders; one frame at a time with all that is known of it. */

const RANGES = { boxes3d: [["0–30 m", 0, 30], ["30–50 m", 30, 50], ["50–90 m", 50, 90], ["over 90 m", 90, Infinity]] };

function explore(root) {
  const head = JSON.parse(document.getElementById(root.dataset.explorer).textContent);
  const frames = head.frames;
  const isLabels = head.kind === "labels", hasCloud = head.kind === "boxes3d" || head.cloud;
  const isBoxes = head.kind === "boxes3d" || head.kind === "boxes2d";
  const compares = head.runs !== undefined && head.runs.length > 1;
  const settings = { best: true, score: 0.3, compare: false, labels: true, view: "shown" };
  const filter = { order: "worst", kind: "", label: -1, range: -1 };
  const judged = new Map();
  let current = null, chosen = null, listed = [];

  const itemsOf = (frame) => {
    if (!judged.has(frame)) judged.set(frame, judge(head, frame, settings).map((one) => ({ ...one, name: isBoxes ? head.classes[one.label] : "", title: describe(head, one) })));
    return judged.get(frame);
  };
  const shownItems = (frame) => {
    const items = itemsOf(frame);
    if (!settings.compare) return items.filter((one) => one.table !== "other" && !(one.table === "truth" && one.state === "found"));
    return items.filter((one) => one.table !== "truth" && one.differs);
  };

  // The controls.
  const select = (name, choices, act) => {
    const list = make("select", { onchange: (event) => act(event.target.value) }, ...choices.map(([value, text]) => make("option", { value }, text)));
    return make("label", {}, make("span", {}, name), list);
  };
  const check = (name, on, act) => make("label", { class: "check" }, make("input", { type: "checkbox", checked: on, onchange: (event) => act(event.target.checked) }), name);
  const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: settings.score, "aria-label": "Least score" });
  const level = make("output", {}, "–");
  slider.addEventListener("input", () => { settings.best = false; settings.score = Number(slider.value); best.querySelector("input").checked = false; rejudge(); });
  const best = check("each class from its best F1", true, (on) => { settings.best = on; rejudge(); });
  const orders = [["worst", "worst first"], ["best", "best first"], ["time", "in their order"]];
  if (compares) orders.push(["differs", "runs differ most"]);
  const tools = [select("Order", orders, (value) => { filter.order = value; list(); })];
  if (isLabels) tools.unshift(select("Show", labelViews(head), (value) => { settings.view = value; present(); }));
  if (isLabels && !head.cloud)
    tools.splice(1, 0, make("label", { class: "slide" }, make("span", {}, "over the photo"), make("input", {
      type: "range", min: 0, max: 1, step: 0.05, value: 0.6, oninput: (event) => photos.style.setProperty("--opacity", event.target.value) })));
  if (head.kind !== "drawing") {
    const kinds = isBoxes ? [["missed", "something missed"], ["wrong", "something wrong"], ["confused", "wrong class"]]
      : isLabels ? [["wrong", "IoU below 0.5"], ["found", "IoU from 0.5 on"]] : [["wrong", "wrong"], ["found", "right"]];
    if (compares) kinds.push(["differs", "runs differ"]);
    tools.push(select("Frames with", [["", "anything"], ...kinds], (value) => { filter.kind = value; list(); }));
    tools.push(select("of class", [[-1, "any"], ...head.classes.map((name, index) => [index, name])], (value) => { filter.label = Number(value); list(); }));
  }
  if (RANGES[head.kind])
    tools.push(select("at", [[-1, "any distance"], ...RANGES[head.kind].map(([name], index) => [index, name])], (value) => { filter.range = Number(value); list(); }));
  if (isBoxes) tools.push(make("label", { class: "slide" }, make("span", {}, "Score from"), slider, level), best);
  if (compares && isBoxes) tools.push(check(`only differences from ${head.runs[1]}`, false, (on) => { settings.compare = on; present(); }));
  if (isBoxes) tools.push(check("names", true, (on) => { settings.labels = on; present(); }));

  // The parts of the page.
  const thumbs = make("ol", { class: "thumbs", "aria-label": "Frames" });
  const total = make("p", { class: "muted", role: "status" });
  const title = make("h3"), counts = make("p", { class: "counts" }), detail = make("p", { class: "detail", role: "status" });
  const note = make("p", { class: "muted note" }), panes = make("div", { class: "panes" }), photos = make("div", { class: "photos" });
  const stage = make("div", { class: "stage" }, make("div", { class: "stage-head" }, title, counts), panes, detail, photos, note);
  const legend = legendOf(head);
  root.replaceChildren(make("div", { class: "tools", role: "group", "aria-label": "Which frames, and how" }, ...tools), legend,
    make("div", { class: "browser" }, make("div", { class: "list" }, total, thumbs), stage));
  const views = hasCloud ? views3d(panes, (one) => choose(one)) : null;
  let presented = 0; // times; points and labels are unpacked beside the script, so an earlier time may end later

  function rejudge() {
    judged.clear();
    level.textContent = settings.best ? "–" : settings.score.toFixed(2);
    list();
  }

  const errorsOf = (frame) => itemsOf(frame).filter((one) => one.table !== "other" && isError(one));
  const differing = (frame) => isLabels ? frame.differs.reduce((sum, count) => sum + count, 0) / 2 : itemsOf(frame).filter((one) => one.differs).length;
  function passes(frame) {
    if (head.kind === "drawing") return true;
    const [, from, to] = filter.range < 0 ? ["", 0, Infinity] : RANGES[head.kind][filter.range];
    return itemsOf(frame).some((one) => (filter.label < 0 || one.label === filter.label) && one.distance >= from && one.distance < to &&
      (!filter.kind || (filter.kind === "differs" ? one.differs : one.state === filter.kind && one.table !== "other"))) ||
      (!filter.kind && filter.label < 0 && filter.range < 0);
  }
  function sorted() {
    const score = (frame) => (frame.score === null ? 2 : frame.score);
    const orders = {
      worst: (a, b) => score(a) - score(b), best: (a, b) => (b.score ?? -1) - (a.score ?? -1),
      time: (a, b) => a.place - b.place, differs: (a, b) => differing(b) - differing(a),
    };
    return frames.filter(passes).sort(orders[filter.order]);
  }

  function list() {
    listed = sorted();
    total.textContent = listed.length === frames.length ? `${frames.length} frame${frames.length === 1 ? "" : "s"}` : `${listed.length} of ${frames.length} frames`;
    thumbs.replaceChildren(...listed.map(entryOf));
    if (!listed.includes(current)) open(listed[0] || null);
    else present();
  }
  function entryOf(frame) {
    const picture = make("span", { class: "thumb" });
    lazily(picture, () => thumbnail(head, frame, itemsOf(frame)));
    const score = frame.score === null ? "–" : frame.score.toFixed(2);
    const summary = head.kind === "drawing" ? "" : shortly(head, errorsOf(frame));
    return make("li", {}, make("button", { type: "button", "aria-current": frame === current ? "true" : "false", title: frame.title, onclick: () => open(frame) },
      picture, make("span", { class: "thumb-text" }, make("b", {}, score), make("span", { class: "thumb-title" }, frame.title.replace(/ \d{4}-\d\d-\d\d|( UTC)$/g, "")), make("span", {}, summary))));
  }

  function open(frame) {
    current = frame;
    chosen = null;
    for (const [index, entry] of [...thumbs.children].entries()) {
      const isCurrent = listed[index] === frame;
      entry.firstChild.setAttribute("aria-current", isCurrent);
      if (isCurrent && thumbs.scrollHeight > thumbs.clientHeight) thumbs.scrollTop = Math.max(0, entry.offsetTop - thumbs.offsetTop - 60);
    }
    present(true);
  }
  function choose(one) {
    chosen = one;
    present();
  }
  async function present(fresh = false) {
    stage.hidden = current === null;
    if (!current) return;
    const frame = current, items = shownItems(frame);
    title.textContent = frame.title;
    if (head.kind !== "drawing") counts.textContent = countsOf(head, itemsOf(frame)) + differencesIn(frame);
    note.textContent = frame.note;
    if (isLabels) legend.replaceChildren(...labelLegend(head, frame, settings.view));
    detail.textContent = chosen ? chosen.title : isLabels ? "The keys j and k go from frame to frame." : isBoxes ? "Tap a box to read its class, score and place; the key e goes from error to error, j and k from frame to frame." : "";
    const time = ++presented;
    stage.setAttribute("aria-busy", "true");
    await Promise.all([showPhotos(frame, items), showViews(frame, items, fresh)]);
    if (time === presented) stage.setAttribute("aria-busy", "false");
  }
  async function showViews(frame, items, fresh) {
    if (!views) return;
    const points = await pointsOf(frame);
    const groups = isLabels && points ? labelGroups(head, points, settings.view) : null;
    if (frame === current) views.show(frame.title, isLabels ? [] : items, points, { chosen, labels: settings.labels, fresh, groups });
  }
  function differencesIn(frame) {
    const unit = isBoxes ? "boxes" : head.unit;
    return compares && unit ? `; ${differing(frame)} ${unit} differ between the runs` : "";
  }
  async function showPhotos(frame, items) {
    const media = frame.media || {};
    photos.classList.toggle("single", !hasCloud);
    if (isLabels) {
      const view = settings.view, figures = await labelFigures(head, frame, view);
      if (frame !== current || view !== settings.view) return;
      photos.replaceChildren(...(figures.length ? figures : [make("p", { class: "muted" }, "This frame's labels are not in the page.")]));
      return;
    }
    if (head.kind === "drawing") { photos.replaceChildren(drawing(frame)); return; }
    const all = head.kind === "boxes3d" ? media.photos || [] : media.photo ? [media.photo] : [];
    const large = photos.querySelector(".large figcaption");
    photos.replaceChildren(...all.map((photo) => {
      const shapes = head.kind === "boxes3d" ? outlinesOn(photo, items) : head.kind === "boxes2d" ? rectangles(items) : [];
      return photoWith(photo, `${photo.name || frame.title}, ${shapes.length} boxes`, shapes, chosen, choose, settings.labels && head.kind === "boxes2d" ? labelsOn(photo, items, chosen) : []);
    }));
    // The camera that was enlarged stays so from frame to frame.
    for (const figure of photos.children)
      if (large && figure.querySelector("figcaption").textContent === large.textContent) figure.classList.add("large");
    if (!all.length && head.kind !== "boxes3d") photos.append(make("p", { class: "muted" }, "This frame's image is not in the page."));
  }

  const nextError = () => {
    const errors = current ? shownItems(current).filter((one) => isError(one) || (settings.compare && one.differs)) : [];
    const place = errors.findIndex((one) => chosen && one.table === chosen.table && one.index === chosen.index);
    if (errors.length) choose(errors[(place + 1) % errors.length]);
  };
  root.addEventListener("keydown", (event) => {
    if (event.key === "e" && !event.target.matches("input, select")) nextError();
    const step = { j: 1, k: -1, n: 1, p: -1 }[event.key];
    if (!step || event.target.matches("input, select") || event.ctrlKey || event.metaKey) return;
    const next = listed[listed.indexOf(current) + step];
    if (next) open(next);
  });
  frames.forEach((frame, index) => { frame.place = index; });
  list();
}

/** The view from above, and the one in 3D once somebody asks for it. */
function views3d(panes, onSelect) {
  const above = birdsEye(onSelect);
  let deep = null, last = null;
  const tab = (text, act) => make("button", { type: "button", "aria-pressed": "false", onclick: act }, text);
  const show = (is3d) => {
    if (is3d && !deep) deep = space() || { element: make("p", { class: "muted" }, "This browser has no WebGL."), show() {} };
    holder.replaceChildren(is3d ? deep.element : above.element);
    flat.setAttribute("aria-pressed", !is3d);
    solid.setAttribute("aria-pressed", is3d);
    if (last) paint();
  };
  const flat = tab("From above", () => show(false)), solid = tab("3D", () => show(true));
  const holder = make("div", { class: "holder" });
  const paint = () => {
    const [title, items, points, options] = last;
    if (holder.firstChild === above.element) above.show(title, items, points, options);
    else deep.show(items, points, options);
  };
  panes.append(make("div", { class: "tabs", role: "group", "aria-label": "View" }, flat, solid), holder);
  show(false);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => last && paint());
  return {
    show(...what) {
      last = what;
      paint();
    },
  };
}

function legendOf(head) {
  if (head.kind === "drawing" || head.kind === "classes") return "";
  if (head.kind === "labels") return make("ul", { class: "legend" });
  const entry = (kind, text) => make("li", {}, make("span", { class: `swatch is-${kind}`, "aria-hidden": "true" }), text);
  const entries = [entry("found", "found"), entry("missed", "missed (label)"), entry("wrong", "wrong"), entry("confused", "wrong class")];
  if (head.runs.length > 1) entries.push(entry("other", head.runs[1]));
  return make("ul", { class: "legend" }, ...entries);
}

/** One line on a box. */
function describe(head, one) {
  if (head.kind === "classes" || head.kind === "labels") return "";
  const by = { truth: "label", shown: head.runs[0], other: head.runs[1] }[one.table];
  const parts = [head.classes[one.label]];
  if (one.score !== null) parts.push(`score ${one.score.toFixed(3)}`);
  if (one.table !== "other") parts.push(STATES[one.state]);
  parts.push(by);
  if (head.kind === "boxes3d") {
    const [, , , length, width, height] = one.place;
    parts.push(`${one.distance.toFixed(1)} m away`, `${length.toFixed(1)} × ${width.toFixed(1)} × ${height.toFixed(1)} m`);
  }
  if (one.differs) parts.push(one.differs);
  return parts.join(" · ");
}

function shortly(head, errors) {
  if (head.kind === "classes") return errors.length ? "wrong" : "right";
  if (head.kind === "labels") return errors.length ? `${errors.length} below ${FOUND_IOU}` : `all from ${FOUND_IOU} on`;
  const count = (state) => errors.filter((one) => one.state === state).length;
  const parts = [["missed", count("missed")], ["wrong", count("wrong") + count("confused")]].filter(([, number]) => number);
  return parts.length ? parts.map(([name, number]) => `${number} ${name}`).join(", ") : "all found";
}

/** Fill an element when it comes into view. */
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries)
    if (entry.isIntersecting) { watcher.unobserve(entry.target); entry.target.replaceChildren(entry.target.fillLater()); }
}, { rootMargin: "200px" });
function lazily(element, content) {
  element.fillLater = content;
  watcher.observe(element);
}

function thumbnail(head, frame, items) {
  const media = frame.media || {};
  if (head.kind === "drawing") {
    const small = make("span", { "aria-hidden": "true" });
    small.insertAdjacentHTML("beforeend", frame.svg);
    return small;
  }
  if (head.kind === "labels") return labelThumbnail(head, frame);
  if (head.kind !== "boxes3d") return media.photo ? make("img", { src: media.photo.uri, alt: "" }) : make("span");
  const far = 55, svg = draw("svg", { viewBox: `${-far} ${-far} ${2 * far} ${2 * far}`, "aria-hidden": "true" });
  svg.append(draw("circle", { class: "ring", r: 30 }),
    ...items.filter((one) => one.table !== "other").map((one) => draw("path", { class: boxClass(one, null), d: footprint(one.place, (x, y) => [-y, -x]) })));
  return svg;
}

/** A picture that the task drew itself, with its switches. */
function drawing(frame) {
  const controls = make("div", { class: "controls" },
    ...frame.layers.map(([layer, name]) => make("label", {}, make("input", { type: "checkbox", checked: true, "data-layer": layer }), name)),
    ...frame.views.map(([name, box], index) => make("label", {}, make("input", { type: "radio", name: `view-${frame.key}`, value: box, "data-view": true, checked: index === 0 }), name)));
  const picture = make("figure", { class: "picture" }, controls);
  picture.insertAdjacentHTML("beforeend", frame.svg);
  enlivenPicture(picture);
  return picture;
}

// After the text was painted.
requestAnimationFrame(() => setTimeout(() => document.querySelectorAll("[data-explorer]").forEach(explore)));
