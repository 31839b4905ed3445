// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What operators do with their pages, and what the service is asked for by that.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { accessible, launch, newPage } from './browser.mjs';
import now, { clusters } from './pages/now.mjs';
import operators, { resets, runs, stuck, users } from './pages/operators.mjs';
import { Problem, Service } from './service.mjs';

let browser;
let service;
let on;
before(async () => {
  browser = await launch();
  service = await new Service().start();
});
after(async () => {
  await browser?.close();
  await service?.stop();
});
beforeEach(async () => {
  service.calls.length = 0;
  on = await newPage(browser);
});
afterEach(() => on.close());

/** Opens a page of the list, with answers of the test's own before its. */
async function open(name, answers = {}, query = '') {
  const found = [...now, ...operators].find((page) => page.name === name);
  service.answers = { ...found.answers(), ...answers };
  await on.page.goto(service.url + found.path + query);
  await on.page.waitForSelector('tbody tr');
  return on.page;
}

/** What a call of the page said in its body. */
const body = async (request) => {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text && JSON.parse(text);
};

test('an act says the curl that does the same, and is sent once', async () => {
  const asked = [];
  let fails = true;
  const page = await open('console-user', {
    'POST /api/v1/usage/adjustments': async ({}, {}, request) => {
      asked.push({ key: request.headers['idempotency-key'], type: request.headers['content-type'], body: await body(request) });
      if (fails) return new Problem(503, 'the database is away');
      return {};
    },
  });
  await page.getByRole('button', { name: 'Adjust' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Credits').fill('-2.5');
  await dialog.getByRole('button', { name: 'Adjust' }).click();
  assert.equal(asked.length, 0, 'without a reason nothing is sent');
  await dialog.getByLabel('Why').fill("it's double");
  await dialog.getByText('The same by curl').click();
  const line = await dialog.locator('code').textContent();
  assert.equal(line, [
    `curl -sS -X POST '${service.url}/api/v1/usage/adjustments'`, '-H "Authorization: Bearer $TOKEN"', '-H "Idempotency-Key: $(uuidgen)"',
    "-H 'Content-Type: application/json'", `-d '{"user_id":"mina","credits":-2.5,"reason":"it'\\''s double"}'`,
  ].join(' \\\n  '));
  assert.ok(await page.getByRole('dialog').evaluate((d) => d.scrollWidth <= d.clientWidth), 'the dialog is too narrow for what is in it');
  await accessible(page);
  await dialog.getByRole('button', { name: 'Adjust' }).click();
  await dialog.getByRole('alert').getByText('the database is away').waitFor();
  fails = false;
  const read = service.count('GET', '/api/v1/users/mina');
  await dialog.getByRole('button', { name: 'Adjust' }).click();
  await dialog.waitFor({ state: 'hidden' });
  assert.deepEqual(asked.map(({ body }) => body), Array(2).fill({ user_id: 'mina', credits: -2.5, reason: "it's double" }));
  assert.ok(asked[0].key && asked[0].key === asked[1].key, 'a call that is sent again has the same key');
  assert.equal(asked[0].type, 'application/json');
  await page.waitForFunction(() => !document.querySelector('dialog[open]'));
  await until(() => service.count('GET', '/api/v1/users/mina') > read);
});

/** Waits for what is not on the page. */
async function until(condition) {
  for (let i = 0; !condition(); i++) {
    assert.ok(i < 500, 'it does not come true');
    await on.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => resolve())));
  }
}

