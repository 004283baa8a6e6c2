// The page of `abdoseg view`: NiiVue draws, this file connects it to the controls. Everything comes from this server.
import { Niivue, SHOW_RENDER, SLICE_TYPE, MULTIPLANAR_TYPE } from "./niivue.js";

const CT_WINDOWS = { "soft tissue": [40, 400], lung: [-600, 1500], bone: [400, 1800] };

// Blue, orange and white stay apart for all kinds of colour vision.
const DIFFERENCES = [
  [1, "reference only (missed)", "#4aa8ff"],
  [2, "prediction only (added)", "#ff9a3c"],
  [3, "another structure", "#ffffff"],
];

const LAYOUTS = [
  ["All", SLICE_TYPE.MULTIPLANAR],
  ["Axial", SLICE_TYPE.AXIAL],
  ["Coronal", SLICE_TYPE.CORONAL],
  ["Sagittal", SLICE_TYPE.SAGITTAL],
  ["3D", SLICE_TYPE.RENDER],
];

const KEYS = [
  ["← →", "crosshair to the picture's left and right (patient's right and left)"],
  ["↑ ↓", "crosshair forwards and backwards (anterior, posterior); in coronal and sagittal layout up and down"],
  ["Page Up, Page Down", "next slice: upwards, downwards; in coronal and sagittal layout through that plane's slices"],
  ["Shift", "with these keys: ten voxels at a time"],
  ["1 2 3 4 5", "all planes, axial, coronal, sagittal, 3D"],
  ["O", "outlines"],
  ["D", "differences between reference and prediction"],
  ["R, P", "reference, prediction on and off"],
  ["?", "this help"],
];

const $ = (id) => document.getElementById(id);

const state = { facts: null, nv: null, hidden: new Set(), layout: 0, index: {}, opacity: {}, labels: {}, outlines: {} };

function colourOf(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.setAttribute("aria-hidden", "true");
  made.style.backgroundColor = colour;
  return made;
}

// -- colours and layers ------------------------------------------------------------------------------------------------

function structureColours() {
  const rows = [{ id: 0, title: "background", colour: "#000000", alpha: 0 }];
  for (const one of state.facts.structures) rows.push({ ...one, alpha: state.hidden.has(one.id) ? 0 : 255 });
  return table(rows);
}

function differenceColours() {
  const rows = [{ id: 0, title: "same", colour: "#000000", alpha: 0 }];
  for (const [id, title, colour] of DIFFERENCES) rows.push({ id, title, colour, alpha: 255 });
  return table(rows);
}

// NiiVue never looks up less than 2/256 of its table. In one that goes to 255 (unknown), background would get the
// colours of the first structures; two empty places before it keep it, and all others, where they belong.
const BEFORE = { id: -2, title: "", colour: "#000000", alpha: 0 };

function table(rows) {
  const map = { R: [], G: [], B: [], A: [], I: [], labels: [] };
  for (const row of [BEFORE, ...rows]) {
    const [r, g, b] = colourOf(row.colour);
    map.R.push(r); map.G.push(g); map.B.push(b); map.A.push(row.alpha); map.I.push(row.id); map.labels.push(row.title);
  }
  return map;
}

function volumeOf(layer) {
  return state.nv.volumes[state.index[layer]];
}

function showLayers() {
  const { nv, facts } = state;
  const differing = $("difference").checked;
  for (const layer of facts.layers) {
    const shown = (layer === "difference") === differing;
    volumeOf(layer).img = $("outline").checked && layer !== "difference" ? outlineOf(layer) : state.labels[layer];
    volumeOf(layer).opacity = shown ? state.opacity[layer] : 0;
    volumeOf(layer).setColormapLabel(layer === "difference" ? differenceColours() : structureColours());
  }
  $("difference-legend").hidden = !differing;
  nv.updateGLVolume();
  nv.drawScene();
}

// NiiVue's own outlines would also show hidden structures and layers.
function outlineOf(layer) {
  state.outlines[layer] ??= outlined(state.labels[layer], state.facts.shape);
  return state.outlines[layer];
}

