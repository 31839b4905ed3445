// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Server-sent events, read with fetch: EventSource sends no Authorization and tells nothing of a refusal.

import type { Api } from './api';
import { problemOf, Refused } from './api';

/** `live` while events may arrive, `connecting` at first, `offline` from the first failure until it works again. */
export type StreamState = 'connecting' | 'live' | 'offline';

export interface StreamEvents {
  event(name: string, data: unknown): void;
  state(state: StreamState): void;
  /** It will not be tried again: the right or the thing looked at is gone. */
  refused(why: Refused): void;
}

/** Without any byte for so long the connection is dead: the service sends a comment every 15 s. */
const SILENCE = 40_000;
const LONGEST_PAUSE = 30_000;

/** One event of a stream, as the parser has gathered it. */
interface Gathered {
  name: string;
  data: string[];
}

/** Reads the lines of a stream; `field` hears of `id` and `retry`, `event` of whole events. */
export function parser(event: (name: string, data: string) => void, field: (name: 'id' | 'retry', value: string) => void) {
  let rest = '';
  let now: Gathered = { name: '', data: [] };
  const line = (text: string) => {
    if (text === '') {
      if (now.data.length > 0) event(now.name || 'message', now.data.join('\n'));
      now = { name: '', data: [] };
      return;
    }
    const colon = text.indexOf(':');
    if (colon === 0) return;
    const name = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + 1).replace(/^ /, '');
    if (name === 'event') now.name = value;
    else if (name === 'data') now.data.push(value);
    else if (name === 'id' || name === 'retry') field(name, value);
  };
  return (chunk: string) => {
    const lines = (rest + chunk).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    lines.forEach(line);
  };
}

/** Follows a stream until it is stopped: connects again after failures, with the id of the last event. */
export function follow(api: Api, path: string, on: StreamEvents): () => void {
  let stopped = false;
  let lastId = '';
  let retry = 2000;
  let failures = 0;
  let attempt: AbortController | undefined;
  let wake: (() => void) | undefined;

  const hear = async () => {
    attempt = new AbortController();
    let silence = setTimeout(() => attempt?.abort(), SILENCE);
    try {
      await listen(() => {
        clearTimeout(silence);
        silence = setTimeout(() => attempt?.abort(), SILENCE);
      });
    } finally {
      clearTimeout(silence);
    }
  };

  /** One connection, from its request to its end; tells of every byte. */
  const listen = async (heard: () => void) => {
    const headers: Record<string, string> = { Accept: 'text/event-stream' };
    if (lastId) headers['Last-Event-ID'] = lastId;
    const answer = await api.fetch(path, { headers, signal: attempt!.signal, cache: 'no-store' });
    if (!answer.ok || !answer.body) {
      const refusal = new Refused(answer.status, problemOf(await answer.json().catch(() => null)));
      const seconds = Number(answer.headers.get('Retry-After'));
      if (seconds > 0) retry = Math.min(seconds * 1000, LONGEST_PAUSE);
      throw refusal;
    }
    failures = 0;
    on.state('live');
    let end: string | undefined;
    const feed = parser(
      (name, text) => {
        const data: unknown = JSON.parse(text);
        if (name === 'end') end = (data as { reason: string }).reason;
        else if (!stopped) on.event(name, data);
      },
      (name, value) => {
        if (name === 'id') lastId = value;
        else if (/^\d+$/.test(value)) retry = Math.min(Number(value), LONGEST_PAUSE);
      },
    );
    const decoder = new TextDecoder();
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      heard();
      feed(decoder.decode(value, { stream: true }));
    }
    if (end === 'forbidden') throw new Refused(403, {});
    if (end === 'gone') throw new Refused(404, {});
    if (end === 'unauthorized') lastId = '';
  };

  const pause = (milliseconds: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const run = async () => {
    on.state('connecting');
    while (!stopped) {
      try {
        await hear();
        if (stopped) return;
        on.state('connecting');
      } catch (error) {
        if (stopped) return;
        // Nobody signed in, no right, nothing there: asking again changes nothing. All else passes.
        if (error instanceof Refused && [400, 401, 403, 404, 422].includes(error.status)) {
          on.refused(error);
          return;
        }
        failures++;
        on.state('offline');
      }
      await pause(Math.min(retry * 2 ** Math.max(0, failures - 1), LONGEST_PAUSE));
    }
  };

  const again = () => {
    wake?.();
  };
  const gone = () => attempt?.abort();
  addEventListener('online', again);
  addEventListener('offline', gone);
  void run();
  return () => {
    stopped = true;
    removeEventListener('online', again);
    removeEventListener('offline', gone);
    attempt?.abort();
    wake?.();
  };
}
