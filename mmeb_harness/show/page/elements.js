'use strict';
// Everything that came from data or models reaches the page as text, by `said` and `h`; nothing is parsed as HTML.

const summary = JSON.parse(document.getElementById('summary').textContent);
const SHORT = 600;

// ---- elements and texts

/** An element. Attributes that are functions are listeners, `null` and `false` ones are left out. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

// Control characters (but tab and line ends), marks of direction, invisible spaces and tags: shown, never obeyed.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

const codeOf = (letter) => `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;

function withMarks(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(UNSEEN)) {
    parts.push(text.slice(from, found.index), h('span', { class: 'control', title: 'control character' }, codeOf(found[0])));
    from = found.index + found[0].length;
  }
  return [...parts, text.slice(from)];
}

/** The same where there can be no elements: in options and labels. */
const plain = (text) => text.replace(UNSEEN, codeOf);

/** Somebody else's text: isolated, in its own direction. */
function said(text, tag = 'bdi', attributes = {}) {
  return h(tag, { dir: 'auto', ...attributes }, withMarks(text));
}

/** A name, which may be broken after / and - (or what else `after` says) where there is no room. */
function named(name, after = /(?<=[/-])/) {
  return h('bdi', { dir: 'auto' }, name.split(after).map((part, place) => [place ? h('wbr') : '', ...withMarks(part)]));
}

/** The beginning of a text; never half of a pair of surrogates. */
function beginning(text, length) {
  return text.slice(0, length).replace(/[\ud800-\udbff]$/, '');
}

/** A text, shortened, with a button to see all of it. */
function expandable(text, className) {
  const shown = said(text, 'div', { class: `said ${className}` });
  if (text.length <= SHORT) return shown;
  const box = h('div', {}, shown);
  let open = true;
  const button = h('button', { type: 'button', class: 'button link small', click: toggle });
  function toggle() {
    open = !open;
    shown.replaceChildren(...withMarks(open ? text : `${beginning(text, SHORT)} …`));
    button.textContent = open ? 'Show less' : `Show all ${text.length.toLocaleString('en')} characters`;
    button.setAttribute('aria-expanded', open);
  }
  toggle();
  box.append(button);
  return box;
}

const NONE = '–';
const count = (value) => (value === null ? NONE : value.toLocaleString('en'));
// As the harness prints them: halves go to the even digit, and with one decimal only quarters are halves.
const tenths = (value) => (Math.abs(value) % 1 === 0.25 ? value - Math.sign(value) * 0.05 : value).toFixed(1);
const percent = (value) => (value === null ? NONE : tenths(100 * value));
const milliseconds = (value) => (value === null ? NONE : value < 0.01 ? (1000 * value).toFixed(1) : count(Math.round(1000 * value)));
const decimal = (digits) => (value) => (value === null ? NONE : digits === 1 ? tenths(value) : value.toFixed(digits));
const shortened = (text, length) => (text.length > length ? `${beginning(text, length)} …` : text);
const tag = (text, kind = '') => h('span', { class: `tag ${kind}` }, text);

function bar(share) {
  const filled = h('span');
  filled.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return h('span', { class: 'bar', 'aria-hidden': 'true' }, filled);
}

function scrolling(label, ...children) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label }, ...children);
}

function choice(label, options, change) {
  const select = h('select', { change: () => change(select.value) }, options.map(([value, text]) => h('option', { value }, plain(text))));
  return h('label', {}, label, select);
}

function search(label, change) {
  let waiting = 0;
  const input = h('input', {
    type: 'search', autocomplete: 'off', spellcheck: 'false',
    input: () => { clearTimeout(waiting); waiting = setTimeout(() => change(input.value), 120); },
  });
  return h('label', {}, label, input);
}

// ---- a table that can be sorted, paged, and opened row by row

/**
 * columns: {key, label, value (to sort by, `null` last), cell (what is shown), numeric, run, first ('descending'),
 *           className ('minor': left out where there is no room), fold ({open, label, toggle}: of columns beside it)}
 * open: row → what is shown below it. keyOf: row → its name.
 */
class SortedTable {
  constructor({ caption, columns, keyOf, open = null, size = Infinity, opened = () => {} }) {
    Object.assign(this, { columns, keyOf, open, size, opened });
    this.rows = [];
    this.sort = null;
    this.page = 0;
    this.openRows = new Set();
    this.head = h('thead');
    this.body = h('tbody');
    this.status = h('span', { role: 'status' });
    this.previous = h('button', { type: 'button', class: 'button', click: () => this.turn(-1) }, '‹ Previous');
    this.next = h('button', { type: 'button', class: 'button', click: () => this.turn(1) }, 'Next ›');
    const table = h('table', { class: open ? 'wide' : 'wide pinned' }, h('caption', {}, caption), this.head, this.body);
    const pager = h('div', { class: 'pager' }, this.previous, this.status, this.next);
    this.previous.hidden = this.next.hidden = size === Infinity;
    this.element = h('div', {}, scrolling(caption, table), pager);
    this.setColumns(columns);
  }

