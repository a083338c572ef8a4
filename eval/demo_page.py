"""The demo's page: one HTML file that needs nothing else, in light and in dark."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from eval.demo_items import (
    ChatDrawing,
    Conversation,
    DrawnPrompt,
    JudgedDrawing,
    Reconstruction,
    Turn,
)
from eval.demo_results import Demo, ScoreRow, StoredScores, compare_scores

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --card: #f1f1ee; --ink: #24262a;
  --muted: #666b72; --right: #16823e; --wrong: #c42828; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181b; --card: #222428; --ink: #e6e6e3;
  --muted: #9da2a9; --right: #56c883; --wrong: #ff7b72; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
p.note, .muted { color: var(--muted); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 1rem; }
.card { background: var(--card); border-radius: .6rem; padding: .9rem; }
.talk { display: flex; gap: 1rem; align-items: flex-start; flex-wrap: wrap; }
.talk > div { flex: 1 1 14rem; }
img { display: block; border-radius: .3rem; width: 100%; }
.talk img, .pair img { width: 9rem; }
.four { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem; margin-top: .5rem; }
figure { margin: 0; font-size: .8rem; } .right img { outline: 3px solid var(--right); }
.wrong img { outline: 3px solid var(--wrong); }
.right > b, .right > figcaption > b { color: var(--right); }
.wrong > b, .wrong > figcaption > b { color: var(--wrong); }
dl { margin: 0; } dt { font-weight: 600; } dd { margin: 0 0 .5rem; }
.pairs { display: flex; flex-wrap: wrap; gap: 1rem; } .pair { display: flex; gap: .4rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; }
pre { background: var(--card); padding: .9rem; border-radius: .6rem; overflow-x: auto; }
"""


def build_page(demo: Demo, stored: StoredScores | None, *, next_steps: Sequence[str]) -> str:
    """The whole page; `next_steps` are commands to go on with."""
    parts = [
        "<h1>What the model sees, says and draws</h1>",
        f"<p class=note>Weights {escape(demo.model_fingerprint)}, seed {demo.seed}. The content of "
        "every picture is known, so every answer and drawing is judged: short answers by the "
        "expected word, descriptions by the objects they list, drawings by GenEval's rules on what "
        "an inspector finds in the pixels. All scenes and prompts below, but not the example "
        "pictures, are held out: they contain combinations that training leaves out.</p>",
        _scores(compare_scores(demo, stored), _origin(demo, stored)),
        "<h2>Looks at pictures and talks about them</h2><div class=grid>",
        *map(_conversation, demo.conversations),
        "</div><h2>Draws from prompts, four drawings each</h2><div class=grid>",
        *map(_drawn_prompt, demo.prompts),
        "</div><h2>Draws in a chat</h2>",
        _chat_drawing(demo.chat_drawing),
        "<h2>Pictures beside what is decoded from their codes</h2><div class=pairs>",
        *map(_reconstruction, demo.reconstructions),
        "</div>",
        _costs(demo),
        f"<h2>How to go on</h2><pre>{escape(chr(10).join(next_steps))}</pre>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>unitok demo</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _origin(demo: Demo, stored: StoredScores | None) -> str:
    if stored is None:
        return "no stored scores in this checkout; measure them with: python -m eval.nano"
    return stored.origin(demo.model_fingerprint)


def _scores(rows: Sequence[ScoreRow], origin: str) -> str:
    cells = "".join(
        f"<tr><td>{escape(row.name)}</td><td>{row.live}</td><td>{row.full}</td>"
        f"<td>{row.shuffled}</td></tr>"
        for row in rows
    )
    return (
        "<h2>Right on this page, and in full</h2><table><tr><th></th><th>this page</th>"
        f"<th>stored</th><th>stored, shuffled</th></tr>{cells}</table>"
        f"<p class=note>{escape(origin)}. Shuffled: the same items with the codes or prompts of "
        "others, which shows how much is guessed.</p>"
    )


def _conversation(conversation: Conversation) -> str:
    turns = "".join(map(_turn, conversation.turns))
    return (
        f"<div class='card talk'>{_image(conversation.picture, conversation.title)}<div>"
        f"<span class=muted>{escape(conversation.title)}</span><dl>{turns}</dl></div></div>"
    )


def _turn(turn: Turn) -> str:
    expected = "" if turn.right else f" <span class=muted>expected: {escape(turn.expected)}</span>"
    return (
        f"<dt>{escape(turn.question)}</dt><dd class={_side(turn.right)}>"
        f"<b>{_mark(turn.right)}</b> {escape(turn.answer) or '(no answer)'}{expected}</dd>"
    )


def _drawn_prompt(drawn: DrawnPrompt) -> str:
    drawings = "".join(_drawing(each, drawn.prompt) for each in drawn.drawings)
    return (
        f"<div class=card><b>{escape(drawn.prompt)}</b><br><span class=muted>"
        f"{escape(drawn.task_words)}: {drawn.num_right} of {len(drawn.drawings)} right</span>"
        f"<div class=four>{drawings}</div></div>"
    )


def _drawing(drawing: JudgedDrawing, prompt: str) -> str:
    why = "" if drawing.right else f"<br>{escape(drawing.reason)}"
    return (
        f"<figure class={_side(drawing.right)}>{_image(drawing.picture, prompt)}<figcaption>"
        f"<b>{_mark(drawing.right)}</b> sees {escape(drawing.seen)}{why}</figcaption></figure>"
    )


def _chat_drawing(chat: ChatDrawing) -> str:
    said = f"<dt>{escape(chat.request)}</dt><dd>{escape(chat.answer)}</dd>"
    if chat.follow_up is not None:
        said += _turn(chat.follow_up)
    picture = "<p>(no drawing came)</p>"
    if chat.drawing is not None:
        picture = _drawing(chat.drawing, chat.request)
    return f"<div class='card talk'>{picture}<div><dl>{said}</dl></div></div>"


def _reconstruction(each: Reconstruction) -> str:
    label = "the same objects" if each.right else "not the same objects"
    return (
        f"<figure class='card {_side(each.right)}'><div class=pair>"
        f"{_image(each.original, 'original')}{_image(each.picture, 'reconstruction')}</div>"
        f"<figcaption><b>{_mark(each.right)}</b> {each.psnr:.1f} dB, {label}</figcaption></figure>"
    )


def _costs(demo: Demo) -> str:
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in demo.seconds.items())
    return (
        f"<h2>What it took</h2><p>{escape(stages)}; {sum(demo.seconds.values()):.0f} s in all, at "
        f"most {demo.peak_memory_gib:.2f} GiB of memory.</p>"
    )


def _image(picture: Image.Image, text: str) -> str:
    """The picture itself inside the page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{content}">'


def _side(right: bool) -> str:
    return "right" if right else "wrong"


def _mark(right: bool) -> str:
    return "✓" if right else "✗"
