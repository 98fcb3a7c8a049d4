// Every snippet of the documents in a page from another origin, as pasted; badges as a browser draws
// them; the page below BASE_PATH.
// Usage: node embedding.mjs URL URL-WITH-BASE-PATH CHROMIUM DOCUMENT... [--pictures FOLDER]
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';

const words = process.argv.slice(2);
const at = words.indexOf('--pictures');
const [, folder] = at < 0 ? [] : words.splice(at, 2);
const [url, based, executablePath, ...documents] = words;
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });

// The other origin: it serves the page under test.
let html = '';
let fields = {};
const server = createServer((_, answer) => {
  answer.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', ...fields });
  answer.end(`<!doctype html><title>Another site</title>${html}`);
});
await new Promise(done => server.listen(0, 'localhost', done));
const other = `http://localhost:${server.address().port}/`;
assert.notEqual(new URL(other).origin, new URL(url).origin);

const stats = () => fetch(url + 'stats').then(answer => answer.json());
const total = async () => (await stats()).total;

/** Opens a page of the other origin and collects what must not happen in it. */
async function open(content, options = {}) {
  html = content;
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const wrong = [];
  page.on('console', message => message.type() === 'error' && wrong.push(message.text()));
  page.on('pageerror', error => wrong.push(String(error)));
  await page.goto(other);
  return { page, context, wrong };
}

/** Waits until the total is this one, and a moment more: it must not be above it. */
async function becomes(expected, what) {
  for (let tries = 0; tries < 100 && (await total()) < expected; tries++) await pause(50);
  await pause(200);
  assert.equal(await total(), expected, what);
}
const pause = ms => new Promise(done => setTimeout(done, ms));

/** The HTML snippets of a document: code blocks, and what blank lines separate in them. */
function snippets(text) {
  const blocks = [...text.matchAll(/^```html\n([^]*?)^```$/gm)].map(([, block]) => block);
  return blocks.flatMap(block => block.split('\n\n')).map(snippet => snippet.trim());
}

