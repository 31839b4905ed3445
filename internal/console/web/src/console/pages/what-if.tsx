// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What the last 90 days would have been on a plan that is tried out.

import { useState } from 'preact/hooks';
import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Figure, Trouble } from '../../lib/parts';
import { Table } from '../../lib/table';
import { useI18n, type ConsoleKey } from '../i18n';
import { Amount, Bar, Choice } from '../parts';

type Plan = Schemas['OfferedPlan'];
const limits = ['credits', 'concurrent', 'queued', 'fileSize'] as const;
const prices = ['perPeriod', 'maxCredits', 'pricePerCredit'] as const;
const names = [...limits, ...prices];
type Draft = Record<(typeof names)[number], string>;

const titles: Record<(typeof names)[number], ConsoleKey> = {
  credits: 'credits', concurrent: 'atOnce', queued: 'waiting', fileSize: 'fileBytes', perPeriod: 'price', maxCredits: 'overageMost', pricePerCredit: 'overagePrice',
};
const unlimited = { credits: 'Credits', concurrent: 'Concurrent', queued: 'Queued', fileSize: 'FileSize' } as const;

function draftOf(plan: Plan | undefined): Draft {
  const l = plan?.limits;
  const text = (value: number | undefined) => (value === undefined ? '' : String(value));
  return {
    credits: text(l?.credits), concurrent: text(l?.concurrent), queued: text(l?.queued), fileSize: text(l?.file_size_bytes),
    perPeriod: text(plan?.price_per_period), maxCredits: text(plan?.overage?.max_credits), pricePerCredit: text(plan?.overage?.price_per_credit),
  };
}

/** The manifest of the plan that is tried; a limit that is empty is none. */
export function manifestOf(plan: Plan, draft: Draft): Record<string, unknown> {
  const bound = limits.filter((name) => draft[name] !== '');
  const free = limits.filter((name) => draft[name] === '');
  return {
    apiVersion: 'usage.cantonesescribe.io/v1alpha1',
    kind: 'UsagePlan',
    metadata: { name: plan.name },
    spec: {
      displayName: plan.display_name, rank: plan.rank, ...(plan.default ? { default: true } : {}),
      ...(plan.features.length > 0 ? { features: plan.features } : {}),
      limits: {
        ...Object.fromEntries(bound.map((name) => [name, Number(draft[name])])), ...(free.length > 0 ? { unlimited: free.map((name) => unlimited[name]) } : {}),
      },
      pricing: { currency: plan.currency, perPeriod: draft.perPeriod || '0' },
      ...(plan.carry_over_credits ? { carryOver: { maxCredits: plan.carry_over_credits } } : {}),
      ...(draft.maxCredits ? { overage: { policy: 'Allow', maxCredits: Number(draft.maxCredits), pricePerCredit: draft.pricePerCredit || '0' } } : {}),
    },
  };
}

/** YAML of objects, lists of texts, texts and numbers. JSON's texts are YAML's. */
export function yamlOf(value: Record<string, unknown>, indent = ''): string {
  return Object.entries(value).map(([name, of]) => {
    if (Array.isArray(of)) return `${indent}${name}: [${of.map((item) => JSON.stringify(item)).join(', ')}]\n`;
    if (typeof of === 'object' && of !== null) return `${indent}${name}:\n${yamlOf(of as Record<string, unknown>, `${indent}  `)}`;
    return `${indent}${name}: ${typeof of === 'string' && /^[A-Za-z][\w.\/]*$/.test(of) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(of) ? of : JSON.stringify(of)}\n`;
  }).join('');
}

