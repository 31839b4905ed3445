// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// A plot of numbers over time, by uPlot, in the colours of the theme.

import { useEffect, useRef, useState } from 'preact/hooks';
import type uPlot from 'uplot';
import { useI18n } from './i18n';

export interface Series {
  name: string;
  /** A custom property of the theme, such as '--accent'. */
  colour: string;
  values: readonly (number | null)[];
}

/** From the first to the last moment; of a single one, which has no length of its own, so much before and behind it. */
function span(times: ArrayLike<number>, around: number): [number, number] {
  const first = times[0] ?? 0;
  const last = times[times.length - 1] ?? first;
  return first === last ? [first - around, last + around] : [first, last];
}

/** `label` says to those who cannot see it what the plot shows; the numbers themselves belong in a table or text beside it. */
export function Plot({ label, times, series, height = 200, days = false }: {
  label: string;
  /** Seconds since 1970. */
  times: readonly number[];
  series: readonly Series[];
  height?: number;
  /** Each time is a day of UTC, and few enough to be seen one by one. */
  days?: boolean;
}) {
  const i18n = useI18n();
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [Draw, setDraw] = useState<typeof uPlot>();
  useEffect(() => void import('uplot').then((module) => setDraw(() => module.default)), []);
  // What is drawn anew, when the theme changes, is the latest.
  const data = useRef<uPlot.AlignedData>([[]]);
  data.current = [times, ...series.map((s) => s.values)] as uPlot.AlignedData;
  const names = series.map((s) => `${s.name}${s.colour}`).join('\n');

  useEffect(() => {
    if (!Draw) return undefined;
    const element = place.current!;
    const draw = () => {
      const style = getComputedStyle(element);
      // Custom properties that are made of light-dark() have no colour of their own: a probe has it computed.
      const colour = (name: string) => {
        element.style.setProperty('color', `var(${name})`);
        const computed = getComputedStyle(element).color;
        element.style.removeProperty('color');
        return computed;
      };
      const ink = colour('--minor');
      const grid = colour('--line');
      const axis: uPlot.Axis = {
        stroke: ink, font: `12px ${style.fontFamily}`, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 },
      };
      const when = (s: number) => (days ? i18n.day(new Date(s * 1000).toISOString().slice(0, 10)) : i18n.time(s * 1000));
      plot.current?.destroy();
      plot.current = new Draw(
        {
          ...(days ? { tzDate: (s: number) => Draw.tzDate(new Date(s * 1000), 'Etc/UTC') } : {}),
          width: element.clientWidth,
          height,
          padding: [12, days ? 48 : 36, 0, 0],
          cursor: { drag: { x: false, y: false } },
          scales: { x: { range: () => span(data.current[0], days ? 86_400 : 60) }, y: { range: (_, least, most) => [Math.min(0, least * 1.1), most > 0 ? most * 1.1 : 1] } },
          axes: [
            { ...axis, values: (_, ticks) => ticks.map(when), space: 100, ...(days ? { incrs: [1, 2, 7, 14, 28, 56].map((n) => n * 86_400) } : {}) },
            { ...axis, values: (_, ticks) => ticks.map((v) => i18n.number(v)), size: 60 },
          ],
          series: [
            { label: i18n.t('time'), value: (_, s) => (s === null || s === undefined ? '' : when(s)) },
            ...series.map((s) => ({
              label: s.name, stroke: colour(s.colour), width: 2, points: { show: days },
              value: (_: uPlot, v: number | null) => (v === null ? '' : i18n.number(v, { maximumFractionDigits: 2 })),
            })),
          ],
        },
        data.current,
        element,
      );
    };
    draw();
    const resized = new ResizeObserver(() => {
      if (plot.current && element.clientWidth !== plot.current.width) plot.current.setSize({ width: element.clientWidth, height });
    });
    resized.observe(element);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', draw);
    return () => {
      dark.removeEventListener('change', draw);
      resized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [Draw, names, height, days, i18n.locale]);

  useEffect(() => plot.current?.setData(data.current));
  return <div ref={place} class="plot" role="img" aria-label={label} style={{ minHeight: `${height + 32}px` }} />;
}
