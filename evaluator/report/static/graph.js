/* Networks: laid out by dagre when somebody opens one; colors say precision or time, a click or Enter tells all of a node. */

const NODE = { width: 150, height: 36 };
const PRECISIONS = { fp32: 7, fp16: 0, bf16: 3, int8: 2, fp8: 4 };

function drawGraph(root) {
  const { nodes, edges } = JSON.parse(document.getElementById(root.dataset.graph).textContent);
  const layout = new dagre.graphlib.Graph().setGraph({ rankdir: "TB", nodesep: 14, ranksep: 26, marginx: 12, marginy: 12 }).setDefaultEdgeLabel(() => ({}));
  nodes.forEach((node, index) => layout.setNode(String(index), { ...NODE }));
  for (const [from, to] of edges) if (from !== to) layout.setEdge(String(from), String(to));
  dagre.layout(layout);
  // Arrows may run outside of what dagre gives as the size.
  const bends = layout.edges().flatMap((edge) => layout.edge(edge).points.map(({ x }) => x));
  const left = Math.min(0, ...bends) - 8, width = Math.max(layout.graph().width, ...bends) + 8 - left, height = layout.graph().height;
  const slowest = Math.max(0, ...nodes.map((node) => node.ms || 0));

  const svg = draw("svg", { viewBox: `${left} 0 ${width} ${height}`, role: "group", "aria-label": `${nodes.length} nodes` });
  for (const edge of layout.edges()) {
    const [first, ...rest] = layout.edge(edge).points.map(({ x, y }) => `${x.toFixed(0)} ${y.toFixed(0)}`);
    svg.append(draw("path", { class: "flow", d: `M${first}L${rest.join("L")}` }));
  }
  const shapes = nodes.map((node, index) => {
    const { x, y } = layout.node(String(index));
    const shape = draw("g", { class: `node s${PRECISIONS[node.precision] ?? 7}${node.error ? " has-error" : ""} is-${node.op === "input" || node.op === "output" ? "end" : "step"}`,
      transform: `translate(${(x - NODE.width / 2).toFixed(0)} ${(y - NODE.height / 2).toFixed(0)})`, tabindex: "0", role: "button", "aria-label": `${node.op} ${node.name}`,
      onclick: () => tell(index), onkeydown: (event) => { if (event.key === "Enter") tell(index); } });
    shape.append(draw("rect", { ...NODE, rx: 6 }));
    if (node.ms && slowest) shape.append(draw("rect", { class: "time", x: 0, y: NODE.height - 5, width: (NODE.width * node.ms) / slowest, height: 5, rx: 2 }));
    shape.append(draw("text", { x: 8, y: 15 }, clipped(node.op, 20)), draw("text", { class: "small", x: 8, y: 28 }, clipped(factOf(node), 24)));
    return shape;
  });
  svg.append(...shapes);

  const detail = make("p", { class: "detail", role: "status" }, "Tap a node to read its name, precision, time and error.");
  const tell = (index) => {
    const node = nodes[index];
    shapes.forEach((shape, other) => shape.classList.toggle("chosen", other === index));
    const facts = [node.op, node.name, node.precision, node.ms ? `${node.ms.toFixed(4)} ms` : "", node.note, node.error];
    detail.textContent = facts.filter(Boolean).join(" · ");
  };
  const holder = make("div", { class: "graph-view", tabindex: "0", role: "region", "aria-label": "Graph" }, svg);
  let zoom = 1;
  const scaled = (factor) => {
    zoom = Math.min(2, Math.max(0.1, zoom * factor));
    svg.style.width = `${width * zoom}px`;
    svg.style.height = `${height * zoom}px`;
  };
  const find = (event) => {
    const text = event.target.value.toLowerCase();
    const hits = nodes.map((node) => text !== "" && `${node.op} ${node.name}`.toLowerCase().includes(text));
    shapes.forEach((shape, index) => shape.classList.toggle("faint", text !== "" && !hits[index]));
    const first = hits.indexOf(true);
    if (first >= 0) reveal(first);
  };
  const reveal = (index) => {
    const { x, y } = layout.node(String(index));
    holder.scrollTo((x - left) * zoom - holder.clientWidth / 2, y * zoom - holder.clientHeight / 3);
    tell(index);
  };
  const button = (text, name, act) => make("button", { type: "button", "aria-label": name, title: name, onclick: act }, text);
  const slowestNodes = nodes.map((node, index) => [node.ms || 0, index]).filter(([ms]) => ms).sort((a, b) => b[0] - a[0]);
  const tools = make("div", { class: "tools" },
    make("label", {}, make("span", {}, "Find"), make("input", { type: "search", oninput: find })),
    button("+", "Larger", () => scaled(1.3)), button("−", "Smaller", () => scaled(1 / 1.3)));
  if (slowestNodes.length) tools.append(button("slowest", "Go to the slowest node", () => reveal(slowestNodes[0][1])));
  const used = Object.keys(PRECISIONS).filter((name) => nodes.some((node) => node.precision === name));
  const legend = make("ul", { class: "legend" }, ...used.map((name) => make("li", {}, make("span", { class: `swatch s${PRECISIONS[name]}`, "aria-hidden": "true" }), name)));
  if (slowest) legend.append(make("li", {}, `bar: time, up to ${slowest.toFixed(3)} ms`));
  root.append(tools, legend, detail, holder);
  scaled(Math.min(1, Math.max(0.75, holder.clientWidth / width)));
  holder.scrollLeft = (width * zoom - holder.clientWidth) / 2;
}

function factOf(node) {
  if (node.op === "input" || node.op === "output") return node.name;
  const facts = [node.precision, node.ms ? `${node.ms.toFixed(3)} ms` : ""].filter(Boolean);
  return facts.length ? facts.join(" · ") : node.name.split("/").slice(-2).join("/");
}

function clipped(text, most) {
  return text.length <= most ? text : text.slice(0, most - 1) + "…";
}

for (const root of document.querySelectorAll("[data-graph]"))
  root.addEventListener("toggle", () => root.open && !root.querySelector(".graph-view") && drawGraph(root));
