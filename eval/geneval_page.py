"""The page of a GenEval run: every prompt, its pictures with what the detector saw, and why.

One HTML file beside the results. The pictures stay where they are and are linked; boxes are drawn
over them. It works without a network, on a phone, in light and in dark.
"""

import json
import os
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from eval.geneval_results import ImageResult
from eval.report import BenchmarkReport

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --card: #f1f1ee; --ink: #24262a;
  --muted: #62676e; --right: #16823e; --wrong: #c42828; --line: #d3d3ce; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181b; --card: #222428; --ink: #e6e6e3;
  --muted: #9da2a9; --right: #56c883; --wrong: #ff7b72; --line: #3a3d43; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  max-width: 80rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 0; }
p { margin: .3rem 0; } .muted { color: var(--muted); font-size: .85rem; overflow-wrap: anywhere; }
.note { border-left: 4px solid var(--wrong); padding: .3rem .8rem; background: var(--card); }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid var(--line); }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; }
form { position: sticky; top: 0; z-index: 1; background: var(--paper); padding: .6rem 0;
  display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; }
select { font: inherit; padding: .2rem .4rem; max-width: 100%; }
.prompts { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); }
.prompt { background: var(--card); border-radius: .6rem; padding: .8rem; }
.pictures { display: grid; gap: .7rem; margin-top: .5rem;
  grid-template-columns: repeat(4, minmax(0, 1fr)); }