test('the other acts', async () => {
  const asked = [];
  const taken = (what) => async (names, {}, request) => {
    asked.push([what, names, await body(request)]);
    return {};
  };
  let page = await open('console-user', {
    'PATCH /api/v1/users/:id': taken('patch'), 'PUT /api/v1/users/:id/grants/:name': taken('grant'),
  });
  await page.getByRole('button', { name: 'Grant credits' }).click();
  await page.getByRole('textbox', { name: 'Name of the grant' }).fill('goodwill');
  await page.getByRole('spinbutton', { name: 'Credits' }).fill('20');
  await page.getByRole('dialog').getByLabel('Until').fill('2026-04-30T12:00');
  await page.getByRole('textbox', { name: 'Why' }).fill('the service was slow');
  await page.getByRole('dialog').getByRole('button', { name: 'Grant credits' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  await page.getByRole('button', { name: 'Change plan' }).click();
  await page.getByRole('dialog').getByLabel('Plan').selectOption('pro');
  await page.getByRole('textbox', { name: 'Why' }).fill('has ordered it');
  await page.getByRole('dialog').getByRole('button', { name: 'Change plan' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  await page.getByRole('button', { name: 'Suspend' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Suspend' }).click();
  assert.equal(asked.length, 2, 'without a reason nobody is suspended');
  await page.getByRole('textbox', { name: 'Why' }).fill('the bill is open');
  await page.getByText('The same by curl').click();
  assert.match(await page.locator('dialog[open] code').textContent(), /"suspended":true,"reason":"the bill is open"/);
  await page.getByRole('dialog').getByRole('button', { name: 'Suspend' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });

  page = await open('console-user-work', { 'POST /api/v1/admissions/:id/force-release': taken('release') });
  await page.getByRole('button', { name: /^Release/ }).first().click();
  await page.getByRole('textbox', { name: 'Why' }).fill('its node is gone');
  await page.getByRole('dialog').getByRole('button', { name: 'Release' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });

  page = await open('console-user-events', { 'POST /api/v1/usage/:id/reverse': taken('reverse') });
  await page.getByRole('button', { name: /^Reverse/ }).first().click();
  await page.getByRole('textbox', { name: 'Why' }).fill('it was silence');
  await page.getByRole('dialog').getByRole('button', { name: 'Reverse' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });

  page = await open('console-deliveries', { 'POST /api/v1/deliveries/:id/resend': taken('resend') });
  await page.getByRole('button', { name: /^Send again/ }).first().click();
  await page.getByRole('textbox', { name: 'Why' }).fill('the receiver is back');
  await page.getByRole('dialog').getByRole('button', { name: 'Send again' }).click();
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  assert.deepEqual(asked, [
    ['grant', { id: 'mina', name: 'goodwill' }, { credits: 20, expires_at: '2026-04-30T04:00:00.000Z', reason: 'the service was slow' }],
    ['patch', { id: 'mina' }, { plan: 'pro', reason: 'has ordered it' }],
    ['patch', { id: 'mina' }, { suspended: true, reason: 'the bill is open' }],
    ['release', { id: '00000000-0000-4000-8000-000000000001' }, { reason: 'its node is gone' }],
    ['reverse', { id: '00000000-0000-8000-8000-000000000000' }, { reason: 'it was silence' }],
    ['resend', { id: '00000000-0000-4000-8000-000000000100' }, { reason: 'the receiver is back' }],
  ]);
});

test('what a UserQuota declares is changed there, and the kubectl for it is shown', async () => {
  const { page } = on;
  service.answers = {
    ...operators.find(({ name }) => name === 'console-user').answers(),
    'GET /api/v1/users/:id': ({ id }) => ({ user_id: id, plan: 'free', suspended: false, time_zone: 'UTC', declared_by: 'quota-mina', registered_at: '2026-01-01T00:00:00Z' }),
  };
  await page.goto(`${service.url}/console/users/mina`);
  const line = () => page.locator('dialog[open] code').textContent();
  await page.getByRole('button', { name: 'Grant credits' }).click();
  await page.getByRole('textbox', { name: 'Name of the grant' }).fill('goodwill');
  await page.getByRole('spinbutton', { name: 'Credits' }).fill('20');
  await page.getByRole('dialog').getByLabel('Until').fill('2026-04-30T12:00');
  await page.getByText('UserQuota quota-mina declares this, so it is changed there:').waitFor();
  assert.equal(await line(), `kubectl patch userquota quota-mina --type merge \\\n  -p '{"spec":{"grants":{"goodwill":{"credits":20,"expiresAt":"2026-04-30T04:00:00.000Z"}}}}'`);
  assert.equal(await page.getByRole('textbox', { name: 'Why' }).count(), 0, 'nobody keeps a reason there');
  await accessible(page);
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Change plan' }).click();
  await page.getByRole('dialog').getByLabel('Plan').selectOption('pro');
  assert.match(await line(), /'{"spec":{"planRef":{"name":"pro"}}}'$/);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Suspend' }).click();
  assert.match(await line(), /'{"spec":{"suspended":true}}'$/);
  // There is no button that sends it, and whatever else submits the form sends nothing: what is asked for after it comes first.
  await page.locator('dialog[open] form').evaluate((form) => form.requestSubmit());
  await page.evaluate(() => fetch('/auth/session'));
  assert.ok(await page.getByRole('dialog').isVisible());
  await page.getByRole('button', { name: 'Cancel' }).click();
  assert.deepEqual(service.calls.filter(({ method }) => method !== 'GET'), []);
  // A correction is nobody's to declare.
  await page.getByRole('button', { name: 'Adjust' }).click();
  await page.getByRole('textbox', { name: 'Why' }).waitFor();
});

test('keys lead to pages and to the filter, arrows from row to row', async () => {
  const page = await open('console-users');
  await page.keyboard.press('/');
  await page.keyboard.type('mi');
  await page.getByRole('row').nth(1).getByRole('link', { name: 'mina' }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 1);
  assert.equal(new URL(page.url()).search, '?q=mi');
  assert.ok(service.calls.some(({ query }) => query.includes('prefix=mi')), 'the service is asked for what matches');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.press('Delete');
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 8);
  await page.getByRole('link', { name: 'ada', exact: true }).focus();
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'chan.tai-man');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'chan.tai-man' }).waitFor();
  assert.equal(new URL(page.url()).pathname, '/console/users/chan.tai-man');
  for (const [key, heading] of Object.entries({ q: 'Queue', t: 'Teams', p: 'Plans', m: 'Money', r: 'Resets', d: 'Deliveries', a: 'Audit', u: 'Users', n: 'Now' })) {
    await page.keyboard.press('g');
    await page.keyboard.press(key);
    await page.getByRole('heading', { level: 1, name: heading }).waitFor();
  }
  await page.keyboard.press('?');
  await page.getByRole('dialog').getByText('Audit').waitFor();
});

test('now tells what needs somebody, and what does not', async () => {
  const page = await open('console-now');
  await page.waitForSelector('[data-needs="5"]');
  assert.deepEqual(await page.locator('.needs > li').allInnerTexts(), [
    'Alerts that were given up: 1', 'Periods that a reset should have closed: 1, the first of them ended 2 days, 3 hours ago',
    'The last reset of plan starter, of 19 Mar 2026, 07:30: failed',
    ['Running work that seems stuck: 4. The oldest of it:', 'petra, running since 19 Mar 2026, 10:30: longer than estimated',
      'mina, running since 20 Mar 2026, 09:30: no heartbeat', 'ada, running since 20 Mar 2026, 10:30: longer than estimated'].join('\n'),
    'Of cluster prod-tw nothing was heard for 21 minutes: nobody looks after its objects and Jobs',
  ]);
  const level = page.getByRole('region', { name: 'Work by level' });
  assert.deepEqual(await level.locator('tbody th').allTextContents(), ['platform', 'newsroom', 'legal', 'sports-and-weather'], 'most at once first, and none that has nothing');
  // All of it passes: a run that worked is behind the one that failed, the alert is sent again, the cluster is back.
  Object.assign(service.answers, {
    'GET /api/v1/deliveries': { deliveries: [] }, 'GET /api/v1/resets': ({}, query) => ({ as_of: '2026-03-20T08:30:00Z', resets: query.get('state') === 'due' ? [{ ...resets[1] }] : [] }),
    'GET /api/v1/reset-runs': { runs: [{ ...runs[1], id: runs[0].id, state: 'Succeeded' }, runs[1]] },
    'GET /api/v1/clusters': { clusters: clusters.map((c) => ({ ...c, silent_seconds: 3 })) }, 'GET /api/v1/teams': { teams: [] },
    'GET /api/v1/admissions': { admissions: [] },
  });
  await page.clock.runFor(15_000);
  await page.waitForSelector('[data-needs="0"]');
  await page.getByText('Nothing does.').waitFor();
  await page.getByText('Nothing runs or waits below a team.').waitFor();
  await page.getByRole('link', { name: /Periods that have ended and are not closed: 1, the first of them 5 hours ago/ }).click();
  await page.getByRole('heading', { level: 1, name: 'Resets' }).waitFor();
});

test('from work that seems stuck one comes to its user, and sees that alone', async () => {
  const page = await open('console-now', {
    'GET /api/v1/users/:id': ({ id }) => users.find((user) => user.user_id === id),
    'GET /api/v1/admissions': ({}, query) => ({
      admissions: query.get('stuck') === 'true' ? stuck.filter((a) => [null, a.user_id].includes(query.get('user_id'))) : [],
    }),
  });
  await page.getByRole('link', { name: /^mina, running since/ }).click();
  await page.getByRole('heading', { level: 1, name: 'mina' }).waitFor();
  await page.getByRole('button', { name: `Release: ${stuck[1].id}` }).waitFor();
  assert.equal(await page.locator('tbody tr').count(), 1, 'the one that was named');
  await page.getByRole('searchbox').fill('');
  await page.getByRole('button', { name: `Release: ${stuck[3].id}` }).waitFor();
  assert.deepEqual(service.calls.filter(({ path, query }) => path === '/api/v1/admissions' && query.includes('user_id')).map(({ query }) => query), [
    '?user_id=mina&limit=50&stuck=true',
  ]);
  await page.locator('.asked', { hasText: 'Stuck' }).locator('select').selectOption('Any');
  await until(() => service.calls.some(({ query }) => query === '?user_id=mina&limit=50'));
  assert.equal(new URL(page.url()).search, '?tab=work');
});

test('one comes from the filter to the rows and back by arrows, and into a row by Enter', async () => {
  const page = await open('console-users', { 'GET /api/v1/users/:id': ({ id }) => users.find((user) => user.user_id === id) });
  const focused = () => page.evaluate(() => document.activeElement.textContent || document.activeElement.type);
  await page.keyboard.press('/');
  await page.keyboard.press('ArrowDown');
  assert.equal(await focused(), 'ada');
  await page.keyboard.press('ArrowDown');
  assert.equal(await focused(), 'chan.tai-man');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowUp');
  assert.equal(await focused(), 'search');
  // Esc takes what is in the filter, and then leads out of it: keys are the page's again.
  await page.keyboard.type('mi');
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 1);
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 8);
  assert.equal(await focused(), 'search');
  await page.keyboard.press('Escape');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'content');
  await page.keyboard.press('?');
  await page.getByRole('dialog').getByText('Close, or leave the filter').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('tbody tr').first().focus();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'chan.tai-man' }).waitFor();
  // The page before is gone with what had the focus: Tab goes on in this one.
  assert.equal(await page.evaluate(() => document.activeElement.id), 'content');
  await page.getByRole('button', { name: 'Grant credits' }).waitFor();
  await page.keyboard.press('Tab');
  assert.ok(await page.evaluate(() => document.activeElement.closest('main')), 'Tab is in the page');
});

