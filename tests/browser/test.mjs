// The page in a real browser: numbers, live updates, dark and light, phone and desktop, without
// scripts, accessibility.
// Usage: node test.mjs URL CHROMIUM [FOLDER FOR SCREENSHOTS]
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const [url, executablePath, folder] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const DESKTOP = { width: 1100, height: 760 };
const PHONE = { width: 375, height: 812 };

const total = page => page.locator('#total').getAttribute('value').then(Number);
const visit = () =>
  fetch(url, { headers: { Accept: 'application/json' } }).then(answer => answer.json());

/** Opens the page in a context of its own and collects what must not happen in it. */
async function open({ wait = 'load', ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, locale: 'pt-BR', ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on('console', message => message.type() === 'error' && wrong.push(message.text()));
  page.on('pageerror', error => wrong.push(String(error)));
  page.on(
    'request',
    request => new URL(request.url()).host !== new URL(url).host && wrong.push(request.url()),
  );
  await page.goto(url, { waitUntil: wait });
  return { page, context, wrong };
}

const tests = {
  async 'the numbers rise on reload, and nothing goes wrong'() {
    const { page, context, wrong } = await open();
    const before = await total(page);
    await page.reload();
    assert.equal(await total(page), before + 1);
    assert.equal(await page.locator('html').getAttribute('lang'), 'pt-BR');
    await page.locator('#live').waitFor({ state: 'visible' });
    await context.close();
    assert.deepEqual(wrong, []);
  },

  async 'numbers are written as the language writes them, by the server and by the script'() {
    for (const [locale, expected] of [
      ['pt-BR', /^\d{1,3}(\.\d{3})+$/],
      ['en', /^\d{1,3}(,\d{3})+$/],
    ]) {
      const { page, context } = await open({ locale });
      assert.match(await page.locator('#total').textContent(), expected);
      const before = await total(page);
      await visit();
      await page.waitForFunction(
        least => document.getElementById('total').value > least,
        String(before),
      );
      assert.match(await page.locator('#total').textContent(), expected);
      await context.close();
    }
  },

  async 'numbers and chart follow live, without a reload'() {
    const { page, context, wrong } = await open();
    await page.locator('#live').waitFor({ state: 'visible' });
    const sum = () =>
      page
        .locator('#minute .sum')
        .textContent()
        .then(text => Number(text.replaceAll('.', '')));
    const [before, sumBefore] = [await total(page), await sum()];
    let last;
    for (let n = 0; n < 5; n++) last = await visit();
    await page.waitForFunction(
      wanted => Number(document.getElementById('total').value) >= wanted,
      last.total,
    );
    assert.equal(await total(page), before + 5);
    await page.waitForFunction(
      least =>
        Number(document.querySelector('#minute .sum').textContent.replaceAll('.', '')) > least,
      sumBefore,
    );
    assert.equal(await page.evaluate(() => performance.getEntriesByType('navigation').length), 1);
    // What the script draws is what the server draws.
    const drawn = () =>
      page.locator('figure path').evaluateAll(paths => paths.map(path => path.getAttribute('d')));
    const live = await drawn();
    const served = await page.evaluate(async () => {
      const html = await (await fetch('/')).text();
      return [
        ...new DOMParser().parseFromString(html, 'text/html').querySelectorAll('figure path'),
      ].map(p => p.getAttribute('d'));
    });
    assert.equal(live.length, 3);
    const shape = paths => paths.map(d => d.replace(/M(\d+) \d+V/g, '$1 '));
    assert.deepEqual(shape(live), shape(served));
    await context.close();
    assert.deepEqual(wrong, []);
  },

  async 'eight tabs are all live over one stream, and one goes on when its tab is closed'() {
    const context = await browser.newContext({ viewport: DESKTOP, locale: 'pt-BR' });
    const pages = [];
    for (let n = 0; n < 8; n++) {
      pages.push(await context.newPage());
      await pages[n].goto(url);
      await pages[n].locator('#live').waitFor({ state: 'visible', timeout: 10_000 });
    }
    const all_hear = async () => {
      const { total } = await visit();
      const heard = wanted => Number(document.getElementById('total').value) >= wanted;
      await Promise.all(pages.map(page => page.waitForFunction(heard, total, { timeout: 10_000 })));
    };
    await all_hear();
    const metrics = await (await fetch(url + 'metrics')).text();
    assert.match(metrics, /^visitas_event_listeners 1$/m);
    await pages.shift().close();
    await all_hear();
    await context.close();
  },

  async 'without locks only a tab that is seen listens'() {
    const { page, context } = await (async () => {
      const context = await browser.newContext({ viewport: DESKTOP, locale: 'pt-BR' });
      await context.addInitScript(() =>
        Object.defineProperty(navigator, 'locks', { value: undefined }),
      );
      const page = await context.newPage();
      await page.goto(url);
      return { page, context };
    })();
    await page.locator('#live').waitFor({ state: 'visible' });
    const turn = hidden =>
      page.evaluate(hidden => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      }, hidden);
    const listeners = async () =>
      Number(
        (await (await fetch(url + 'metrics')).text()).match(/^visitas_event_listeners (\d+)$/m)[1],
      );
    const become = async wanted => {
      for (let tries = 0; tries < 100 && (await listeners()) !== wanted; tries++)
        await page.waitForTimeout(100);
      assert.equal(await listeners(), wanted);
    };
    await become(1);
    await turn(true);
    await become(0);
    await turn(false);
    await become(1);
    const { total } = await visit();
    await page.waitForFunction(
      wanted => Number(document.getElementById('total').value) >= wanted,
      total,
    );
    await context.close();
  },

  async 'it needs no script, and plain links choose the chart'() {
    const { page, context, wrong } = await open({ javaScriptEnabled: false });
    const before = await total(page);
    for (const name of ['minute', 'hour', 'day']) {
      await page.locator(`nav a[href="#${name}"]`).click();
      for (const other of ['minute', 'hour', 'day']) {
        assert.equal(
          await page.locator(`#${other}`).isVisible(),
          other === name,
          `${other} at #${name}`,
        );
      }
    }
    assert.equal(await total(page), before, 'choosing is no visit');
    await page.reload();
    assert.equal(await total(page), before + 1);
    await context.close();
    assert.deepEqual(wrong, []);
  },

  async 'the keyboard reaches every link, with a mark that is seen'() {
    const { page, context } = await open();
    const reached = [];
    for (let n = 0; n < (await page.locator('a').count()); n++) {
      await page.keyboard.press('Tab');
      reached.push(
        await page.evaluate(() => {
          const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
          return (
            document.activeElement.matches('a') &&
            outlineStyle === 'solid' &&
            parseFloat(outlineWidth) >= 2
          );
        }),
      );
    }
    assert.ok(reached.length >= 5 && reached.every(Boolean), String(reached));
    await page.locator('nav a[href="#hour"]').focus();
    await page.keyboard.press('Enter');
    assert.ok(await page.locator('#hour').isVisible());
    await context.close();
  },

  async 'dark and light, phone and desktop: nothing is cut off, and axe finds nothing'() {
    for (const colorScheme of ['light', 'dark']) {
      for (const [size, viewport] of Object.entries({
        desktop: DESKTOP,
        phone: PHONE,
        narrow: { width: 280, height: 600 },
      })) {
        const { page, context, wrong } = await open({
          colorScheme,
          viewport,
          deviceScaleFactor: 1,
        });
        await page.locator('#live').waitFor({ state: 'visible' });
        const [wide, paper] = await page.evaluate(() => [
          document.documentElement.scrollWidth - document.documentElement.clientWidth,
          getComputedStyle(document.body).backgroundColor,
        ]);
        assert.equal(wide, 0, `${size}: scrolls sideways`);
        const bright =
          paper
            .match(/\d+/g)
            .slice(0, 3)
            .reduce((sum, part) => sum + Number(part), 0) / 3;
        assert.ok(colorScheme === 'dark' ? bright < 60 : bright > 200, `${colorScheme}: ${paper}`);
        // In a page of its own world, so that the page's policy stays as it is.
        const cdp = await context.newCDPSession(page);
        const evaluate = async expression => {
          const { result, exceptionDetails } = await cdp.send('Runtime.evaluate', {
            expression,
            awaitPromise: true,
            returnByValue: true,
          });
          assert.ok(!exceptionDetails, JSON.stringify(exceptionDetails));
          return result.value;
        };
        await evaluate(axe);
        const found = await evaluate(
          `axe.run().then(({ violations }) => violations.map(v => v.id + ": " +
            v.nodes.map(n => n.html + " " + n.failureSummary).join("; ")))`,
        );
        assert.deepEqual(found, [], `${colorScheme} ${size}`);
        if (folder && size !== 'narrow')
          await page.screenshot({ path: `${folder}/${colorScheme}-${size}.png`, fullPage: true });
        await context.close();
        assert.deepEqual(wrong, []);
      }
    }
  },

  async 'printed, all charts are there, on white'() {
    const { page, context } = await open({ colorScheme: 'dark' });
    await page.emulateMedia({ media: 'print' });
    for (const name of ['minute', 'hour', 'day'])
      assert.ok(await page.locator(`#${name}`).isVisible(), name);
    assert.equal(
      await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
      'rgb(255, 255, 255)',
    );
    if (folder) await page.screenshot({ path: `${folder}/print.png`, fullPage: true });
    await context.close();
  },

  async 'all of it is small'() {
    const { page, context } = await open();
    let bytes = 0;
    for (const path of [
      '/',
      ...(await page
        .locator('link[href], script[src]')
        .evaluateAll(all => all.map(one => one.getAttribute('href') ?? one.getAttribute('src')))),
    ]) {
      bytes += (await (await fetch(new URL(path, url))).arrayBuffer()).byteLength;
    }
    assert.ok(bytes < 40_000, `${bytes} bytes`);
    console.log(`  ${bytes} bytes in all`);
    await context.close();
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed++;
    console.error(`FAILED: ${name}\n${error.stack}`);
  }
}
await browser.close();
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