@media (max-width: 34rem) { .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
figure { margin: 0; font-size: .8rem; }
.view { position: relative; border-radius: .3rem; overflow: hidden; outline: 3px solid; }
.right .view { outline-color: var(--right); } .wrong .view { outline-color: var(--wrong); }
.view img, .view svg { display: block; width: 100%; height: auto; }
.view svg { position: absolute; inset: 0; }
.view rect { fill: none; vector-effect: non-scaling-stroke; }
.view .rim { stroke: #000; stroke-width: 4; opacity: .6; } .view .box { stroke-width: 2; }
figcaption { margin-top: .4rem; white-space: pre-line; overflow-wrap: anywhere; }
.right figcaption b { color: var(--right); } .wrong figcaption b { color: var(--wrong); }
.key { font-weight: 600; border-bottom: 3px solid; }
[hidden] { display: none !important; }
"""

# Shows what fits both choices and hides prompts without such pictures.
_SCRIPT = """
const form = document.querySelector("form");
function show() {
  const task = form.task.value, verdict = form.verdict.value;
  let shown = 0;
  for (const prompt of document.querySelectorAll(".prompt")) {
    let own = 0;
    for (const picture of prompt.querySelectorAll("figure")) {
      picture.hidden = verdict !== "" && !picture.classList.contains(verdict);
      own += picture.hidden ? 0 : 1;
    }
    prompt.hidden = own === 0 || (task !== "" && prompt.dataset.task !== task);
    shown += prompt.hidden ? 0 : own;
  }
  form.querySelector("output").textContent = shown + " pictures";
}
form.addEventListener("change", show);
show();
"""
# Told apart in light, in dark, and over most pictures; the rim around a box helps over the others.
_BOX_COLORS = ("#ffd60a", "#32d5ff", "#ff5fd2", "#7cff5f", "#ff9f43", "#b39bff")


def build_page(report: BenchmarkReport, results: Sequence[ImageResult], folder: Path) -> str:
    """The whole page, to be stored in `folder`; results of one prompt stand together."""
    parts = [
        *_head(report),
        _filters([group.group for group in report.groups]),
        '<div class="prompts">',
        *(
            _prompt(list(own), folder)
            for _, own in groupby(results, key=lambda result: Path(result.filename).parent.parent)
        ),
        "</div>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(report.benchmark)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _head(report: BenchmarkReport) -> Iterator[str]:
    settings = report.settings
    yield f"<h1>{escape(report.benchmark)}: {report.metrics['overall']:.5f}</h1>"
    yield (
        f"<p>Detector <b>{escape(str(settings['detector']))}</b>, hash "
        f"{escape(str(settings['detector_fingerprint']))}; colours by "
        f"{escape(str(settings['colors'] or 'nothing: no prompt asks for one'))}.</p>"
    )
    generation = settings["generation"]
    if generation is not None:
        yield (
            f'<p class="muted">Drawn by {escape(str(generation["model"]))} '
            f"({escape(str(generation['model_fingerprint']))}), seed {generation['seed']}, "
            f"{escape(json.dumps(generation['sampling']))}</p>"
        )
    yield from (f'<p class="note">{escape(note)}</p>' for note in report.notes)
    rows = "".join(
        f"<tr><td>{escape(group.group)}</td><td>{group.num_items}</td><td>{group.score:.4f}</td>"
        "</tr>"
        for group in report.groups
    )
    yield f"<table><tr><th>task</th><th>pictures</th><th>score</th></tr>{rows}</table>"


def _filters(tasks: Sequence[str]) -> str:
    choices = "".join(f"<option>{escape(task)}</option>" for task in tasks)
    return (
        '<form><label>Task <select name="task"><option value="">all</option>'
        f'{choices}</select></label><label>Verdict <select name="verdict">'
        '<option value="">all</option><option value="right">right</option>'
        '<option value="wrong">wrong</option></select></label><output class="muted"></output>'
        "</form>"
    )


def _prompt(results: Sequence[ImageResult], folder: Path) -> str:
    first = results[0]
    number = Path(first.filename).parent.parent.name
    num_right = sum(result.correct for result in results)
    return (
        f'<section class="prompt" data-task="{escape(first.tag)}"><h2>{escape(first.prompt)}</h2>'
        f'<div class="muted">{escape(number)}, {escape(first.tag)}: {num_right} of '
        f"{len(results)} right</div>"
        f'<div class="pictures">{"".join(_picture(result, folder) for result in results)}</div>'
        "</section>"
    )


def _picture(result: ImageResult, folder: Path) -> str:
    kept: dict[str, list[list[float]]] = json.loads(result.details)
    path = Path(result.filename)
    with Image.open(path) as image:
        width, height = image.size
    link = quote(Path(os.path.relpath(path, folder)).as_posix())
    mark, side = ("✓", "right") if result.correct else ("✗", "wrong")
    return (
        f'<figure class="{side}"><div class="view"><img loading="lazy" src="{link}" '
        f'width="{width}" height="{height}" alt="{escape(result.prompt)}">'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{_boxes(kept)}</svg></div>'
        f"<figcaption><b>{mark}</b> {_seen(kept)}"
        f"{escape(chr(10) + result.reason if result.reason else '')}</figcaption></figure>"
    )


def _boxes(kept: dict[str, list[list[float]]]) -> str:
    return "".join(
        f'<rect class="rim" {place}/><rect class="box" stroke="{color}" {place}>'
        f"<title>{escape(class_name)} {score:.2f}</title></rect>"
        for color, class_name, (*box, score) in _colored(kept)
        for place in [_place(box)]
    )


def _place(box: Sequence[float]) -> str:
    left, top, right, bottom = box
    sides = f'width="{max(right - left, 0):.1f}" height="{max(bottom - top, 0):.1f}"'
    return f'x="{left:.1f}" y="{top:.1f}" {sides}'


def _seen(kept: dict[str, list[list[float]]]) -> str:
    """The detections in words, underlined in the colour of their boxes."""
    words = [
        f'<span class="key" style="border-color: {color}">{escape(class_name)}</span> {score:.2f}'
        for color, class_name, (*_, score) in _colored(kept)
    ]
    return f"sees {', '.join(words)}" if words else "sees nothing"


def _colored(kept: dict[str, list[list[float]]]) -> Iterator[tuple[str, str, list[float]]]:
    """Colour, class name and [x1, y1, x2, y2, score] of each detection; a colour per class."""
    for number, (class_name, rows) in enumerate(kept.items()):
        for row in rows:
            yield _BOX_COLORS[number % len(_BOX_COLORS)], class_name, row
