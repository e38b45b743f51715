/* Labels of points and pixels: colored by class, or by what is right and where the runs differ. */

const UNLABELED = 255, EMPTY = 254; // of no class; a cell of an image without a point

/** What can be shown of the labels: value and name. */
function labelViews(head) {
  const views = [["shown", head.runs[0]], ["truth", "ground truth"], ["wrong", `errors of ${head.runs[0]}`]];
  if (head.runs.length > 1) views.push(["other", head.runs[1]], ["differs", `where it differs from ${head.runs[1]}`]);
  return views;
}

const byClass = (view) => view === "shown" || view === "truth" || view === "other";

/** Colors and their names of a view that is not by class, by the codes of `labelCodes`. */
const VERDICTS = {
  wrong: [["--faint", "right"], ["--wrong", "wrong"], ["--unjudged", "not judged"]],
  differs: [["--faint", "the same"], ["--other", "another class"]],
};

/** Per place of the planes (truth, then the runs, one after another) a code: its class, or a verdict. */
function labelCodes(planes, count, view) {
  const plane = (index) => planes.subarray(index * count, (index + 1) * count);
  const truth = plane(0), shown = plane(1);
  if (byClass(view)) return { shown, truth, other: plane(2) }[view];
  const other = view === "differs" ? plane(2) : truth;
  return shown.map((label, i) => {
    if (truth[i] === EMPTY) return EMPTY;
    if (view === "wrong" && truth[i] === UNLABELED) return 2;
    return label === other[i] ? 0 : 1;
  });
}

/** The color of a code; null where nothing is drawn. */
function codeColor(head, view, code) {
  if (code === EMPTY) return null;
  if (!byClass(view)) return color(VERDICTS[view][code][0].slice(2));
  return code < head.colors.length ? head.colors[code] : color("unjudged");
}

/** Points in groups of one color; what is common comes first, so that what is rare is drawn over it. */
function labelGroups(head, points, view) {
  const groups = new Map();
  labelCodes(points.labels, points.x.length, view).forEach((code, i) => {
    if (!groups.has(code)) groups.set(code, []);
    groups.get(code).push(i);
  });
  const shaded = [...groups].map(([code, indices]) => [codeColor(head, view, code), indices]);
  return shaded.filter(([shade]) => shade).sort((a, b) => b[1].length - a[1].length);
}

/** An image of labels as a canvas. */
function labelImage(head, raster, planes, view) {
  const canvas = make("canvas", { width: raster.width, height: raster.height });
  const context = canvas.getContext("2d"), image = context.createImageData(raster.width, raster.height);
  const pixels = new Uint32Array(image.data.buffer), words = new Map();
  const wordOf = (shade) => (shade ? new Uint32Array(Uint8Array.of(...channels(shade), 255).buffer)[0] : 0);
  labelCodes(planes, pixels.length, view).forEach((code, i) => {
    if (!words.has(code)) words.set(code, wordOf(codeColor(head, view, code)));
    pixels[i] = words.get(code);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The images of a frame: masks over their photo, or by themselves. */
async function labelFigures(head, frame, view) {
  const rasters = (frame.media && frame.media.rasters) || [];
  return Promise.all(rasters.map(async (raster) => {
    const image = labelImage(head, raster, await unpackedLabels(raster), view);
    const figure = make("figure", { class: raster.photo ? "photo mask" : "photo range" });
    if (raster.photo) figure.append(make("img", { src: raster.photo.uri, alt: frame.title }));
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", `${raster.name || "Mask"}, ${new Map(labelViews(head)).get(view)}`);
    figure.append(image);
    if (raster.name) figure.append(make("figcaption", {}, raster.name));
    return figure;
  }));
}

/** What the colors stand for, and each class's IoU in the frame. */
function labelLegend(head, frame, view) {
  const entry = (shade, text) => make("li", {}, make("span", { class: "swatch", style: `background:${shade};border-color:${shade}`, "aria-hidden": "true" }), text);
  if (!byClass(view)) return VERDICTS[view].map(([name, text]) => entry(`var(${name})`, text));
  return judgeLabels(head, frame).map((one) => entry(head.colors[one.label], `${head.classes[one.label]} ${one.score.toFixed(2)}`));
}

/** A small picture of a frame: its mask, or its points from above. */
function labelThumbnail(head, frame) {
  const holder = make("span"), media = frame.media || {};
  if (!head.cloud) { labelFigures(head, frame, "shown").then((figures) => holder.append(...figures.flatMap((figure) => [...figure.querySelectorAll("canvas")]))); return holder; }
  if (!media.cloud) return holder;
  const side = 120, far = 45, canvas = make("canvas", { width: side, height: side }), context = canvas.getContext("2d");
  pointsOf(frame).then((points) => {
    for (const [shade, indices] of labelGroups(head, points, "shown")) {
      context.fillStyle = shade;
      for (const i of indices) context.fillRect((side * (1 - points.y[i] / far)) / 2, (side * (1 - points.x[i] / far)) / 2, 1.5, 1.5);
    }
  });
  holder.append(canvas);
  return holder;
}
