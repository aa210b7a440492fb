"""The page that raters open: one file, no server, nothing from the network, and nothing that tells a method."""

import base64
import html
import json

import cv2
import numpy as np

from jsplat.labelsets.labelset import LabelSet
from jsplat.study.plan import Plan
from jsplat.study.script import SCRIPT, STYLE

_BODY = """
<section id=intro><h1>Which mask is better?</h1>
<p>You will see photographs of heads. On each, the parts of the face are painted over in colours: that is a
<b>mask</b>. A good mask follows the parts you see, with nothing missing, nothing added, and left and right not
confused.</p>
<p>There are two kinds of question. <b>Two masks</b> beside one photograph: choose the better one, or say that you see
no difference. <b>One mask</b>: rate it from 1 (bad) to 5 (excellent). Some questions have an obvious answer; they are
there to see that nobody answers blindly.</p>
<p class=keys><kbd>←</kbd> <kbd>→</kbd> better mask&emsp;<kbd>↓</kbd> no difference&emsp;<kbd>1</kbd>…<kbd>5</kbd>
rating&emsp;<kbd>Backspace</kbd> one back&emsp;hold <kbd>Space</kbd> photograph without colours</p>
<p>There are @COUNT@ questions. You can close the page and go on later in the same browser. At the end you save one file
and send it back; nothing leaves this computer before.</p>
<p id=unkept hidden>This browser keeps nothing for this page: please answer everything in one go.</p>
<button id=start>Start</button></section>
<section id=ask hidden>
<header><progress id=bar max=@COUNT@ value=0></progress><span id=count aria-live=polite></span></header>
<h2 id=question></h2><div id=pictures></div><div id=buttons></div>
<footer><button id=back class=quiet>Back</button>
<label>Strength of the colours <input id=strength type=range min=20 max=100 value=60></label></footer>
<p class=legend>@LEGEND@</p><p class=small>Left and right in the names are the person's own.</p></section>
<section id=end hidden><h1>Done. Thank you.</h1><p>Save your answers and send the file back.</p>
<button id=save>Save answers</button> <button id=review class=quiet>Back to the last question</button>
<p><button id=again class=quiet>Another person answers on this computer</button></p></section>
"""


def _url(picture: np.ndarray, kind: str) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if kind == "jpeg" else []
    data = cv2.imencode(f".{kind}", picture, quality)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _layer(mask: np.ndarray, labelset: LabelSet) -> np.ndarray:
    """The mask's colours as BGRA: background clear, ignored pixels in their own."""
    solid = np.where(mask > 0, np.uint8(255), np.uint8(0))
    return np.dstack([labelset.colorize(mask)[..., ::-1], solid])


def page(plan: Plan, labelset: LabelSet) -> str:
    """The study as one HTML file: ids, pictures and class names; no methods, no people's names, no key."""
    items = [
        {
            "id": item.id,
            "photo": _url(cv2.cvtColor(item.photo, cv2.COLOR_RGB2BGR), "jpeg"),
            "masks": [_url(_layer(mask, labelset), "png") for mask in item.masks],
        }
        for item in plan.items
    ]
    data = json.dumps({"study": plan.study, "items": items}).replace("<", "\\u003c")
    used = np.unique(np.concatenate([np.unique(mask) for item in plan.items for mask in item.masks]))
    legend = "".join(
        f"<span><i style='background:rgb{labelset.colors[i]}'></i>{html.escape(labelset.names[i])}</span>"
        for i in used.tolist()
        if 0 < i < len(labelset)
    )
    body = _BODY.replace("@COUNT@", str(len(items))).replace("@LEGEND@", legend)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>Which mask is better?</title><style>{STYLE}</style><main>{body}</main>"
        f"<script type='application/json' id=data>{data}</script><script>{SCRIPT}</script></html>\n"
    )
