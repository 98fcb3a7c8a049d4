// Live updates: one stream for all tabs, and on through proxies' errors and restarts.
import assert from 'node:assert/strict';
import {
  DESKTOP, browser, isReady, listeners, open, proxy, ready, screenshot, serve, total, until, url,
  visit, wire,
} from './support.mjs';

const hears = (page, at = url) => until('a visit is seen', async () => {
  const { total: wanted } = await visit(at);
  await page.waitForFunction(
    wanted => Number(document.getElementById('total').value) >= wanted,
    wanted,
    { timeout: 3000 },
  );
  return true;
});
const hide = (page, hidden) =>
  page.evaluate(hidden => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);


/** The total, today and the week, as the page shows them at one moment. */
const facts = page =>
  page.evaluate(() => ['total', 'today', 'week'].map(id =>
    Number(document.getElementById(id).textContent.replaceAll(/\D/g, ''))));
/** All visits are of today: the moment the total is that, the others are. */
const agree = async (page, total) => {
  await page.waitForFunction(
    total => Number(document.getElementById('total').value) >= total, total, { timeout: 10_000 });
  assert.deepEqual(await facts(page), [total, total, total]);
};
const loaded = (page, total) => until(`today and the week are ${total}`, async () =>
  String(await facts(page)) === String([total, total, total]));

