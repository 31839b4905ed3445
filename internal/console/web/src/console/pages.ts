// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The console's pages, in the order in which the navigation has them.

import type { Route } from '../lib/router';
import type { ConsoleKey } from './i18n';
import { Now } from './pages/now';

export interface Page extends Route {
  /** What the navigation calls it; without it the page is reached from others only. */
  name?: ConsoleKey;
  /** After `g` it leads there. */
  key?: string;
}

export const pages: readonly Page[] = [
  { path: '', page: Now, name: 'now', key: 'n' },
];
