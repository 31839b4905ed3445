// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The console's pages, in the order in which the navigation has them.

import type { Route } from '../lib/router';
import type { ConsoleKey } from './i18n';
import { Audit } from './pages/audit';
import { Deliveries } from './pages/deliveries';
import { Money } from './pages/money';
import { Now } from './pages/now';
import { Plans } from './pages/plans';
import { Queue } from './pages/queue';
import { Resets } from './pages/resets';
import { OneTeam, Teams } from './pages/teams';
import { User } from './pages/user';
import { Users } from './pages/users';

export interface Page extends Route {
  /** What the navigation calls it; without it the page is reached from others only. */
  name?: ConsoleKey;
  /** After `g` it leads there. */
  key?: string;
}

export const pages: readonly Page[] = [
  { path: '', page: Now, name: 'now', key: 'n' },
  { path: 'users', page: Users, name: 'users', key: 'u' },
  { path: 'users/:id', page: User },
  { path: 'teams', page: Teams, name: 'teams', key: 't' },
  { path: 'teams/:name', page: OneTeam },
  { path: 'queue', page: Queue, name: 'queue', key: 'q' },
  { path: 'plans', page: Plans, name: 'plans', key: 'p' },
  { path: 'money', page: Money, name: 'money', key: 'm' },
  { path: 'resets', page: Resets, name: 'resets', key: 'r' },
  { path: 'deliveries', page: Deliveries, name: 'deliveries', key: 'd' },
  { path: 'audit', page: Audit, name: 'audit', key: 'a' },
];