test('arrows in the dialog of a row are those of its fields', async () => {
  const page = await open('console-user-work');
  await page.getByRole('button', { name: /^Release/ }).first().click();
  const why = page.getByRole('textbox', { name: 'Why' });
  await why.fill('its node is gone');
  await why.press('ArrowUp');
  assert.equal(await why.evaluate((field) => field.selectionStart), 0, 'up goes to the start of the text');
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  assert.match(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), /^Release/, 'the focus is where it was');
});

test('a table is copied as it is shown, and says so until it shows something else', async () => {
  const page = await open('console-users', {}, '?sort=-user');
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.getByRole('button', { name: 'Copy as CSV' }).press('Enter');
  await page.getByRole('status').getByText('Copied').waitFor();
  const lines = (await page.evaluate(() => navigator.clipboard.readText())).trimEnd().split(/\r?\n/);
  assert.equal(lines[0], 'User,Plan,Team,Suspended,Declared by,Time zone,Since');
  assert.deepEqual(lines.slice(1, 3).map((line) => line.split(',')[0]), ['wong.siu-ming', 'petra']);
  assert.equal(lines.length, 9);
  await page.getByRole('button', { name: /^User/ }).press('Enter');
  await page.getByRole('status').getByText('8 rows').waitFor();
  // Where the browser lets nothing be copied, that is said.
  await page.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError')); });
  await page.getByRole('button', { name: 'Copy as CSV' }).click();
  await page.getByText('The browser does not let it be copied').waitFor();
  assert.deepEqual(on.errors, []);
});

