"""What MkDocs does beside turning Markdown into pages, so that the site needs nothing from elsewhere: `make docs`.

Formulas become MathML, which browsers draw themselves. Links to files of the clone outside docs/ become the names of the files, which a
reader of the site finds in the clone; one to a file that is not there ends the build.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[`?(?P<text>[^\]]*?)`?\]\(\.\./(?P<path>[^)#]+)\)")
FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    def name(match: re.Match[str]) -> str:
        if not (ROOT / match["path"]).exists():
            raise FileNotFoundError(f"{page.file.src_path}: links to ../{match['path']}, which is not there")
        return f"`{match['path']}`"

    return LINK.sub(name, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Raises what latex2mathml raises for a formula that it does not know."""
    return FORMULA.sub(lambda match: convert(html.unescape(match["tex"]), display="block" if match["tag"] == "div" else "inline"), content)
