"""What tests ask of a page: its elements as a tree, its data, and whether it fetches or runs anything but ours."""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.helpers import ROOT

VOID = {"meta", "input", "br", "link", "img"}
SHAPES = {"path", "rect", "line", "circle"}  # of SVG, which end themselves


@dataclass
class Page:
    """scripts: those that run. data: of each section, by its id. ids: all of them. texts: what a reader sees."""

    html: str
    scripts: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def section(self, key: str) -> str:
        """Its HTML."""
        return re.search(rf'<section id="{key}">(.*?)</section>', self.html, re.S)[1]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open, self.section, self.kind = page, [], "", ""

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        assert len(known) == len(attributes), f"<{tag}> has an attribute twice"
        self.page.tags.append((tag, known))
        if "id" in known:
            self.page.ids.append(known["id"])
        if tag == "section":
            self.section = known["id"]
        if tag not in VOID:
            self.open.append(tag)
        self.kind = known.get("type", "text/javascript") if tag == "script" else ""

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open}"
        self.open.pop()

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script" and self.kind == "application/json":
            self.page.data[self.section] = json.loads(data)
        elif inside == "script":
            self.page.scripts.append(data)
        elif inside != "style":
            self.page.texts.append(data)


def read(html: str) -> Page:
    """The page; fails where its elements are not closed as they were opened, an id stands twice, or a block of data is not JSON."""
    page = Page(html)
    reader = _Reader(page)
    reader.feed(html)
    reader.close()
    assert not reader.open, reader.open
    assert len(page.ids) == len(set(page.ids)), sorted(page.ids)
    return page


def assert_safe(page: Page) -> None:
    """Nothing is fetched; no script, handler or address of anybody else is in it, and its policy lets only its own scripts run."""
    (policy,) = [known["content"] for tag, known in page.tags if known.get("http-equiv") == "Content-Security-Policy"]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts]
    assert digests == allowed and policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]
    for tag, known in page.tags:
        assert tag not in ("iframe", "object", "embed", "link", "base", "form", "img"), tag
        for name, value in known.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset", "action", "formaction"), (tag, name)
            if name in ("href", "xlink:href"):
                assert re.fullmatch(r"#[\w-]+|[\w./%-]+", value), value
    style = "".join(re.findall(r"<style>(.*?)</style>", page.html, re.S))
    assert "@import" not in style and "url(" not in style


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """A server of the folder, ended by Ctrl-C: what it said first, and its address."""
    command = [sys.executable, "-m", "supernet.report", str(folder), "--serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        line = process.stdout.readline()
        yield line, line.split(" on ")[1].split()[0]
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
        assert (process.returncode, said) == (0, "ended\n")
    finally:
        process.kill()
        process.communicate()
