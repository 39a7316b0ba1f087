// The person's head in 3D: follows the sliders at once, turns with the pointer and the arrow keys.
const MOVE_UNITS_PER_CM = 20000;
const TURN_PER_KEY = 0.15;
const VERTEX_SHADER = `
attribute vec3 position, normal, colour;
uniform mat3 rotation;
uniform vec2 scale;
varying vec3 lit;
void main() {
  vec3 light = normalize(vec3(-0.35, 0.45, 0.82));
  lit = colour * (0.35 + 0.65 * max(dot(rotation * normal, light), 0.0));
  vec3 seen = rotation * position;
  gl_Position = vec4(seen.xy * scale, -seen.z / 40.0, 1.0);
}`;
const FRAGMENT_SHADER = `
precision mediump float;
varying vec3 lit;
void main() { gl_FragColor = vec4(lit, 1.0); }`;

let head = null, strengths = [], yaw = 0.45, pitch = 0.08, asRead = false, canvas = null, gl = null, program = null;
let drawn = null, buffers = {};

function decode(text, Numbers) {
  return new Numbers(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
}

function load() {
  const sent = props.value;
  if (!sent || !sent.vertices) { head = null; element.classList.remove("has-head"); return; }
  head = {
    vertices: decode(sent.vertices, Float32Array),
    triangles: decode(sent.triangles, Uint16Array),
    colours: decode(sent.colours, Uint8Array),
    moves: sent.moves.map((move) => decode(move, Int16Array)),
    height: sent.height,
  };
  strengths = sent.strengths;
  element.classList.add("has-head");
  draw();
}

function edited() {
  const positions = head.vertices.slice();
  if (asRead) return positions;
  head.moves.forEach((move, index) => {
    const factor = (strengths[index] || 0) / MOVE_UNITS_PER_CM;
    if (factor) for (let k = 0; k < positions.length; k++) positions[k] += factor * move[k];
  });
  return positions;
}

function normalsOf(p) {
  const n = new Float32Array(p.length), t = head.triangles;
  for (let k = 0; k < t.length; k += 3) {
    const a = 3 * t[k], b = 3 * t[k + 1], c = 3 * t[k + 2];
    const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
    const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
    const face = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
    for (const corner of [a, b, c]) for (let axis = 0; axis < 3; axis++) n[corner + axis] += face[axis];
  }
  for (let k = 0; k < n.length; k += 3) {
    const length = Math.hypot(n[k], n[k + 1], n[k + 2]) || 1;
    for (let axis = 0; axis < 3; axis++) n[k + axis] /= length;
  }
  return n;
}

function prepare() {
  const found = element.querySelector("canvas");
  if (found === canvas) return gl !== null;
  canvas = found;
  buffers = {};
  gl = canvas.getContext("webgl", { antialias: true });
  element.classList.toggle("no-webgl", gl === null);
  if (gl === null) return false;
  program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  listen();
  return true;
}

function listen() {
  let last = null;
  canvas.addEventListener("pointerdown", (event) => { last = event; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { last = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    turn((event.clientX - last.clientX) / 120, (event.clientY - last.clientY) / 120);
    last = event;
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    turn(step[0] * TURN_PER_KEY, step[1] * TURN_PER_KEY);
    event.preventDefault();
  });
  new ResizeObserver(() => draw()).observe(canvas);
}

function turn(dx, dy) {
  yaw += dx;
  pitch = Math.max(-1.2, Math.min(1.2, pitch + dy));
  draw();
}

function give(name, values, size, kind, normalised) {
  const place = gl.getAttribLocation(program, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, (buffers[name] ??= gl.createBuffer()));
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STREAM_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, kind, normalised, 0, 0);
}

function draw() {
  element.classList.toggle("has-edits", head !== null && strengths.some((strength) => strength !== 0));
  if (head === null || !prepare()) return;
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  const shape = [head, asRead, ...strengths, canvas];
  if (drawn === null || drawn.some((part, k) => part !== shape[k])) {
    const positions = edited();
    give("position", positions, 3, gl.FLOAT, false);
    give("normal", normalsOf(positions), 3, gl.FLOAT, false);
    give("colour", head.colours, 3, gl.UNSIGNED_BYTE, true);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, (buffers.triangles ??= gl.createBuffer()));
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, head.triangles, gl.STATIC_DRAW);
    drawn = shape;
  }
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  // By columns: the head turns around its own axis first, then nods.
  const rotation = [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy];
  gl.uniformMatrix3fv(gl.getUniformLocation(program, "rotation"), false, rotation);
  const zoom = 1.8 / head.height;
  gl.uniform2f(gl.getUniformLocation(program, "scale"), (zoom * canvas.height) / canvas.width, zoom);
  gl.drawElements(gl.TRIANGLES, head.triangles.length, gl.UNSIGNED_SHORT, 0);
}

element.addEventListener("input", (event) => {
  if (event.target.matches("input[type=checkbox]")) { asRead = event.target.checked; draw(); }
});
document.addEventListener("fantasyid-edits", (event) => { strengths = event.detail; draw(); });
watch("value", load);
load();
