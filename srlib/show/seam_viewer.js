// The seam viewer in the browser: two pictures of one size, A and B, in a frame of a fixed size. The kernel makes the
// pictures; everything else is done here. anywidget calls `render`; a page without a kernel calls `standalone`.

const WIDTH = 640, HEIGHT = 480 // CSS pixels of the frame, whatever the pictures' size
const ZOOMS = [1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 15 / 16, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48] // screen pixels a pixel
const NEAR = 6 // CSS pixels: so near to a seam or the wipe's line the pointer takes hold of it
const SEAM = "#00b7c7"
const MODES = { wipe: "W", A: "A", B: "B", difference: "D" }
const FIELDS = { shows: "shows", model: "model", tile: "tile, LR px", halo: "halo, LR px", blend: "blend", statistics: "statistics" }
const LARGEST = 9e6 // bytes of an upload: the server takes 10 MB at once
const STYLE = `
.seams { display: flex; flex-wrap: wrap; gap: 12px; font: 13px system-ui, sans-serif; outline: none; width: fit-content;
  color: var(--jp-ui-font-color1, #222); }
.seams canvas { display: block; touch-action: none; }
.seams .frame { position: relative; width: ${WIDTH}px; height: ${HEIGHT}px; outline: 1px solid #8888; }
.seams:focus .frame { outline: 2px solid ${SEAM}; }
.seams .chip { position: absolute; top: 6px; padding: 1px 6px; border-radius: 3px; background: #000b; color: white;
  pointer-events: none; max-width: 45%; }
.seams .busy { position: absolute; left: 50%; top: 50%; width: 36px; height: 36px; margin: -18px; border-radius: 50%;
  border: 4px solid #fff8; border-top-color: ${SEAM}; animation: seams-turn 0.8s linear infinite; pointer-events: none; }
@keyframes seams-turn { to { transform: rotate(360deg); } }
.seams .bar { display: flex; gap: 4px; align-items: center; margin: 4px 0; min-height: 26px; }
.seams button, .seams select { font: inherit; max-width: 150px; color: inherit; background: var(--jp-layout-color1, white);
  border: 1px solid #8888; border-radius: 3px; }
.seams button { cursor: pointer; padding: 1px 8px; }
.seams button.on { background: ${SEAM}; color: #000; }
.seams :disabled, .seams .off { opacity: 0.35; }
.seams table { border-collapse: collapse; background: none; font-size: inherit; margin: 0 0 8px; color: inherit; }
.seams.seams table tr :is(td, th) { text-align: left; max-width: none; padding: 1px 8px 1px 0; border: 0; background: none; white-space: nowrap; }
.seams .panel { width: 410px; }
.seams .below { display: flex; gap: 8px; }
.seams ol { margin: 0; padding-left: 24px; height: 168px; overflow-y: auto; width: 190px; }
.seams ol button { border: 0; padding: 0; text-align: left; background: none; white-space: nowrap; }
.seams .said { min-height: 18px; color: var(--jp-ui-font-color2, #666); width: ${WIDTH}px; }
.seams .error { color: #c00; }`

