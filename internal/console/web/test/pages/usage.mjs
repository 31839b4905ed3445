// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// One's usage, as somebody has it who uses everything that there is.

import { Stream, TIME } from '../service.mjs';

const DAY = 86_400_000;
export const iso = (time) => new Date(time).toISOString();
export const start = Date.parse('2026-02-28T16:00:00Z');
export const end = Date.parse('2026-03-31T16:00:00Z');

export const standing = (change = {}) => ({
  user_id: 'mina', plan: { name: 'starter', display_name: 'Starter' }, suspended: false,
  used_credits: 198.75, reserved_credits: 12, limit_credits: 310, remaining_credits: 99.25, running: 2, queued: 7,
  period_start: iso(start), resets_at: iso(end), limits: { unlimited: [] }, alerts: [50],
  amounts: [{ currency: 'USD', provider_cost: 1.1925, price: 0 }],
  lots: [
    { kind: 'carry_over', name: '3', credits: 12, used_credits: 10, reserved_credits: 0, remaining_credits: 2, ends_at: iso(end) },
    { kind: 'plan', credits: 280, used_credits: 188.75, reserved_credits: 12, remaining_credits: 79.25, ends_at: iso(end) },
    { kind: 'grant', name: 'goodwill-2026-03', credits: 18, used_credits: 0, reserved_credits: 0, remaining_credits: 18, ends_at: iso(end + 9 * DAY) },
  ],
  levels: [
    { level: { kind: 'User', name: 'mina' }, pays: true, suspended: false, used_credits: 198.75, reserved_credits: 12, limit_credits: 310,
      remaining_credits: 99.25, running: 2, queued: 7, period_start: iso(start), resets_at: iso(end) },
    newsroom(),
  ],
  last_period: { start: iso(Date.parse('2026-01-31T16:00:00Z')), end: iso(start), used_credits: 251.5 },
  as_of: iso(TIME),
  ...change,
});

export const newsroom = () => ({
  level: { kind: 'Team', name: 'newsroom' }, pays: false, suspended: false, used_credits: 612.5, reserved_credits: 40, limit_credits: 1000,
  remaining_credits: 347.5, running: 3, concurrent_limit: 3, queued: 9, period_start: iso(start), resets_at: iso(end),
});

const days = [];
for (let day = start - 40 * DAY, i = 0; day < TIME - DAY; day += DAY, i++) {
  days.push({ date: iso(day + 8 * 3_600_000).slice(0, 10), credits: [12, 9.5, 14, 11.25, 10, 3, 2.5][i % 7] });
}

export const forecast = {
  user_id: 'mina', answer: 'forecast', open_period: {}, allowance_credits: 310,
  used_at_end: { low: 268.5, expected: 296.25, high: 331 }, exhausted: { earliest: '2026-03-29T03:10:00Z' },
  method: 'weekly_smoothing', backtest: { origins: 61, mase: 0.78, coverage: 0.83 }, days, days_as_of: iso(TIME), as_of: iso(TIME),
};

export const names = ['訪問錄音_陳大文.m4a', 'board-meeting.mp3', '粵語播客第十二集.wav'];

export const event = (i, change = {}) => ({
  id: `00000000-0000-8000-8000-${String(i).padStart(12, '0')}`, user_id: 'mina', payer_id: 'mina', payer_kind: 'User', kind: 'charge',
  usage_type: i % 9 === 4 ? 'export' : 'transcription', credits: i % 9 === 4 ? 0.5 : 2 + (i % 13) * 0.75, credits_ms: 0, cost: 0.05,
  currency: 'USD', quantity: 1, ...(i % 9 === 4 ? {} : { duration_seconds: 120 + (i % 13) * 45 }), file_size_bytes: 4_200_000,
  occurred_at: iso(TIME - i * 7_000_000), recorded_at: iso(TIME - i * 7_000_000), period_no: 4, plan: 'starter', plan_version: 1,
  ...(i % 4 === 0 ? { metadata: { name: names[(i / 4) % 3] } } : {}),
  ...change,
});

export const events = Array.from({ length: 12 }, (_, i) =>
  event(i, i === 3 ? { kind: 'reversal', credits: -4.25, reverses: event(8).id } : i === 5 ? { price: 0.35 } : {}));

const admission = (i) => ({
  id: `10000000-0000-8000-8000-${String(i).padStart(12, '0')}`, user_id: 'mina', state: 'Queued', position: i + 1, waiting: 7,
  estimated_duration_seconds: 600 + i * 300, estimated_credits: 10 + i * 5, estimated_ms: 0, file_size_bytes: 10_000_000, priority: 0,
  created_at: iso(TIME - 4_000_000 + i * 300_000), lease_seconds: 120, lease_until: iso(TIME + 120_000),
});
const waiting = Array.from({ length: 7 }, (_, i) => admission(i));
const bound = (i) => ({
  ...waiting[i],
  ...(i === 1
    ? { binding: { level: { kind: 'User', name: 'mina' }, limit_name: 'credits', reason: 'CreditsExhausted', message: '', limit: 310, used: 198.75,
        reserved: 12, requested: 120, remaining: 99.25, unit: 'credits', resets_at: iso(end), as_of: iso(TIME) } }
    : { binding: { level: { kind: 'Team', name: 'newsroom' }, limit_name: 'concurrent', reason: 'ConcurrencyLimit', message: '', position: i + 2,
        waiting: 9, as_of: iso(TIME) },
      estimated_start: { earliest: iso(TIME + (i + 1) * 600_000), latest: iso(TIME + (i + 1) * 1_300_000), gaps: 30, since: iso(start) } }),
});