export function WhatIf({ plans }: { plans: readonly Plan[] }) {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [asked, choose] = useParam('plan', plans[0]?.name ?? '');
  const plan = plans.find((p) => p.name === asked) ?? plans[0];
  const [edited, edit] = useState<{ of: string; draft: Draft }>();
  const draft = edited && edited.of === plan?.name ? edited.draft : draftOf(plan);
  const [as] = useParam('as', 'limits');
  const [text, setText] = useState<string>();
  const [latest, setLatest] = useState<{ of?: string; busy?: boolean; done?: Schemas['PlanSimulation']; error?: Error }>({});
  const [copied, setCopied] = useState(false);
  if (!plan) return null;
  const manifest = manifestOf(plan, draft);
  const yaml = yamlOf(manifest);
  // What was tried in another way, or of another plan's users, is not what is asked now.
  const of = `${as}/${plan.name}`;
  const state = latest.of === of ? latest : {};
  const run = async () => {
    setLatest({ of, busy: true });
    try {
      const body = { plan: as === 'yaml' ? (text ?? yaml) : manifest, of_plan: plan.name } as Schemas['SimulationRequest'];
      setLatest({ of, done: await take(api.client.POST('/api/v1/analytics/simulate', { body })) });
    } catch (cause) {
      setLatest({ of, error: cause instanceof Error ? cause : new Error(String(cause)) });
    }
  };
  const { done } = state;
  const rows = done && [...done.present.map((o) => ({ ...o, on: t('asItIs') })), { ...done.outcome, on: t('tried') }];
  return (
    <section class="card">
      <h2>{t('tab.whatif')}</h2>
      <p class="minor">{t('whatIfWhat')}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        <Bar>
          <label class="asked">
            <span>{t('usersOf')}</span>
            <select value={plan.name} onChange={(event) => choose(event.currentTarget.value)}>
              {plans.map((p) => <option key={p.name}>{p.name}</option>)}
            </select>
          </label>
          <Choice name="as" title={t('tryAs')} absent="limits" options={[['limits', t('tryAs.limits')], ['yaml', t('tryAs.yaml')]]} />
          {as !== 'yaml' && names.map((name) => (
            <label key={name} class="asked">
              <span>{name === 'perPeriod' || name === 'pricePerCredit' ? t('inCurrency', { what: t(titles[name]), currency: plan.currency }) : t(titles[name])}</span>
              <input
                type="text" inputMode="decimal" pattern={(prices as readonly string[]).includes(name) ? '[0-9]+([.][0-9]+)?' : '[0-9]+'} value={draft[name]} autocomplete="off"
                placeholder={(limits as readonly string[]).includes(name) ? t('unlimited') : '0'}
                onInput={(event) => edit({ of: plan.name, draft: { ...draft, [name]: event.currentTarget.value.trim() } })}
              />
            </label>
          ))}
          {as !== 'yaml' && <button disabled={state.busy}>{t('tryIt')}</button>}
        </Bar>
        {as === 'yaml' && (
          <div class="manifest">
            <label>
              <span class="minor">{t('manifest')}</span>
              <textarea rows={16} spellcheck={false} autocomplete="off" required value={text ?? yaml} onInput={(event) => setText(event.currentTarget.value)} />
            </label>
            <button disabled={state.busy}>{t('tryIt')}</button>
          </div>
        )}
      </form>
      {state.error && <Trouble error={state.error} />}
      {done && (
        <>
          <dl class="figures">
            <Figure name={t('fits')}>{i18n.number(done.users_that_fit)}</Figure>
            {done.refused.map((r) => <Figure key={r.reason} name={t('fitsNot')} note={r.reason}>{i18n.number(r.users)}</Figure>)}
          </dl>
          <Table<NonNullable<typeof rows>[number]>
            caption={t('tab.whatif')} file={`what-if-${plan.name}`} prefix="w" filter="none" rows={rows} rowKey={(o) => `${o.on}/${o.currency}`}
            columns={[
              { key: 'on', title: t('plan'), heads: true, value: (o) => o.on },
              { key: 'users', title: t('users'), end: true, value: (o) => o.users, show: (o) => i18n.number(o.users) },
              { key: 'served', title: t('served'), end: true, value: (o) => o.served_credits, show: (o) => i18n.credits(o.served_credits) },
              { key: 'refused', title: t('refusedCredits'), end: true, value: (o) => o.refused_credits, show: (o) => i18n.credits(o.refused_credits) },
              { key: 'revenue', title: t('revenue'), end: true, value: (o) => o.revenue, show: (o) => <Amount value={o.revenue} currency={o.currency} /> },
              { key: 'cost', title: t('cost'), end: true, value: (o) => o.provider_cost, show: (o) => <Amount value={o.provider_cost} currency={o.currency} /> },
              { key: 'margin', title: t('margin'), end: true, value: (o) => o.margin, show: (o) => <Amount value={o.margin} currency={o.currency} /> },
            ]}
          />
        </>
      )}
      {as !== 'yaml' && (
        <details>
          <summary>{t('asYAML')}</summary>
          <pre class="curl" tabIndex={0}><code>{yaml}</code></pre>
          {navigator.clipboard && (
            <button type="button" class="quiet" onClick={() => void navigator.clipboard.writeText(yaml).then(() => setCopied(true))}>
              {copied ? t('copied') : t('copy')}
            </button>
          )}
        </details>
      )}
    </section>
  );
}
