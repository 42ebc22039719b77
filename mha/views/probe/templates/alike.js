// Which heads are alike: a cluster map of the heads of a stack, in which similar heads are neighbours.
const MEASURES = { divergence: 'divergence of weights', cka: 'CKA of outputs' }
const MOST_ALIKE = 22 // pixels of a cell

// Similarity of the heads of the stack. Two encoded sequences share the one of their encoder.
const similarityOf = recording => DATA.recordings[recording].similarity
  ?.find(({ stack }) => stack === (state.stack === 'second' ? 'encoder' : state.stack))
const headNamed = ([layer, head]) => `layer ${layer}, head ${head}`

// Order of the first recording, so that two can be compared, if the other has the same heads.
function orderOf(one) {
  const first = similarityOf(sides()[0].recording)
  return (first && String(first.heads) === String(one.heads) ? first : one).order
}

function alikePanel(side, width) {
  const one = similarityOf(side.recording), title = `${side.title}: ${MEASURES[state.alike]} of heads`
  if (!one) return svg('svg', { viewBox: `0 0 ${width} 60`, width, height: 60, role: 'img', 'aria-label': title },
    heading(side.title, width), text(0, 38, 'left out for its size: ask for a shorter text'))
  const order = orderOf(one), heads = order.map(i => one.heads[i]), n = heads.length
  const value = (measure, row, column) => valueAt(one[measure], 0, order[row] * n + order[column])
  const values = Float32Array.from({ length: n * n }, (_, i) => value(state.alike, Math.floor(i / n), i % n))
  const map = { key: `alike ${side.recording} ${one.stack} ${state.alike} ${order}`, rows: n, columns: n, values }
  const reach = state.alike === 'cka' ? 1 : reachOf(map) || 1
  const names = heads.map(([layer, head]) => `${layer}.${head}`), left = labelWidth(names, 60), top = 26 + left
  const cell = Math.min(MOST_ALIKE, (width - left - 4) / n), size = cell * n
  const box = { x: left, y: top, width: size, height: size }, height = top + size + 42, every = Math.ceil(LABEL / cell)
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', tabindex: 0, class: 'alike',
    'data-side': side.id, 'aria-label': `${title}, ${n} by ${n}. Arrow keys read pairs, Enter chooses the head of the row.` },
  heading(side.title, width), imageOf(map, reach, box), svg('rect', { ...box, fill: 'none', stroke: 'var(--line)' }))
  names.forEach((name, i) => {
    const chosen = heads[i][0] === place().layer && heads[i][1] === state.head
    if (i % every && !chosen) return
    const y = top + (i + 0.5) * cell + 4, x = left + (i + 0.5) * cell + 4
    const look = { 'font-size': LABEL, fill: chosen ? 'var(--ink)' : 'var(--grey)', 'font-weight': chosen ? 700 : null }
    panel.append(text(left - 5, y, name, { 'text-anchor': 'end', ...look }),
      text(x, top - 5, name, { transform: `rotate(-90 ${x} ${top - 5})`, ...look }))
  })
  panel.append(...colourBar(left, top + size + 10, Math.max(60, Math.min(140, size)), reach, false))
  const line = { fill: 'none', stroke: RAMPS[theme()].ink, 'stroke-width': 1.2, visibility: 'hidden', class: 'cross' }
  const frame = svg('rect', { ...line, width: cell, height: cell })
  panel.append(frame)

  let at = null
  function read(next, event) {
    at = next
    fill(frame, { visibility: at ? 'visible' : 'hidden' })
    if (!at) { hush(); return '' }
    fill(frame, { x: left + at[1] * cell, y: top + at[0] * cell })
    const parts = [`${headNamed(heads[at[0]])} and ${headNamed(heads[at[1]])}`,
      `divergence ${show(value('divergence', ...at))} bits, CKA ${show(value('cka', ...at))}`]
    const frameBox = frame.getBoundingClientRect()
    tell(parts, event ? event.clientX : frameBox.right, event ? event.clientY : frameBox.bottom)
    return parts.join(', ')
  }
  const where = event => {
    const bounds = panel.getBoundingClientRect(), zoom = width / bounds.width
    const row = Math.floor(((event.clientY - bounds.top) * zoom - top) / cell)
    const column = Math.floor(((event.clientX - bounds.left) * zoom - left) / cell)
    return row >= 0 && column >= 0 && row < n && column < n ? [row, column] : null
  }
  const choose = found => { if (found) changed({ layer: heads[found[0]][0], head: heads[found[0]][1] }) }
  return fill(panel, {
    pointermove: event => read(where(event), event),
    pointerleave: () => read(null),
    blur: () => read(null),
    click: event => choose(where(event)),
    keydown: event => {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key]
      if (event.key === 'Enter') { event.preventDefault(); choose(at) }
      if (!move) return
      event.preventDefault()
      event.stopPropagation()
      const next = (at || [0, 0]).map((each, i) => Math.max(0, Math.min(n - 1, each + move[i])))
      byId('said').textContent = read(next)
    },
  })
}

// Recordings whose heads are compared.
const compared = () => recorded().filter(side => DATA.recordings[side.recording].similarity)

function alikePanels() {
  const room = layout(Math.max(280, byId('alike').clientWidth), compared().length, 270), width = Math.min(room.width, 520)
  return { columns: room.columns, width, panels: compared().map(side => alikePanel(side, width)) }
}

function renderAlike() {
  const section = byId('alike')
  section.hidden = !compared().length
  if (section.hidden) return
  refresh(section.querySelector('.controls'),
    chooser('measure', 'Similarity', Object.entries(MEASURES), state.alike, value => changed({ alike: value })),
    saveButtons('alike'))
  const { columns, panels } = alikePanels(), figure = section.querySelector('figure')
  const focused = document.activeElement?.closest?.('#alike svg')?.dataset.side
  figure.replaceChildren(panelled(columns, panels))
  if (focused) figure.querySelector(`[data-side="${focused}"]`)?.focus({ preventScroll: true })
}
