// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What the service does now.

import { Stream, TIME } from '../service.mjs';
import { deliveries, resets, runs, stuck, teams } from './operators.mjs';

export const live = (second, change = {}) => ({
  as_of: new Date(TIME + second * 1000).toISOString(), replica: 'usaged-7d9f-x2x8k', seconds: 1,
  database_up: true, admitted: 640 + 160 * Math.sin(second / 9), queued: 24 + 12 * Math.sin(second / 5), refused: 30 + 20 * Math.cos(second / 11),
  refused_by_reason: { CreditsExhausted: 24.5, ConcurrencyLimit: 4.25, FileTooLarge: 0.5 },
  completed: 612.5, charged_credits: 2216.783, in_flight: 24, streams: 3, running: 51, waiting: 7,
  today: { day: new Date(TIME).toISOString().slice(0, 10), uses: 28911 + 600 * second, credits: 79412.25 + 2216.5 * second },
  ended: { since: new Date(TIME - 900_000).toISOString(), ended: 541_230, failed: 3_561, failed_percent: 0 }, ...change,
});

export const clusters = [
  { uid: '00000000-0000-4000-8000-000000000901', name: 'prod-hk', first: true, first_seen_at: '2025-01-08T03:00:00Z', silent_seconds: 4.25 },
  { uid: '00000000-0000-4000-8000-000000000902', name: 'prod-tw', first: false, first_seen_at: '2025-11-20T03:00:00Z', silent_seconds: 1260 },
];

export default [{
  name: 'console-now', path: '/console', ready: '.u-legend',
  answers: () => ({
    'GET /api/v1/live': new Stream((stream) => {
      for (let second = -120; second <= 0; second++) stream.tell('live', live(second));
    }),
    'GET /api/v1/deliveries': ({}, query) => ({ deliveries: deliveries.filter((d) => d.state === query.get('state')) }),
    'GET /api/v1/resets': ({}, query) => ({ as_of: new Date(TIME).toISOString(), resets: resets.slice(0, query.get('state') === 'overdue' ? 1 : 3) }),
    'GET /api/v1/reset-runs': { runs },
    'GET /api/v1/admissions': { admissions: stuck },
    'GET /api/v1/teams': { teams },
    'GET /api/v1/clusters': { clusters },
  }),
}];
