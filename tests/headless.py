"""What does a page do when a browser opens it from disk? Pages are given words that would run if they were markup."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium, which opens the page, is not installed")

RAN = "words-ran"
"""The attribute that the page's root gets if any of the words below run."""
_MARK = f"document.documentElement.setAttribute('{RAN}',1)"
HOSTILE = (
    f'</script><script>{_MARK}</script><img src=x onerror="{_MARK}">\'"><svg onload={_MARK}>'
    f"</title></style></textarea><!--<script>\u2028\u2029{_MARK}//`${{{_MARK}}}`{{{{7*7}}}}]]>"
)


@dataclass(frozen=True)
class Opened:
    dom: str
    """After the page's scripts have run."""
    console: list[str]
    """What the browser had to say: errors, and what the page's policy forbade."""

    @property
    def ran(self) -> bool:
        return re.search(rf"<(html|svg)[^>]* {RAN}=", self.dom) is not None


def opened(page: Path, address: str = "") -> Opened:
    """A page in headless Chromium; `address`: what follows the # of its URL."""
    url = page.resolve().as_uri() + (f"#{address}" if address else "")
    with TemporaryDirectory() as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Opened(done.stdout, re.findall(r'CONSOLE:\d+\] "(.*)", source', done.stderr))
