/* A frame from above, forward up: points, rings and boxes; zoom by wheel, pinch, keys and buttons, a tap selects. */

const RINGS = [30, 60, 90, 120];
const EGO = [2.4, 1.0]; // half length and half width of the vehicle drawn at the origin [m]
const NEAREST_VIEW = 8;

function birdsEye(onSelect) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const svg = draw("svg", { role: "img" });
  const pane = make("div", { class: "map", tabindex: "0", role: "application", "aria-label": "Frame from above" }, canvas, svg);
  const state = { x: 0, y: 0, reach: 60, whole: 60, items: [], points: null, chosen: null, labels: true, title: "" };

  const zoom = (factor, x = state.x, y = state.y) => {
    const reach = Math.min(Math.max(state.reach * factor, NEAREST_VIEW), state.whole * 1.5);
    const share = reach / state.reach;
    Object.assign(state, { reach, x: x + (state.x - x) * share, y: y + (state.y - y) * share });
    paint();
  };
  const reset = () => { Object.assign(state, { x: 0, y: 0, reach: state.whole }); paint(); };
  const button = (text, name, act) => make("button", { type: "button", "aria-label": name, title: name, onclick: act }, text);
  pane.append(make("div", { class: "map-buttons" },
    button("+", "Closer", () => zoom(0.7)), button("−", "Farther", () => zoom(1 / 0.7)), button("⤢", "Whole frame", reset)));

  const scale = () => Math.min(pane.clientWidth, pane.clientHeight) / (2 * state.reach);
  const toScreen = (x, y) => [pane.clientWidth / 2 - (y - state.y) * scale(), pane.clientHeight / 2 - (x - state.x) * scale()];
  const toGround = (left, top) => [state.x - (top - pane.clientHeight / 2) / scale(), state.y - (left - pane.clientWidth / 2) / scale()];

  function paint() {
    const width = pane.clientWidth, height = pane.clientHeight;
    if (!width) return;
    paintPoints(width, height);
    const k = scale(), [ox, oy] = toScreen(0, 0);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", `${state.title} from above, ${state.items.length} boxes`);
    svg.replaceChildren(
      ...RINGS.flatMap((ring) => [
        draw("circle", { class: "ring", cx: ox, cy: oy, r: ring * k }),
        draw("text", { class: "ring-name", x: ox + 3, y: oy - ring * k - 3 }, `${ring} m`)]),
      draw("rect", { class: "ego", x: ox - EGO[1] * k, y: oy - EGO[0] * k, width: 2 * EGO[1] * k, height: 2 * EGO[0] * k, rx: 0.4 * k }),
      ...state.items.map((one) => draw("path", {
        class: boxClass(one, state.chosen), d: footprint(one.place, toScreen), onclick: (event) => { event.stopPropagation(); onSelect(one); } })),
      ...(state.labels ? labelsOf(state.items, state.chosen, (one) => anchorOf(one, toScreen, k), width, height, state.reach < 35) : []));
  }

  function paintPoints(width, height) {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    if (!state.points) return;
    const { x, y } = state.points, size = Math.max(1, Math.round(ratio * (state.reach < 30 ? 1.8 : 1.1) * (state.groups ? 1.5 : 1)));
    for (const [shade, indices] of state.groups || groupsByHeight(state.points)) {
      context.fillStyle = shade;
      for (const i of indices) {
        const [left, top] = toScreen(x[i], y[i]);
        if (left >= 0 && top >= 0 && left < width && top < height) context.fillRect(left * ratio, top * ratio, size, size);
      }
    }
  }

  enlivenMap(pane, { zoom, toGround, pan: (dx, dy) => { state.y += dx / scale(); state.x += dy / scale(); paint(); }, reset });
  svg.addEventListener("click", () => onSelect(null));
  new ResizeObserver(paint).observe(pane);

  return {
    element: pane,
    /** Show a frame; the view stays where it is unless `fresh`. */
    show(title, items, points, { chosen = null, labels = true, fresh = false, groups = null } = {}) {
      Object.assign(state, { title, items, points, chosen, labels, groups });
      const far = Math.max(groups ? 60 : 30, ...items.map((one) => Math.max(Math.abs(one.place[0]), Math.abs(one.place[1])))) + 4;
      state.whole = far;
      if (fresh) Object.assign(state, { x: 0, y: 0, reach: Math.min(far, 62) });
      paint();
    },
  };
}

