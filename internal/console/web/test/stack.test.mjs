// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The pages with the real service: signing in, a charge and an alert that arrive, the widget on a page of another origin.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, afterEach, before, test } from 'node:test';
import { accessible, byKeyboard, fits, launch, lookThrough } from './browser.mjs';
import { startStack } from './stack.mjs';

let browser, stack, host, context, page, errors;
before(async () => {
  host = createServer((request, response) => host.answer(request, response));
  await new Promise((resolve) => host.listen(0, '127.0.0.1', resolve));
  host.url = `http://localhost:${host.address().port}`;
  [browser, stack] = await Promise.all([launch(), startStack([`--cors-origin=${host.url}`])]);
}, { timeout: 120_000 });
after(async () => {
  await browser?.close();
  host.closeAllConnections();
  host.close();
  await stack?.stop();
}, { timeout: 60_000 });
afterEach(() => context.close());

async function open() {
  context = await browser.newContext({ locale: 'en-GB', timezoneId: 'Asia/Hong_Kong', ignoreHTTPSErrors: true, reducedMotion: 'reduce' });
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  errors = [];
  page.on('console', (message) => {
    // What the provider's own page is told is not of ours.
    const { url } = message.location();
    const ours = !url || url.startsWith(stack.url) || url.startsWith(host.url);
    if (ours && ['error', 'warning'].includes(message.type())) errors.push(`${message.text()} ${url}`);
  });
  page.on('pageerror', (error) => errors.push(String(error)));
}

/** With what is refused there, which the browser tells as an error. */
async function signIn(name, path, refused = 'nothing') {
  await open();
  await page.goto(stack.url + path);
  await page.getByRole('link', { name: 'Sign in' }).click();
  await page.locator('input[name=username]').fill(name);
  await page.locator('input[name=password]').fill('password');
  await page.locator('input[name=password]').press('Enter');
  await page.waitForURL(stack.url + path);
  await page.waitForSelector('main h1');
  // Asking who one is, before anybody was, is answered with 401, which the browser tells as an error.
  assert.deepEqual(errors.filter((error) => !error.includes('/auth/session') && !error.includes(refused)), []);
  errors.length = 0;
}

test('a customer signs in, sees a charge arrive within a second, and an alert', async () => {
  await signIn('mina', '/usage');
  await page.waitForSelector('[data-left]');
  assert.equal(await page.locator('[data-left]').textContent(), '30');
  const seen = page.waitForFunction(() => {
    const used = document.querySelector('[data-used]').textContent;
    return used === '24.5' && Date.now();
  }, null, { polling: 20 });
  await stack.call('POST', '/api/v1/usage', { user_id: 'mina', usage_type: 'transcription', duration_seconds: 1470, metadata: { name: '訪問.m4a' } });
  const charged = Date.now();
  const after = (await (await seen).jsonValue()) - charged;
  assert.ok(after <= 1000, `it was seen ${after} ms after the answer`);
  const alert = page.locator('.alert.warning');
  await alert.waitFor();
  assert.match(await alert.textContent(), /80% of the credits are used: 24\.5 of 30/);
  await alert.getByRole('button').click();
  await alert.waitFor({ state: 'hidden' });
  await page.getByText('1 that was read').waitFor();
  await lookThrough(page, '.table tbody tr');
  await page.getByText('訪問.m4a').waitFor();
  await page.waitForSelector('[data-insufficient]');
  await page.waitForSelector('.bill.mine');
  await fits(page);
  await accessible(page);
  await byKeyboard(page);
  assert.deepEqual(errors, []);
});

