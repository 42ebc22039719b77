// What every channel of queries and keys adds to the logits of one query, and accuracy without a head.
function channelsPanel(side, width) {
  const { name, layer } = place(), attention = attentionOf(side.recording, name)
  const title = `${side.title}: channels of layer ${layer}, head ${state.head}`
  if (side.id === 'difference') return null
  if (!attention?.q) return withoutChannels(side, width, title)
  const [queries, keys] = side.labels(name), query = Math.min(queryOf(side), queries.length - 1)
  const { reach, values, size } = channelValues(side, query)
  const left = labelWidth(keys, 92) + 8, numbers = 4 * 52, room = width - left - numbers - 12
  const narrow = room < 90, across = Math.max(90, Math.min(room, 22 * size)), shownColumns = narrow ? 1 : 4
  const tall = Math.max(12, Math.min(20, 900 / keys.length)), top = 62
  const box = { x: left, y: top, width: narrow ? width - left - 56 : across, height: tall * keys.length }
  const height = box.y + box.height + 40, cell = box.width / size
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', tabindex: 0, class: 'channels',
    'data-side': side.id, 'aria-label': `${title}, query ${named(queries, query)}: ${size} channels of `
      + `${keys.length} keys. Up and down choose a query.` })
  const picture = { key: `${title} channels ${query}`, rows: keys.length, columns: size, values, signed: true }
  panel.append(heading(`${side.title}: query ${named(queries, query)}`, width),
    text(left, 34, `${size} channels →`, { 'font-size': 11 }), imageOf(picture, reach, box),
    svg('rect', { ...box, fill: 'none', stroke: 'var(--line)' }))
  const columns = ['sum', 'other', 'logit', 'weight'].slice(narrow ? 2 : 0, narrow ? 3 : 4)
  const ends = columns.map((_, i) => box.x + box.width + 52 * (i + 1))
  columns.forEach((column, i) => panel.append(text(ends[i], top - 8, column, { 'text-anchor': 'end', 'font-size': 11 })))
  keys.forEach((label, row) => {
    const y = top + (row + 0.5) * tall + 4, known = keyValues(side, query, row, values, size)
    panel.append(text(left - 6, y, clipped(label), { 'text-anchor': 'end', 'font-size': LABEL,
      fill: state.key === row ? 'var(--ink)' : 'var(--grey)' }))
    columns.forEach((column, i) => panel.append(text(ends[i], y, known ? short(known[column]) : '-',
      { 'text-anchor': 'end', 'font-size': 11, fill: column === 'weight' ? 'var(--ink)' : 'var(--grey)' })))
  })
  panel.append(...colourBar(left, box.y + box.height + 12, Math.min(140, box.width), reach, true))
  const frame = svg('rect', { fill: 'none', stroke: RAMPS[theme()].ink, 'stroke-width': 1.2, visibility: 'hidden',
    width: cell, height: tall, class: 'cross' })
  panel.append(frame)
  return fill(panel, {
    pointermove: event => {
      const bounds = panel.getBoundingClientRect(), zoom = width / bounds.width
      const row = Math.floor(((event.clientY - bounds.top) * zoom - box.y) / tall)
      const channel = Math.floor(((event.clientX - bounds.left) * zoom - box.x) / cell)
      if (row < 0 || row >= keys.length || channel < 0 || channel >= size) { frame.setAttribute('visibility', 'hidden'); hush(); return }
      fill(frame, { x: box.x + channel * cell, y: box.y + row * tall, visibility: 'visible' })
      const known = keyValues(side, query, row, values, size)
      const parts = [`${named(queries, query)} → ${named(keys, row)}`,
        `channel ${channel}: ${short(values[row * size + channel])}`,
        known ? `all channels ${short(known.sum)}, other ${short(known.other)}, logit ${short(known.logit)}`
          : 'hidden by the mask']
      byId('reading').textContent = parts.join('\n')
      tell(parts, event.clientX, event.clientY)
    },
    pointerleave: () => { frame.setAttribute('visibility', 'hidden'); hush() },
    keydown: event => {
      const move = { ArrowUp: -1, ArrowDown: 1 }[event.key]
      if (!move) return
      event.preventDefault()
      event.stopPropagation()
      const next = Math.max(0, Math.min(queries.length - 1, query + move))
      changed({ query: next })
      byId('said').textContent = `query ${named(queries, next)}`
    },
  })
}

