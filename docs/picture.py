"""The picture of the front page: plan, samples and report of a quickstart on one page, for a browser screenshot.

synthaug quickstart
python docs/picture.py runs/quickstart            # writes runs/quickstart/picture.html
chromium --headless --window-size=1500,705 --screenshot=docs/quickstart.png file://$PWD/runs/quickstart/picture.html
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; overflow: hidden; font: 15px system-ui, sans-serif; background: #fbfaf8;
  color: #222; display: flex; height: 705px }}
aside {{ width: 440px; padding: 34px 0 0 34px }} h1 {{ font-size: 17px; margin: 0 0 10px }}
h1 + * {{ margin-bottom: 26px }}
table {{ border-spacing: 0 3px; width: 100% }} td {{ padding: 0 6px 0 0; white-space: nowrap }}
td:last-child {{ width: 100% }}
b {{ display: inline-block; height: 15px; vertical-align: middle }}
.real {{ background: #55585e }} .new {{ background: #9db4e8 }}
img {{ width: 90%; image-rendering: pixelated }} small {{ color: #666 }}
div {{ flex: 1; overflow: hidden }} iframe {{ border: 0; width: 1000px; height: 705px }}
</style><aside><h1>1 · The plan <small>real images, and missing images</small></h1><table>{rows}</table>
<h1>2 · Generated digits</h1><img src="dataset/samples.png"></aside>
<div><iframe src="report/report.html" scrolling="no"></iframe></div>"""
ROW = '<tr><td>{name}<td><b class="real" style="width:{real}%"></b><b class="new" style="width:{new}%"></b>'


def main(folder: Path) -> Path:
    """Write picture.html into the folder of a quickstart."""
    plan = json.loads((folder / "dataset" / "synthaug.json").read_text(encoding="utf-8"))["plan"]
    unit = 95 / max(plan["total"].values())
    rows = [
        ROW.format(name=html.escape(name), real=unit * plan["real"][name], new=unit * plan["missing"][name])
        for name in plan["total"]
    ]
    page = folder / "picture.html"
    page.write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")
    return page


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
