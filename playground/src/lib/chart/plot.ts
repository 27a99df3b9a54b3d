// How a chart looks, as options of uPlot: axes, lines, band, dashed marks. Colours are given; it knows no model.
import type uPlot from 'uplot';
import { number, short } from '../format';
import { faded } from './colours';

export interface Look {
  line: string;
  text: string;
  grid: string;
  mark: string;
  surface: string;
  font: string;
}

/** Points get a marker where there are at most this many. */
const MARKED = 60;
const ROLLBACK_DASH = [4, 4];

export interface PlotState {
  smoothed: boolean;
  log: boolean;
  /** Read while drawing. */
  marks: () => readonly number[];
  range: () => [number, number];
}

export function optionsOf(width: number, height: number, look: Look, state: PlotState): uPlot.Options {
  const dense = (plot: uPlot) => plot.data[0].length > MARKED;
  const axis: uPlot.Axis = {
    stroke: look.text,
    font: look.font,
    grid: { stroke: look.grid, width: 1 },
    ticks: { show: false },
    border: { show: false },
  };
  const hidden: uPlot.Series = { scale: 'y', stroke: undefined, points: { show: false }, spanGaps: true };
  const raw = state.smoothed ? faded(look.line, 0.3) : look.line;
  return {
    width,
    height,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: () => state.range() },
      y: state.log ? { distr: 3 } : { range: (_, low, high) => around(low, high) },
    },
    axes: [
      {
        ...axis,
        size: 26,
        gap: 6,
        grid: { show: false },
        space: 48,
        incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000],
        values: (_, splits) => splits.map((value) => (Number.isInteger(value) && value >= 0 ? short(value) : '')),
      },
      { ...axis, size: 54, gap: 6, space: 34, values: (_, splits) => splits.map((value) => (value === null ? '' : number(value))) },
    ],
    series: [
      {},
      {
        scale: 'y',
        stroke: raw,
        width: state.smoothed ? 1 : 1.75,
        spanGaps: true,
        points: { show: (plot) => !dense(plot), size: state.smoothed ? 4 : 6, width: 1.5, stroke: raw, fill: state.smoothed ? raw : look.surface },
      },
      { scale: 'y', stroke: look.line, width: 2, spanGaps: true, points: { show: false } },
      hidden,
      hidden,
    ],
    bands: [{ series: [3, 4], fill: faded(look.line, 0.1) }],
    hooks: { drawClear: [(plot) => marks(plot, look, state.marks())] },
  };
}

/** Some room above and below; of one value alone, a range around it. */
function around(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const room = high > low ? (high - low) * 0.08 : Math.max(Math.abs(low) * 0.5, 0.5);
  // What is never negative needs no room below zero.
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

function marks(plot: uPlot, look: Look, revisions: readonly number[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = look.mark;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash(ROLLBACK_DASH.map((length) => length * devicePixelRatio));
  ctx.beginPath();
  for (const revision of revisions) {
    const left = Math.round(plot.valToPos(revision, 'x', true));
    if (left < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
  }
  ctx.stroke();
  ctx.restore();
}