// Query of the view: the locked one, or one in the middle.
function queryOf(side) {
  const [queries] = side.labels(place().name)
  return state.query === '' ? Math.floor(queries.length / 2) : state.query
}

function channelValues(side, query) {
  const { q, k, heads } = attentionOf(side.recording, place().name), head = heads.indexOf(state.head)
  const size = q.shape[2], keys = k.shape[1], values = new Float32Array(keys * size)
  for (let key = 0; key < keys; key++) {
    for (let channel = 0; channel < size; channel++) {
      values[key * size + channel] = valueAt(q, head, query * size + channel) * valueAt(k, head, key * size + channel)
    }
  }
  return { values, size, reach: values.reduce((most, each) => Math.max(most, Math.abs(each)), 0) || 1 }
}

// Sum of the channels of a key, what is added to it, and the logit; null for a hidden key.
function keyValues(side, query, key, values, size) {
  const { name } = place(), map = kind => side.map(name, state.head, kind)
  const at = query * map('weights').columns + key, weight = map('weights').values[at]
  if (Number.isNaN(weight)) return null
  const logit = map('total').values[at]
  const sum = values.subarray(key * size, (key + 1) * size).reduce((total, value) => total + value, 0)
  const other = Math.abs(logit - sum) < 0.001 ? 0 : logit - sum  // numbers of the page are rounded
  return { sum, other, logit, weight }
}

function withoutChannels(side, width, title) {
  const panel = svg('svg', { viewBox: `0 0 ${width} 60`, width, height: 60, role: 'img', 'aria-label': title })
  panel.append(heading(side.title, width),
    text(0, 38, 'left out for its size: ask for a shorter text'))
  return panel
}

// ------------------------------------------------------------------------------------------------ without a head
const wholeRow = length => DATA.ablations.find(row => row.head === null && row.length === length)
const removedRow = (name, head, length) => DATA.ablations.find(row => row.head === head && row.removed !== 'others'
  && `${row.stack}.${row.layer}` === name.replace('second', 'encoder') && row.length === length)
// Heads of the first run are removed.
const isAblated = side => side.recording !== null && sameWeights(DATA.recordings[side.recording], DATA.recordings[0])
const ablatedLengths = () => [...new Set(DATA.ablations.map(row => row.length))].slice(0, 3)

function ablationPanel(width) {
  const { name, layer } = place(), lengths = ablatedLengths(), box = { left: 96, right: width - 150 }
  const height = 34 + 46 * lengths.length
  const x = value => box.left + value * (box.right - box.left)
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', class: 'ablation' })
  const others = DATA.recordings.some(each => !sameWeights(each, DATA.recordings[0]))
  const whose = others ? `${DATA.recordings[0].title.replace(/, (length \d+|text)$/, '')}: accuracy` : 'Accuracy'
  panel.append(heading(`${whose} without layer ${layer}, head ${state.head}`, width))
  const said = []
  lengths.forEach((length, line) => {
    const y = 30 + 46 * line, whole = wholeRow(length)?.accuracy ?? null
    const without = removedRow(name, state.head, length)?.accuracy ?? null
    const title = length === null ? 'all' : `length ${length}`
    panel.append(text(box.left - 8, y + 20, title, { 'text-anchor': 'end' }),
      svg('rect', { x: box.left, y, width: box.right - box.left, height: 32, fill: 'var(--shade)' }))
    for (const [value, offset, colour] of [[whole, 3, 'var(--grey)'], [without, 17, '#d9812b']]) {
      if (value !== null) {
        panel.append(svg('rect', { x: box.left, y: y + offset, width: (x(value) - box.left).toFixed(1), height: 12, fill: colour }))
      }
    }
    const change = whole === null || without === null ? '' : `${without < whole ? '-' : '+'}${show(Math.abs(without - whole))}`
    panel.append(text(box.right + 8, y + 14, `all heads ${show(whole)}`, { 'font-size': 11.5 }),
      text(box.right + 8, y + 28, `without ${show(without)} ${change}`, { 'font-size': 11.5, fill: 'var(--ink)' }))
    said.push(`${title}: ${show(whole)} with all heads, ${show(without)} without this head`)
  })
  panel.setAttribute('aria-label', said.join('; '))
  return { panel, said: said.join('; ') }
}
