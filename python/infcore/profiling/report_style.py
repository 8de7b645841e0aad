"""The report's style sheet: system fonts, light and dark, colours that colour-blind readers can tell apart."""

from infcore.profiling.svg_time import N_SHADES

# After Okabe and Ito, some darker so that they stand out on white.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#b5569a", "#c99700", "#3d9fd6", "#6b6b6b", "#8c510a")

_BASE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #e3e7ec; --paper: #ffffff; --page: #f4f6f8;
  --good: #0a7d4f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa5b4; --line: #2c3440; --paper: #171c24; --page: #0f131a;
    --good: #4cc38a; --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 56px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 12px; }
header p { margin: 4px 0; color: var(--soft); max-width: 80ch; }
header .facts { color: var(--ink); font-variant-numeric: tabular-nums; }
section, .banner, .tiles > div { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
section { padding: 20px 22px; margin-top: 18px; }
.banner { padding: 10px 16px; margin-top: 18px; border-left-width: 5px; }
.banner ul { margin: 4px 0 0; padding-left: 20px; }
.banner.good { border-left-color: var(--good); } .banner.good b { color: var(--good); }
.banner.bad { border-left-color: var(--bad); } .banner.bad b { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 14px; margin-top: 18px; }
.tiles > div { padding: 12px 16px; }
.tiles small { display: block; color: var(--soft); }
.tiles strong { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 16px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 7px; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: 13px; }
tbody tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.facts-table th { width: 190px; color: var(--soft); font-weight: 600; }
.facts-table td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.note { color: var(--soft); margin: 12px 0 0; }
.badge { display: inline-block; font-size: 11px; font-weight: 600; padding: 0 7px; border-radius: 9px;
  border: 1px solid #c99700; color: #946f00; }
@media (prefers-color-scheme: dark) { .badge { color: #f0c649; } }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 22px 28px; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 2px; }
.legend { font-size: 13px; color: var(--soft); display: flex; flex-wrap: wrap; gap: 2px 16px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: inherit; fill: var(--soft); } svg .tick { font-size: 11.5px; } svg .axis { font-size: 12px; }
svg .value { font-size: 11px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .thin { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
svg .dashed { stroke-dasharray: 6 4; } svg .hollow { fill: var(--paper); stroke-width: 1.8; }
svg .rule { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 4; opacity: 0.7; }
svg .front { fill: none; stroke: var(--soft); stroke-width: 1.4; stroke-dasharray: 2 4; }
svg .heading { font-size: 12.5px; font-weight: 600; fill: var(--ink); }
svg .area { fill: var(--soft); opacity: 0.28; } svg .shade { fill: var(--soft); opacity: 0.1; }
svg .band { opacity: 0.14; }
.legend .dashes { height: 0; width: 16px; border-radius: 0; border-top: 2px dashed; vertical-align: middle; }
.heat { align-items: center; margin: 8px 0 2px; }
.legend + .grid2 { margin-top: 14px; } .heat i { width: 18px; height: 12px; margin: 0; border-radius: 0; }
.legend .warm { background: var(--soft); opacity: 0.25; }
code { font-size: 13px; }
.wide { margin-top: 8px; } h3 { font-size: 15px; margin: 18px 0 6px; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""

N_COLORS = len(_COLORS)
# The number of the colour of what is no policy but a bound: the page's own grey.
BOUND_COLOR = N_COLORS

# Kinds of faults, each of its own colour; the last is for kinds that are not known here.
FAULT_COLORS = {
    "crash": "#b3261e",
    "slow": "#c99700",
    "hang": "#6a3d9a",
    "errors": "#e07b39",
    "lost_completions": "#b5569a",
    "partition": "#0072b2",
    "freeze_signals": "#2aa198",
    "": "#6b6b6b",
}


def _rules() -> str:
    colors = [*_COLORS, "var(--soft)"]
    rows = [
        f".c{i} {{ fill: {color}; }} .l{i} {{ stroke: {color}; }} .b{i} {{ background: {color}; }} "
        f".d{i} {{ border-color: {color}; }}"
        for i, color in enumerate(colors)
    ]
    rows += [
        f".f{i} {{ fill: {color}; }} .k{i} {{ background: {color}; }}" for i, color in enumerate(FAULT_COLORS.values())
    ]
    # Ever more of one blue; what is (nearly) always busy stands out in another colour.
    blues = (f"rgb(0 114 178 / {8 + 92 * i / (N_SHADES - 1):.0f}%)" for i in range(1, N_SHADES))
    shades = ["var(--line)", *blues, "#d55e00"]
    rows += [f".h{i} {{ stroke: {color}; }} .g{i} {{ background: {color}; }}" for i, color in enumerate(shades)]
    return "\n".join(rows) + "\n"


STYLE = _BASE + _rules()
