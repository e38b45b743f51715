/* Points of a frame, unpacked once: x, y and z [m], each as Float32Array. */

const clouds = new WeakMap();

async function pointsOf(frame) {
  const packed = frame.media && frame.media.cloud;
  if (!packed) return null;
  if (!clouds.has(frame)) clouds.set(frame, unpack(packed));
  return clouds.get(frame);
}

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const steps = new Int16Array(await new Response(stream).arrayBuffer());
  const meters = Float32Array.from(steps, (step) => step / 100);
  const axis = (index) => meters.subarray(index * packed.count, (index + 1) * packed.count);
  return { x: axis(0), y: axis(1), z: axis(2) };
}