/** The visits that a snippet makes. */
const visits = snippet =>
  [/\/visit\.svg/g, /\/visit'/g, /Accept: 'application\/json'/g]
    .map(form => [...snippet.matchAll(form)].length)
    .reduce((sum, count) => sum + count, 0);

const placed = snippet => {
  const here = snippet.replaceAll('https://visits.example/', url);
  assert.notEqual(here, snippet, `another address: ${snippet}`);
  return here;
};

const loaded = page =>
  page.waitForFunction(() => [...document.images].every(image => image.naturalWidth > 40));

const sizes = { flat: 20, 'flat-square': 20, 'for-the-badge': 28 };

const tests = {
  async 'each snippet counts from another origin, and shows what it should'() {
    for (const document of documents) {
      const text = await readFile(document, 'utf8');
      const all = snippets(text);
      assert.ok(all.length >= 4, `${document}: ${all.length} snippets`);
      for (const snippet of all) {
        const before = await total();
        const { page, context, wrong } = await open(placed(snippet));
        await loaded(page);
        await becomes(before + visits(snippet), snippet);
        if (snippet.includes('<b ')) {
          const shown = () => document.querySelector('b').textContent.replace(/\D/g, '');
          const expected = String(before + visits(snippet));
          await page.waitForFunction(`(${shown})() === '${expected}'`, null, { timeout: 5000 });
        }
        await context.close();
        assert.deepEqual(wrong, [], snippet);
      }
      console.log(`  ${all.length} snippets of ${document}`);
    }
  },

  async 'images in Markdown are badges that count each time'() {
    for (const document of documents) {
      const text = await readFile(document, 'utf8');
      for (const [, address] of text.matchAll(/!\[\w*\]\((https:\/\/visits\.example[^)]*)\)/g)) {
        const before = await total();
        const { page, context, wrong } = await open(`<img src="${placed(address)}" alt="">`);
        await loaded(page);
        await becomes(before + 1, address);
        // The same visitor again, with its cache.
        await page.reload();
        await loaded(page);
        await becomes(before + 2, `${address} again`);
        await context.close();
        assert.deepEqual(wrong, []);
      }
    }
  },

  async 'a beacon counts whatever its body is, also one that needs a preflight'() {
    const { page, context } = await open('');
    const bodies = [
      () => undefined,
      () => 'text',
      () => new URLSearchParams({ a: 1 }),
      () => new Blob(['text'], { type: 'text/plain' }),
      () => new Blob(['{}'], { type: 'application/json' }),
      () => new Uint8Array(60_000),
    ];
    for (const body of bodies) {
      const before = await total();
      const sent = await page.evaluate(
        `navigator.sendBeacon(${JSON.stringify(url + 'visit')}, (${body})())`,
      );
      assert.ok(sent, String(body));
      await becomes(before + 1, String(body));
    }
    const status = await page.evaluate(
      address =>
        fetch(address, {
          method: 'POST',
          keepalive: true,
          credentials: 'include',
          headers: { 'Content-Type': 'application/json' },
          body: '{}',
        }).then(answer => answer.status),
      url + 'visit',
    );
    assert.equal(status, 204);
    await context.close();
  },

  async 'a beacon is sent when the page is left'() {
    const before = await total();
    const { page, context } = await open(
      placed(
        `<script>addEventListener('pagehide', () =>
          navigator.sendBeacon('https://visits.example/visit'))</script>`,
      ),
    );
    assert.equal(await total(), before);
    await page.goto('about:blank');
    await becomes(before + 1, 'left');
    await context.close();
  },

  async 'an isolated page may embed the pictures'() {
    fields = { 'Cross-Origin-Embedder-Policy': 'require-corp' };
    const pictures = ['visit.svg', 'badge.svg'].map(path => `<img src="${url}${path}" alt="">`);
    const { page, context, wrong } = await open(pictures.join(''));
    await loaded(page);
    // The policy holds: a picture that gives no permission is blocked.
    const without = await page.evaluate(address => {
      const image = new Image();
      image.src = address;
      return image.decode().then(() => 'shown', () => 'blocked');
    }, url + 'favicon.svg');
    assert.equal(without, 'blocked');
    assert.equal(wrong.length, 1, String(wrong));
    await context.close();
  },

  async 'badges have their style, and digits as the language groups them'() {
    for (const [style, height] of Object.entries(sizes)) {
      const { page, context } = await open(
        `<img src="${url}badge.svg?style=${style}&amp;locale=pt&amp;label=visitas%20hoje" alt="">`,
      );
      await loaded(page);
      assert.equal(await page.evaluate(() => document.images[0].naturalHeight), height, style);
      await context.close();
    }
    const locales =
      'pt pt-BR pt-PT en en-US en-IN en-ZA es es-AR es-MX de de-AT de-CH fr fr-CA it nl ja zh ko ' +
      'ru uk pl cs sk sv nb nn da fi hu ro el tr id vi th he hi bg hr sr sl lt lv et ca gl eu is ' +
      'ms sw fil ta te ur';
    const number = await total();
    assert.ok(number > 9999, `${number}: too small to have groups`);
    let compared = 0;
    for (const locale of locales.split(' ')) {
      const svg = await (await fetch(`${url}badge.svg?locale=${locale}`)).text();
      const shown = svg.match(/<title>visitas: ([^<]*)<\/title>/)[1];
      // Node may be built with fewer languages.
      if (!Intl.NumberFormat.supportedLocalesOf(locale).length) continue;
      // Versions of the CLDR write either apostrophe.
      const plain = text => text.replaceAll('\u2019', "'");
      const expected = new Intl.NumberFormat(locale).format(number);
      assert.equal(plain(shown), plain(expected), locale);
      compared++;
    }
    assert.ok(compared > 30, `only ${compared} languages`);
  },

  async 'a picture that refuses is shown all the same'() {
    const { page, context } = await open('');
    await page.setExtraHTTPHeaders({ 'Sec-Purpose': 'prefetch' });
    const before = await total();
    html = `<img src="${url}visit.svg" alt="">`;
    const [refused] = await Promise.all([
      page.waitForResponse(answer => answer.url().endsWith('/visit.svg')),
      page.goto(other),
    ]);
    assert.equal(refused.status(), 503);
    await loaded(page);
    assert.equal(await total(), before);
    await context.close();
  },

  async 'below BASE_PATH the page is whole and live'() {
    const context = await browser.newContext();
    const page = await context.newPage();
    const { pathname, origin } = new URL(based);
    const wrong = [];
    page.on('console', message => message.type() === 'error' && wrong.push(message.text()));
    page.on('pageerror', error => wrong.push(String(error)));
    page.on('request', request => {
      if (!new URL(request.url()).pathname.startsWith(pathname)) wrong.push(request.url());
    });
    page.on('response', answer => answer.status() >= 400 && wrong.push(answer.url()));
    await page.goto(based);
    await page.locator('#live').waitFor({ state: 'visible' });
    const shown = () => page.locator('#total').getAttribute('value').then(Number);
    const before = await shown();
    await fetch(`${origin}${pathname}/visit`, { method: 'POST' });
    await page.waitForFunction(
      wanted => Number(document.getElementById('total').value) === wanted,
      before + 1,
    );
    for (const link of await page.locator('a[href^="/"]').all()) {
      const answer = await fetch(new URL(await link.getAttribute('href'), based));
      assert.equal(answer.status, 200);
    }
    await context.close();
    assert.deepEqual(wrong, []);
  },
};

if (folder) {
  const looks = [];
  for (const style of Object.keys(sizes))
    for (const query of [
      'locale=pt',
      'locale=fr&label=visites',
      'label=caf%C3%A9 %26 co&color=yellow',
      'locale=hi&color=blue&label=a',
    ])
      looks.push(`<img src="${url}badge.svg?style=${style}&${query}" alt="">`);
  const { page, context } = await open(
    `<body style="margin:8px;width:400px">${looks.join(' ')}<p></p>`,
    { viewport: { width: 420, height: 180 }, deviceScaleFactor: 2 },
  );
  await loaded(page);
  await page.setExtraHTTPHeaders({ 'Sec-Purpose': 'prefetch' });
  await page.evaluate(
    ([address, styles]) => {
      for (const style of styles) {
        const image = new Image();
        image.src = `${address}visit.svg?locale=en&style=${style}`;
        document.querySelector('p').append(image, ' ');
      }
    },
    [url, Object.keys(sizes)],
  );
  await loaded(page);
  await page.screenshot({ path: `${folder}/badges.png` });
  await context.close();
}

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    fields = {};
    await test();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed++;
    console.error(`FAILED: ${name}\n${error.stack}`);
  }
}
await browser.close();
server.close();
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