test('who waits for what is told with its source', async () => {
  const page = await open('console-queue');
  await page.locator('section:last-of-type tbody tr').first().waitFor();
  const sources = await page.locator('section:last-of-type tbody td:last-child').allTextContents();
  assert.ok(sources.includes('transcripts/interview-0') && sources.includes('api'), String(sources));
  assert.ok(!sources.some((source) => source.includes('undefined')), String(sources));
});

test('fairness is told at a glance: what teams have against what their weight stands for', async () => {
  const above = ({ name, parent, weight }, running, queued) => ({
    name, parent, weight, root: false, retired: false, limits: {}, member_defaults: {}, effective_limits: [], members: 1, as_of: '2026-03-20T08:30:00Z',
    levels: [{ level: { kind: 'Team', name }, pays: false, suspended: false, used_credits: 0, reserved_credits: 0, running, queued, period_start: '2026-03-01T00:00:00Z', resets_at: '2026-04-01T00:00:00Z' }],
  });
  const page = await open('console-queue', {
    'GET /api/v1/teams': { teams: [
      above({ name: 'platform', weight: 1 }, 8, 9), above({ name: 'newsroom', parent: 'platform', weight: 3 }, 6, 8), above({ name: 'legal', parent: 'platform', weight: 1 }, 2, 1),
      above({ name: 'idle', parent: 'platform', weight: 4 }, 0, 0),
    ] },
  });
  const rows = page.getByRole('region', { name: 'Who has how much, by weight' }).locator('tbody tr');
  await rows.first().waitFor();
  assert.deepEqual(await rows.evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.textContent))), [
    ['newsroom', '75%', '75%', '3', 'platform', '6', '8'], ['legal', '25%', '25%', '1', 'platform', '2', '1'],
  ]);
});

