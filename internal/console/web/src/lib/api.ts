// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The public HTTP API, typed by its contract. A page calls it at its own origin with its session's cookie; a widget
// calls it at another one with a portal token, which it is given by a function and never keeps elsewhere.

import { signal, type ReadonlySignal } from '@preact/signals';
import createClient, { type Client } from 'openapi-fetch';
import type { components, paths } from './schema';

export type Schemas = components['schemas'];

/** What gives out a token, each time that one is needed. */
export type TokenSource = () => string | Promise<string>;

export interface Api {
  readonly client: Client<paths>;
  /** A plain fetch of a path of the API, with the same credentials; for streams and files. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /**
   * The share of the user's calls that is left for this hour, 0 to 1, as the answers tell; 1 where nothing limits them.
   * A page shares them with the user's own programs, so it does not spend them all.
   */
  readonly left: ReadonlySignal<number>;
  /** Whether it speaks for whoever has signed in, and not for the bearer of a portal token. */
  readonly signedIn: boolean;
}

/** A refusal of the service, as RFC 9457 has it. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly problem: Partial<Schemas['Problem']>,
  ) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
  }
}

export function makeApi(base: string, token?: TokenSource): Api {
  const credentials = token ? 'omit' : 'same-origin';
  const authorize = async (headers: Headers) => {
    if (token) headers.set('Authorization', `Bearer ${await token()}`);
  };
  const left = signal(1);
  const noted = (answer: Response) => {
    const most = /"user";q=(\d+)/.exec(answer.headers.get('RateLimit-Policy') ?? '');
    const rest = /"user";r=(\d+)/.exec(answer.headers.get('RateLimit') ?? '');
    if (most && rest) left.value = Number(rest[1]) / Math.max(1, Number(most[1]));
    return answer;
  };
  const client = createClient<paths>({ baseUrl: base, credentials });
  client.use({
    async onRequest({ request }) {
      await authorize(request.headers);
      return request;
    },
    onResponse: ({ response }) => void noted(response),
  });
  return {
    client,
    left,
    signedIn: !token,
    async fetch(path, init = {}) {
      const headers = new Headers(init.headers);
      await authorize(headers);
      return noted(await fetch(base + path, { ...init, headers, credentials }));
    },
  };
}

/** The data of an answer; throws Refused for any other answer, and TypeError where there was none. */
export async function take<T>(
  answer: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await answer;
  if (!response.ok || data === undefined) throw new Refused(response.status, problemOf(error));
  return data;
}

/** What a body that was not JSON, such as a proxy's page, says is not shown. */
export function problemOf(error: unknown): Partial<Schemas['Problem']> {
  return typeof error === 'object' && error !== null ? error : {};
}

/** All pages of a list, at most so many. */
export async function all<P extends { next_cursor?: string }>(
  page: (cursor: string | undefined) => Promise<P>,
  most = 20,
): Promise<{ pages: P[]; more: boolean }> {
  const pages: P[] = [];
  let cursor: string | undefined;
  do {
    const next = await page(cursor);
    pages.push(next);
    cursor = next.next_cursor;
  } while (cursor && pages.length < most);
  return { pages, more: cursor !== undefined };
}
