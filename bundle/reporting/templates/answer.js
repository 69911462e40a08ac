const view = JSON.parse(document.getElementById("view").textContent);
const [nx, ny, nz] = view.shape;
const at = [...view.centre];
// by plane: the axis that is scrolled, and those of columns and rows; both run against the axis (radiological view)
const planes = { axial: [2, 0, 1], coronal: [1, 0, 2], sagittal: [0, 1, 2] };
const letters = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" };
const strides = [1, nx, nx * ny];
const volumes = {};
const byId = id => document.getElementById(id);

async function unpack(name) {
  const text = byId(`volume-${name}`).textContent;
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function colour(hex) { return [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16)); }

function membership(region) {
  const inside = new Uint8Array(256);
  for (const value of region.values) inside[value] = 1;
  return { inside, rgb: colour(region.colour) };
}

async function draw() {
  const number = byId("channel").value;
  const grey = volumes[number] ??= await unpack(`channel-${number}`);
  const shown = [...document.querySelectorAll(".region:checked")].map(box => membership(view.regions[box.value]));
  for (const plane of Object.keys(planes)) drawPlane(plane, grey, shown, byId("filled").checked);
  const mm = [0, 1, 2].map(k => view.affine[k][3] + at.reduce((sum, place, axis) => sum + view.affine[k][axis] * place, 0));
  const value = volumes.mask[at[0] + at[1] * strides[1] + at[2] * strides[2]];
  const here = view.regions.filter(region => region.values.includes(value)).map(region => region.name);
  byId("place").textContent = `At ${mm.map(x => x.toFixed(1)).join(", ")} mm (right, front, top): ${here.join(", ") || "no region"}`;
}

const SIDE = 640; // pixels of a canvas, which shows the longest side of the head

function frameOf(plane) {
  const [, across, up] = planes[plane], mm = view.shape.map((size, axis) => size * view.spacing[axis]);
  const scale = SIDE / Math.max(...mm), width = mm[across] * scale, height = mm[up] * scale;
  return { left: (SIDE - width) / 2, top: (SIDE - height) / 2, width, height };
}

function drawPlane(plane, grey, shown, filled) {
  const [axis, across, up] = planes[plane];
  const [width, height] = [view.shape[across], view.shape[up]];
  const image = new ImageData(width, height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const index = at[axis] * strides[axis] + (width - 1 - column) * strides[across] + (height - 1 - row) * strides[up];
      let rgb = [grey[index], grey[index], grey[index]];
      for (const region of shown) {
        if (!region.inside[volumes.mask[index]]) continue;
        const rim = column === 0 || column === width - 1 || row === 0 || row === height - 1
          || [strides[across], -strides[across], strides[up], -strides[up]].some(step => !region.inside[volumes.mask[index + step]]);
        if (rim) rgb = region.rgb;
        else if (filled) rgb = rgb.map((level, k) => 0.6 * level + 0.4 * region.rgb[k]);
      }
      image.data.set([...rgb, 255], 4 * (row * width + column));
    }
  }
  const source = new OffscreenCanvas(width, height);
  source.getContext("2d").putImageData(image, 0, 0);
  const canvas = byId(plane), context = canvas.getContext("2d");
  const frame = frameOf(plane);
  canvas.width = canvas.height = SIDE;
  context.imageSmoothingEnabled = false;
  context.drawImage(source, frame.left, frame.top, frame.width, frame.height);
  const x = frame.left + (width - at[across] - 0.5) / width * frame.width;
  const y = frame.top + (height - at[up] - 0.5) / height * frame.height;
  context.fillStyle = "rgba(255, 255, 255, 0.35)";
  context.fillRect(x - 1, 0, 2, canvas.height);
  context.fillRect(0, y - 1, canvas.width, 2);
  context.fillStyle = "#fff";
  context.font = `bold ${Math.round(canvas.width / 16)}px sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  const [left, right, top, bottom] = letters[plane], edge = canvas.width / 18;
  context.fillText(left, edge, canvas.height / 2);
  context.fillText(right, canvas.width - edge, canvas.height / 2);
  context.fillText(top, canvas.width / 2, edge);
  context.fillText(bottom, canvas.width / 2, canvas.height - edge);
}

function move(axis, place) {
  at[axis] = Math.min(view.shape[axis] - 1, Math.max(0, Math.round(place)));
  for (const [plane, [own]] of Object.entries(planes)) byId(`${plane}-slice`).value = at[own];
  draw();
}

function listen(plane) {
  const [axis, across, up] = planes[plane], canvas = byId(plane), slider = byId(`${plane}-slice`);
  slider.max = view.shape[axis] - 1;
  slider.value = at[axis];
  slider.addEventListener("input", () => move(axis, Number(slider.value)));
  canvas.addEventListener("wheel", event => { event.preventDefault(); move(axis, at[axis] - Math.sign(event.deltaY)); }, { passive: false });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    move(axis, at[axis] + step);
  });
  canvas.addEventListener("click", event => {
    const box = canvas.getBoundingClientRect(), frame = frameOf(plane), scale = SIDE / box.width;
    const x = ((event.clientX - box.left) * scale - frame.left) / frame.width;
    const y = ((event.clientY - box.top) * scale - frame.top) / frame.height;
    move(across, (1 - x) * view.shape[across] - 0.5);
    move(up, (1 - y) * view.shape[up] - 0.5);
  });
}

async function start() {
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old for the viewer; the pictures above show the result");
  volumes.mask = await unpack("mask");
  Object.keys(planes).forEach(listen);
  for (const box of document.querySelectorAll(".region, #channel, #filled")) box.addEventListener("change", draw);
  await draw();
  byId("viewer-body").hidden = false;
  byId("viewer-state").hidden = true;
}

start().catch(error => { byId("viewer-state").textContent = `The viewer cannot be shown: ${error.message}.`; });
