/* Points of a frame, unpacked once: x, y and z [m], each as Float32Array. */

const clouds = new WeakMap();

async function pointsOf(frame) {
  const packed = frame.media && frame.media.cloud;
  if (!packed) return null;
  if (!clouds.has(frame)) clouds.set(frame, unpack(packed));
  return clouds.get(frame);
}

/** Labels that a cloud or an image holds, unpacked once: bytes. */
async function unpackedLabels(holder) {
  if (!clouds.has(holder)) clouds.set(holder, inflate(holder.labels).then((buffer) => new Uint8Array(buffer)));
  return clouds.get(holder);
}

function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

async function unpack(packed) {
  const steps = new Int16Array(await inflate(packed.data));
  const meters = Float32Array.from(steps, (step) => step / 100);
  const axis = (index) => meters.subarray(index * packed.count, (index + 1) * packed.count);
  return { x: axis(0), y: axis(1), z: axis(2), labels: packed.labels ? await unpackedLabels(packed) : null };
}