export function render({ model, el }) {
  const still = model.get("still") // no kernel: the results lie in the page
  const root = make("div", { className: "seams", tabIndex: 0 })
  root.dataset.lmSuppressShortcuts = "true" // JupyterLab's: A and B would insert cells
  const frame = make("div", { className: "frame" })
  const canvas = make("canvas"), ctx = canvas.getContext("2d")
  const chips = { a: make("div", { className: "chip" }), b: make("div", { className: "chip" }) }
  const busy = make("div", { className: "busy", hidden: true })
  const said = make("div", { className: "said" })
  const buttons = Object.fromEntries(Object.keys(MODES).map((mode) =>
    [mode, make("button", { textContent: mode, title: `key ${MODES[mode]}`, onclick: () => setMode(mode) })]))
  const gain = make("input", { type: "range", min: 1, max: 64, value: 16, title: "gain of the difference" })
  const reset = make("button", { textContent: "reset", title: "double click", onclick: fit })
  const save = make("button", { textContent: "save PNG", title: "key S", onclick: savePicture })
  const panel = make("div", { className: "panel" })
  const overview = make("canvas"), list = make("ol")
  frame.append(canvas, chips.a, chips.b, busy)
  const gainText = make("span"), bar = make("div", { className: "bar" })
  bar.append(...Object.values(buttons), gainText, gain, reset, save)
  const left = make("div"), below = make("div", { className: "below" })
  const settings = make("table"), figures = make("table"), plot = make("canvas")
  left.append(bar, frame, said)
  below.append(overview, list)
  panel.append(settings, figures, below, plot)
  root.append(make("style", { textContent: STYLE }), left, panel)
  el.replaceChildren(root)

  // wipe: CSS pixels from the frame's left; x, y: the picture's point in the frame's middle
  const view = { mode: "wipe", wipe: WIDTH / 2, level: 1, x: 0, y: 0 }
  let shown = null, width = 0, height = 0, images = {}, difference = null, ratio = 1, hovered = null
  let waiting = 0, sent = null, pending = null, frameAsked = 0, loads = 0, bitmaps = new Map(), listed = "a"

  // What is shown ---------------------------------------------------------------------------------------------------

  async function update() {
    const given = model.get("shown"), load = ++loads
    if (given.serial >= waiting) settle()
    const [a, b] = await Promise.all([bitmap(given.a), bitmap(given.b)])
    if (load != loads) return // another one came meanwhile
    const changed = !shown || a.width != width || a.height != height
    shown = given
    images = { a, b }
    width = a.width
    height = a.height
    difference = null
    if (!shown[listed].worst.length) listed = shown.a.worst.length || !shown.b.worst.length ? "a" : "b"
    if (changed) goToSquare()
    const [common, ...own] = words(shown.a.parts, shown.b.parts)
    chips.a.textContent = ["A", ...own[0]].join(" ")
    chips.b.textContent = ["B", ...own[1]].join(" ")
    said.title = [shown.title, ...common].join(", ")
    fillSettings()
    fillFigures()
    fillList()
    drawPlot()
    say()
    redraw()
    busy.hidden = !waiting
  }

  // Of what was shown lately the decoded picture is still there.
  function bitmap({ id, png }) {
    if (!bitmaps.has(id)) bitmaps.set(id, decoded(png))
    if (bitmaps.size > 8) bitmaps.delete(bitmaps.keys().next().value)
    return bitmaps.get(id)
  }

  function say(text) {
    said.className = shown?.error ? "said error" : "said"
    said.textContent = shown?.error || text || said.title
  }

  function settle() {
    waiting = 0
    sent = null
    if (pending) ask(pending)
  }

  // One question at a time, the latest one next: a slider's values in between are not computed.
  function ask(change) {
    pending = change
    busy.hidden = false
    if (waiting) return
    waiting = Date.now()
    sent = pending
    pending = null
    model.set("asked", { ...sent, serial: waiting })
    model.save_changes()
  }

  function changed(side, field, value) {
    const now = structuredClone(pending || sent || model.get("shown").settings)
    if (side) now[side][field] = value
    else now.picture = value
    ask(now)
  }

  function fillSettings() {
    settings.replaceChildren(row("th", "", "A", "B"))
    if (still) {
      const names = shown.results.map((result) => result.parts.join(", "))
      const choose = (side) => wide(names, names[shown.results.indexOf(shown[side])], (name) => {
        model.get("shown")[side] = shown.results[names.indexOf(name)]
        update()
      })
      return settings.append(row("td", "shows", choose("a"), choose("b")))
    }
    const { pictures, models, matters } = model.get("choices"), now = sent || shown.settings
    const picture = row("td", "picture", menu(Object.keys(pictures), now.picture, (name) => changed("", "", name)))
    const own = make("input", { type: "file", accept: "image/*", hidden: true, onchange: () => upload(own.files[0]) })
    const open = make("button", { textContent: "open…", title: "a picture of your own; or drop it here", onclick: () => own.click() })
    picture.append(cell("td", open), own)
    settings.replaceChildren(picture, settings.firstChild)
    for (const [field, name] of Object.entries(FIELDS)) {
      const menus = ["a", "b"].map((side) => {
        const options = field == "model" ? Object.keys(models) : models[now[side].model][field]
        const chosen = menu(options, now[side][field], (value) => changed(side, field, value))
        const used = field == "shows" || matters[now[side].shows][now[side].statistics].includes(field)
        chosen.disabled = !used
        chosen.name = `${side}-${field}`
        for (const option of chosen.options) option.disabled = option.value == "HR" && !pictures[now.picture]
        return chosen
      })
      const line = row("td", name, ...menus)
      if (menus.every((chosen) => chosen.disabled)) line.firstChild.className = "off"
      settings.append(line)
    }
  }

  function fillFigures() {
    const of = { a: new Map(shown.a.rows), b: new Map(shown.b.rows) }
    const names = [...new Set([...of.a.keys(), ...of.b.keys()])]
    figures.replaceChildren(...names.map((name) => row("td", name, of.a.get(name) || "", of.b.get(name) || "")))
    const { mse, most } = compared()
    const text = mse ? `${(10 * Math.log10(255 ** 2 / mse)).toFixed(1)} dB, at most ${most} of 255` : "the same in 8 bits"
    figures.append(row("td", "A against B", cell("td", text, 2)))
  }

  function fillList() {
    const items = shown[listed].worst.map((piece) => {
      const text = `${piece.along} ${piece.at}, ${piece.start}–${piece.stop}: ${short(piece.rms)}`
      const item = make("li")
      item.append(make("button", { textContent: text, onclick: () => goToPiece(piece) }))
      return item
    })
    const head = make("div", { textContent: items.length ? "worst, rms:" : "no seams" })
    for (const side of ["a", "b"]) {
      if (!shown.a.worst.length || !shown.b.worst.length) continue
      const choose = make("button", { textContent: side.toUpperCase(), className: side == listed ? "on" : "" })
      choose.style.cssText = "display:inline;margin-left:6px;padding:0 6px;border:1px solid #8888"
      choose.onclick = () => ((listed = side), fillList(), redraw())
      head.append(choose)
    }
    list.replaceChildren(head, ...items)
  }

  // Drawing ---------------------------------------------------------------------------------------------------------

  function redraw() {
    frameAsked ||= requestAnimationFrame(() => ((frameAsked = 0), shown && draw()))
  }

  const zoom = () => ZOOMS[view.level]
  const corner = () => [Math.round((WIDTH * ratio) / 2 - view.x * zoom()), Math.round((HEIGHT * ratio) / 2 - view.y * zoom())]

  function draw() {
    sized(canvas, WIDTH, HEIGHT, (ratio = window.devicePixelRatio || 1))
    const [w, h] = [canvas.width, canvas.height], split = { wipe: Math.round(view.wipe * ratio), A: w, B: 0 }[view.mode]
    ctx.fillStyle = "#777"
    ctx.fillRect(0, 0, w, h)
    ctx.imageSmoothingEnabled = zoom() < 1
    if (view.mode == "difference") part((difference ||= differenceOf(+gain.value)), 0, w)
    else {
      part(images.a, 0, split)
      part(images.b, split, w)
    }
    if (view.mode == "wipe") handle(split, h)
    ticks(shown.a.seams, 0, 0)
    ticks(shown.b.seams, w, h)
    if (hovered) seamLine(hovered)
    chips.a.hidden = view.mode == "B"
    chips.b.hidden = view.mode == "A"
    chips.a.style.left = chips.b.style.right = "6px"
    for (const [mode, button] of Object.entries(buttons)) button.className = mode == view.mode ? "on" : ""
    gain.disabled = view.mode != "difference"
    gainText.textContent = `gain ${gain.value}`
    gainText.className = gain.disabled ? "off" : ""
    drawOverview()
  }

  // The picture's part between two columns of the screen, on whole screen pixels: all of one size, and square.
  function part(image, from, to) {
    const k = zoom(), [x, y] = corner()
    const first = Math.max(0, Math.floor((from - x) / k)), last = Math.min(width, Math.ceil((to - x) / k))
    const top = Math.max(0, Math.floor(-y / k)), bottom = Math.min(height, Math.ceil((canvas.height - y) / k))
    if (first >= last || top >= bottom) return
    ctx.save()
    ctx.beginPath()
    ctx.rect(from, 0, to - from, canvas.height)
    ctx.clip()
    const [w, h] = [last - first, bottom - top]
    ctx.drawImage(image, first, top, w, h, x + first * k, y + top * k, w * k, h * k)
    ctx.restore()
  }

  function handle(split, h) {
    ctx.fillStyle = "white"
    ctx.fillRect(split - 1, 0, 2, h)
    ctx.beginPath()
    ctx.arc(split, h / 2, 11 * ratio, 0, 7)
    ctx.fill()
    ctx.fillStyle = "#222"
    for (const side of [-1, 1]) {
      ctx.beginPath()
      ctx.moveTo(split + side * 8 * ratio, h / 2)
      ctx.lineTo(split + side * 3 * ratio, h / 2 - 5 * ratio)
      ctx.lineTo(split + side * 3 * ratio, h / 2 + 5 * ratio)
      ctx.fill()
    }
  }

  // Where seams are, at the frame's edges: A's at the left and the top, B's at the right and the bottom.
  function ticks([rows, columns], atX, atY) {
    const k = zoom(), [x, y] = corner(), long = 10 * ratio
    for (const [colour, half] of [["black", 2], [SEAM, 1]]) {
      ctx.fillStyle = colour
      for (const row of rows) ctx.fillRect(atX ? atX - long : 0, Math.round(y + row * k) - half, long, 2 * half)
      for (const column of columns) ctx.fillRect(Math.round(x + column * k) - half, atY ? atY - long : 0, 2 * half, long)
    }
  }

  function seamLine({ along, at }) {
    const k = zoom(), [x, y] = corner()
    ctx.strokeStyle = SEAM
    ctx.setLineDash([6, 6])
    ctx.beginPath()
    if (along == "row") ctx.moveTo(0, y + at * k), ctx.lineTo(canvas.width, y + at * k)
    else ctx.moveTo(x + at * k, 0), ctx.lineTo(x + at * k, canvas.height)
    ctx.stroke()
    ctx.setLineDash([])
  }

  const small = () => Math.min(200 / width, 168 / height)

  function drawOverview() {
    const k = small(), c = overview.getContext("2d"), seams = shown[listed].seams
    sized(overview, Math.max(1, Math.round(width * k)), Math.max(1, Math.round(height * k)), ratio)
    c.setTransform(ratio * k, 0, 0, ratio * k, 0, 0)
    c.imageSmoothingQuality = "high"
    c.drawImage(images[view.mode == "B" ? "b" : "a"], 0, 0)
    c.fillStyle = SEAM + "90"
    for (const row of seams[0]) c.fillRect(0, row - 0.5 / k, width, 1 / k)
    for (const column of seams[1]) c.fillRect(column - 0.5 / k, 0, 1 / k, height)
    const w = (WIDTH * ratio) / zoom(), h = (HEIGHT * ratio) / zoom()
    for (const [colour, thick] of [["white", 3], ["#e31a1c", 1.5]]) {
      c.strokeStyle = colour
      c.lineWidth = thick / k
      c.strokeRect(view.x - w / 2, view.y - h / 2, w, h)
    }
  }

  // rms error in levels by the distance from the seams: A solid, B dashed.
  function drawPlot() {
    const lines = [shown.a, shown.b].map((side) => side.profile)
    const top = Math.max(0, ...lines.flat().map((v) => v || 0)), c = plot.getContext("2d")
    sized(plot, 410, top ? 130 : 0, ratio)
    if (!top) return
    c.setTransform(ratio, 0, 0, ratio, 0, 0)
    c.clearRect(0, 0, 410, 130)
    c.setLineDash([])
    c.fillStyle = c.strokeStyle = getComputedStyle(root).color
    c.fillText(`rms from the whole picture, up to ${short(top)} of 255; A solid, B dashed`, 30, 10)
    c.fillText("0", 18, 110)
    for (let d = 0; d <= 12; d += 4) c.fillText(d, 27 + d * 30, 124)
    c.fillText("px from a seam", 300, 110 - 4)
    c.strokeRect(30, 16, 366, 92)
    lines.forEach((line, i) => {
      c.setLineDash(i ? [5, 4] : [])
      c.beginPath()
      line.forEach((v, d) => v != null && c.lineTo(30 + d * 30, 108 - (v / top) * 88))
      c.stroke()
    })
  }

  function pixelsOf(image) {
    const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })
    copy.drawImage(image, 0, 0)
    return copy.getImageData(0, 0, width, height)
  }

  function compared() {
    const a = pixelsOf(images.a).data, b = pixelsOf(images.b).data
    let sum = 0, most = 0
    for (let i = 0; i < a.length; i++) {
      const d = Math.abs(a[i] - b[i]) // alpha is 255 in both
      sum += d * d
      if (d > most) most = d
    }
    return { mse: sum / (width * height * 3), most }
  }

  // A - B of the channel that differs most: red is more, blue is less, white the same.
  function differenceOf(gain) {
    const a = pixelsOf(images.a), b = pixelsOf(images.b).data, out = new Uint32Array(a.data.buffer), colours = scale(gain)
    for (let i = 0, p = 0; p < out.length; i += 4, p++) {
      let d = a.data[i] - b[i]
      for (const channel of [i + 1, i + 2]) {
        const e = a.data[channel] - b[channel]
        if (Math.abs(e) > Math.abs(d)) d = e
      }
      out[p] = colours[d + 255]
    }
    const made = new OffscreenCanvas(width, height)
    made.getContext("2d").putImageData(a, 0, 0)
    return made
  }

  function setMode(mode) {
    view.mode = mode
    hovered = null
    const range = (255 / gain.value).toPrecision(2)
    say(mode == "difference" ? `A − B: red more, blue less, full colour at ${range} levels of 255` : "")
    redraw()
  }
  gain.oninput = () => ((difference = null), setMode(view.mode))

  // Going somewhere -------------------------------------------------------------------------------------------------

  function fit() {
    const fits = (k) => width * k <= WIDTH * ratio && height * k <= HEIGHT * ratio
    view.level = Math.max(0, ZOOMS.findLastIndex(fits))
    Object.assign(view, { x: width / 2, y: height / 2, wipe: WIDTH / 2 })
    redraw()
  }

  function goTo(x, y, side) {
    if (side) view.level = Math.max(0, ZOOMS.findLastIndex((k) => k <= 16 && side * k <= 0.8 * HEIGHT * ratio))
    view.x = Math.min(Math.max(x, 0), width)
    view.y = Math.min(Math.max(y, 0), height)
    redraw()
  }

  function goToSquare() {
    const { top, left, size } = model.get("looked_at")
    ratio = window.devicePixelRatio || 1
    goTo(Math.min(left + size / 2, width), Math.min(top + size / 2, height), size)
  }

  function goToPiece({ along, at, start, stop }) {
    const middle = (start + stop) / 2
    if (along == "row") goTo(middle, at, Math.max(stop - start, 24))
    else goTo(at, middle, Math.max(stop - start, 24))
  }

  function zoomAt(x, y, steps) {
    const before = pictureAt(x, y)
    view.level = Math.min(Math.max(view.level + steps, 0), ZOOMS.length - 1)
    const after = pictureAt(x, y) // the point under the pointer stays there
    goTo(view.x + before[0] - after[0], view.y + before[1] - after[1])
  }

  const pictureAt = (x, y) => [view.x + ((x - WIDTH / 2) * ratio) / zoom(), view.y + ((y - HEIGHT / 2) * ratio) / zoom()]

  function seamNear(px, py, seams, tolerance) {
    const found = [["row", py, seams[0]], ["column", px, seams[1]]].flatMap(([along, p, all]) =>
      all.map((at) => ({ along, at, away: Math.abs(at - p) })))
    found.sort((one, other) => one.away - other.away)
    return found.length && found[0].away <= tolerance ? found[0] : null
  }

  function seamAt(x, y) {
    const side = view.mode == "B" || (view.mode == "wipe" && x > view.wipe) ? "b" : "a"
    const seams = view.mode == "difference" && !shown.a.worst.length ? shown.b.seams : shown[side].seams
    return seamNear(...pictureAt(x, y), seams, (NEAR * ratio) / zoom())
  }

  // The pointer: on the wipe's line it drags that, elsewhere the picture; a click on a seam goes there ---------------

  const position = (event, of) => {
    const box = of.getBoundingClientRect()
    return [event.clientX - box.left, event.clientY - box.top]
  }
  const onLine = (x) => view.mode == "wipe" && Math.abs(x - view.wipe) <= NEAR + 5
  let held = null

  canvas.onpointerdown = (event) => {
    const [x, y] = position(event, canvas)
    canvas.setPointerCapture(event.pointerId)
    held = { what: onLine(x) ? "wipe" : "picture", x, y, from: [view.x, view.y], moved: false }
    root.focus({ preventScroll: true })
  }
  canvas.onpointermove = (event) => {
    if (!shown) return
    const [x, y] = position(event, canvas)
    if (!held) return hover(x, y)
    held.moved ||= Math.hypot(x - held.x, y - held.y) > 3
    if (held.what == "wipe") {
      view.wipe = Math.min(Math.max(x, 0), WIDTH)
      redraw()
    } else if (held.moved) {
      const k = zoom() / ratio
      goTo(held.from[0] - (x - held.x) / k, held.from[1] - (y - held.y) / k)
    }
  }
  canvas.onpointerup = () => {
    const seam = held && held.what == "picture" && !held.moved && seamAt(held.x, held.y)
    const point = seam && pictureAt(held.x, held.y)
    if (seam) seam.along == "row" ? goTo(point[0], seam.at, 48) : goTo(seam.at, point[1], 48)
    held = null
  }
  canvas.onpointercancel = () => (held = null)
  canvas.onpointerleave = () => ((hovered = null), say(), redraw())
  canvas.ondblclick = fit
  let rolled = 0
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault()
    rolled += event.deltaY * (event.deltaMode ? 40 : 1)
    if (Math.abs(rolled) < 40) return // a touchpad rolls in small steps
    zoomAt(...position(event, canvas), rolled < 0 ? 1 : -1)
    rolled = 0
    if (!held) hover(...position(event, canvas)) // what is said of the zoom, and what lies under the pointer
  }, { passive: false })

  function hover(x, y) {
    const seam = onLine(x) ? null : seamAt(x, y)
    canvas.style.cursor = onLine(x) ? "ew-resize" : seam ? "pointer" : "grab"
    if (seam?.at != hovered?.at || seam?.along != hovered?.along) redraw()
    hovered = seam
    if (view.mode != "difference") {
      const [px, py] = pictureAt(x, y).map(Math.floor)
      say(`${said.title}; zoom ${+zoom().toPrecision(2)}, row ${py}, column ${px}`)
    }
  }

  overview.onpointerdown = (event) => {
    overview.setPointerCapture(event.pointerId)
    const [x, y] = position(event, overview).map((v) => v / small())
    const seam = seamNear(x, y, shown[listed].seams, 4 / small())
    if (!seam) return goTo(x, y)
    seam.along == "row" ? goTo(x, seam.at) : goTo(seam.at, y)
  }
  overview.onpointermove = (event) => event.buttons && goTo(...position(event, overview).map((v) => v / small()))

  root.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return
    const key = event.key.toUpperCase(), mode = Object.keys(MODES).find((name) => MODES[name] == key)
    if (mode) setMode(mode)
    else if (key == "S") savePicture()
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  function savePicture() {
    draw()
    canvas.toBlob((blob) => {
      const name = [shown.title, chips.a.textContent, chips.b.textContent, view.mode].join(" ").replace(/[^\w.-]+/g, "_")
      const link = make("a", { href: URL.createObjectURL(blob), download: `${name}.png` })
      link.click()
      URL.revokeObjectURL(link.href)
    })
  }

  async function upload(file) {
    if (!file || still) return
    shown.error = file.size > LARGEST ? `${file.name} has more than ${LARGEST / 1e6} MB: use viewer.add_file(path)` : ""
    say()
    if (shown.error) return
    waiting = Date.now()
    busy.hidden = false
    model.send({ upload: file.name, serial: waiting }, undefined, [await file.arrayBuffer()])
  }
  root.ondragover = (event) => event.preventDefault()
  root.ondrop = (event) => (event.preventDefault(), upload(event.dataTransfer.files[0]))

  // ------------------------------------------------------------------------------------------------------------------

  const told = { "change:shown": update, "change:looked_at": () => shown && goToSquare() }
  for (const [event, act] of Object.entries(told)) model.on(event, act)
  update()
  return () => Object.entries(told).forEach(([event, act]) => model.off(event, act))
}

