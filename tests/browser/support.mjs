// What the tests of the page share: a browser, servers of their own, and ways to break them.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [address, executablePath, screenshots] = process.argv.slice(2);
/** The server with ninety days of visits. */
export const url = address;
export const DESKTOP = { width: 1100, height: 760 };
export const PHONE = { width: 375, height: 812 };
export const PERIODS = ['minute', 'hour', 'day', 'month'];

export const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu'],
});
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const servers = new Set();
export const stopAll = () => servers.forEach(server => server.kill('SIGKILL'));

export const total = page => page.locator('#total').getAttribute('value').then(Number);
export const visit = (at = url) =>
  fetch(at, { headers: { Accept: 'application/json' } }).then(answer => answer.json());
export const listeners = async (at = url) =>
  Number((await (await fetch(at + 'metrics')).text()).match(/^visitas_event_listeners (\d+)$/m)[1]);

/** Waits until `holds` gives true, at most 20 s. */
export async function until(what, holds) {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    if (await Promise.resolve(holds()).catch(() => false)) return;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
  throw new Error(`not within 20 s: ${what}`);
}

/** Opens the page in a context of its own and collects what must not happen in it. */
export async function open({ wait = 'load', at = url, ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, locale: 'pt-BR', ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on('console', message => message.type() === 'error' && wrong.push(message.text()));
  page.on('pageerror', error => wrong.push(String(error)));
  page.on(
    'request',
    request => new URL(request.url()).host !== new URL(at).host && wrong.push(request.url()),
  );
  await page.goto(at, { waitUntil: wait });
  return { page, context, wrong };
}

/** The page shows the stream's state and the chart's numbers. */
export const ready = async page => {
  await page.locator('#live:not(.lost)').waitFor({ state: 'visible' });
  await page.locator('table tbody tr').first().waitFor({ state: 'attached' });
};

export async function screenshot(page, name) {
  if (screenshots) await page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true });
}

/** What axe finds, asked in a world of its own, so that the page's policy stays as it is. */
export async function violations(page) {
  const cdp = await page.context().newCDPSession(page);
  const evaluate = async expression => {
    const { result, exceptionDetails } = await cdp.send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  };
  await evaluate(axe);
  return evaluate(
    `axe.run().then(({ violations }) => violations.map(v => v.id + ": " +
      v.nodes.map(n => n.html + " " + n.failureSummary).join("; ")))`,
  );
}

/** How far the page can be scrolled sideways. */
export const overflow = page =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

/** Starts a server; its store is a file, unless `env` names another one. */
export async function serve(env = {}) {
  const port = env.PORT ?? (await freePort());
  const DATA_DIR = env.DATA_DIR ?? mkdtempSync(join(tmpdir(), 'visitas-'));
  const child = spawn(process.env.VISITAS, {
    env: {
      HOST: '127.0.0.1',
      ...(env.DATABASE_URL ? {} : { DATA_DIR }),
      CONNECT_ATTEMPTS: '0',
      ...env,
      PORT: String(port),
    },
    stdio: 'ignore',
  });
  servers.add(child);
  const server = {
    port,
    DATA_DIR,
    url: `http://127.0.0.1:${port}/`,
    signal: name => child.kill(name),
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      servers.delete(child);
    },
  };
  await until('the server answers', async () => (await fetch(server.url + 'livez')).ok);
  return server;
}

export const isReady = server =>
  until('visits are taken', async () => (await fetch(server.url + 'readyz')).ok);

/** Runs statements as the superuser, and gives what the last one selects. */
export const sql = (database, text) =>
  execFileSync('psql', ['-qtA', '-d', database, '-c', text]).toString().trim();

/** A database of its own, behind a line that can be cut. */
export async function database(name) {
  sql('postgres', `CREATE DATABASE ${name}`);
  const line = await wire(Number(process.env.PGPORT));
  return { line, env: { DATABASE_URL: `postgres://user_app@127.0.0.1:${line.port}/${name}` } };
}

/** A line to a local port. While it is cut, connections are refused. */
export async function wire(to) {
  const sockets = new Set();
  let server;
  const line = {
    port: await freePort(),
    async join() {
      server = net.createServer(near => {
        const far = net.connect(to, '127.0.0.1');
        for (const [one, other] of [[near, far], [far, near]]) {
          sockets.add(one);
          one.on('error', () => other.destroy());
          one.on('close', () => { sockets.delete(one); other.destroy(); });
          one.pipe(other);
        }
      });
      server.listen(line.port, '127.0.0.1');
      await once(server, 'listening');
    },
    cut() {
      server.close();
      sockets.forEach(socket => socket.destroy());
    },
  };
  await line.join();
  return line;
}

/** A proxy in front of a server. With `fails` set it answers that status itself. */
export async function proxy(to) {
  const requests = new Set();
  const front = http.createServer((request, answer) => {
    if (front.fails) return answer.writeHead(front.fails).end('<h1>Bad Gateway</h1>');
    const { method, headers } = request;
    const back = http.request({ port: to, path: request.url, method, headers }, from => {
      answer.writeHead(from.statusCode, from.headers);
      from.pipe(answer);
      from.on('error', () => answer.destroy());
    });
    requests.add(answer);
    answer.on('close', () => { requests.delete(answer); back.destroy(); });
    back.on('error', () => answer.headersSent ? answer.destroy() : answer.writeHead(502).end());
    request.pipe(back);
  });
  /** Ends all streams, and answers with that status from now on; 0: forwards again. */
  front.fail = status => {
    front.fails = status;
    requests.forEach(answer => answer.destroy());
  };
  front.listen(0, '127.0.0.1');
  await once(front, 'listening');
  front.url = `http://127.0.0.1:${front.address().port}/`;
  return front;
}
