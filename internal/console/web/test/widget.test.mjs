// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The widget on a page of another origin, whose policy allows the service's script and calls, and nothing inline.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { accessible, fits, launch, lookThrough, newPage } from './browser.mjs';
import { answers, iso, standing } from './pages/usage.mjs';
import { Service, TIME } from './service.mjs';

const STREAM = '/api/v1/usage/stream';
let browser, service, host, at, page, errors, close, body;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());
beforeEach(async () => {
  service = await new Service().start();
  at = { standing: standing() };
  service.answers = answers(at);
  service.session = null;
  service.authorize = (request) => request.headers.authorization === 'Bearer good';
  body = '<usage-panel upgrade-url="/billing"></usage-panel>';
  let tokens = 0;
  host = createServer((request, response) => {
    if (request.url === '/token') return response.end(tokens++ === 0 && host.stale ? 'stale' : 'good');
    if (request.url === '/host.js') {
      response.setHeader('Content-Type', 'text/javascript');
      return response.end("document.querySelector('usage-panel').token = async () => (await fetch('/token')).text();");
    }
    response.setHeader('Content-Type', 'text/html');
    response.setHeader('Content-Security-Policy',
      `default-src 'none'; script-src 'self' ${service.url}; style-src 'none'; img-src data:; connect-src 'self' ${service.url}; require-trusted-types-for 'script'`);
    response.end(`<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Host</title>
      <link rel="icon" href="data:,"><main><h1>Host</h1>${body}</main>
      <script src="/host.js"></script><script src="${service.url}/widget.js" defer></script>`);
  });
  await new Promise((resolve) => host.listen(0, '127.0.0.1', resolve));
  host.url = `http://localhost:${host.address().port}`;
  service.origins = [host.url];
  ({ page, errors, close } = await newPage(browser));
});
afterEach(async () => {
  await close();
  host.closeAllConnections();
  await new Promise((resolve) => host.close(resolve));
  await service.stop();
});
const open = async () => {
  await page.goto(host.url);
  await page.waitForSelector('usage-panel [data-left]');
};

test('it works under the policy of a page of another origin', async () => {
  await open();
  service.tell(STREAM, 'standing', standing({ used_credits: 203.25, as_of: iso(TIME + 1000) }));
  await page.waitForFunction(() => document.querySelector('usage-panel').shadowRoot.querySelector('[data-used]').textContent === '203.25',
    null, { timeout: 1000 });
  await lookThrough(page, '.table tbody tr');
  assert.equal(await page.locator('usage-panel .summary .meter').evaluate((element) => getComputedStyle(element).height), '12px', 'its style applies');
  const bill = page.getByRole('region', { name: 'Your plan and the next one' });
  assert.equal(await bill.getByRole('link', { name: 'Upgrade' }).getAttribute('href'), `${host.url}/billing`);
  assert.equal(await page.getByRole('button', { name: 'Mark as read' }).count(), 0, 'a portal token changes nothing');
  await accessible(page);
  await fits(page);
  assert.deepEqual(errors, []);
});

test('the token is in a header only', async () => {
  await open();
  await lookThrough(page, '.table tbody tr');
  const calls = service.calls.filter((call) => call.path.startsWith('/api/') && call.method !== 'OPTIONS');
  assert.ok(calls.length > 3);
  for (const call of calls) {
    assert.equal(call.headers.authorization, 'Bearer good');
    assert.equal(call.headers.cookie, undefined);
    assert.ok(!call.query.includes('good'), call.query);
  }
  assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }) + document.documentElement.outerHTML.includes('good')), '{}false');
});

test('a token that has ended is asked for again', async () => {
  await open();
  const before = service.calls.filter((call) => call.path === STREAM).length;
  at.standing = standing({ used_credits: 204, as_of: iso(TIME + 5000) });
  const [stream] = service.streams;
  stream.end('unauthorized');
  await page.clock.runFor(1000);
  await page.waitForFunction(() => document.querySelector('usage-panel').shadowRoot.querySelector('[data-used]').textContent === '204');
  assert.ok(service.calls.filter((call) => call.path === STREAM).length > before);
});

