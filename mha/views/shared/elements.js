// Elements, texts, choices, the tip under the pointer, and saved files. Text from runs enters a page only as text nodes
// and attributes, never as HTML.
const SVG = 'http://www.w3.org/2000/svg'
const INK = { ink: '#24292f', grey: '#626b75', shade: '#f1f3f6', line: '#d5dae0', paper: '#ffffff', heat: '#0072b2' }

const byId = id => document.getElementById(id)

// ------------------------------------------------------------------------------------------------------- elements
// Attributes that are functions become listeners; those that are null or false are left out.
function fill(element, attributes, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value)
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value)
  }
  element.append(...children)
  return element
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children)
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children)

const text = (x, y, string, attributes = {}) =>
  svg('text', { x, y, 'font-size': 12, fill: 'var(--grey)', ...attributes }, string)
const heading = (string, width) =>
  text(0, 14, fit(string, width), { 'font-weight': 600, 'font-size': 13, fill: 'var(--ink)' })
// Text that loses its beginning if it is too long.
const fit = (string, width) =>
  string.length * 8.4 > width ? `…${string.slice(1 - Math.floor(width / 8.4))}` : string
const show = value => {
  if (value === null || value === undefined) return '-'
  return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toFixed(3)
}

// ------------------------------------------------------------------------------------------------------- choices
// Replaces children that a person may be using: the focus stays on the element of the same id.
function refresh(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : ''
  parent.replaceChildren(...children)
  if (focused) byId(focused)?.focus()
}

const button = (id, title, click) => html('button', { type: 'button', id, click }, title)

function chooser(id, title, options, value, change) {
  const select = html('select', { id, change: () => change(select.value) })
  for (const [key, name] of options) select.append(html('option', { value: key }, name))
  select.value = value
  return html('label', {}, title, select)
}

// ----------------------------------------------------------------------------------------------------------- tip
function tell(parts, left, top) {
  const tip = byId('tip')
  tip.replaceChildren(html('b', {}, parts[0]), ...parts.slice(1).map(part => html('div', {}, part)))
  tip.hidden = false
  const below = top + 14 + tip.offsetHeight <= innerHeight
  tip.style.left = `${Math.max(4, Math.min(left + 14, innerWidth - tip.offsetWidth - 8))}px`
  tip.style.top = `${below ? top + 14 : top - tip.offsetHeight - 12}px`
}
function hush() { byId('tip').hidden = true }

// --------------------------------------------------------------------------------------------------------- files
function save(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }))
  const link = html('a', { href: address, download: name })
  document.body.append(link)
  link.click()
  link.remove()
  setTimeout(() => URL.revokeObjectURL(address), 1000)
}

const csvCell = value => /[",\r\n]/.test(String(value)) ? `"${String(value).replace(/"/g, '""')}"` : String(value)

// Text of an SVG in the colours of light mode, which needs no style sheet.
const standalone = whole =>
  new XMLSerializer().serializeToString(whole).replace(/"var\(--(\w+)\)"/g, (_, name) => `"${INK[name]}"`)