function outlined(label, [nx, ny, nz]) {
  const found = new Uint8Array(label.length);
  const steps = [1, nx, nx * ny];
  let i = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) {
        const value = label[i];
        if (value === 0) continue;
        const inner = x > 0 && y > 0 && z > 0 && x < nx - 1 && y < ny - 1 && z < nz - 1;
        if (!inner || steps.some((by) => label[i - by] !== value || label[i + by] !== value)) found[i] = value;
      }
    }
  }
  return found;
}

function setOpacity(layer, percent) {
  const input = $(`opacity-${layer}`);
  input.value = percent;
  input.parentElement.querySelector("output").textContent = `${percent} %`;
  state.opacity[layer] = percent / 100;
  showLayers();
}

// -- window --------------------------------------------------------------------------------------------------------------

function setWindow(level, width) {
  const image = state.nv.volumes[0];
  image.cal_min = level - width / 2;
  image.cal_max = level + width / 2;
  state.nv.updateGLVolume();
  tellWindow();
}

function tellWindow() {
  const { cal_min: low, cal_max: high } = state.nv.volumes[0];
  $("level").value = Math.round((low + high) / 2);
  $("width").value = Math.round(high - low);
  for (const button of $("windows").children) {
    const [level, width] = button.window;
    const same = Math.abs(level - (low + high) / 2) < 1 && Math.abs(width - (high - low)) < 1;
    button.setAttribute("aria-pressed", String(same));
  }
}

function makeWindows() {
  const [low, high] = state.facts.range;
  const presets = { ...(state.facts.modality === "MR" ? {} : CT_WINDOWS), auto: [(low + high) / 2, high - low] };
  for (const [name, window] of Object.entries(presets)) {
    const button = element("button", { type: "button", textContent: name, window });
    button.addEventListener("click", () => setWindow(...window));
    $("windows").append(button);
  }
  for (const id of ["level", "width"]) {
    $(id).addEventListener("change", () => {
      const width = Math.max(1, Number($("width").value) || 1);
      setWindow(Number($("level").value) || 0, width);
    });
  }
  const first = state.facts.modality === "CT" ? CT_WINDOWS["soft tissue"] : presets.auto;
  setWindow(...first);
}

// -- structures ------------------------------------------------------------------------------------------------------------

function hasLayer(layer) {
  return state.facts.layers.includes(layer);
}

function volumeText(one, layer) {
  if (layer === "reference" && !one.reference && one.annotated === "not annotated") return "not ann.";
  if (!one[layer]) return "0";
  const ml = one[layer].ml;
  return ml >= 100 ? ml.toFixed(0) : ml >= 10 ? ml.toFixed(1) : ml.toFixed(2);
}

function structureRow(one) {
  const show = element("input", { type: "checkbox", checked: true, id: `show-${one.id}` });
  show.setAttribute("aria-label", `show ${one.title}`);
  show.addEventListener("change", () => {
    if (show.checked) state.hidden.delete(one.id);
    else state.hidden.add(one.id);
    showLayers();
  });
  const place = one.reference || one.prediction;
  const jump = element("button", { type: "button", className: "jump", textContent: one.title, disabled: !place });
  jump.title = place ? `crosshair to the ${one.title}` : "in neither label map";
  jump.addEventListener("click", () => goTo(place.centre));
  const name = element("td", {}, jump);
  // "Absent" and "nobody looked" are different facts.
  const state_ = one.annotated !== "annotated" ? one.annotated : one.reference ? "" : "annotated, absent here";
  if (state_) name.append(element("span", { className: "state", textContent: state_ }));
  const row = element("tr", {}, element("td", {}, show, swatch(one.colour)), name);
  row.dataset.structure = one.name;
  for (const layer of ["reference", "prediction"]) {
    if (hasLayer(layer)) row.append(element("td", { textContent: volumeText(one, layer) }));
  }
  return row;
}

function makeStructures() {
  const body = $("structures").tBodies[0];
  body.append(...state.facts.structures.map(structureRow));
  const all = (shown) => {
    state.hidden = new Set(shown ? [] : state.facts.structures.map((one) => one.id));
    for (const box of body.querySelectorAll("input")) box.checked = shown;
    showLayers();
  };
  $("all").addEventListener("click", () => all(true));
  $("none").addEventListener("click", () => all(false));
}

// -- crosshair ------------------------------------------------------------------------------------------------------------

function goTo(voxel) {
  state.nv.scene.crosshairPos = state.nv.vox2frac(voxel);
  moved();
}

