// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What happens on the usage page while it is open.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { launch, lookThrough, newPage } from './browser.mjs';
import { alert, alerts, answers, end, event, events, forecast, iso, largest, newsroom, standing } from './pages/usage.mjs';
import { Problem, Service, Stream, TIME } from './service.mjs';

const STREAM = '/api/v1/usage/stream';
let browser, service, at, page, errors, close;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());
beforeEach(async () => {
  service = await new Service().start();
  at = { standing: standing() };
  service.answers = answers(at);
  ({ page, errors, close } = await newPage(browser));
});
afterEach(async () => {
  await close();
  await service.stop();
});
const open = async (path = '/usage') => {
  await page.goto(service.url + path);
  await page.waitForSelector('[data-left]');
};
const look = () => lookThrough(page, '.table tbody tr');
const charges = () => page.locator('section[aria-labelledby="usage-charges"]');
const text = (selector) => page.locator(selector).textContent();
const shows = (selector, want) => page.waitForFunction(
  ([selector, want]) => document.querySelector(selector)?.textContent?.includes(want), [selector, want], { timeout: 5000 });

test('a charge arrives within a second of its event', async () => {
  await open();
  assert.equal(await text('[data-used]'), '198.75');
  service.tell(STREAM, 'standing', standing({ used_credits: 203.25, remaining_credits: 94.75, as_of: iso(TIME + 1000) }));
  await page.waitForFunction(() => document.querySelector('[data-used]').textContent === '203.25', null, { timeout: 1000 });
  assert.equal(await text('[data-left]'), '94.75');
});

test('an alert arrives, and is marked as read', async () => {
  await open();
  await page.waitForSelector('.alert');
  service.tell(STREAM, 'alert', alert('Overdrawn', 'critical', { used: 315, limit: 310, raised_at: iso(TIME) }));
  const arrived = page.locator('.alert.critical');
  await arrived.waitFor({ timeout: 1000 });
  assert.match(await arrived.textContent(), /More is used than there is: 315 of 310 credits/);
  await page.locator('.alert.warning button').click();
  await page.waitForFunction(() => !document.querySelector('.alert.warning'));
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-labelledby')), 'usage-alerts-user', 'the focus stays near');
  assert.deepEqual(service.calls.filter((call) => call.method === 'POST').map((call) => call.path),
    [`/api/v1/usage/alerts/${alerts[0].id}/acknowledge`]);
  assert.deepEqual(errors, []);
});

test('alerts that are over are not among those that need somebody', async () => {
  service.answers['GET /api/v1/usage/alerts'] = { as_of: iso(TIME), alerts: [
    alert('CreditsPercent', 'warning', { threshold_percent: 60 }), alert('TeamShare', 'warning', { threshold_percent: 60, resolved_at: iso(TIME) }),
  ] };
  await open();
  await shows('.alert.warning', '60%');
  assert.equal(await page.locator('section ul[aria-live] > .alert').count(), 1);
  await page.getByText('1 that was read, or is over').click();
  assert.match(await text('details .alert'), /over since/);
});

test('alerts are told in words, those of a kind that the page does not know in the service’s', async () => {
  service.answers['GET /api/v1/usage/alerts'] = { as_of: iso(TIME), alerts: [
    alert('ExhaustionForecast', 'warning', { exhausted_at: '2026-03-29T03:10:00Z' }), alert('SomethingNew', 'info'),
  ] };
  await open();
  await shows('.alert.warning', 'By your pace the credits will be used up on 29 Mar 2026, 11:10: 198.75 of 310 are used.');
  await shows('.alert.info', 'the service\'s words of SomethingNew');
});

test('the period ends while the page is open', async () => {
  await open();
  // The service says nothing yet: what is shown must not be of the old period.
  at.standing = standing({ as_of: iso(end - 1000) });
  await page.clock.fastForward(end - TIME + 1000);
  // In one look: the page asks again soon, and believes a service that says that the old period goes on.
  await page.waitForFunction(() => document.querySelector('[data-turning]') && !document.querySelector('[data-left], .summary .meter'));
  const next = standing({
    used_credits: 0, reserved_credits: 12, remaining_credits: 268, limit_credits: 280, period_start: iso(end), resets_at: iso(end + 30 * 86_400_000),
    as_of: iso(end + 2000),
  });
  at.standing = next;
  service.tell(STREAM, 'standing', next);
  await shows('[data-left]', '268');
  assert.match(await text('.summary .resets'), /1 May 2026/);
});