/** Points in groups of one color: on the ground, as high as a car, above. */
function groupsByHeight({ z }) {
  const groups = ["point-low", "point-middle", "point-high"].map((name) => [color(name), []]);
  z.forEach((height, i) => groups[height < 0.3 ? 0 : height < 1.5 ? 1 : 2][1].push(i));
  return groups;
}

/** Wheel, drag of a mouse, pinch of two fingers, and keys. One finger scrolls the page, as everywhere in it. */
function enlivenMap(pane, view) {
  const touches = new Map();
  pane.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== pane) return;
    event.preventDefault();
    const area = pane.getBoundingClientRect();
    view.zoom(Math.exp(event.deltaY / 400), ...view.toGround(event.clientX - area.left, event.clientY - area.top));
  }, { passive: false });
  pane.addEventListener("pointerdown", (event) => touches.set(event.pointerId, event));
  pane.addEventListener("pointermove", (event) => {
    const before = touches.get(event.pointerId);
    if (!before) return;
    const others = [...touches.values()].filter((one) => one.pointerId !== event.pointerId);
    if (others.length === 1) {
      const apart = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY);
      view.zoom(apart(before) / Math.max(1, apart(event)));
    }
    if (event.pointerType === "mouse" || others.length) {
      const share = others.length ? 0.5 : 1;
      view.pan((event.clientX - before.clientX) * share, (event.clientY - before.clientY) * share);
    }
    touches.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"])
    pane.addEventListener(name, (event) => touches.delete(event.pointerId));
  const keys = {
    "+": () => view.zoom(0.8), "=": () => view.zoom(0.8), "-": () => view.zoom(1.25), 0: view.reset,
    ArrowLeft: () => view.pan(40, 0), ArrowRight: () => view.pan(-40, 0), ArrowUp: () => view.pan(0, 40), ArrowDown: () => view.pan(0, -40),
  };
  pane.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.target !== pane) return;
    event.preventDefault();
    keys[event.key]();
  });
}

function boxClass(one, chosen) {
  return `box of-${one.table} is-${one.state}${one.differs ? " differs" : ""}${one === chosen ? " chosen" : ""}`;
}

/** Outline of a box with a line from its center to its front. */
function footprint([x, y, , length, width, , yaw], toScreen) {
  const cos = Math.cos(yaw), sin = Math.sin(yaw);
  const corner = (a, b) => toScreen(x + (a * length * cos - b * width * sin) / 2, y + (a * length * sin + b * width * cos) / 2)
    .map((value) => value.toFixed(1)).join(" ");
  return `M${corner(1, 1)}L${corner(1, -1)}L${corner(-1, -1)}L${corner(-1, 1)}ZM${corner(0, 0)}L${corner(1, 0)}`;
}

function anchorOf(one, toScreen, k) {
  const [x, y, , length, width] = one.place, [left, top] = toScreen(x, y);
  return [left, top - (Math.max(length, width) / 2) * k - 3];
}

/** Class and score of boxes, errors first; a name that would cover another one is left out. */
function labelsOf(items, chosen, place, width, height, all) {
  const rank = (one) => (one === chosen ? 0 : isError(one) ? 1 : one.table === "shown" ? 2 : 3);
  const wanted = items.filter((one) => one === chosen || isError(one) || (one.table === "shown" && all) || (one.table === "other" && one.differs));
  const drawn = [], labels = [];
  for (const one of wanted.sort((a, b) => rank(a) - rank(b))) {
    const text = one.name + (one.score === null ? "" : ` ${one.score.toFixed(2)}`);
    const [x, y] = place(one), half = text.length * 3.1, area = [x - half, y - 11, x + half, y + 2];
    if (area[0] < 0 || area[1] < 0 || area[2] > width || area[3] > height) continue;
    if (one !== chosen && drawn.some((other) => area[0] < other[2] && area[2] > other[0] && area[1] < other[3] && area[3] > other[1])) continue;
    drawn.push(area);
    labels.push(draw("text", { class: `box-name of-${one.table} is-${one.state}`, x, y, "text-anchor": "middle" }, text));
  }
  return labels;
}