test('work that waits has its place and when to expect its start', async () => {
  const page = await open('console-user-work');
  const row = page.getByRole('row').filter({ hasText: 'Waiting' });
  assert.match(await row.textContent(), /team "newsroom": 3 of 3 jobs are running3.*20 Mar.*16:40.*16:55/);
  assert.equal(service.calls.filter(({ path }) => path.startsWith('/api/v1/admissions/')).length, 1, 'only what waits is asked for by itself');
});

test('a view is its URL, and nothing is read that is not shown', async () => {
  const page = await open('console-user-events');
  await page.getByText('the recording was empty').waitFor();
  for (const path of ['/api/v1/usage/current', '/api/v1/admissions', '/api/v1/usage/history', '/api/v1/usage/alerts', '/api/v1/audit']) {
    assert.equal(service.count('GET', path), 0, path);
  }
  await page.getByRole('button', { name: 'Earlier period' }).click();
  await until(() => service.calls.some(({ query }) => query.includes('period=3')));
  assert.equal(new URL(page.url()).search, '?tab=events&period=3');
  await page.getByRole('link', { name: 'Work' }).click();
  await page.getByText('the node was lost').waitFor();
  assert.equal(new URL(page.url()).search, '?tab=work');
  await page.goBack();
  await page.getByText('Period 3').or(page.getByText('Period 4')).waitFor();

  service.calls.length = 0;
  await open('console-audit', {}, '?user=mina&actor=oidc%3Aolga&kind=UsagePlan&since=2026-03-01&sort=-action');
  const [{ query }] = service.calls.filter(({ path }) => path === '/api/v1/audit');
  assert.deepEqual(Object.fromEntries(new URLSearchParams(query)), {
    user_id: 'mina', actor: 'oidc:olga', object_kind: 'UsagePlan', since: '2026-03-01T00:00:00Z', limit: '25',
  });
  assert.equal(await page.getByLabel('User', { exact: true }).inputValue(), 'mina');
  assert.equal(await page.getByRole('columnheader', { name: 'Action' }).getAttribute('aria-sort'), 'descending');
});

