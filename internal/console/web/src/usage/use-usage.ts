// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Where a user stands, now and whenever that changes.

import { useEffect, useState } from 'preact/hooks';
import { take, type Refused, type Schemas } from '../lib/api';
import { useApi } from '../lib/api-context';
import { makeClock, type Clock } from '../lib/clock';
import type { StreamState } from '../lib/stream';
import { useStream } from '../lib/use-stream';

export type Standing = Schemas['CurrentUsage'];
export type Alert = Schemas['Alert'];

export interface Usage {
  clock: Clock;
  state: StreamState;
  refused: Refused | undefined;
  standing: Standing | undefined;
  /** Alerts that were raised since the page was opened, the newest first. */
  news: readonly Alert[];
  /** Its period has ended by the service's clock, and where the user stands in the new one is not known yet. */
  turning: boolean;
}

/** Without a user it is about whoever calls. */
export function useUsage(user: string | undefined): Usage {
  const api = useApi();
  const [clock] = useState(makeClock);
  const [standing, setStanding] = useState<Standing>();
  const [news, setNews] = useState<readonly Alert[]>([]);
  useEffect(() => () => clock.stop(), [clock]);
  const heard = (next: Standing) => {
    clock.seen(next.as_of);
    setStanding((was) => (was && was.as_of > next.as_of ? was : next));
  };
  const { state, refused } = useStream(
    user ? `/api/v1/usage/stream?user_id=${encodeURIComponent(user)}` : '/api/v1/usage/stream',
    (name, data) => {
      if (name === 'standing') heard(data as Standing);
      if (name === 'alert') setNews((were) => [data as Alert, ...were.filter((a) => a.id !== (data as Alert).id)]);
    },
  );

  // A bar of yesterday's is worse than none: from the end of the period on it is not shown, and the stream, which tells
  // of the new one within a second, is helped by asking in case it is away.
  const ends = standing ? Date.parse(standing.resets_at) : Infinity;
  const turning = clock.now.value >= ends;
  const of = standing?.user_id;
  useEffect(() => {
    if (!turning || !of) return;
    let stopped = false;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async (pause: number) => {
      try {
        const next = await take(api.client.GET('/api/v1/usage/current', { params: { query: { user_id: of } } }));
        if (!stopped) heard(next);
      } catch {
        // The stream's state tells that the service is away.
      }
      if (!stopped) timer = setTimeout(() => void ask(Math.min(pause * 2, 60_000)), pause);
    };
    timer = setTimeout(() => void ask(2000), 1500);
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [turning, of]);

  return { clock, state, refused, standing, news, turning };
}
