// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The operators' pages, with what a service in use has to show.

import { TIME } from '../service.mjs';
import { end, event, largest, iso, newsroom, standing, start } from './usage.mjs';

const DAY = 86_400_000;
const HOUR = 3_600_000;
const id = (i) => `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`;

const people = ['ada', 'chan.tai-man', 'grace', 'legal-7f3c', 'mina', 'olga', 'petra', 'wong.siu-ming'];
export const user = (user_id, i) => ({
  user_id, plan: ['free', 'starter', 'pro'][i % 3], suspended: user_id === 'grace', time_zone: i % 2 ? 'Asia/Hong_Kong' : 'UTC',
  ...(i % 3 === 1 ? { team: 'newsroom' } : {}), ...(i % 4 === 3 ? { declared_by: `quota-${user_id}` } : {}), registered_at: iso(TIME - (i + 3) * 11 * DAY),
});
export const users = people.map(user);

const level = (kind, name, change) => ({
  level: { kind, name }, pays: false, suspended: false, used_credits: 0, reserved_credits: 0, running: 0, queued: 0,
  period_start: iso(start), resets_at: iso(end), ...change,
});
const platform = level('Team', 'platform', { used_credits: 18_422.25, reserved_credits: 311, running: 38, concurrent_limit: 60, queued: 9 });
const team = (name, change, own) => ({
  name, root: false, retired: false, weight: 1, limits: {}, member_defaults: {}, effective_limits: [], members: 12, as_of: iso(TIME), ...change,
  levels: [level('Team', name, own), ...(name === 'platform' ? [] : [platform])],
});
export const teams = [
  { ...team('platform', { root: true, members: 812 }), levels: [platform] },
  { ...team('newsroom', { parent: 'platform', display_name: 'News room', plan: { name: 'team', display_name: 'Team' }, weight: 3 }), levels: [{ ...newsroom(), pays: true }, platform] },
  team('sports-and-weather', { parent: 'newsroom', display_name: '體育及天氣', members: 4 }, { used_credits: 201, limit_credits: 240, running: 1, concurrent_limit: 2, queued: 3 }),
  team('legal', { parent: 'platform', members: 31 }, { used_credits: 96, limit_credits: 4000, running: 2, concurrent_limit: 8 }),
];

const plan = (name, display_name, rank, price_per_period, limits, change = {}) => ({
  name, display_name, rank, default: rank === 0, price_per_period, currency: 'USD', features: [],
  limits: { file_size_bytes: 26_214_400 * (rank + 1) ** 2, unlimited: [], ...limits }, ...change,
});
export const plans = [
  plan('free', 'Free', 0, 0, { credits: 30, concurrent: 1, queued: 2 }),
  plan('starter', 'Starter', 1, 9.99, { credits: 300, concurrent: 2, queued: 10 }, { overage: { max_credits: 100, price_per_credit: 0.05 } }),
  plan('pro', 'Pro', 2, 29.99, { credits: 1500, concurrent: 5, queued: 50 }, { overage: { max_credits: 500, price_per_credit: 0.03 } }),
  plan('enterprise', 'Enterprise', 3, 199.99, { concurrent: 20, unlimited: ['credits', 'queued'] }),
];

const admission = (i, change) => ({
  id: id(i), user_id: 'mina', state: 'Settled', estimated_duration_seconds: 240, estimated_credits: 4, estimated_ms: 240_000,
  file_size_bytes: 4_000_000, priority: 0, created_at: iso(TIME - i * HOUR), lease_seconds: 60, lease_until: iso(TIME), ...change,
});
const admissions = [
  admission(0, { state: 'Queued', reason: 'ConcurrencyLimit' }),
  admission(1, { state: 'Admitted', stuck: 'NoHeartbeat' }),
  admission(2, { state: 'Admitted' }),
  admission(3, { charged_credits: 3.75 }),
  admission(4, { state: 'Released', release_reason: 'the node was lost' }),
  admission(5, { charged_credits: 4.1 }),
];
/** Work of several users that seems to have lost its holder, the oldest first. */
export const stuck = [['petra', 30, 'OverEstimate'], ['mina', 7, 'NoHeartbeat'], ['ada', 6, 'OverEstimate'], ['mina', 5, 'OverEstimate']].map(([user_id, hours, why], i) =>
  admission(70 + i, { user_id, state: 'Admitted', stuck: why, created_at: iso(TIME - hours * HOUR), admitted_at: iso(TIME - hours * HOUR) }));
