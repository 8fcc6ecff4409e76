'use strict';

// Light or dark, as the reader says; else as the system does.
const theme = document.querySelector('.theme');
theme?.addEventListener('click', () => {
  const root = document.documentElement;
  const wantsDark = matchMedia('(prefers-color-scheme: dark)').matches;
  const isDark = (root.dataset.theme ?? (wantsDark ? 'dark' : 'light')) === 'dark';
  root.dataset.theme = isDark ? 'light' : 'dark';
});

// A gallery: its cards searched, filtered, ordered, and shown page by page.
function startGallery(gallery) {
  const list = gallery.querySelector('ol');
  const cards = [...list.children].map((element) => ({
    element,
    words: element.dataset.words,
    values: JSON.parse(element.dataset.values),
    isBad: 'bad' in element.dataset,
  }));
  const tools = gallery.querySelector('.tools');
  const {search, order, bad, previous, next} = tools.elements;
  const status = gallery.querySelector('[role=status]');
  const size = Number(gallery.dataset.gallery);
  let page = 0;

  const value = (card) => card.values[order.value] ?? -Infinity;

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = cards.filter((card) =>
      words.every((word) => card.words.includes(word)) && (!bad?.checked || card.isBad));
    if (order.value) {
      found.sort((a, b) => value(b) - value(a));
    }
    const last = Math.max(0, Math.ceil(found.length / size) - 1);
    page = Math.min(Math.max(page, 0), last);
    const shown = found.slice(page * size, (page + 1) * size);
    for (const card of cards) {
      card.element.hidden = true;
    }
    for (const card of shown) {
      card.element.hidden = false;
      list.append(card.element);
    }
    previous.disabled = page === 0;
    next.disabled = page === last;
    const first = found.length ? page * size + 1 : 0;
    status.textContent = `${first} to ${page * size + shown.length} of ${found.length}`;
  }

  function turn(pages) {
    page += pages;
    show();
  }

  for (const control of [search, order, bad]) {
    control?.addEventListener('input', () => { page = 0; show(); });
  }
  tools.addEventListener('submit', (event) => event.preventDefault());
  previous.addEventListener('click', () => turn(-1));
  next.addEventListener('click', () => turn(1));
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest('input, select, textarea');
    if (typing || !gallery.isConnected || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const pages = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (pages) {
      turn(pages);
      event.preventDefault();
    }
  });
  tools.hidden = false;
  show();
}

document.querySelectorAll('[data-gallery]').forEach(startGallery);