function moved() {
  state.nv.createOnLocationChange();
  state.nv.drawScene();
}

function clamped(voxel) {
  return voxel.map((v, axis) => Math.min(state.facts.shape[axis] - 1, Math.max(0, v)));
}

function knownAt(voxel) {
  const { rows, slices } = state.facts.annotation;
  const axes = Object.keys(slices);
  if (!axes.length) return new Set(rows[0]);
  return new Set(axes.flatMap((axis) => rows[slices[axis][voxel[axis]]]));
}

function nameAt(layer, value, voxel) {
  const known = layer === "reference" && state.facts.annotation ? knownAt(voxel) : null;
  if (known && known.size === 0) return "not annotated here";
  if (value > 0) {
    const one = state.facts.structures.find((other) => other.id === value);
    return one ? one.title : String(value);
  }
  if (known && known.size < state.facts.structures.filter((one) => one.annotated).length) {
    return "background or not annotated";
  }
  return "background";
}

function labelAt(layer, [x, y, z]) {
  const [nx, ny] = state.facts.shape;
  return state.labels[layer][x + nx * (y + ny * z)];
}

function tellLocation(location) {
  const voxel = clamped(Array.from(state.nv.frac2vox(state.nv.scene.crosshairPos)));
  const mm = state.nv.frac2mm(state.nv.scene.crosshairPos);
  $("at-mm").textContent = Array.from(mm).slice(0, 3).map((v) => v.toFixed(1)).join(", ");
  const value = location.values[0]?.value ?? 0;
  $("at-value").textContent = Math.abs(value) >= 10 ? value.toFixed(0) : value.toFixed(2);
  for (const layer of ["reference", "prediction"]) {
    if (!hasLayer(layer)) continue;
    $(`at-${layer}`).textContent = nameAt(layer, labelAt(layer, voxel), voxel);
  }
}

// -- layout and keys -------------------------------------------------------------------------------------------------------

function setLayout(number) {
  state.layout = number;
  state.nv.setSliceType(LAYOUTS[number][1]);
  for (const [i, button] of [...$("layouts").children].entries()) button.setAttribute("aria-pressed", String(i === number));
}

function makeLayouts() {
  LAYOUTS.forEach(([name], number) => {
    const button = element("button", { type: "button" }, `${name} `, element("kbd", { textContent: String(number + 1) }));
    button.setAttribute("aria-keyshortcuts", String(number + 1));
    button.addEventListener("click", () => setLayout(number));
    $("layouts").append(button);
  });
}

function stepOf(key) {
  // x grows to the patient's right, which radiological pictures have on the left; the nose is on the right.
  const planes = { Coronal: [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], Sagittal: [[0, 1, 0], [0, 0, 1], [1, 0, 0]] };
  const [rightward, up, through] = planes[LAYOUTS[state.layout][0]] ?? [[-1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const steps = { ArrowRight: rightward, ArrowUp: up, PageUp: through };
  const back = { ArrowLeft: "ArrowRight", ArrowDown: "ArrowUp", PageDown: "PageUp" };
  return steps[key] ?? steps[back[key]]?.map((v) => -v);
}

function toggle(id) {
  $(id).checked = !$(id).checked;
  showLayers();
}

function toggleLayer(layer) {
  if (hasLayer(layer)) setOpacity(layer, state.opacity[layer] > 0 ? 0 : 50);
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || $("help").open) return;
  // A number field takes all keys, a slider those that move it.
  const type = event.target instanceof HTMLInputElement ? event.target.type : "";
  if (type === "number" || (type === "range" && stepOf(event.key))) return;
  if (act(event)) event.preventDefault();
}

function act(event) {
  const step = stepOf(event.key);
  const actions = {
    o: () => toggle("outline"),
    d: () => hasLayer("difference") && toggle("difference"),
    r: () => toggleLayer("reference"),
    p: () => toggleLayer("prediction"),
    "?": () => $("help").showModal(),
  };
  const action = actions[event.key.toLowerCase()];
  const digit = Number(event.key);
  if (step) {
    const by = event.shiftKey ? 10 : 1;
    const voxel = Array.from(state.nv.frac2vox(state.nv.scene.crosshairPos));
    goTo(clamped(voxel.map((v, axis) => v + by * step[axis])));
  } else if (action) action();
  else if (digit >= 1 && digit <= LAYOUTS.length) setLayout(digit - 1);
  else return false;
  return true;
}

// -- start ------------------------------------------------------------------------------------------------------------------

async function addVolume(layer, opacity) {
  const name = `${layer}.nii.gz`;
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  await state.nv.addVolumeFromUrl({ url: name, name, buffer: await answer.arrayBuffer(), colormap: "gray", opacity });
}

async function load() {
  const nv = new Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.42, 0.71, 1, 0.8],
    crosshairWidth: 0.5,
    showAllOrientationMarkers: true,
    fontColor: [0.9, 0.9, 0.9, 1],
    isRadiologicalConvention: true,
    isOrientCube: true,
    multiplanarLayout: MULTIPLANAR_TYPE.GRID,
    multiplanarShowRender: SHOW_RENDER.ALWAYS,
    // Room for the letters: L of one plane and P of the next would read "LP".
    multiplanarPadPixels: 28,
    dragAndDropEnabled: false,
    loadingText: "",
    logLevel: "error",
    // Its own keys would act beside ours.
    viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
  });
  nv.keyDownListener = () => {};
  nv.keyUpListener = () => {};
  state.nv = nv;
  await nv.attachToCanvas($("canvas"));
  await addVolume("image", 1);
  for (const [i, layer] of state.facts.layers.entries()) {
    state.index[layer] = i + 1;
    await addVolume(layer, 0);
    // Our files are RAS+ and x runs fastest: what NiiVue holds is what was sent.
    state.labels[layer] = volumeOf(layer).img;
  }
  nv.onLocationChange = tellLocation;
  nv.onIntensityChange = tellWindow;
}