test('work that waits is told with its reason, and goes when it runs', async () => {
  await signIn('petra', '/usage');
  await page.waitForSelector('[data-left]');
  const ask = () => stack.call('POST', '/api/v1/admissions', { user_id: 'petra', estimated_duration_seconds: 60, file_size_bytes: 1000 });
  const admissions = [];
  const end = (id) => stack.call('POST', `/api/v1/admissions/${id}/complete`, { duration_seconds: 30 });
  do admissions.push(await ask()); while (admissions.at(-1).state === 'Admitted');
  await lookThrough(page, '.table');
  const waiting = page.locator('section[aria-labelledby="usage-waiting"] li');
  await waiting.waitFor();
  assert.match(await waiting.textContent(), /Audio of 1 minute.*As much runs at once as may/);
  // Once it is known how fast the line moves, it is told when to expect the start; not where nothing has started for longer than ever,
  // so one gap is longer than it takes to look.
  admissions.push(await ask());
  const next = async () => {
    await end(admissions.shift().id);
    admissions.push(await ask());
  };
  const look = async () => {
    await page.reload();
    await lookThrough(page, '.table');
    await waiting.getByText('Place 2 of 2').waitFor();
  };
  await next();
  await look();
  await look();
  for (let i = 0; i < 12; i++) await next();
  await look();
  assert.match(await waiting.first().textContent(), /As much runs at once as may.*Place 1 of 2 · expected to start .*\d/);
  for (const { id } of admissions) await end(id);
  await page.getByText('Nothing waits.').waitFor();
  assert.deepEqual(errors, []);
});

test('signing out ends the session', async () => {
  await signIn('mina', '/usage');
  await page.waitForSelector('[data-left]');
  await page.getByText('Signed in as').click();
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await page.getByRole('link', { name: 'Sign in' }).waitFor();
  assert.equal(await page.evaluate(async () => (await fetch('/auth/session')).status), 401);
  assert.deepEqual((await context.cookies()).filter((cookie) => cookie.name === '__Host-usage-session'), []);
});

test('an operator sees what the service does now, a customer does not', async () => {
  await signIn('olga', '/console');
  await page.locator('.u-legend').waitFor();
  await accessible(page);
  assert.deepEqual(errors, []);
  await context.close();
  await signIn('mina', '/console', '/api/v1/live');
  await page.getByText('You have no right to see this.').waitFor();
});