test('it shows what it is asked to, in the language and colours that the host sets', async () => {
  body = '<div lang="zh-HK"><usage-panel show="summary alerts" heading="none"></usage-panel></div>';
  await open();
  await page.locator('usage-panel .alert').first().waitFor();
  assert.equal(await page.locator('usage-panel section').count(), 2);
  assert.equal(await page.locator('usage-panel header h2').count(), 0);
  assert.match(await page.locator('usage-panel #usage-summary').textContent(), /本期/);
  const colour = () => page.locator('usage-panel .meter .used').evaluate((element) => getComputedStyle(element).backgroundColor);
  await page.evaluate(() => document.querySelector('usage-panel').style.setProperty('--usage-accent', 'rgb(120, 30, 90)'));
  assert.equal(await colour(), 'rgb(120, 30, 90)');
  await page.evaluate(() => { document.querySelector('usage-panel').lang = 'en'; });
  await page.waitForFunction(() => document.querySelector('usage-panel').shadowRoot.textContent.includes('This period'));
});

test('what is no link of the web is none', async () => {
  body = '<usage-panel upgrade-url="javascript:alert(1)"></usage-panel>';
  await open();
  await lookThrough(page, '.bill');
  assert.equal(await page.getByRole('link', { name: 'Upgrade' }).count(), 0);
});

test('it leaves the URL, the keys and the globals of its host alone', async () => {
  await open();
  await lookThrough(page, '.table tbody tr');
  await page.locator('usage-panel [data-filter]').fill('podcast');
  assert.equal(page.url(), `${host.url}/`);
  await page.locator('h1').click();
  await page.keyboard.press('?');
  assert.equal(await page.locator('usage-panel dialog').count(), 0);
});

test('the service goes away and comes back', async () => {
  await open();
  service.leave();
  await page.locator('usage-panel [data-offline]').waitFor();
  assert.equal(await page.locator('usage-panel [data-used]').textContent(), '198.75', 'what was known stays');
  at.standing = standing({ used_credits: 205, as_of: iso(TIME + 60_000) });
  service.back();
  await page.clock.runFor(35_000); // the longest pause, and less than the silence that ends a stream
  await page.waitForFunction(() => document.querySelector('usage-panel').shadowRoot.querySelector('[data-used]').textContent === '205');
  await page.locator('usage-panel [data-offline]').waitFor({ state: 'detached' });
});

test('a keyboard is enough: from the filter to the rows and back', async () => {
  await open();
  await lookThrough(page, '.table tbody tr');
  const at = () => page.evaluate(() => document.querySelector('usage-panel').shadowRoot.activeElement?.tagName);
  await page.locator('usage-panel [data-filter]').focus();
  await page.keyboard.press('ArrowDown');
  assert.equal(await at(), 'TR');
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.evaluate(() => document.querySelector('usage-panel').shadowRoot.activeElement.rowIndex), 2);
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowUp');
  assert.equal(await at(), 'INPUT');
});

test('taken out of the page it is quiet, and back in it goes on', async () => {
  await open();
  await page.evaluate(() => { window.panel = document.querySelector('usage-panel'); window.panel.remove(); });
  await assertSoon(() => service.streams.size === 0);
  await page.evaluate(() => document.querySelector('main').append(window.panel));
  await page.waitForSelector('usage-panel [data-left]');
  assert.equal(service.streams.size, 1);
});

test('a token that is no function is refused at once', async () => {
  await open();
  const said = await page.evaluate(() => {
    try {
      document.querySelector('usage-panel').token = 'good';
      return '';
    } catch (error) {
      return String(error);
    }
  });
  assert.equal(said, 'TypeError: usage-panel: token must be a function that returns a portal token or a promise of one');
});

async function assertSoon(holds) {
  const until = Date.now() + 5000;
  while (!holds()) {
    if (Date.now() > until) assert.fail(String(holds));
    await new Promise((resolve) => setImmediate(resolve));
  }
}
