"""The page's style: light and dark, telephone and paper. One scale of blues, orange for what stands out.

Blue and orange are told apart by all common kinds of colour vision; no meaning rests on colour alone. Text has a
contrast of 4.5 at least on whatever lies below it, in either scheme.
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff", "panel": "#f4f6f8", "line": "#d5dbe1", "ink": "#171c22", "faint": "#545e69",
    "mark": "#2f6cab", "loud": "#b85408", "shared": "#c9ccd1", "gone": "#efe3d3", "range": "#0f2b47",
    "focus": "#b85408",
    "s0": "#e9f1f9", "s1": "#cfe1f2", "s2": "#aecdea", "s3": "#86b3df", "s4": "#6098d0", "s5": "#2f6cab",
    "s6": "#1d4f85", "s7": "#0f3156",
}  # fmt: skip
DARK = {
    "paper": "#12161b", "panel": "#1a2027", "line": "#333d48", "ink": "#e7ebef", "faint": "#a5b0bb",
    "mark": "#5a9bd8", "loud": "#f0a04b", "shared": "#59616b", "gone": "#4a3d2c", "range": "#e7f1fb",
    "focus": "#f0a04b",
    "s0": "#1d2a38", "s1": "#1d3a57", "s2": "#214d78", "s3": "#2a639a", "s4": "#5a95d0", "s5": "#84b3e2",
    "s6": "#adcef0", "s7": "#dcebfa",
}  # fmt: skip
ON_LIGHT = {"shared": "#171c22", "gone": "#171c22"} | {f"s{k}": "#171c22" if k < 5 else "#ffffff" for k in range(8)}
ON_DARK = {"shared": "#ffffff", "gone": "#f4ece0"} | {f"s{k}": "#ffffff" if k < 4 else "#0c1116" for k in range(8)}
"""What is written on each colour."""


def _variables(colours: dict[str, str], on: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items()) + "".join(
        f"--on-{name}:{value};" for name, value in on.items()
    )


_FILLS = "".join(f".{name}{{fill:var(--{name})}}.on-{name}{{fill:var(--on-{name})}}" for name in ON_LIGHT)

STYLE = f"""
:root{{color-scheme:light dark;{_variables(LIGHT, ON_LIGHT)}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK, ON_DARK)}}}}}
{_FILLS}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%;scroll-padding-top:1rem}}
body{{margin:0 auto;max-width:70rem;padding:2rem clamp(1rem,4vw,2.5rem) 3rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}}
h1{{font-size:clamp(1.6rem,5vw,2.25rem);line-height:1.15;margin:0;letter-spacing:-.015em;overflow-wrap:anywhere}}
h2{{font-size:1.25rem;line-height:1.25;margin:0}}
h3{{font-size:.9375rem;line-height:1.4;margin:1.5rem 0 .5rem;font-weight:600}}
p{{margin:.5rem 0}}
a{{color:var(--mark);text-underline-offset:.2em}}
code,pre{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.875em}}
:focus-visible{{outline:2px solid var(--focus);outline-offset:2px}}
.brand{{margin:0 0 .25rem;color:var(--faint);font-size:.875rem}}
.verdict{{font-size:1.0625rem;max-width:46rem;overflow-wrap:anywhere}}
.verdict::first-letter{{text-transform:capitalize}}
.tiles{{display:grid;grid-template-columns:repeat(4,1fr);gap:.75rem;margin:1.25rem 0}}
.tiles div{{background:var(--panel);border-radius:8px;padding:.75rem 1rem}}
.tiles dt{{color:var(--faint);font-size:.8125rem}}
.tiles dd{{margin:0;font-size:1.625rem;line-height:1.25;font-weight:650;letter-spacing:-.01em;white-space:nowrap}}
.tiles small{{display:block;font-size:.8125rem;font-weight:400;letter-spacing:0;color:var(--faint);white-space:normal}}
nav{{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:1.5rem 0 0;font-size:.875rem}}
section{{margin-top:2.5rem;padding-top:1.5rem;border-top:1px solid var(--line);min-width:0}}
.told{{color:var(--faint);max-width:46rem;margin:.375rem 0 1rem;overflow-wrap:anywhere}}
.notes{{color:var(--faint);font-size:.875rem;padding-left:1.25rem;overflow-wrap:anywhere}}
.two{{grid-template-rows:auto auto auto auto}}.two>section{{display:grid;grid-template-rows:subgrid;grid-row:span 4;
align-content:start}}
.two,.pair{{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 2rem;align-items:start}}
.ways{{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 2rem}}
.group+.group{{margin-top:1.5rem}}
figure{{margin:0 0 1rem;min-width:0}}
figcaption{{font-size:.875rem;color:var(--faint);margin:.375rem 0}}
figcaption strong{{color:var(--ink);font-weight:600}}
svg{{display:block;max-width:100%;overflow:visible}}
svg text{{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-size:11px;
font-variant-numeric:tabular-nums}}
.axis text,.legend text,.curve text{{fill:var(--faint)}}
.to-scale{{margin:1rem 0 0}}
.whole{{fill:var(--line)}}.part{{fill:var(--loud)}}
.treemap{{width:100%;height:auto}}
.treemap text{{font-size:11px;pointer-events:none}}
.frame{{fill:none;stroke:var(--paper);stroke-width:2.5;pointer-events:none}}
.scale{{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem 1rem;font-size:.8125rem;color:var(--faint);
margin:.5rem 0}}
.scale .what{{flex:0 1 auto}}
.scale .legend{{flex:1 1 16rem;max-width:24rem;width:auto}}
.key{{display:inline-flex;align-items:center;gap:.375rem}}
table{{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}}
caption{{text-align:left;color:var(--faint);font-size:.8125rem;padding-bottom:.375rem}}
th{{font-weight:400;text-align:left}}
thead th{{color:var(--faint);font-size:.8125rem;vertical-align:bottom}}
.bars,.heat{{table-layout:fixed}}
.bars .name,.heat .name{{width:9.75rem}}
.bars col.number{{width:3.75rem}}
.bars tbody th,.heat tbody th{{font-size:.75rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;
padding:0 .5rem 0 0}}
.bars td,.heat td,.bars th,.heat th{{padding-top:0;padding-bottom:0}}
.bars .number,.bars thead th:last-child{{text-align:right;white-space:nowrap;padding-left:.5rem}}
.bars th:first-child,.heat th:first-child{{padding-left:0}}
.bars td.number{{font-size:.8125rem}}
.index{{display:inline-block;min-width:1.25rem;color:var(--faint)}}
.grid{{stroke:var(--line);stroke-width:1}}
.average{{stroke:var(--loud);stroke-width:1.5;stroke-dasharray:4 3}}
.mark{{fill:var(--mark)}}.loud{{fill:var(--loud)}}
.stem{{stroke:var(--line);stroke-width:2}}
.range{{stroke:var(--range);stroke-width:1.5}}
.scroll{{overflow-x:auto;max-width:100%}}
.plain th,.plain td{{padding:.3rem 1rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}}
.plain th,.plain td{{white-space:nowrap}}.plain .number{{text-align:right}}
.plain .wide{{white-space:normal;min-width:15rem}}
.plain code{{overflow-wrap:anywhere}}
pre{{margin:0;padding:.75rem 1rem;background:var(--panel);border-radius:8px;line-height:1.6;width:max-content;
min-width:100%}}
.scroll:has(pre){{border-radius:8px}}
ol{{padding-left:1.25rem}}
summary{{cursor:pointer;color:var(--mark);padding:.25rem 0}}
.curve{{width:100%;height:auto;max-width:34rem}}
.curve .route{{fill:none;stroke:var(--faint);stroke-width:1.5;opacity:.6}}
.curve .baseline{{stroke:var(--faint);stroke-dasharray:2 4}}
.curve .limit{{stroke:var(--loud);stroke-width:1.5;stroke-dasharray:7 4}}
.curve text.baseline,.curve text.limit{{stroke:none}}.curve text.limit{{fill:var(--loud)}}
.curve .yes{{fill:var(--mark)}}.curve .no{{fill:var(--paper);stroke:var(--loud);stroke-width:2}}
.curve .far{{fill:none;stroke:var(--loud);stroke-width:2}}.curve .ring{{fill:none;stroke:var(--mark);stroke-width:2}}
footer{{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--faint);font-size:.8125rem;
overflow-wrap:anywhere}}
@media screen and (max-width:48rem){{.two,.pair,.ways{{grid-template-columns:minmax(0,1fr)}}
.tiles{{grid-template-columns:repeat(2,minmax(0,1fr))}}body{{padding-top:1.25rem}}
.bars .name,.heat .name{{width:8.25rem}}
.two>section{{display:block}}}}
@media print{{body{{max-width:none;padding:0;font-size:10pt}}nav{{display:none}}
section{{margin-top:1.25rem;padding-top:.75rem}}figure,tr,.tiles,.group{{break-inside:avoid}}h2,h3,.told{{break-after:avoid}}
.bars .name,.heat .name{{width:8rem}}.plain th,.plain td,.plain .wide{{white-space:normal;min-width:0}}
.scroll{{overflow:visible}}pre{{white-space:pre-wrap;width:auto}}
*{{-webkit-print-color-adjust:exact;print-color-adjust:exact}}}}
"""
