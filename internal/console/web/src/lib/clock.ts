// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The service's clock, as its answers tell it: the one that decides when a period ends. The browser's own may be wrong.

import { signal, type ReadonlySignal } from '@preact/signals';

export interface Clock {
  /** Now by the service's clock, in milliseconds; changes every second. */
  readonly now: ReadonlySignal<number>;
  /** Tells what time an answer was made at. */
  seen(asOf: string): void;
  stop(): void;
}

export function makeClock(): Clock {
  let ahead = 0;
  const now = signal(Date.now());
  const tick = () => {
    now.value = Date.now() + ahead;
  };
  const timer = setInterval(tick, 1000);
  return {
    now,
    seen(asOf) {
      // The answer was on its way for a moment, which is less than what is shown of a time.
      ahead = new Date(asOf).getTime() - Date.now();
      tick();
    },
    stop: () => clearInterval(timer),
  };
}