export default {
  async 'today and the week agree with total, chart and peak, for a name and below a path too'() {
    const server = await serve({ BASE_PATH: '/base', COUNTERS: 'blog' });
    await isReady(server);
    for (const [path, locale] of [['base/', 'pt-BR'], ['base/c/blog', 'en']]) {
      const at = server.url + path;
      const { page, wrong } = await open({ at, locale });
      await loaded(page, 1);
      for (let total = 2; total < 5; total++) {
        await page.reload();
        await loaded(page, total);
      }
      for (let total = 5; total < 8; total++) {
        await visit(at);
        await agree(page, total);
        assert.equal(await page.locator('#minute .sum').textContent(), String(total));
        const bars = (await page.evaluate(
          here => fetch(here + '/history').then(answer => answer.json()),
          await page.locator('body').getAttribute('data-here'))).points;
        const most = Math.max(...bars.map(({ visits }) => visits));
        assert.equal(await page.locator('#minute .most').textContent(), String(most));
      }
      assert.deepEqual(wrong, []);
    }
    await server.stop();
  },

  async 'a tab that is seen again shows what others heard, today and the week included'() {
    const server = await serve();
    await isReady(server);
    const { page } = await open({ at: server.url });
    await loaded(page, 1);
    await hide(page, true);
    const silent = async () => (await listeners(server.url)) === 0;
    await until('no stream', silent);
    const { body } = await fetch(server.url + 'events');
    await visit(server.url);
    let heard = '';
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      heard += chunk;
      if (/"total":2,.*"day"/.test(heard)) break;
    }
    await until('the other one is gone', silent);
    await hide(page, false);
    await agree(page, 2);
    await server.stop();
  },

  async 'today and the week begin anew without a visit'() {
    const { page } = await open();
    await ready(page);
    await hide(page, true);
    // Of a Monday, just after midnight.
    const told = { total: 90, cache: 9, ledger: true, counter: true, day: [1e9, 30, 0], week: 0 };
    await page.route('**/events', route => route.fulfill({
      contentType: 'text/event-stream', body: `data: ${JSON.stringify(told)}\n\n`,
    }));
    await hide(page, false);
    await until('they begin anew', async () => String(await facts(page)) === '90,0,0');
  },

  async 'nine tabs are all loaded and live over one stream, which outlives its tab'() {
    const context = await browser.newContext({ viewport: DESKTOP, locale: 'pt-BR' });
    const pages = [];
    for (let n = 0; n < 9; n++) {
      pages.push(await context.newPage());
      await pages[n].goto(url);
      await ready(pages[n]);
    }
    const all_hear = () => Promise.all(pages.map(page => hears(page)));
    await all_hear();
    await until('one stream', async () => (await listeners()) === 1);
    for (let closed = 0; closed < 3; closed++) {
      await pages.shift().close();
      await all_hear();
      await until('one stream', async () => (await listeners()) === 1);
    }
  },

  async 'hidden tabs let their stream go, and one that is seen again goes on'() {
    const context = await browser.newContext({ viewport: DESKTOP, locale: 'pt-BR' });
    const pages = [await context.newPage(), await context.newPage()];
    for (const page of pages) {
      await page.goto(url);
      await ready(page);
    }
    await until('one stream', async () => (await listeners()) === 1);
    await hide(pages[0], true);
    await hears(pages[1]);
    await until('one stream', async () => (await listeners()) === 1);
    await hide(pages[1], true);
    await until('no stream', async () => (await listeners()) === 0);
    await hide(pages[0], false);
    await hears(pages[0]);
    assert.equal(await listeners(), 1);
  },

  async 'live updates go on after a 502, a 503 and a restart'() {
    let server = await serve();
    const { DATA_DIR } = server;
    await isReady(server);
    const front = await proxy(server.port);
    const { page } = await open({ at: front.url });
    await ready(page);
    await hears(page, front.url);
    for (const status of [502, 503]) {
      front.fail(status);
      await page.locator('#live.lost').waitFor({ state: 'visible' });
      if (status === 502) await screenshot(page, 'reconnecting');
      // Longer than until the next try.
      await page.waitForTimeout(2500);
      assert.ok(await page.locator('#live.lost').isVisible());
      front.fail(0);
      await page.locator('#live:not(.lost)').waitFor({ state: 'visible', timeout: 40_000 });
      await hears(page, front.url);
    }
    const before = await total(page);
    await server.stop();
    await page.locator('#live.lost').waitFor({ state: 'visible' });
    server = await serve({ PORT: server.port, DATA_DIR });
    await isReady(server);
    await page.locator('#live:not(.lost)').waitFor({ state: 'visible', timeout: 40_000 });
    await hears(page, front.url);
    assert.ok((await total(page)) > before);
    assert.equal(await page.evaluate(() => performance.getEntriesByType('navigation').length), 1);
    front.closeAllConnections();
    front.close();
    await server.stop();
  },

  async 'number and footer agree while Redis is away and when it is back'() {
    const line = await wire(Number(process.env.REDIS_PORT));
    const server = await serve({ REDIS_URL: `redis://127.0.0.1:${line.port}/1` });
    await isReady(server);
    const { page, wrong } = await open({ at: server.url });
    await ready(page);
    const says = async () => [
      await page.locator('#cache').count(),
      await page.locator('#cache-down').isVisible(),
      await page.locator('#counter-state').textContent(),
    ];
    const up = [1, false, 'Redis no ar'], down = [0, true, 'Redis fora do ar'];
    assert.deepEqual(await says(), up);
    line.cut();
    await visit(server.url);
    await until('both say that it is down', async () => String(await says()) === String(down));
    assert.match(await page.locator('#cache-down').textContent(), /Indisponível.*total/);
    await screenshot(page, 'no-redis');
    // As the server makes it.
    await page.reload();
    assert.deepEqual(await says(), down);
    await line.join();
    await visit(server.url);
    await until('both say that it is back', async () => String(await says()) === String(up));
    const { cache } = await visit(server.url);
    await until('the number follows', async () =>
      Number(await page.locator('#cache').getAttribute('value')) >= cache);
    assert.deepEqual(wrong, []);
    await server.stop();
    line.cut();
  },

  async 'without Redis the second number says what it counts'() {
    const server = await serve();
    await isReady(server);
    const { page } = await open({ at: server.url });
    const tile = await page.locator('main > dl > div').nth(1).textContent();
    assert.match(tile, /Desde que o servidor iniciou/);
    assert.doesNotMatch(tile, /cache|Redis/);
    assert.equal(await page.locator('#cache').getAttribute('value'), '1');
    await server.stop();
  },
};
