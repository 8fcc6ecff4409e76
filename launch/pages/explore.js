
// The explorer: questions go to the server, which is asked until it is done.
const question = document.getElementById('question');
const answer = document.getElementById('answer');
const said = document.getElementById('status');
const progress = document.getElementById('progress');
const keep = document.getElementById('keep');
const fields = document.getElementById('fields');

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function send(path, content = {}) {
  const response = await fetch(path, {method: 'POST', body: JSON.stringify(content)});
  const found = await response.json();
  if (!response.ok) {
    throw new Error(found.error);
  }
  return found.job;
}

// What a job gives, with its progress on the way.
async function result(job, tell = () => {}) {
  for (let wait = 50; ; wait = Math.min(wait * 1.3, 1000)) {
    const response = await fetch(`jobs/${job}`);
    const found = await response.json();
    if (!response.ok || found.state === 'failed') {
      throw new Error(found.error);
    }
    if (found.state === 'done') {
      return found;
    }
    tell(found);
    await pause(wait);
  }
}

function showProgress({stage, done, total}) {
  progress.hidden = false;
  if (total) {
    progress.max = total;
    progress.value = done;
  } else {
    progress.removeAttribute('value');
  }
  said.textContent = stage + (total ? `: ${done.toLocaleString()} of ${total.toLocaleString()}` : ' …');
}

// An example that was found may be asked about in its turn.
function makeAskable() {
  for (const id of answer.querySelectorAll('.card:not(.asked) .id')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'id';
    button.textContent = id.textContent;
    button.title = 'Ask about this example';
    id.replaceWith(button);
  }
}

let asked = 0;

// Runs a question; a later one takes the place of one that is not yet answered.
async function run(path, content) {
  const own = ++asked;
  keep.hidden = true;
  said.textContent = '';
  const started = performance.now();
  try {
    const job = await send(path, content);
    const found = await result(job, (state) => own === asked && showProgress(state));
    if (own !== asked) {
      return;
    }
    answer.innerHTML = found.html;
    makeAskable();
    answer.querySelectorAll('[data-gallery]').forEach(startGallery);
    for (const kind of ['csv', 'parquet']) {
      document.getElementById(kind).href = `jobs/${job}/results.${kind}`;
    }
    keep.hidden = !found.has_results;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    said.textContent = [...found.notes, `answered in ${seconds} s`].join('; ');
  } catch (error) {
    if (own === asked) {
      said.textContent = error.message;
    }
  } finally {
    if (own === asked) {
      progress.hidden = true;
    }
  }
}

async function encoded(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = '';
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return {name: file.name, data: btoa(text)};
}

async function content() {
  const {source, ids, split, where, layers, normalization, damping, k, tokens, file} = question.elements;
  const given = {
    source: source.value, ids: ids.value, split: split.value, where: where.value,
    layers: layers.value, normalization: normalization.value, damping: damping.value,
    k: Number(k.value), tokens: Boolean(tokens?.checked), fields: {}, file: {},
  };
  if (source.value === 'file') {
    if (!file.files.length) {
      throw new Error('choose a file first');
    }
    given.file = await encoded(file.files[0]);
  }
  for (const field of source.value === 'fields' ? fields.querySelectorAll('[data-kind]') : []) {
    if (field.type !== 'file') {
      given.fields[field.name] = field.value;
    } else if (field.files.length) {
      given.fields[field.name] = await encoded(field.files[0]);
    }
  }
  return given;
}

async function ask() {
  try {
    await run('ask', await content());
  } catch (error) {
    said.textContent = error.message;
  }
}

let hasForm = false;

async function showSource() {
  const source = question.elements.source.value;
  for (const part of question.querySelectorAll('[data-for]')) {
    part.hidden = part.dataset.for !== source;
  }
  if (source === 'fields' && !hasForm) {
    hasForm = true;
    try {
      fields.innerHTML = (await result(await send('form'))).html;
    } catch (error) {
      hasForm = false;
      fields.textContent = error.message;
    }
  }
}

question.addEventListener('submit', (event) => {
  event.preventDefault();
  ask();
});
question.addEventListener('change', (event) => event.target.name === 'source' && showSource());
document.getElementById('suspicious-button').addEventListener('click', () => run('suspicious'));
answer.addEventListener('click', (event) => {
  const id = event.target.closest('button.id');
  if (id) {
    question.elements.source.value = 'ids';
    question.elements.ids.value = id.textContent;
    showSource();
    ask();
    scrollTo({top: 0});
  }
});
showSource();
