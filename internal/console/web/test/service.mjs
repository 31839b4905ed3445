// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// A service that the pages are tested with: it serves the bundles with the policy that the real one sends, and answers
// as the test has it. What the real one answers is tested with it, in Go; here what the pages make of any answer.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

const dist = new URL('../dist/', import.meta.url);

export const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** When the tests take place. */
export const TIME = Date.parse('2026-03-20T08:30:00Z');

const types = { html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8' };

/** A refusal, for an answer to return or to throw. */
export class Problem {
  constructor(status, detail) {
    Object.assign(this, { status, body: { type: 'about:blank', title: 'Refused', status, detail } });
  }
}

export class Service {
  /** What is answered, by method and path with :names: a value or a function of (names, query, request). */
  answers = {};
  session = { user: 'mina', username: 'oidc:mina', expires_at: '2026-03-21T08:30:00Z' };
  /** Open streams, and how often each path was asked. */
  streams = new Set();
  calls = [];
  /** Whether it can be reached at all. */
  away = false;
  #server;

  async start() {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => response.destroy(error));
    });
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Cuts what is open, and takes nothing new until `back`. */
  leave() {
    this.away = true;
    this.#server.closeAllConnections();
  }

  back() {
    this.away = false;
  }

  /** Tells an event on all open streams of a path. */
  tell(path, name, data, id) {
    for (const stream of this.streams) if (stream.path === path) stream.tell(name, data, id);
  }

  count(method, path) {
    return this.calls.filter((call) => call.method === method && call.path === path).length;
  }

  async #answer(request, response) {
    if (this.away) return request.socket.destroy();
    const url = new URL(request.url, 'http://service');
    const path = url.pathname;
    this.calls.push({ method: request.method, path, query: url.search, headers: request.headers });
    const { origin } = request.headers;
    const foreign = origin && origin !== this.url ? this.origins?.includes(origin) : false;
    if (foreign) {
      response.setHeader('Access-Control-Allow-Origin', origin);
      response.setHeader('Access-Control-Expose-Headers', 'ETag, Retry-After, RateLimit, RateLimit-Policy');
      if (request.method === 'OPTIONS') {
        response.setHeader('Access-Control-Allow-Methods', 'GET, POST');
        response.setHeader('Access-Control-Allow-Headers', 'authorization, last-event-id, content-type');
        return response.writeHead(204).end();
      }
    }
    if (path.startsWith('/api/')) return this.#api(request, response, url);
    if (path === '/auth/session') return this.session ? send(response, 200, this.session) : send(response, 401, {});
    if (path === '/auth/logout') {
      this.session = null;
      return response.writeHead(204).end();
    }
    response.setHeader('Content-Security-Policy', policy);
    response.setHeader('X-Content-Type-Options', 'nosniff');
    const file = path === '/widget.js' ? 'widget.js'
      : path.startsWith('/assets/') ? path.slice('/assets/'.length)
      : path.startsWith('/console') ? 'console.html' : path === '/usage' ? 'usage.html' : '';
    if (!/^[\w.]+$/.test(file)) return response.writeHead(404).end();
    response.setHeader('Content-Type', types[file.split('.').pop()]);
    response.end(await readFile(new URL(file, dist)));
  }

  async #api(request, response, url) {
    for (const [name, value] of Object.entries(this.headers?.() ?? {})) response.setHeader(name, value);
    if (this.authorize && !this.authorize(request)) return send(response, 401, new Problem(401, 'the token is not good').body);
    for (const [pattern, answer] of Object.entries(this.answers)) {
      const [method, path] = pattern.split(' ');
      const names = method === request.method && match(path, url.pathname);
      if (!names) continue;
      const made = typeof answer === 'function' ? await answer(names, url.searchParams, request) : answer;
      if (made instanceof Problem) return send(response, made.status, made.body);
      if (made instanceof Stream) return this.#stream(request, response, url.pathname, made);
      return send(response, 200, made);
    }
    return send(response, 404, new Problem(404, `the test has no answer to ${request.method} ${url.pathname}`).body);
  }

  #stream(request, response, path, { first }) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    response.write('retry: 100\n\n');
    const stream = {
      path,
      lastId: request.headers['last-event-id'],
      tell: (name, data, id) => response.write(`${id ? `id: ${id}\n` : ''}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`),
      end: (reason) => {
        stream.tell('end', { reason });
        response.end();
      },
    };
    this.streams.add(stream);
    response.on('close', () => this.streams.delete(stream));
    first?.(stream);
  }
}

/** An answer that goes on: `first` is told when it is opened. */
export class Stream {
  constructor(first) {
    this.first = first;
  }
}

function send(response, status, body) {
  response.writeHead(status, { 'Content-Type': status < 400 ? 'application/json' : 'application/problem+json' });
  response.end(JSON.stringify(body));
}

function match(pattern, path) {
  const want = pattern.split('/');
  const got = path.split('/');
  if (want.length !== got.length) return null;
  const names = {};
  for (const [i, part] of want.entries()) {
    if (part.startsWith(':')) names[part.slice(1)] = decodeURIComponent(got[i]);
    else if (part !== got[i]) return null;
  }
  return names;
}