export default { render }

// A viewer whose data lie in the page as JSON, in the element `${id}-data`.
export function standalone(id) {
  const data = JSON.parse(document.getElementById(`${id}-data`).textContent), { shown } = data
  for (const side of ["a", "b"]) shown[side] = shown.results[shown[side]]
  const model = { get: (name) => data[name], set() {}, save_changes() {}, send() {}, on() {}, off() {} }
  render({ model, el: document.getElementById(id) })
}

function make(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties)
}

function cell(tag, content, columns = 1) {
  const made = make(tag, { colSpan: columns })
  made.append(content)
  return made
}

function row(tag, ...contents) {
  const made = make("tr")
  made.append(...contents.map((content) => (content.tagName == "TD" ? content : cell(tag, content))))
  return made
}

function menu(options, value, chosen) {
  const made = make("select", { onchange: () => chosen(options[made.selectedIndex]) })
  made.append(...options.map((option) => make("option", { value: option, textContent: option })))
  made.value = value
  return made
}

const wide = (...given) => Object.assign(menu(...given), { style: "max-width: 180px" })

const short = (value) => (value < 10 ? value.toPrecision(2) : value.toFixed(0))

function sized(canvas, width, height, ratio) {
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)]
  if (canvas.width != w || canvas.height != h) Object.assign(canvas, { width: w, height: h })
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` })
}

// The PNG of a side, bytes or base64.
function decoded(png) {
  const bytes = typeof png == "string" ? Uint8Array.from(atob(png), (c) => c.charCodeAt(0)) : png
  return createImageBitmap(new Blob([bytes], { type: "image/png" }))
}

// What both have in common, and what each has of its own: nothing is said twice.
function words(a, b) {
  return [a.filter((part) => b.includes(part)), a.filter((part) => !b.includes(part)), b.filter((part) => !a.includes(part))]
}

// Colours of -255..255 as little-endian RGBA, full at 255 / gain levels.
function scale(gain) {
  const ends = [[103, 0, 31], [214, 96, 77], [247, 247, 247], [67, 147, 195], [5, 48, 97]] // more, same, less
  return Uint32Array.from({ length: 511 }, (_, i) => {
    const t = 2 - 2 * Math.min(Math.max(((i - 255) * gain) / 255, -1), 1), low = Math.min(Math.floor(t), 3)
    const [r, g, b] = ends[low].map((v, c) => Math.round(v + (ends[low + 1][c] - v) * (t - low)))
    return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0
  })
}
