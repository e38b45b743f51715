/* A frame in 3D, drawn with OGL: points and boxes, turned and moved by mouse, fingers or arrow keys. */

const SHADE = "precision mediump float; varying vec3 shade; void main() { gl_FragColor = vec4(shade, 1.0); }";
const POINT_SHADERS = {
  vertex: `attribute vec3 position, color; uniform mat4 modelViewMatrix, projectionMatrix; uniform float size; varying vec3 shade;
    void main() { vec4 seen = modelViewMatrix * vec4(position, 1.0); shade = color; gl_Position = projectionMatrix * seen;
      gl_PointSize = clamp(size * 30.0 / -seen.z, size, size * 3.0); }`,
  fragment: SHADE,
};
const LINE_SHADERS = {
  vertex: `attribute vec3 position, color; uniform mat4 modelViewMatrix, projectionMatrix; varying vec3 shade;
    void main() { shade = color; gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0); }`,
  fragment: SHADE,
};
// Corners of a box by their signs; edges between them; the last two cross its front.
const CORNERS = [[1, 1, -1], [1, -1, -1], [-1, -1, -1], [-1, 1, -1], [1, 1, 1], [1, -1, 1], [-1, -1, 1], [-1, 1, 1]];
const EDGES = [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7], [0, 5], [1, 4]];

/** The pane; null where the browser has no WebGL. */
function space() {
  if (!document.createElement("canvas").getContext("webgl2")) return null;
  const renderer = new OGL.Renderer({ dpr: Math.min(devicePixelRatio || 1, 2), alpha: true, antialias: true });
  const gl = renderer.gl;
  gl.clearColor(0, 0, 0, 0);
  const pane = make("div", { class: "space", tabindex: "0", role: "application", "aria-label": "Frame in 3D; arrow keys turn it" }, gl.canvas);
  const camera = new OGL.Camera(gl, { fov: 45, near: 0.5, far: 600 });
  camera.position.set(0, 26, 44);
  const orbit = new OGL.Orbit(camera, { element: gl.canvas, target: new OGL.Vec3(0, 0, -10), maxPolarAngle: 1.5, minDistance: 4, maxDistance: 250 });
  const scene = new OGL.Transform();
  let visible = false, running = false;

  const step = () => {
    running = visible && pane.isConnected;
    if (!running) return;
    orbit.update();
    renderer.render({ scene, camera });
    requestAnimationFrame(step);
  };
  const resize = () => {
    if (!pane.clientWidth) return;
    renderer.setSize(pane.clientWidth, pane.clientHeight);
    camera.perspective({ aspect: pane.clientWidth / pane.clientHeight });
  };
  new ResizeObserver(resize).observe(pane);
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (visible && !running) requestAnimationFrame(step);
  }).observe(pane);
  pane.addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [0.1, 1], ArrowRight: [-0.1, 1], ArrowUp: [0, 0.9], ArrowDown: [0, 1.1] };
    if (!turns[event.key]) return;
    event.preventDefault();
    turn(camera, orbit, ...turns[event.key]);
  });

  return {
    element: pane,
    show(items, points, { chosen, groups }) {
      for (const mesh of [...scene.children]) { scene.removeChild(mesh); mesh.geometry.remove(); mesh.program.remove(); }
      if (points) scene.addChild(pointMesh(gl, points, groups));
      if (items.length) scene.addChild(boxMesh(gl, items, chosen));
      renderer.render({ scene, camera });
    },
  };
}

function turn(camera, orbit, angle, nearer) {
  const offset = new OGL.Vec3().copy(camera.position).sub(orbit.target).multiply(nearer);
  const cos = Math.cos(angle), sin = Math.sin(angle);
  offset.set(offset.x * cos + offset.z * sin, offset.y, offset.z * cos - offset.x * sin);
  camera.position.copy(offset.add(orbit.target));
  orbit.forcePosition();
}

/** Red, green, blue (0 to 1) of a color of the style sheet. */
const rgb = (name) => channels(color(name)).map((value) => value / 255);

// Forward, left, up become away from the viewer, left, up.
function pointMesh(gl, { x, y, z }, groups) {
  const position = new Float32Array(3 * x.length), shades = new Float32Array(3 * x.length);
  for (let i = 0; i < x.length; i++) position.set([-y[i], z[i], -x[i]], 3 * i);
  const low = rgb("point-low"), high = rgb("point-high");
  const mixed = (share) => low.map((value, channel) => value + (high[channel] - value) * Math.min(Math.max(share, 0), 1));
  if (!groups) z.forEach((height, i) => shades.set(mixed((height + 0.5) / 3), 3 * i));
  for (const [shade, indices] of groups || []) {
    const own = channels(shade).map((value) => value / 255);
    for (const i of indices) shades.set(own, 3 * i);
  }
  const geometry = new OGL.Geometry(gl, { position: { size: 3, data: position }, color: { size: 3, data: shades } });
  const uniforms = { size: { value: (groups ? 2.2 : 1.5) * Math.min(devicePixelRatio || 1, 2) } };
  return new OGL.Mesh(gl, { mode: gl.POINTS, geometry, frustumCulled: false, program: new OGL.Program(gl, { ...POINT_SHADERS, uniforms }) });
}

function boxMesh(gl, items, chosen) {
  const positions = [], colors = [];
  for (const one of items) {
    const [x, y, z, length, width, height, yaw] = one.place, cos = Math.cos(yaw), sin = Math.sin(yaw);
    const corners = CORNERS.map(([a, b, c]) => {
      const along = (a * length) / 2, across = (b * width) / 2;
      return [-(y + along * sin + across * cos), z + (c * height) / 2, -(x + along * cos - across * sin)];
    });
    const shade = one === chosen ? rgb("text") : rgb(one.table === "other" ? "other" : one.state);
    for (const [from, to] of EDGES) {
      positions.push(...corners[from], ...corners[to]);
      colors.push(...shade, ...shade);
    }
  }
  const geometry = new OGL.Geometry(gl, {
    position: { size: 3, data: new Float32Array(positions) },
    color: { size: 3, data: new Float32Array(colors) },
  });
  return new OGL.Mesh(gl, { mode: gl.LINES, geometry, frustumCulled: false, program: new OGL.Program(gl, LINE_SHADERS) });
}