test('an operator acts for a reason, and finds it in the audit log', async () => {
  const reason = 'for the trouble of Monday, 唔好意思';
  await signIn('olga', '/console/users/petra');
  await page.getByRole('button', { name: 'Adjust' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Credits', { exact: true }).fill('0.5');
  await dialog.getByLabel('Why').fill(reason);
  await dialog.getByRole('button', { name: 'Adjust' }).click();
  await dialog.waitFor({ state: 'hidden' });
  await page.getByRole('link', { name: 'Events' }).click();
  await page.getByRole('row').filter({ hasText: 'adjustment' }).getByText(reason).waitFor();
  await page.keyboard.press('g');
  await page.keyboard.press('a');
  await page.getByRole('heading', { level: 1, name: 'Audit' }).waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type('petra');
  await page.keyboard.press('Enter');
  const row = page.getByRole('row').filter({ hasText: 'usage.adjusted' });
  await row.getByText(reason).waitFor();
  assert.match(await row.textContent(), /olga/);
  assert.equal(new URL(page.url()).search, '?user=petra');
  await page.keyboard.press('Escape');
  // What needs somebody is told of the service as it is: its cluster is heard of.
  await page.keyboard.press('g');
  await page.keyboard.press('n');
  await page.waitForSelector('[data-needs]');
  await page.getByRole('region', { name: 'Clusters' }).getByRole('rowheader').waitFor();
  assert.equal(await page.getByText('nothing was heard').count(), 0);
  assert.deepEqual(errors, []);
});

/** Has the host show the widget to a user, under a strict policy. */
function show(user) {
  host.answer = async (request, response) => {
    if (request.url === '/token') {
      const { token } = await stack.call('POST', `/api/v1/users/${user}/portal-tokens`, {});
      return response.end(token);
    }
    if (request.url === '/host.js') {
      response.setHeader('Content-Type', 'text/javascript');
      return response.end("document.querySelector('usage-panel').token = async () => (await fetch('/token')).text();");
    }
    response.setHeader('Content-Type', 'text/html');
    response.setHeader('Content-Security-Policy',
      `default-src 'none'; script-src 'self' ${stack.url}; img-src data:; connect-src 'self' ${stack.url}; require-trusted-types-for 'script'`);
    response.end(`<!doctype html><html lang="en"><title>Host</title><link rel="icon" href="data:,"><main><h1>Host</h1><usage-panel></usage-panel></main>
      <script src="/host.js"></script><script src="${stack.url}/widget.js" defer></script>`);
  };
  return page.goto(host.url);
}

test('the period ends while somebody looks', async () => {
  // Four years before, so that the day is there in February too.
  const end = new Date(Math.ceil(Date.now() / 1000) * 1000 + 15_000);
  const created = new Date(end);
  created.setUTCFullYear(end.getUTCFullYear() - 4);
  await stack.kubectl(['apply', '-f', '-'], JSON.stringify({
    apiVersion: 'usage.cantonesescribe.io/v1alpha1', kind: 'UserQuota', metadata: { name: 'rita' },
    spec: { userID: 'rita', accountCreatedAt: created.toISOString().replace('.000', '') },
  }));
  await stack.kubectl(['wait', '--for=condition=Accepted', '--timeout=10s', 'userquota/rita']);
  await stack.call('POST', '/api/v1/usage', { user_id: 'rita', usage_type: 'transcription', duration_seconds: 60 });
  await open();
  await show('rita');
  // An accessor in the page: what is shown as used, or null while nothing is.
  const when = (want) => page.waitForFunction((want) => {
    const used = document.querySelector('usage-panel').shadowRoot?.querySelector('[data-used]')?.textContent ?? null;
    return (want === 'other' ? used !== '1' : used === want) && Date.now();
  }, want, { polling: 20, timeout: 30_000 });
  await when('1');
  assert.ok(Date.now() < end, 'the page was there in time');
  const gone = (await (await when('other')).jsonValue()) - end;
  assert.ok(gone >= -50 && gone <= 1100, `the old number was gone ${gone} ms after the end`);
  const there = (await (await when('0')).jsonValue()) - end;
  assert.ok(there <= 2500, `the new one was there ${there} ms after the end`);
  assert.deepEqual(errors, []);
});

test('the widget works on a page of another origin, under a strict policy', async () => {
  await open();
  await show('mina');
  await page.waitForSelector('usage-panel [data-left]');
  const used = Number(await page.locator('usage-panel [data-used]').textContent());
  await stack.call('POST', '/api/v1/usage', { user_id: 'mina', usage_type: 'transcription', duration_seconds: 60 });
  await page.waitForFunction(
    (want) => Number(document.querySelector('usage-panel').shadowRoot.querySelector('[data-used]').textContent) === want, used + 1, { timeout: 2000 });
  await lookThrough(page, '.table tbody tr');
  await accessible(page);
  assert.deepEqual(errors, []);
});

// The last test: the programs' time does not go back.
test('work that seems stuck is told now, and released from there', async () => {
  await signIn('olga', '/console');
  await page.waitForSelector('[data-needs]');
  assert.equal(await page.getByText('Running work that seems stuck').count(), 0);
  const { id } = await stack.call('POST', '/api/v1/admissions', {
    user_id: 'petra', estimated_duration_seconds: 60, file_size_bytes: 1000, lease_seconds: 3600,
  });
  await stack.advance('11m');
  await page.getByText('Running work that seems stuck: 1').waitFor({ timeout: 30_000 });
  await page.getByRole('link', { name: /^petra, running since .*: longer than estimated$/ }).click();
  await page.getByRole('button', { name: `Release: ${id}` }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Why').fill('it hangs');
  await dialog.getByRole('button', { name: 'Release' }).click();
  await dialog.waitFor({ state: 'hidden' });
  await page.getByRole('button', { name: `Release: ${id}` }).waitFor({ state: 'hidden' });
  await page.keyboard.press('g');
  await page.keyboard.press('n');
  await page.waitForSelector('[data-needs]');
  assert.equal(await page.getByText('Running work that seems stuck').count(), 0);
  assert.deepEqual(errors, []);
});