test('a list goes on where it ended', async () => {
  const page = await open('console-users', {
    'GET /api/v1/users': ({}, query) => query.get('cursor') === 'next'
      ? { users: [{ user_id: 'zoe', plan: 'free', suspended: false, time_zone: 'UTC', registered_at: '2026-01-01T00:00:00Z' }] }
      : { users: [{ user_id: 'yan', plan: 'free', suspended: false, time_zone: 'UTC', registered_at: '2026-01-01T00:00:00Z' }], next_cursor: 'next' },
  });
  await page.getByRole('button', { name: 'Show more' }).click();
  await page.getByRole('link', { name: 'zoe' }).waitFor();
  assert.deepEqual(await page.locator('tbody th').allTextContents(), ['yan', 'zoe']);
  assert.equal(service.count('GET', '/api/v1/users'), 2);
  assert.equal(await page.getByRole('button', { name: 'Show more' }).count(), 0);
});

test('what one may not see is said', async () => {
  service.answers = { 'GET /api/v1/deliveries': new Problem(403, 'oidc:mina may not list the deliveries') };
  await on.page.goto(`${service.url}/console/deliveries`);
  await on.page.getByText('oidc:mina may not list the deliveries').waitFor();
  assert.equal(await on.page.locator('table').count(), 0);
});

test('one may sign out here or everywhere', async () => {
  const { session } = service;
  for (const [path, name, query] of [['/console/audit', 'Sign out', ''], ['/usage', 'Sign out everywhere', '?everywhere=true']]) {
    await on.page.goto(service.url + path);
    await on.page.getByText('Signed in as').click();
    await accessible(on.page);
    await on.page.keyboard.press('Escape');
    await on.page.getByRole('button', { name, exact: true }).waitFor({ state: 'hidden' });
    await on.page.keyboard.press('Enter');
    await on.page.getByRole('button', { name, exact: true }).click();
    await on.page.getByRole('link', { name: 'Sign in' }).waitFor();
    assert.equal(service.calls.findLast((call) => call.path === '/auth/logout').query, query);
    service.session = session;
  }
});