const audit = [
  { id: 9, at: iso(TIME - 600_000), actor: 'oidc:olga', action: 'account.changed', object_kind: 'Account', object_name: id(600), user_id: 'grace', before: { suspended: false }, after: { suspended: true }, reason: 'the bill of February is open' },
  { id: 8, at: iso(TIME - 2 * HOUR), actor: 'oidc:olga', action: 'grant.given', object_kind: 'Account', object_name: id(604), user_id: 'mina', after: { lot: id(700), credits_units: 1_080_000, expires_at: iso(end + 9 * DAY) }, reason: 'for the trouble of Monday' },
  { id: 7, at: iso(TIME - DAY), actor: 'system:serviceaccount:usage-operator-system:usage-operator-manager', action: 'plan.changed', object_kind: 'UsagePlan', object_name: 'starter', before: { version: 6, credits_units: 16_800_000, concurrent: 2 }, after: { version: 7, credits_units: 18_000_000, concurrent: 2 } },
];
const delivery = (i, change) => ({
  id: id(100 + i), endpoint: 'billing-webhook', alert_id: id(200 + i), kind: 'CreditsPercent', state: 'delivered', attempts: 1,
  created_at: iso(TIME - i * HOUR), expires_at: iso(TIME + DAY), last_status: 204, ...change,
});
export const deliveries = [
  delivery(0, { state: 'dead', attempts: 16, last_status: 503, last_error: 'https://hooks.example/usage answered 503 Service Unavailable' }),
  delivery(1, { state: 'waiting', attempts: 3, endpoint: 'newsroom-chat', team: 'newsroom', last_status: 429, last_error: 'Too Many Requests', next_attempt_at: iso(TIME + 90_000) }),
  delivery(2, {}),
  delivery(3, { kind: 'PeriodReset', resent_by: 'oidc:olga' }),
];
const account = (kind, name, plan, ends, used, change) => ({
  level: { kind, name }, plan, period: 3, period_start: iso(TIME + ends - 30 * DAY), period_end: iso(TIME + ends), used_credits: used, ...change,
});
export const resets = [
  account('User', 'grace', 'free', -2 * DAY - 3 * HOUR, 0), account('User', 'wong.siu-ming', 'starter', -5 * HOUR, 300.25, { team: 'newsroom' }),
  account('Team', 'newsroom', 'team', -4 * HOUR, 1902.5), account('User', 'ada', 'free', 6 * HOUR, 12), account('User', 'mina', 'starter', DAY, 198.75, { team: 'newsroom' }),
  account('User', 'legal-7f3c', 'pro', 2 * DAY, 1044),
];
const run = (i, change) => ({
  id: id(500 + i), plan: 'free', actor: 'usage-batch@usage-operator-reset-free-29', state: 'Succeeded', started_at: iso(TIME - i * DAY - 9 * HOUR),
  updated_at: iso(TIME - i * DAY - 9 * HOUR + 4000), finished_at: iso(TIME - i * DAY - 9 * HOUR + 4000), accounts: 1204 - 90 * i, periods: 1309 - 90 * i, failures: 0, ...change,
});
export const runs = [
  run(0), run(1, { plan: 'starter', state: 'Failed', failures: 2, message: '2 accounts could not be closed' }), run(2, { plan: 'pro', accounts: 31, periods: 31 }),
  run(3, { state: 'Lost', accounts: 420, periods: 431, message: 'the run ended without a word' }),
];
const outcome = (revenue, provider_cost, refused_credits) => ({
  currency: 'USD', users: 891, periods: 2511, served_credits: 210_400.5, overage_credits: 1201, refused_credits, period_price: revenue, overage_price: 0, revenue,
  provider_cost, margin: revenue - provider_cost,
});
const simulated = {
  plan: 'free', of_plan: 'free', from: '2025-12-20', to: '2026-03-20', outcome: outcome(9120.5, 1801.12, 940), users_that_fit: 804,
  refused: [{ reason: 'CreditsExhausted', users: 87 }], present: [outcome(0, 2210.4, 120)], as_of: iso(TIME),
};
const entry = (i, change) => ({
  id: id(300 + i), user_id: people[i % people.length], limit_name: 'concurrent', reason: 'ConcurrencyLimit', position: i + 1, since: iso(TIME - i * 400_000 - 60_000),
  priority: 0, estimated_credits: 4.5, source: 'job', namespace: 'transcripts', name: `interview-${i}`, ...change,
});
const figures = (credits, price, provider_cost) => ({
  events: Math.round(credits / 4), reversals: 0, credits, credits_ms: credits * 60_000, refunded_credits: 0, plan_credits: credits, overage_credits: 0, grant_credits: 0,
  carry_over_credits: 0, audio_seconds: credits * 60, bytes: 1, tokens: 0, quantity: 1, admissions: 1, uncharged: 0, waited_seconds: 1, running_seconds: 1,
  amounts: [{ currency: 'USD', price, provider_cost }, ...(credits > 6000 ? [{ currency: 'HKD', price: 120, provider_cost: 80.5 }] : [])],
});
const margin = (change, period_price, overage_price, provider_cost) => ({
  from: '2026-02-19', to: '2026-03-21', currency: 'USD', periods: 0, ...change, period_price, overage_price, revenue: period_price + overage_price, provider_cost,
  margin: period_price + overage_price - provider_cost,
  ...(period_price + overage_price > 0 ? { margin_percent: Math.trunc(100 - (100 * provider_cost) / (period_price + overage_price)) } : {}),
});
const margins = [
  margin({ plan: 'free', periods: 5230 }, 0, 0, 212.4), margin({ plan: 'starter', periods: 891 }, 8901.09, 120.4, 1801.12),
  margin({ plan: 'pro', periods: 122 }, 3658.78, 640, 1944), margin({ plan: 'pro', currency: 'HKD', periods: 8 }, 1880, 120, 1210),
];
const date = (time) => iso(time).slice(0, 10);
/** In both currencies, by days or, one in seven, weeks. */
const marginsOver = (days) => Array.from({ length: 30 }, (_, i) => Date.parse('2026-02-19') + i * DAY).flatMap((at, i) => (i % days ? [] : [
  margin({ currency: 'HKD', from: date(at), to: date(at + days * DAY), periods: i % 4 ? 0 : 1 }, i % 4 ? 0 : 235, i % 3, 40 + (i % 5)),
  margin({ from: date(at), to: date(at + days * DAY), periods: 200 + i }, 380 + 60 * Math.sin(i / 4), i % 7 < 5 ? 30 : 9, i === 14 ? 520 : i % 7 < 5 ? 150 : 61),
]));
const period = (number, change) => ({
  number, start: iso(start - (4 - number) * 30 * DAY), end: iso(end - (4 - number) * 30 * DAY), state: 'Final', final_at: iso(end), revision: 1, plan: 'starter', limit_credits: 300,
  used_credits: 251.5, reserved_credits: 0, carry_over_credits: 12, provider_cost: 1.5, price: 9.99, currency: 'USD', amounts: [], ...change,
});

