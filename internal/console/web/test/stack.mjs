// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The whole product on this machine, as `make run` brings it up: PostgreSQL, a control plane, the programs, an OpenID
// provider.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const root = new URL('../../../../', import.meta.url).pathname;
const exec = promisify(execFile);

/** Starts it; `flags` are further ones of usaged. */
export async function startStack(flags = []) {
  const { url, kubectl, advance, stop } = await bringUp('run', flags);
  await kubectl(['apply', '-k', 'config/samples']);
  await kubectl(['apply', '-f', 'hack/demo/users.yaml']);
  await kubectl(['apply', '-f', '-'], backend);
  const token = await kubectl(['-n', 'transcripts', 'create', 'token', 'backend', '--audience=usaged']);
  let key = 0;
  /** A call as the backend; its answer's JSON. */
  const call = async (method, path, body) => {
    const answer = await fetch(url + path, {
      method, headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json', 'Idempotency-Key': `web-${key++}` },
      body: body && JSON.stringify(body),
    });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? '' : await answer.text()}`);
    return answer.json();
  };
  return { url, call, kubectl, advance, stop };
}

/** Starts it after a year of a hundred users, whose end is now: internal/testing/year. */
export const startYear = () => bringUp('year', []);

async function bringUp(how, flags) {
  assert.ok(process.env.KUBEBUILDER_ASSETS, 'KUBEBUILDER_ASSETS is not set: run `make` with the target that brought you here');
  const program = spawn(`${root}bin/stack`, [how, ...flags], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(program, 'exit');
  const stop = async () => {
    program.kill('SIGINT');
    await ended;
  };
  let said = '';
  const up = new Promise((resolve) => {
    program.stdout.setEncoding('utf8').on('data', (text) => {
      said += text;
      if (said.includes('Ctrl-C stops everything')) resolve();
    });
  });
  await Promise.race([up, ended.then(([code]) => assert.fail(`the stack has ended with ${code}:\n${said}`))]);
  const exported = (name) => new RegExp(`export ${name}='?([^'\\n]+?)'?\\n`).exec(said)[1];
  const url = exported('USAGED');
  const kubectl = async (args, input) => {
    const run = exec(`${process.env.KUBEBUILDER_ASSETS}/kubectl`, args, { env: { ...process.env, KUBECONFIG: exported('KUBECONFIG') }, cwd: root });
    run.child.stdin.end(input);
    return (await run).stdout.trim();
  };
  /** Has the programs take the time to be later by a duration, such as 1h. It does not go back. */
  const advance = (duration) => writeFile(exported('USAGE_TEST_CLOCK'), duration);
  return { url, kubectl, advance, stop };
}

// Who charges the users of the demo, and gives out tokens for them.
const backend = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: backend, namespace: transcripts}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: backend, namespace: transcripts}
rules:
- {apiGroups: [usage.cantonesescribe.io], resources: [users], verbs: [get, spend, adjust]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: backend, namespace: transcripts}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: backend}
subjects:
- {kind: ServiceAccount, name: backend, namespace: transcripts}
`;