test('who is due is reset now, for a reason', async () => {
  const asked = [];
  const page = await open('console-resets', {
    'POST /api/v1/users/:id/reset': async (names, {}, request) => {
      asked.push([names, await body(request)]);
      return { user_id: names.id, closed_periods: 1 };
    },
  }, '?plan=starter');
  await page.getByRole('region', { name: 'To be reset' }).getByRole('link', { name: 'wong.siu-ming' }).waitFor();
  assert.deepEqual(await page.locator('section:first-of-type tbody th').allTextContents(), ['wong.siu-ming']);
  assert.deepEqual(await page.locator('section:nth-of-type(2) tbody th').allTextContents(), ['mina']);
  assert.ok(service.calls.filter(({ path }) => path.startsWith('/api/v1/reset')).every(({ query }) => query.includes('plan=starter')));
  const before = service.count('GET', '/api/v1/resets');
  await page.getByRole('button', { name: 'Reset now: wong.siu-ming' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Why').fill('the report is due');
  await dialog.getByText('The same by curl').click();
  assert.match(await dialog.locator('code').textContent(), /-X POST '.*\/api\/v1\/users\/wong.siu-ming\/reset'[^]*-d '{"reason":"the report is due"}'/);
  await dialog.getByRole('button', { name: 'Reset now' }).click();
  await dialog.waitFor({ state: 'hidden' });
  assert.deepEqual(asked, [[{ id: 'wong.siu-ming' }, { reason: 'the report is due' }]]);
  await until(() => service.count('GET', '/api/v1/resets') === before + 2);

  await open('console-resets');
  assert.equal(await page.getByRole('button', { name: /^Reset now/ }).count(), 2, 'teams have no such act');
});

test('a plan is tried on the last 90 days', async () => {
  const asked = [];
  service.answers = {
    ...operators.find(({ name }) => name === 'console-what-if').answers(),
    'POST /api/v1/analytics/simulate': async ({}, {}, request) => {
      asked.push(await body(request));
      return operators.find(({ name }) => name === 'console-what-if').answers()['POST /api/v1/analytics/simulate'];
    },
  };
  const { page } = on;
  await page.goto(`${service.url}/console/plans?tab=whatif&plan=enterprise`);
  assert.equal(await page.getByRole('combobox', { name: 'Plan' }).inputValue(), 'enterprise');
  await page.getByLabel('At once').fill('30');
  await page.getByLabel('Credits beyond it').fill('500');
  await page.getByLabel('Price of each').fill('0.02');
  await page.getByRole('button', { name: 'Try it' }).click();
  await page.getByRole('rowheader', { name: 'As tried' }).waitFor();
  assert.deepEqual(asked, [{
    of_plan: 'enterprise',
    plan: {
      apiVersion: 'usage.cantonesescribe.io/v1alpha1', kind: 'UsagePlan', metadata: { name: 'enterprise' },
      spec: {
        displayName: 'Enterprise', rank: 3, limits: { concurrent: 30, fileSize: 419430400, unlimited: ['Credits', 'Queued'] },
        pricing: { currency: 'USD', perPeriod: '199.99' }, overage: { policy: 'Allow', maxCredits: 500, pricePerCredit: '0.02' },
      },
    },
  }]);
  await accessible(page);
  await page.getByText('The plan as YAML').click();
  assert.equal(await page.locator('pre.curl').textContent(), [
    'apiVersion: usage.cantonesescribe.io/v1alpha1', 'kind: UsagePlan', 'metadata:', '  name: enterprise', 'spec:', '  displayName: Enterprise', '  rank: 3',
    '  limits:', '    concurrent: 30', '    fileSize: 419430400', '    unlimited: ["Credits", "Queued"]', '  pricing:', '    currency: USD', '    perPeriod: "199.99"',
    '  overage:', '    policy: Allow', '    maxCredits: 500', '    pricePerCredit: "0.02"', '',
  ].join('\n'));
});

test('a pasted UsagePlan is tried as it is, and what is wrong with it is said', async () => {
  const asked = [];
  const { answers } = operators.find(({ name }) => name === 'console-what-if-yaml');
  const wrong = 'plan: the manifest is not one of a UsagePlan: spec.limits.concurrent: Invalid value: 0: should be greater than or equal to 1';
  service.answers = {
    ...answers(),
    'POST /api/v1/analytics/simulate': async ({}, {}, request) => {
      asked.push(await body(request));
      return asked.length === 1 ? new Problem(422, wrong) : answers()['POST /api/v1/analytics/simulate'];
    },
  };
  const { page } = on;
  await page.goto(`${service.url}/console/plans?tab=whatif&plan=pro`);
  await page.getByLabel('Tried as').selectOption('YAML');
  assert.equal(new URL(page.url()).searchParams.get('as'), 'yaml');
  const manifest = page.getByRole('textbox', { name: 'The UsagePlan that is tried' });
  assert.match(await manifest.inputValue(), /^apiVersion: usage.cantonesescribe.io\/v1alpha1\nkind: UsagePlan\nmetadata:\n  name: pro\n/);
  const text = 'kind: UsagePlan # of the repository\nspec: {limits: {concurrent: 0}}\n';
  await manifest.fill(text);
  await page.getByRole('button', { name: 'Try it' }).click();
  await page.getByRole('alert').getByText(wrong).waitFor();
  await accessible(page);
  await page.getByRole('button', { name: 'Try it' }).click();
  await page.getByRole('rowheader', { name: 'As tried' }).waitFor();
  assert.deepEqual(asked, Array(2).fill({ plan: text, of_plan: 'pro' }));
  // What was tried as a text is not what the fields say.
  await page.getByLabel('Tried as').selectOption('fields');
  await page.getByLabel('At once').waitFor();
  assert.equal(await page.getByRole('rowheader', { name: 'As tried' }).count(), 0);
});

test('of several currencies one is shown, that of the default plan unless another is chosen', async () => {
  const inCurrency = (_, query) => (query.has('currency')
    ? { month: '2026-02', currency: query.get('currency'), currencies: ['EUR', 'HKD', 'USD'],
        users: [{ user_id: `of-${query.get('currency')}`, uses: 1, credits: 2, price: 3, provider_cost: 4, previous_credits: 0, previous_price: 0, previous_provider_cost: 0, growth_credits: 2 }] }
    : new Problem(422, 'currency: is missing'));
  const sold = ['HKD', 'USD'].map((currency, i) => ({ ...operators.find(({ name }) => name === 'console-what-if').answers()['GET /api/v1/plans'].plans[i], currency, default: i === 1 }));
  const page = await open('console-spenders', { 'GET /api/v1/plans': { plans: sold }, 'GET /api/v1/analytics/spenders': inCurrency });
  await page.getByRole('rowheader', { name: 'of-USD' }).waitFor();
  const choice = page.getByLabel('Currency');
  assert.deepEqual(await choice.locator('option').allTextContents(), ['USD', 'HKD', 'EUR']);
  await choice.selectOption('EUR');
  await page.getByRole('rowheader', { name: 'of-EUR' }).waitFor();
  assert.equal(new URL(page.url()).searchParams.get('currency'), 'EUR');
  await page.reload();
  await page.getByRole('rowheader', { name: 'of-EUR' }).waitFor();
  assert.equal(await choice.inputValue(), 'EUR');
  assert.ok(service.calls.filter(({ path }) => path.endsWith('/spenders')).every(({ query }) => query.includes('currency=')), 'it is not asked without a currency');

  // Where plans may not be read the service knows.
  await open('console-spenders', {
    'GET /api/v1/plans': new Problem(403, 'no'), 'GET /api/v1/analytics/spenders': { ...inCurrency({}, new URLSearchParams('currency=USD')), currencies: ['USD'] },
  });
  await page.getByRole('rowheader', { name: 'of-USD' }).waitFor();
  assert.equal(await choice.count(), 0);
});

test('margins over time are of one currency, as a plot and a table', async () => {
  const page = await open('console-money', {}, '?step=day');
  const region = page.getByRole('region', { name: 'Revenue, cost and margin over time' });
  await region.getByRole('rowheader').first().waitFor();
  assert.equal(await region.getByRole('rowheader').count(), 30);
  assert.match(await region.locator('tbody tr').first().textContent(), /USD/);
  await page.getByRole('img', { name: /margin in USD/ }).locator('canvas').waitFor();
  await page.getByLabel('Currency').selectOption('HKD');
  await page.getByRole('img', { name: /margin in HKD/ }).locator('canvas').waitFor();
  await region.getByText('HKD').first().waitFor();
  assert.equal(await region.getByText('USD').count(), 0);
  await page.locator('select').filter({ hasText: 'Week' }).selectOption('month');
  await until(() => service.calls.some(({ path, query }) => path.endsWith('/margins') && query.includes('by=month')));
  assert.equal(new URL(page.url()).search, '?step=month&currency=HKD');
});

test('advice has its arithmetic, and the score its factors', async () => {
  const page = await open('console-user-advice');
  const advice = page.locator('[data-advice=overage_costs_more]');
  assert.match(await advice.textContent(), /overage_costs_more.*On Pro these periods would have cost less, by.*22\.50/);
  assert.deepEqual(await advice.locator('tbody tr').first().locator('th, td').allTextContents(), ['1', '540', '530', 'USD 34.24', 'USD 29.99', 'USD 4.25'].map((text) => text.replace(' ', '\u00a0')));
  assert.deepEqual(await page.locator('[data-advice=better_hour] tbody tr').locator('th, td').allTextContents(), ['09:00', '9 of 12', '201 of 340', '11:00', '6 of 120']);
  assert.match(await page.locator('[data-advice=grant_lapses]').textContent(), /goodwill-2026-03 ends on .* 18 credits remain; 3\.5 were used.*in the 20 days that are left 15\.5 of them will not be/);
  const score = page.locator('section', { has: page.getByRole('heading', { name: 'Score of leaving' }) });
  assert.match(await score.locator('dl').textContent(), /Score57at risk/);
  assert.deepEqual(await score.locator('tbody tr').nth(2).locator('th, td').allTextContents(), ['Credits in 28 days', '14 / 20', '21', '150']);
  assert.doesNotMatch(await page.locator('main').textContent(), /probab/i);
  for (const path of ['/api/v1/usage/current', '/api/v1/admissions']) assert.equal(service.count('GET', path), 0, path);

  // Who may read the user may not be who may see scores: each says so for itself.
  Object.assign(service.answers, {
    'GET /api/v1/usage/advice': { user_id: 'mina', advice: [], as_of: '2026-03-20T08:30:00Z' }, 'GET /api/v1/analytics/churn': new Problem(403, 'oidc:mina lacks the verb analytics'),
  });
  await page.reload();
  await page.getByText('There is none. It needs three closed periods').waitFor();
  await page.getByText('oidc:mina lacks the verb analytics').waitFor();
});