const aboutMina = {
  'GET /api/v1/users/:id': ({ id: name }) => users.find((u) => u.user_id === name) ?? user(name, 1),
  'GET /api/v1/plans': { plans },
  'GET /api/v1/usage/current': standing({
    limits: {
      credits: 310, concurrent: 2, queued: 10, file_size_bytes: 104_857_600, unlimited: [],
      set_by: [
        { limit_name: 'credits', value: 310, unit: 'credits', level: { kind: 'User', name: 'mina' } },
        { limit_name: 'concurrent', value: 2, unit: 'jobs', level: { kind: 'User', name: 'mina' } },
        { limit_name: 'daily_cost', value: 25, unit: 'money', currency: 'USD', level: { kind: 'Team', name: 'platform' } },
      ],
    },
  }),
  'GET /api/v1/admissions': { user_id: 'mina', admissions },
  'GET /api/v1/admissions/:id': ({ id: name }) => ({
    ...admissions.find((a) => a.id === name),
    binding: { level: { kind: 'Team', name: 'newsroom' }, limit_name: 'concurrent', reason: 'ConcurrencyLimit', message: 'team "newsroom": 3 of 3 jobs are running', position: 3, waiting: 9, as_of: iso(TIME) },
    estimated_start: { earliest: iso(TIME + 600_000), latest: iso(TIME + 1_500_000), gaps: 30, since: iso(start) },
  }),
  'GET /api/v1/usage/events': {
    user_id: 'mina', period: 4,
    events: [event(0), event(1, { reversed_by: id(1) }), event(2, { kind: 'reversal', reason: 'the recording was empty', recorded_by: 'oidc:olga' }), event(3)],
  },
  'GET /api/v1/analytics/largest': largest,
  'GET /api/v1/usage/history': { user_id: 'mina', periods: [period(4, { state: 'Open', used_credits: 198.75 }), period(3, { state: 'Closed' }), period(2)], as_of: iso(TIME) },
  'GET /api/v1/usage/alerts': {
    alerts: [{
      id: id(400), level: { kind: 'User', name: 'mina' }, kind: 'CreditsPercent', severity: 'info', threshold_percent: 50, period: 4, used: 155, limit: 310,
      message: '50 % of the credits are used: 155 of 310', action: '', raised_at: iso(TIME - 3 * DAY), ends_at: iso(end), acknowledged_by: 'oidc:mina',
    }],
    as_of: iso(TIME),
  },
  'GET /api/v1/usage/advice': {
    user_id: 'mina', days_as_of: iso(TIME), as_of: iso(TIME),
    advice: [
      {
        reason: 'overage_costs_more', plan: { name: 'pro', display_name: 'Pro' }, currency: 'USD', saving: 22.5,
        periods: [1, 2, 3].map((n) => ({ period: n, used_credits: 510 + 30 * n, plan_credits: 500 + 30 * n, now: 30.99 + 3.25 * n, then: 29.99 })),
      },
      {
        reason: 'better_hour',
        hours: [{ hour: 9, better_hour: 11, own_admissions: 12, own_waited: 9, admissions: 340, waited: 201, better_admissions: 120, better_waited: 6 }],
      },
      {
        reason: 'grant_lapses',
        grant: { name: 'goodwill-2026-03', expires_at: iso(end + 9 * DAY), remaining_credits: 18, recent_credits: 3.5, days_left: 20, unused_credits: 15.5 },
      },
    ],
  },
  'GET /api/v1/analytics/churn': {
    user_id: 'mina', score: 57, at_risk: true, as_of: iso(TIME),
    factors: [
      { factor: 'recency', points: 20, max_points: 40, value: 8, usual: 2 }, { factor: 'frequency', points: 17, max_points: 25, value: 5, usual: 14 },
      { factor: 'trend', points: 14, max_points: 20, value: 1_260_000, usual: 9_000_000 }, { factor: 'refusals', points: 4, max_points: 10, value: 2, usual: 0 },
      { factor: 'failures', points: 2, max_points: 5, value: 3, usual: 7 },
    ],
  },
  'GET /api/v1/audit': ({}, query) => ({ entries: audit.filter((e) => !query.has('user_id') || e.user_id === query.get('user_id')) }),
};
const user_ = (tab, picture = !tab) => ({
  name: tab ? `console-user-${tab}` : 'console-user', path: `/console/users/mina${tab ? `?tab=${tab}` : ''}`, ready: 'tbody tr', answers: () => ({ ...aboutMina }), picture,
});

