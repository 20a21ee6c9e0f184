"""The report's style sheet; the colours are those of a worker's live page."""

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #f3f5f8; --card: #ffffff; --line: #dde2ea; --track: #e8ecf2;
  --text: #172030; --muted: #566173; --accent: #1a5fd0; --base: #a65a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --card: #161c25; --line: #2a3340; --track: #232c38;
    --text: #e8edf4; --muted: #9fabbb; --accent: #6aa9ff; --base: #f2b25c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums;
}
main { max-width: 1100px; margin: 0 auto; padding: 1rem clamp(0.8rem, 2vw, 2rem) 2rem; display: grid; gap: 1rem;
  grid-template-columns: minmax(0, 1fr); }
h1, h2, h3, p, dl, dd, ul, figure { margin: 0; padding: 0; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-bottom: 0.4rem; }
h3 { font-size: 0.95rem; }
p + p { margin-top: 0.5rem; }
p { max-width: 75ch; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.9rem 1rem; }
.headline { font-size: 1.2rem; line-height: 1.4; }
.hint, .about dt { color: var(--muted); font-size: 0.9rem; }
.read { margin-top: 0.7rem; font-size: 0.93rem; }
.about { display: flex; flex-wrap: wrap; gap: 0.4rem 1.6rem; margin-top: 0.5rem; }
.about dd { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
th, td { text-align: right; padding: 0.3rem 0.4rem; border-bottom: 1px solid var(--line); font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-size: 0.85rem; vertical-align: bottom; }
@media (max-width: 520px) {
  table, thead th { font-size: 0.8rem; }
  th, td { padding: 0.25rem 0.15rem; }
}
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 280px), 1fr)); gap: 1rem; }
.wide { max-width: 480px; }
svg { display: block; width: 100%; max-width: 600px; height: auto; }
svg text { fill: var(--muted); font-size: 10.5px; }
svg text.name { fill: var(--text); font-weight: 600; }
.grid { stroke: var(--line); }
.curve, .interval { fill: none; stroke: var(--accent); stroke-width: 1.6; }
.diagonal { stroke: var(--muted); stroke-dasharray: 4 4; }
.dot { fill: var(--accent); }
.dot.base { fill: var(--base); }
.bars { list-style: none; display: grid; gap: 0.4rem; max-width: 600px; }
.bars li { display: grid; grid-template-columns: 7rem 1fr 4rem; gap: 0.7rem; align-items: center; }
.bars b { text-align: right; }
.track { height: 14px; border-radius: 4px; background: var(--track); overflow: hidden; }
.track span { display: block; height: 100%; background: var(--accent); }
@media print {
  :root { --page: #ffffff; --card: #ffffff; --line: #c8cdd6; --track: #e8ecf2; --text: #000000; --muted: #444444;
    --accent: #1a5fd0; --base: #a65a00; color-scheme: light; }
  body { font-size: 11pt; }
  main { padding: 0; }
  section, header { border: 0; padding: 0.3rem 0; }
  figure, table, .bars { break-inside: avoid; }
  h2 { break-after: avoid; }
  .track, .track span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
