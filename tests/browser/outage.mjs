// Visits that get no numbers: a page that says why, with the last numbers known, and tries again.
import assert from 'node:assert/strict';
import {
  PHONE, browser, database, freePort, isReady, open, overflow, ready, screenshot, serve, total,
  until, violations, visit,
} from './support.mjs';

const refused = server => until('a visit is refused', async () =>
  (await fetch(server.url, { headers: { Accept: 'application/json' } })).status === 503);
const text = page => page.locator('main').innerText();

/** The page comes back by itself with numbers. */
async function comes_back(page, repair) {
  await page.evaluate(() => { window.before = true; });
  await repair();
  await page.locator('#live').waitFor({ state: 'visible', timeout: 20_000 });
  assert.equal(await page.evaluate(() => window.before), undefined, 'the same page');
}

export default {
  async 'an outage has a page in the visitor’s language that comes back by itself'() {
    const { line, env } = await database('outage');
    const server = await serve({ ...env, REDIS_URL: `redis://127.0.0.1:${process.env.REDIS_PORT}/2` });
    await isReady(server);
    for (let n = 0; n < 1234; n++) await visit(server.url);
    line.cut();
    await refused(server);
    const { page, wrong } = await open({ at: server.url });
    const said = await text(page);
    for (const part of [/PostgreSQL não responde/, /não foi contada/, /PostgreSQL fora do ar/,
      /Redis no ar/, /Nova tentativa automática em \d s/, /1\.234/])
      assert.match(said, part);
    assert.equal(await total(page), 1234);
    assert.deepEqual(await violations(page), []);
    await screenshot(page, 'outage');
    const left = () => page.locator('#retry').textContent().then(Number);
    const first = await left();
    await until('it counts down', async () => (await left()) < first);
    // It asks, and gets no for an answer.
    await until('it asked', async () => (await left()) === 5);
    for (const options of [
      { locale: 'en' },
      { locale: 'de', viewport: PHONE },
      { viewport: PHONE, colorScheme: 'dark' },
    ]) {
      const other = await open({ at: server.url, ...options });
      assert.match(await text(other.page), options.locale
        ? /At the moment PostgreSQL does not answer/ : /PostgreSQL não responde/);
      assert.equal(await overflow(other.page), 0);
      assert.deepEqual(await violations(other.page), []);
      if (options.colorScheme) await screenshot(other.page, 'outage-phone');
      await other.context.close();
    }
    const plain = await open({ at: server.url, javaScriptEnabled: false });
    await comes_back(page, () => line.join());
    // The first page; the other one has come back too, without a script.
    await until('it comes back without a script', async () =>
      (await plain.page.locator('nav').count()) === 1);
    assert.ok(wrong.every(message => /503/.test(message)), String(wrong));
    await server.stop();
  },

  async 'text/plain is for who asks for it'() {
    const { line, env } = await database('plain');
    const server = await serve(env);
    await isReady(server);
    line.cut();
    await refused(server);
    for (const [accept, type] of [
      ['text/plain', 'text/plain; charset=utf-8'],
      ['text/html,*/*;q=0.8', 'text/html; charset=utf-8'],
      ['*/*', 'text/html; charset=utf-8'],
      ['application/json', 'application/json'],
    ]) {
      const answer = await fetch(server.url, { headers: { accept } });
      assert.equal(answer.status, 503);
      assert.equal(answer.headers.get('content-type'), type, accept);
      assert.ok(Number(answer.headers.get('retry-after')) > 0);
    }
    await server.stop();
  },

  async 'a counter that starts says so, and its page comes by itself'() {
    const { line, env } = await database('begins');
    line.cut();
    const server = await serve(env);
    const { page } = await open({ at: server.url });
    const said = await text(page);
    for (const part of [/O contador está iniciando/, /que o PostgreSQL responda/,
      /PostgreSQL conectando/, /ainda desconhecido/])
      assert.match(said, part);
    assert.deepEqual(await violations(page), []);
    await screenshot(page, 'starting');
    await comes_back(page, () => line.join());
    await server.stop();
  },

  async 'a counter that stops says so, and the page comes from the next one'() {
    const { line, env } = await database('stops');
    const PORT = await freePort();
    const server = await serve({ ...env, PORT, DRAIN_DELAY: '60s' });
    await isReady(server);
    await visit(server.url);
    line.cut();
    await refused(server);
    server.signal('SIGTERM');
    await until('it stops', async () =>
      (await (await fetch(server.url + 'readyz')).text()).includes('stopping'));
    const { page } = await open({ at: server.url, locale: 'en' });
    const said = await text(page);
    for (const part of [/The counter is restarting/, /PostgreSQL down/, /Last known total\s+1\b/])
      assert.match(said, part);
    await screenshot(page, 'stopping');
    await comes_back(page, async () => {
      await server.stop();
      // Nobody answers for a while.
      await page.waitForTimeout(7000);
      await line.join();
      await isReady(await serve({ ...env, PORT }));
    });
  },

  async 'too many visits from one address are told to wait, and it is their turn again'() {
    const server = await serve({ VISITS_PER_CLIENT: '2/10s' });
    await isReady(server);
    await visit(server.url);
    await visit(server.url);
    const { page } = await open({ at: server.url });
    assert.match(await text(page), /Visitas demais do seu endereço/);
    await comes_back(page, async () => {});
    await server.stop();
  },

  async 'a page that is open goes on through an outage'() {
    const { line, env } = await database('goes_on');
    const server = await serve(env);
    await isReady(server);
    const { page, wrong } = await open({ at: server.url });
    await ready(page);
    const before = await total(page);
    line.cut();
    await page.locator('#ledger-state.down').waitFor();
    assert.equal(await total(page), before);
    assert.match(await page.locator('#ledger-state').textContent(), /PostgreSQL fora do ar/);
    await line.join();
    await page.locator('#ledger-state:not(.down)').waitFor({ timeout: 20_000 });
    const { total: now } = await visit(server.url);
    await until('it follows', async () => (await total(page)) >= now);
    assert.deepEqual(wrong, []);
    await server.stop();
    await Promise.all(browser.contexts().map(context => context.close()));
  },
};