  setColumns(columns) {
    this.columns = columns;
    this.head.replaceChildren(h('tr', {}, this.open ? h('th', { scope: 'col' }, h('span', { class: 'small quiet' }, 'Open')) : null, columns.map((column) => this.header(column))));
    this.show();
  }

  header(column) {
    const sorted = this.sort?.key === column.key;
    const direction = sorted ? (this.sort.descending ? 'descending' : 'ascending') : 'none';
    return h('th', { scope: 'col', class: `${column.numeric ? 'number' : ''} ${column.run ? 'run' : ''} ${column.className ?? ''}`, 'aria-sort': direction, 'data-key': column.key },
      h('button', { type: 'button', class: 'sort', click: () => this.sortBy(column) }, named(column.label)),
      column.fold ? h('button', { type: 'button', class: 'fold', 'aria-expanded': String(column.fold.open), 'aria-label': column.fold.label, click: column.fold.toggle }, column.fold.open ? '◂' : '▸') : null);
  }

  sortBy(column) {
    const again = this.sort?.key === column.key;
    this.sort = { key: column.key, descending: again ? !this.sort.descending : column.first === 'descending' };
    for (const header of this.head.querySelectorAll('th[data-key]')) {
      const own = header.dataset.key === column.key;
      header.setAttribute('aria-sort', own ? (this.sort.descending ? 'descending' : 'ascending') : 'none');
    }
    this.page = 0;
    this.show();
  }

  setRows(rows) {
    this.rows = rows;
    this.page = 0;
    this.show();
  }

  ordered() {
    const column = this.columns.find((one) => one.key === this.sort?.key);
    if (!column) return this.rows;
    const sign = this.sort.descending ? -1 : 1;
    const keyed = this.rows.map((row) => [column.value(row), row]);
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : a < b ? -sign : a > b ? sign : 0));
    return keyed.map(([, row]) => row);
  }

  turn(pages) {
    this.page += pages;
    this.show();
  }

  /** Open a row by its name, on whatever page it is. */
  reveal(key) {
    const place = this.ordered().findIndex((row) => this.keyOf(row) === key);
    if (place < 0) return;
    this.page = Math.floor(place / this.size) || 0;
    this.openRows.add(key);
    this.show();
    const button = [...this.body.querySelectorAll('.open-row')].find((one) => one.getAttribute('aria-expanded') === 'true' && one.row === key);
    button?.focus();
    button?.scrollIntoView({ block: 'start' });
  }

  show() {
    const rows = this.ordered();
    const from = this.size === Infinity ? 0 : this.page * this.size;
    const shown = rows.slice(from, from + this.size);
    this.body.replaceChildren(...shown.flatMap((row) => this.rowElements(row)));
    const some = shown.length < rows.length;
    this.status.textContent = rows.length === 0 ? 'Nothing fits the filters' : some ? `${count(from + 1)} to ${count(from + shown.length)} of ${count(rows.length)}` : `${count(rows.length)} shown`;
    this.previous.disabled = this.page === 0;
    this.next.disabled = from + shown.length >= rows.length;
  }

  rowElements(row) {
    const cells = this.columns.map((column, place) => h(place === 0 && !this.open ? 'th' : 'td', { class: `${column.numeric ? 'number' : ''} ${column.className ?? ''}`, scope: place === 0 && !this.open ? 'row' : null }, column.cell(row)));
    if (!this.open) return [h('tr', {}, cells)];
    const key = this.keyOf(row);
    const detail = h('tr', { hidden: true });
    const button = h('button', { type: 'button', class: 'button open-row', 'aria-expanded': 'false', 'aria-label': `Query ${plain(key)}` });
    button.row = key;
    const line = h('tr', { class: 'openable' }, h('td', {}, button), cells);
    const set = (open) => {
      this.openRows[open ? 'add' : 'delete'](key);
      button.textContent = open ? '▾' : '▸';
      button.setAttribute('aria-expanded', open);
      line.classList.toggle('open', open);
      detail.hidden = !open;
      detail.replaceChildren(...(open ? [h('td', { class: 'detail', colspan: this.columns.length + 1 }, this.open(row))] : []));
    };
    set(this.openRows.has(key));
    line.addEventListener('click', (event) => {
      if (event.target !== button && getSelection().toString()) return; // a text is being selected
      set(detail.hidden);
      this.opened(detail.hidden ? null : key);
    });
    return [line, detail];
  }
}

// ---- what every page has

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the address says what is open
  document.getElementById('main').focus();
});