function fill() {
  const { facts } = state;
  document.title = `${facts.title} - abdoseg view`;
  $("title").textContent = facts.title;
  $("unit").textContent = facts.modality === "CT" ? "HU" : "value";
  for (const layer of ["reference", "prediction"]) $(`title-${layer}`).textContent = facts.titles[layer];
  for (const one of document.querySelectorAll("[data-layer]")) one.hidden = !hasLayer(one.dataset.layer);
  for (const layer of ["reference", "prediction"]) $(`at-${layer}`).parentElement.hidden = !hasLayer(layer);
  $("layers").hidden = $("structures-box").hidden = facts.layers.length === 0;
  $("notes").append(...facts.notes.map((note) => element("li", { textContent: note })));
  $("difference-legend").append(
    ...DIFFERENCES.map(([, title, colour]) => element("li", {}, swatch(colour), title)));
  $("keys").append(...KEYS.map(([key, what]) =>
    element("tr", {}, element("td", {}, element("kbd", { textContent: key })), element("td", { textContent: what }))));
}

function connect() {
  for (const layer of ["reference", "prediction"]) {
    state.opacity[layer] = 0.5;
    $(`opacity-${layer}`).addEventListener("input", (event) => setOpacity(layer, Number(event.target.value)));
  }
  state.opacity.difference = 0.8;
  for (const id of ["outline", "difference"]) $(id).addEventListener("change", showLayers);
  $("help-button").addEventListener("click", () => $("help").showModal());
  document.addEventListener("keydown", onKey);
}

async function start() {
  // The token came in the address; the cookie has it now, and history need not keep it.
  history.replaceState(null, "", "/");
  if (!document.createElement("canvas").getContext("webgl2")) {
    throw new Error("this browser has no WebGL 2; turn on hardware acceleration, or use another browser");
  }
  state.facts = await (await fetch("scene.json")).json();
  fill();
  await load();
  makeWindows();
  makeLayouts();
  makeStructures();
  connect();
  showLayers();
  setLayout(0);
  const first = state.facts.structures.map((one) => one.reference || one.prediction).filter(Boolean);
  first.sort((a, b) => b.ml - a.ml);
  goTo(first.length ? first[0].centre : state.facts.shape.map((n) => Math.floor(n / 2)));
  $("loading").hidden = true;
  document.body.dataset.ready = "true";
}

// For the tests, and for who wants more from the browser's console.
window.abdoseg = state;

start().catch((error) => {
  $("loading").classList.add("error");
  $("loading").textContent = `The page could not be shown: ${error.message}`;
  document.body.dataset.ready = "failed";
});