test('a browser whose clock is wrong believes the service', async () => {
  await open();
  await page.clock.fastForward(end - TIME + 1000);
  await page.waitForSelector('[data-turning]');
  // Asked again, the service says that it is still March.
  await page.clock.runFor(3000);
  await shows('[data-left]', '99.25');
  assert.equal(await page.locator('[data-turning]').count(), 0);
});

test('the service goes away and comes back', async () => {
  await open();
  service.leave();
  await page.waitForSelector('[data-offline]');
  assert.match(await text('[data-offline]'), /Offline: this is what was known at 16:30:00/);
  assert.equal(await text('[data-used]'), '198.75', 'what was known stays');
  at.standing = standing({ used_credits: 205, remaining_credits: 93, as_of: iso(TIME + 60_000) });
  service.back();
  await page.clock.runFor(35_000); // the longest pause, and less than the silence that ends a stream
  await shows('[data-used]', '205');
  await page.locator('[data-offline]').waitFor({ state: 'detached' });
  const again = service.calls.findLast((call) => call.path === STREAM);
  assert.equal(again.headers['last-event-id'], 'first', 'it goes on where it was');
});

test('a replica ends, another one answers', async () => {
  await open();
  const [stream] = service.streams;
  at.standing = standing({ used_credits: 201, as_of: iso(TIME + 2000) });
  stream.end('shutdown');
  await page.clock.runFor(1000);
  await shows('[data-used]', '201');
  assert.equal(await page.locator('[data-offline]').count(), 0, 'that is no failure');
});

test('the right is gone', async () => {
  await open();
  const [stream] = service.streams;
  stream.end('forbidden');
  await shows('main .trouble', 'You have no right to see this.');
  assert.equal(await page.locator('[data-left]').count(), 0);
});

test('nobody has signed in any more', async () => {
  await open();
  service.answers[`GET ${STREAM}`] = new Problem(401, 'the session has ended');
  const [stream] = service.streams;
  stream.end('unauthorized');
  await page.clock.runFor(1000);
  await page.getByRole('link', { name: 'Sign in' }).waitFor();
  assert.equal(await page.locator('[data-left]').count(), 0);
});

test('history that carries no forecast', async () => {
  service.answers['GET /api/v1/usage/forecast'] = {
    ...forecast, answer: 'insufficient_history', reason: 'too_few_days', used_at_end: undefined, exhausted: undefined, days: forecast.days.slice(-6),
  };
  await open();
  await shows('[data-insufficient]', 'Your first use was fewer than 14 days ago');
  assert.equal(await page.locator('.pace .range').count(), 0, 'no number is made up');
});

test('the largest jobs are read when they come into view, and nothing known is not nothing used', async () => {
  await open();
  const section = page.locator('section[aria-labelledby="usage-largest"]');
  await section.scrollIntoViewIfNeeded();
  await section.getByText('interview-12').waitFor();
  assert.deepEqual(await section.locator('tbody tr').first().locator('th, td').allTextContents(),
    ['Transcription · interview-12', '18 Mar 2026, 16:30', '48 minutes', '48', '$1.50']);
  assert.match(await section.textContent(), /as of 20 Mar 2026, 16:28/);
  service.answers['GET /api/v1/analytics/largest'] = { ...largest, work: [] };
  await open();
  await section.scrollIntoViewIfNeeded();
  await section.getByText('Nothing took credits in these days').waitFor();
  const { as_of, ...unknown } = { ...largest, work: [] };
  service.answers['GET /api/v1/analytics/largest'] = unknown;
  await open();
  await section.scrollIntoViewIfNeeded();
  await section.getByText('Nothing is summed up yet.').waitFor();
  assert.equal(await section.locator('table').count(), 0);
  assert.deepEqual(errors, []);
});

