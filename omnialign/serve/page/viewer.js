// Turns a shape: triangles or points of a GLB, drawn with WebGL.
import { isCalm } from "./dom.js";

const ARRAYS = { 5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const NUMBERS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
const POINTS = 0, TRIANGLES = 4;

/** Meshes of a GLB in one list; see the glTF 2.0 specification, "GLB File Format". */
export function parse(data) {
  const view = new DataView(data);
  if (view.getUint32(0, true) !== 0x46546c67) throw new Error("This is no GLB.");
  const size = view.getUint32(12, true);
  const gltf = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 20, size)));
  const start = 20 + size + 8;

  const array = (index) => {
    const accessor = gltf.accessors[index];
    const buffer = gltf.bufferViews[accessor.bufferView];
    const offset = start + (buffer.byteOffset ?? 0) + (accessor.byteOffset ?? 0);
    const numbers = NUMBERS[accessor.type];
    const values = new ARRAYS[accessor.componentType](data, offset, accessor.count * numbers);
    return { values, numbers, scale: accessor.normalized ? 1 / (2 ** (8 * values.BYTES_PER_ELEMENT) - 1) : 1 };
  };
  return gltf.meshes.flatMap((mesh) => mesh.primitives).map((primitive) => ({
    mode: primitive.mode ?? TRIANGLES,
    positions: array(primitive.attributes.POSITION).values,
    colors: "COLOR_0" in primitive.attributes ? array(primitive.attributes.COLOR_0) : null,
    indices: "indices" in primitive ? array(primitive.indices).values : null,
  }));
}

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec3 color;
uniform mat3 rotation; uniform vec3 middle; uniform vec2 reach; uniform float scale, size;
out vec3 shade;
void main() {
  vec3 p = rotation * (position - middle) * scale;
  float light = 1.0;
  if (dot(normal, normal) > 0.0) light = 0.4 + 0.6 * abs(dot(rotation * normal, vec3(0.33, 0.56, 0.76)));
  shade = color * light;
  gl_Position = vec4(p.xy * reach, -0.4 * p.z, 1.0);
  gl_PointSize = size;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 shade; out vec4 pixel;
void main() { pixel = vec4(shade, 1.0); }`;

/** Draws it and lets it be turned; gives what ends that. */
export function turn(canvas, data) {
  const parsed = parse(data); // before there is a context that would have to be given back
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
  if (!gl) throw new Error("This browser has no WebGL, which turns shapes.");
  const program = linked(gl);
  const shapes = parsed.map((shape) => uploaded(gl, program, shape));
  const { middle, radius } = extent(shapes);
  const at = (name) => gl.getUniformLocation(program, name);
  let azimuth = 0.6, elevation = 0.35, zoom = 1, spins = !isCalm(), frame = 0;

  function draw() {
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const { width, height } = canvas, side = Math.min(width, height);
    gl.viewport(0, 0, width, height);
    gl.enable(gl.DEPTH_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(program);
    const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
    gl.uniformMatrix3fv(at("rotation"), false, [ca, -sa * se, sa * ce, 0, ce, se, -sa, -ca * se, ca * ce]);
    gl.uniform3fv(at("middle"), middle);
    gl.uniform2f(at("reach"), side / width, side / height);
    gl.uniform1f(at("scale"), (0.92 * zoom) / radius);
    gl.uniform1f(at("size"), Math.max(2, (0.012 * side * zoom)));
    for (const shape of shapes) {
      gl.bindVertexArray(shape.vertices);
      gl.drawArrays(shape.mode === POINTS ? gl.POINTS : gl.TRIANGLES, 0, shape.count);
    }
  }

  function step() {
    if (spins) azimuth += 0.006;
    draw();
    frame = spins ? requestAnimationFrame(step) : 0;
  }
  function change(by) {
    spins = false;
    azimuth += by.azimuth ?? 0;
    elevation = Math.max(-1.55, Math.min(1.55, elevation + (by.elevation ?? 0)));
    zoom = Math.max(0.3, Math.min(8, zoom * (by.zoom ?? 1)));
    canvas.dataset.azimuth = azimuth.toFixed(3);
    if (!frame) frame = requestAnimationFrame(step);
  }

  const keys = {
    ArrowLeft: { azimuth: -0.15 }, ArrowRight: { azimuth: 0.15 },
    ArrowUp: { elevation: 0.15 }, ArrowDown: { elevation: -0.15 },
    "+": { zoom: 1.2 }, "-": { zoom: 1 / 1.2 },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    change(keys[event.key]);
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) change({ azimuth: event.movementX * 0.01, elevation: event.movementY * 0.01 });
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    change({ zoom: Math.exp(-event.deltaY * 0.001) });
  }, { passive: false });
  const resized = new ResizeObserver(() => { if (!frame) frame = requestAnimationFrame(step); });
  resized.observe(canvas);
  return () => {
    spins = false;
    cancelAnimationFrame(frame);
    resized.disconnect();
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  };
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}

/** On the graphics card, each triangle with corners of its own, so that its face is flat. */
function uploaded(gl, program, { mode, positions, colors, indices }) {
  const count = indices ? indices.length : positions.length / 3;
  const corners = new Float32Array(3 * count), paint = new Float32Array(3 * count).fill(0.62);
  for (let i = 0; i < count; i++) {
    const from = indices ? indices[i] : i;
    for (let axis = 0; axis < 3; axis++) {
      corners[3 * i + axis] = positions[3 * from + axis];
      if (colors) paint[3 * i + axis] = colors.values[colors.numbers * from + axis] * colors.scale;
    }
  }
  const normals = mode === POINTS ? new Float32Array(3 * count) : faceNormals(corners);
  const vertices = gl.createVertexArray();
  gl.bindVertexArray(vertices);
  for (const [name, values] of Object.entries({ position: corners, normal: normals, color: paint })) {
    const place = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
  }
  return { mode, count, vertices, corners };
}

function faceNormals(corners) {
  const normals = new Float32Array(corners.length);
  for (let t = 0; t + 8 < corners.length; t += 9) {
    const [a, b] = [3, 6].map((o) => [0, 1, 2].map((axis) => corners[t + o + axis] - corners[t + axis]));
    const normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const length = Math.hypot(...normal) || 1;
    for (let i = 0; i < 9; i++) normals[t + i] = normal[i % 3] / length;
  }
  return normals;
}

function extent(shapes) {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (const { corners } of shapes) {
    for (let i = 0; i < corners.length; i++) {
      low[i % 3] = Math.min(low[i % 3], corners[i]);
      high[i % 3] = Math.max(high[i % 3], corners[i]);
    }
  }
  const middle = low.map((value, axis) => (value + high[axis]) / 2);
  return { middle, radius: Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2 || 1 };
}
