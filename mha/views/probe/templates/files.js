// Files of what is shown: SVG and PNG of the panels of a sheet in light colours, CSV of its numbers. A sheet is the view
// of one head or of all, or the similarity of heads.
const SHEETS = {
  view: {
    label: 'Save this view',
    name: () => `${state.view}-${place().name}.${state.head}`,
    caption: () => state.view === 'heads' ? '' : `${state.view === 'channels' ? 'channels' : KINDS[state.kind]}, `
      + `${STACKS[state.stack]}, layer ${place().layer}, head ${state.head}`,
    table: () => ({ heads: headsTable, channels: channelsTable })[state.view]?.() ?? cellsTable(),
    draw() {
      const { columns, width } = layout(Math.max(280, byId('view').clientWidth), shownSides().length), panels = panelsOf(width)
      if (state.view === 'lines' && lockedToken()) panels.forEach(panel => panel.draw?.(lockedToken()))
      if (state.without && DATA.ablations.length) panels.push(ablationPanel(Math.min(560, width)).panel)
      return { columns, width, panels }
    },
  },
  alike: {
    label: 'Save the similarity of heads',
    name: () => `alike-${state.stack}-${state.alike}`, caption: () => `${MEASURES[state.alike]}, layer.head`,
    table: alikeTable, draw: alikePanels,
  },
}

const saveButtons = sheet => html('span', { class: 'files', role: 'group', 'aria-label': SHEETS[sheet].label },
  html('span', { class: 'grey' }, 'Save'),
  ...['svg', 'png', 'csv'].map(format => button(`save-${sheet}-${format}`, format.toUpperCase(), () => exportAs(format, sheet))))

function svgText(sheet = 'view') {
  forced = 'light'
  const { columns, width, panels } = SHEETS[sheet].draw(), whole = svg('svg', { xmlns: SVG, 'font-family': 'sans-serif' })
  forced = ''
  const caption = SHEETS[sheet].caption()
  if (caption) whole.append(text(10, 20, caption))
  let y = caption ? 32 : 10, total = 0
  for (let i = 0; i < panels.length; i += columns) {
    const line = panels.slice(i, i + columns), tall = Math.max(...line.map(each => +each.getAttribute('height')))
    line.forEach((panel, column) => {
      panel.querySelectorAll('[tabindex]').forEach(each => each.removeAttribute('tabindex'))
      panel.querySelectorAll('.cross').forEach(each => each.remove())
      whole.append(fill(panel, { x: 10 + column * (width + 20), y }))
    })
    y += tall + 16
    total = Math.max(total, line.length * (width + 20))
  }
  fill(whole, { viewBox: `0 0 ${total} ${y}`, width: total, height: y })
  whole.prepend(svg('rect', { width: '100%', height: '100%', fill: 'var(--paper)' }))
  return standalone(whole)
}

async function pngBlob(sheet = 'view', scale = 2) {
  const source = svgText(sheet), image = new Image()
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`
  await image.decode()
  const canvas = html('canvas', { width: image.width * scale, height: image.height * scale })
  const context = canvas.getContext('2d')
  context.scale(scale, scale)
  context.drawImage(image, 0, 0)
  return new Promise(done => canvas.toBlob(done, 'image/png'))
}

function csvText(sheet = 'view') {
  return SHEETS[sheet].table().map(line => line.map(value => csvCell(value ?? '')).join(',')).join('\n') + '\n'
}
const digits = value => value === null || Number.isNaN(value) ? '' : +value.toPrecision(6)

function headsTable() {
  const fields = ['recording', 'stack', 'layer', 'head']
  return [[...fields, ...numberNames], ...recorded().flatMap(side => DATA.recordings[side.recording].attentions
    .flatMap(({ name, stack, layer, heads }) => heads.map(head => {
      const own = numbers.get(`${side.recording} ${name} ${head}`) || {}
      return [side.title, stack, layer, head, ...numberNames.map(each => own[each])]
    })))]
}
function channelsTable() {
  const { name } = place(), lines = []
  for (const side of recorded().filter(each => attentionOf(each.recording, name)?.q)) {
    const [queries, keys] = side.labels(name), query = Math.min(queryOf(side), queries.length - 1)
    const { values, size } = channelValues(side, query)
    if (!lines.length) {
      lines.push(['recording', 'query', 'query_token', 'key', 'key_token',
        ...Array.from({ length: size }, (_, channel) => `channel_${channel}`)])
    }
    keys.forEach((label, key) => lines.push([side.title, query, queries[query], key, label,
      ...Array.from(values.subarray(key * size, (key + 1) * size), digits)]))
  }
  return lines
}
function cellsTable() {
  const { name, layer } = place(), kinds = Object.keys(KINDS)
  const lines = [['recording', 'stack', 'layer', 'head', 'query', 'query_token', 'key', 'key_token', ...kinds]]
  for (const side of recorded()) {
    const maps = kinds.map(kind => side.map(name, state.head, kind)), [map] = maps
    if (!map) continue
    const [queries, keys] = side.labels(name)
    for (let i = 0; i < map.values.length; i++) {
      if (Number.isNaN(map.values[i])) continue
      const row = Math.floor(i / map.columns) * map.sizes[0], column = i % map.columns * map.sizes[1]
      lines.push([side.title, state.stack, layer, state.head, row, map.pooled ? '' : queries[row], column,
        map.pooled ? '' : keys[column], ...maps.map(each => digits(each.values[i]))])
    }
  }
  return lines
}

// All pairs of heads of every recording, once each.
function alikeTable() {
  const lines = [['recording', 'stack', 'layer', 'head', 'other_layer', 'other_head', ...Object.keys(MEASURES)]]
  for (const side of recorded().filter(each => similarityOf(each.recording))) {
    const one = similarityOf(side.recording), n = one.heads.length
    one.heads.forEach((head, i) => one.heads.slice(i + 1).forEach((other, j) => lines.push([side.title, one.stack, ...head,
      ...other, ...Object.keys(MEASURES).map(measure => digits(valueAt(one[measure], 0, i * n + i + 1 + j)))])))
  }
  return lines
}

async function exportAs(format, sheet) {
  const name = `probe-${SHEETS[sheet].name()}.${format}`
  if (format === 'svg') save(name, 'image/svg+xml', svgText(sheet))
  if (format === 'csv') save(name, 'text/csv', csvText(sheet))
  if (format === 'png') save(name, 'image/png', await pngBlob(sheet))
  byId('said').textContent = `saved ${name}`
}