test('charges are filtered and sorted in the URL, and taken away', async () => {
  await open();
  await look();
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.type), 'search');
  await page.keyboard.type('播客');
  await shows('.table .count', '1 row of 12');
  await charges().getByRole('button', { name: 'Credits', exact: true }).click();
  assert.equal(new URL(page.url()).search, `?q=${encodeURIComponent('播客')}&sort=credits`);
  await page.reload();
  await look();
  await shows('.table .count', '1 row of 12');
  await page.locator('[data-filter]').fill('');
  await shows('.table tbody tr:first-child', '-4.25');
  await page.goto(`${service.url}/usage`);
  await look();
  const download = page.waitForEvent('download');
  await charges().getByRole('button', { name: 'Download CSV' }).click();
  const file = await download;
  assert.equal(file.suggestedFilename(), 'usage-mina-4.csv');
  const lines = (await readFile(await file.path(), 'utf8')).split('\r\n');
  assert.equal(lines.length, events.length + 2, 'a line each, its head, and nothing behind the last');
  assert.equal(lines[0], '\ufeffWhen,What,Length,Credits,To pay,Currency,Bytes,Kind,Name,ID');
  assert.equal(lines[1], `${iso(TIME)},transcription,120,2,0,USD,4200000,charge,訪問錄音_陳大文.m4a,${events[0].id}`);
});

test('? shows the keys, and each of them works', async () => {
  await open();
  await page.keyboard.press('?');
  const dialog = page.getByRole('dialog', { name: 'Keys' });
  await dialog.waitFor();
  assert.match(await dialog.textContent(), /Go to the filter/);
  await page.keyboard.press('Enter');
  await dialog.waitFor({ state: 'hidden' });
  await page.keyboard.press('?');
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  await page.getByRole('link', { name: /The page of team newsroom/ }).click();
  await shows('main h1', 'Team newsroom');
  await page.keyboard.press('g');
  await page.keyboard.press('u');
  await page.waitForSelector('[data-left]');
  assert.equal(new URL(page.url()).search, '');
});

test('arrows move between rows', async () => {
  await open();
  await look();
  await page.locator('.table tbody tr').first().focus();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowUp');
  assert.equal(await page.evaluate(() => document.activeElement.rowIndex), 2);
  assert.equal(await charges().locator('tbody tr[tabindex="0"]').count(), 1);
});

test('an earlier period, and back', async () => {
  await open();
  await look();
  await page.getByRole('button', { name: 'Earlier period' }).click();
  await shows('.table .count', '1 row');
  assert.equal(new URL(page.url()).search, '?period=3');
  await page.getByRole('button', { name: 'This period' }).click();
  await shows('.table .count', '12 rows');
});

test('a charge is in the list without being asked for, as long as calls are left', async () => {
  await open();
  await look();
  service.answers['GET /api/v1/usage/events'] = { user_id: 'mina', period: 4, events: [event(99), ...events] };
  service.tell(STREAM, 'standing', standing({ used_credits: 203.25, as_of: iso(TIME + 1000) }));
  await shows('[data-used]', '203.25');
  await page.clock.runFor(6000);
  await shows('.table .count', '13 rows');
});

test('the last of the user’s calls are not spent', async () => {
  let left = 40;
  service.headers = () => ({ 'RateLimit-Policy': '"user";q=100;w=3600', RateLimit: `"user";r=${left};t=36` });
  await open();
  await look();
  const asked = service.count('GET', '/api/v1/usage/events');
  service.tell(STREAM, 'standing', standing({ used_credits: 203.25, as_of: iso(TIME + 1000) }));
  await page.getByText('Something has changed since this was read.').first().waitFor();
  await page.clock.runFor(60_000);
  assert.equal(service.count('GET', '/api/v1/usage/events'), asked);
  left = 90;
  service.answers['GET /api/v1/usage/events'] = { user_id: 'mina', period: 4, events: [event(99), ...events] };
  await charges().getByRole('button', { name: 'Read again' }).click();
  await shows('.table .count', '13 rows');
});

test('a part that could not be read is there by itself once the service answers', async () => {
  await page.route('**/api/v1/usage/events*', (route) => route.abort());
  await open();
  const charges = page.locator('section[aria-labelledby="usage-charges"]');
  await charges.scrollIntoViewIfNeeded();
  await charges.getByText('The service does not answer.').waitFor();
  await page.clock.runFor(11_000);
  await charges.getByText('The service does not answer.').waitFor();
  await page.unroute('**/api/v1/usage/events*');
  await page.clock.runFor(11_000);
  await shows('.table .count', '12 rows');
  // What it refuses is not asked for again and again.
  service.answers['GET /api/v1/usage/events'] = new Problem(403, 'oidc:mina may not get user "mina"');
  await page.reload();
  await page.waitForSelector('[data-left]');
  await charges.scrollIntoViewIfNeeded();
  await charges.getByText('You have no right to see this.').waitFor();
  const asked = service.count('GET', '/api/v1/usage/events');
  await page.clock.runFor(60_000);
  assert.equal(service.count('GET', '/api/v1/usage/events'), asked);
});