/** Tries a plan with more credits and a price. */
const tried = async (page) => {
  const fields = page.locator('main form input');
  await fields.nth(0).fill('60');
  await fields.nth(4).fill('4.99');
  await page.locator('main form button').click();
  await page.locator('tbody tr').first().waitFor();
};

export default [
  {
    name: 'console-users', path: '/console/users', ready: 'tbody tr', picture: false,
    answers: () => ({ 'GET /api/v1/users': ({}, query) => ({ users: users.filter((u) => u.user_id.startsWith(query.get('prefix') ?? '')) }) }),
  },
  user_(''), user_('work'), user_('events'), user_('largest'), user_('periods'), user_('alerts'), { ...user_('advice', true), ready: '[data-score]' }, user_('audit'),
  { name: 'console-teams', path: '/console/teams', ready: 'tbody tr', picture: false, answers: () => ({ 'GET /api/v1/teams': { teams, as_of: iso(TIME) } }) },
  {
    name: 'console-team', path: '/console/teams/newsroom', ready: 'section:last-of-type tbody tr', picture: false,
    answers: () => ({
      'GET /api/v1/teams/:name': teams[1],
      'GET /api/v1/teams/:name/members': {
        team: 'newsroom', as_of: iso(TIME),
        members: people.slice(0, 5).map((user_id, i) => ({ user_id, ...(i === 3 ? { team: 'sports-and-weather' } : {}), running: i % 2, queued: i, used_credits: 40 * i + 0.25, used_ms: 0 })),
      },
    }),
  },
  {
    name: 'console-queue', path: '/console/queue', ready: 'section:last-of-type tbody tr',
    answers: () => ({
      'GET /api/v1/teams': { teams },
      'GET /api/v1/queue': {
        as_of: iso(TIME),
        levels: [
          { level: { kind: 'Team', name: 'newsroom' }, waiting: [{ limit_name: 'concurrent', count: 9 }, { limit_name: 'credits', count: 100, more: true }], entries: Array.from({ length: 6 }, (_, i) => entry(i)) },
          { level: { kind: 'User', name: 'grace' }, waiting: [{ limit_name: 'suspension', count: 1 }], entries: [entry(7, { user_id: 'grace', limit_name: 'suspension', reason: 'UserSuspended', source: 'api', namespace: undefined, name: 'web' })] },
        ],
      },
    }),
  },
  {
    name: 'console-plans', path: '/console/plans', ready: 'section:last-of-type tbody tr',
    answers: () => ({
      'GET /api/v1/plans': { plans },
      'GET /api/v1/analytics/advice': { from: '2025-12-21', to: '2026-03-21', plans: [{ plan: 'free', reason: 'plan_fits_nobody', periods: 5211, within: 402 }] },
      'GET /api/v1/analytics/utilisation': {
        from: '2026-02-19', to: '2026-03-21',
        plans: [
          { plan: 'enterprise', periods: 14, unlimited: 14, idle: 1, exhausted: 0 },
          { plan: 'free', periods: 5211, unlimited: 0, idle: 2890, exhausted: 610, deciles: [0, 0, 0, 0, 0, 12, 31, 66, 100] },
          { plan: 'starter', periods: 880, unlimited: 0, idle: 41, exhausted: 92, deciles: [2, 8, 17, 26, 38, 51, 64, 80, 99] },
        ],
      },
      'GET /api/v1/analytics/totals': {
        from: '2026-02-19', to: '2026-03-21', total: figures(1, 1, 1), groups: [],
        refusals: [
          { plan: 'free', reason: 'CreditsExhausted', served_by: 'starter', refusals: 1204, user_days: 388, peak_users: 41, credits: 9120.5 },
          { plan: 'free', reason: 'FileTooLarge', served_by: 'pro', refusals: 77, user_days: 31, peak_users: 4, credits: 1640 },
          { plan: 'starter', reason: 'QueueFull', refusals: 12, user_days: 2, peak_users: 1, credits: 48 },
        ],
      },
    }),
  },
  {
    name: 'console-money', path: '/console/money', ready: 'section:last-of-type tbody tr',
    answers: () => ({
      'GET /api/v1/plans': { plans },
      'GET /api/v1/analytics/margins': ({}, query) => ({ from: '2026-02-19', to: '2026-03-21', groups: ['plan', 'team'].includes(query.get('by')) ? margins : marginsOver(query.get('by') === 'day' ? 1 : 7) }),
      'GET /api/v1/analytics/totals': {
        from: '2026-02-19', to: '2026-03-21', total: figures(1, 1, 1), refusals: [],
        groups: marginsOver(7).filter(({ currency }) => currency === 'USD').map(({ from, to, provider_cost }) => ({ from, to, figures: figures(provider_cost * 3.6, 1, 1) })),
      },
    }),
  },
  {
    name: 'console-resets', path: '/console/resets', ready: 'section:last-of-type table', answers: () => ({
      'GET /api/v1/resets': ({}, query) => ({
        as_of: iso(TIME),
        resets: resets.filter((r) => (query.get('state') === 'coming') === (Date.parse(r.period_end) > TIME) && (!query.has('plan') || r.plan === query.get('plan'))),
      }),
      'GET /api/v1/reset-runs': { runs },
    }),
  },
  { name: 'console-deliveries', path: '/console/deliveries', ready: 'tbody tr', picture: false, answers: () => ({ 'GET /api/v1/deliveries': ({}, query) => ({ deliveries: deliveries.filter((d) => !query.has('state') || d.state === query.get('state')) }) }) },
  {
    name: 'console-spenders', path: '/console/money?tab=spenders', ready: 'tbody tr', picture: false,
    answers: () => ({
      'GET /api/v1/plans': { plans },
      'GET /api/v1/analytics/spenders': {
        month: '2026-02', currency: 'USD', currencies: ['HKD', 'USD'],
        users: people.slice(0, 5).map((user_id, i) => ({
          user_id, plan: 'pro', uses: 200 - i, credits: 1400.5 - 210 * i, price: 12.5 - i, provider_cost: 8.4 - i, previous_credits: 1200, previous_price: 3,
          previous_provider_cost: 7, growth_credits: 200.5 - 210 * i,
        })),
      },
    }),
  },
  {
    name: 'console-cohorts', path: '/console/money?tab=cohorts', ready: 'table', picture: false,
    answers: () => ({
      'GET /api/v1/analytics/cohorts': {
        from: '2025-12', to: '2026-03',
        cohorts: [{ month: '2025-12', users: 40, active: [40, 31, 28, 25] }, { month: '2026-01', users: 55, active: [55, 40, 33] }, { month: '2026-02', users: 0, active: [0, 0] }],
      },
    }),
  },
  {
    name: 'console-work', path: '/console/money?tab=done', ready: 'table', picture: false,
    answers: () => ({
      'GET /api/v1/analytics/work': {
        from: '2026-03-01', to: '2026-03-21', total: {},
        groups: [18, 19, 20].map((day) => ({
          from: `2026-03-${day}`, to: `2026-03-${day + 1}`,
          endings: { ended: 1200 + day, charged: 1100, released: 80, expired: 4, cancelled: 16 + day, failed_percent: 7, mean_wait_seconds: 3.25, mean_run_seconds: 48.5, waits: [] },
        })),
      },
    }),
  },
  {
    name: 'console-forecast', path: '/console/money?tab=forecast', ready: 'table', picture: false,
    answers: () => ({
      'GET /api/v1/analytics/forecast': {
        answer: 'forecast', until: '2026-04-19', used: { low: 18_400, expected: 20_150.5, high: 22_010 }, method: 'weekly_smoothing', as_of: iso(TIME),
        days: [{ date: '2026-03-18', credits: 640.5 }, { date: '2026-03-19', credits: 702.25 }],
      },
    }),
  },
  { name: 'console-what-if-yaml', path: '/console/plans?tab=whatif&as=yaml', ready: 'textarea', picture: false, answers: () => ({ 'GET /api/v1/plans': { plans }, 'POST /api/v1/analytics/simulate': simulated }) },
  { name: 'console-what-if', path: '/console/plans?tab=whatif', ready: '.curl', show: tried, answers: () => ({ 'GET /api/v1/plans': { plans }, 'POST /api/v1/analytics/simulate': simulated }) },
  { name: 'console-audit', path: '/console/audit', ready: 'tbody tr', answers: () => ({ 'GET /api/v1/audit': aboutMina['GET /api/v1/audit'] }) },
];