export const alert = (kind, severity, change = {}) => ({
  id: `20000000-0000-8000-8000-${kind.padStart(12, '0').slice(-12)}`, level: { kind: 'User', name: 'mina' }, kind, severity, period: 4, used: 198.75,
  limit: 310, message: `the service's words of ${kind}`, action: '', raised_at: iso(TIME - 3_600_000), ends_at: iso(end), ...change,
});

export const alerts = [
  alert('CreditsPercent', 'warning', { threshold_percent: 60, used: 186.5 }),
  alert('GrantExpiring', 'info', { grant: 'goodwill-2026-03', raised_at: iso(TIME - 2 * DAY), ends_at: iso(end + 9 * DAY) }),
  alert('PeriodReset', 'info', {
    raised_at: iso(start + 1_000), acknowledged_at: iso(start + DAY), acknowledged_by: 'oidc:mina',
    closed_period: { start: iso(start - 28 * DAY), end: iso(start), used_credits: 251.5, provider_cost: 1.5, price: 0, currency: 'USD' },
  }),
];

const bill = (name, display_name, price, included, refused) => ({
  plan: { name, display_name }, currency: 'USD', used_credits: 198.75, paid_by_grants_credits: 10, plan_credits: 188.75, included_credits: included,
  overage_credits: 0, refused_credits: refused, price_per_period: price, price_per_credit: 0.05, overage_price: 0, total: price,
});

export const largest = {
  user_id: 'mina', time_zone: 'Asia/Hong_Kong', from: '2026-02-19', to: '2026-03-21', as_of: iso(TIME - 120_000),
  work: [[48, 'interview-12'], [31.5], [12.25, 'podcast-episode-with-a-long-name-that-does-not-fit-on-a-phone']].map(([credits, job_name], i) => ({
    event_id: event(40 + i).id, usage_type: i === 1 ? 'export' : 'transcription', plan: 'starter', occurred_at: iso(TIME - (i + 1) * 2 * DAY), credits,
    credits_ms: credits * 60_000, audio_seconds: i === 1 ? 0 : credits * 60,
    amounts: [{ currency: 'USD', provider_cost: 0.25, price: i === 0 ? 1.5 : 0 }],
    ...(job_name ? { admission_id: event(60 + i).id, job_namespace: 'media', job_name } : {}),
  })),
};

/** Where the user stands is the test's to change: `at.standing` is what a new stream says first. */
export function answers(at = { standing: standing() }) {
  return {
    'GET /api/v1/usage/stream': (_, query) =>
      new Stream((stream) => (query.get('team')
        ? stream.tell('team', { team: 'newsroom', plan: { name: 'studio', display_name: 'Studio' }, effective_limits: [], levels: [newsroom()], as_of: iso(TIME) })
        : stream.tell('standing', at.standing, 'first'))),
    'GET /api/v1/usage/current': () => at.standing,
    'GET /api/v1/usage/forecast': forecast,
    'GET /api/v1/usage/events': (_, query) => (query.get('period') === '3'
      ? { user_id: 'mina', period: 3, events: [event(90, { occurred_at: iso(start - DAY) })] }
      : { user_id: 'mina', period: 4, events }),
    'GET /api/v1/admissions': { user_id: 'mina', admissions: waiting.toReversed() },
    'GET /api/v1/admissions/:id': ({ id }) => bound(waiting.findIndex((a) => a.id === id)),
    'GET /api/v1/usage/alerts': { alerts, as_of: iso(TIME) },
    'POST /api/v1/usage/alerts/:id/acknowledge': ({ id }) =>
      ({ ...alerts.find((a) => a.id === id), acknowledged_at: iso(TIME), acknowledged_by: 'oidc:mina' }),
    'GET /api/v1/usage/what-if': {
      user_id: 'mina', period: {}, as_of: iso(TIME),
      bills: [bill('free', 'Free', 0, 30, 158.75), bill('starter', 'Starter', 19.9, 280, 0), bill('pro', 'Pro', 79.5, 1200, 0)],
    },
    'GET /api/v1/analytics/largest': largest,
    'GET /api/v1/teams/:name/largest': { ...largest, team: 'newsroom', work: largest.work.map((w) => ({ ...w, user_id: 'petra' })) },
    'GET /api/v1/teams/:name/alerts': {
      alerts: [alert('TeamShare', 'warning', { level: { kind: 'Team', name: 'newsroom' }, threshold_percent: 60, used: 605, limit: 1000 })],
      as_of: iso(TIME),
    },
    'GET /api/v1/teams/:name/members': {
      team: 'newsroom', as_of: iso(TIME),
      members: [['petra', 301.25, 1, 2], ['mina', 198.75, 2, 7], ['阿強', 112.5, 0, 0]].map(([user_id, used, running, queued]) =>
        ({ user_id, team: 'newsroom', running, queued, used_credits: used, used_ms: used * 60_000 })),
    },
  };
}

export default [
  { name: 'usage', path: '/usage', ready: '[data-forecast]', answers, rows: 12 },
  { name: 'usage-team', path: '/usage?team=newsroom', ready: '.table tbody tr', answers },
  { name: 'usage-team-pays', path: '/usage?team=studio', ready: '[data-forecast]', answers, picture: false },
];