test('the language is the reader’s, and stays', async () => {
  await open();
  await page.getByRole('combobox', { name: 'Language' }).selectOption('zh-Hant-HK');
  await shows('main h1', '用量');
  assert.match(await text('.summary .resets'), /將於 2026年4月1日/);
  await page.reload();
  await shows('main h1', '用量');
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'zh-Hant-HK');
});

test('Chinese is drawn by a font that has it', async () => {
  await open('/usage?lang=zh-Hant-HK');
  // A glyph that no font has is drawn as a box, whichever it is: two different ones then look alike.
  const [one, other] = await page.evaluate(() => ['錄', '轉'].map((glyph) => {
    const canvas = document.createElement('canvas');
    const drawing = canvas.getContext('2d');
    drawing.font = getComputedStyle(document.body).font;
    drawing.fillText(glyph, 0, 40);
    return canvas.toDataURL();
  }));
  assert.notEqual(one, other, 'install fonts-noto-cjk');
});

test('the reset is a date in the reader’s zone', async () => {
  await close();
  ({ page, errors, close } = await newPage(browser, { zone: 'America/New_York' }));
  await open();
  assert.match(await text('.summary .resets'), /31 Mar 2026, 12:00 \(in 11 days, 7 hours\)/);
});

test('leaving ends the session', async () => {
  await open();
  await page.getByText('Signed in as').click();
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await page.getByRole('link', { name: 'Sign in' }).waitFor();
  assert.equal(service.count('POST', '/auth/logout'), 1);
});

test('who does not run the team is told so', async () => {
  service.answers[`GET ${STREAM}`] = (_, query) => (query.get('team') ? new Problem(403, 'oidc:mina may not get team "newsroom"')
    : new Stream((stream) => stream.tell('standing', at.standing)));
  await open();
  await page.getByRole('link', { name: /The page of team newsroom/ }).click();
  await shows('main .trouble', 'oidc:mina may not get team "newsroom"');
});

test('a larger plan is a link where the host sells one, and nowhere else', async () => {
  const links = () => page.getByRole('link', { name: 'Upgrade' });
  await open();
  await look();
  assert.equal(await links().count(), 0);
  service.session = { ...service.session, upgrade_url: 'https://app.example/billing' };
  await page.reload();
  await page.waitForSelector('[data-left]');
  await look();
  assert.deepEqual(await links().evaluateAll((all) => all.map((link) => link.href)), ['https://app.example/billing', 'https://app.example/billing']);
  await page.locator('.alert.warning').getByRole('link', { name: 'Upgrade' }).waitFor();
});

test('a team that pays has its pace, its forecast and the alert of its end', async () => {
  const level = { ...newsroom(), pays: true };
  let now = TIME;
  service.answers[`GET ${STREAM}`] = () => new Stream((stream) => stream.tell('team',
    { team: 'newsroom', plan: { name: 'studio', display_name: 'Studio' }, effective_limits: [], levels: [level], as_of: iso(now) }));
  service.answers['GET /api/v1/teams/:name/forecast'] = { ...forecast, user_id: undefined, team: 'newsroom', allowance_credits: 1000 };
  service.answers['GET /api/v1/teams/:name/alerts'] = { as_of: iso(TIME), alerts: [
    alert('ExhaustionForecast', 'warning', { level: level.level, used: 612.5, limit: 1000, exhausted_at: '2026-03-29T03:10:00Z' }),
  ] };
  await page.goto(`${service.url}/usage?team=newsroom`);
  await shows('[data-forecast]', 'probably 269 to 331');
  assert.equal(await page.locator('.pace .range').count(), 1);
  await shows('.alert.warning', '29 Mar 2026, 11:10: 612.5 of 1,000 are used.');
  assert.equal(service.count('GET', '/api/v1/usage/forecast'), 0);
  now = end + 1000;
  await page.clock.fastForward(end - TIME + 1000);
  await page.waitForFunction(() => document.querySelector('[data-turning]') && !document.querySelector('.pace, .meter'));
  assert.deepEqual(errors, []);
});

test('somebody for whom a team pays is offered no plan', async () => {
  at.standing = standing({ payer: { kind: 'Team', name: 'newsroom' }, lots: undefined, limit_credits: undefined });
  await open();
  await look();
  assert.equal(await page.locator('#usage-plans').count(), 0);
  assert.equal(service.count('GET', '/api/v1/usage/what-if'), 0);
});
