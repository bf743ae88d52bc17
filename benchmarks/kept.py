"""What a long measurement has found so far."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from supernet.files import read_text
from supernet.runs.environment import describe
from supernet.runs.folder import write_json

MAX_BYTES = 2**26  # of the file


class Kept:
    """What was measured, by name, on the disk as soon as it is; the same command goes on from there. command: by which. how: the settings.
    Raises ValueError: the file holds what was measured with other settings."""

    def __init__(self, path: Path, command: str, how: Mapping[str, Any]):
        self.path, self.command, self.how = path, command, dict(how)
        self.found: dict[str, Any] = {}
        if path.exists():
            there = json.loads(read_text(path, MAX_BYTES))
            if there.get("how") != json.loads(json.dumps(self.how)):
                raise ValueError(f"{path} holds what was measured with other settings: name another file with --out")
            self.found = there["found"]

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` finds, which is asked but once."""
        if name not in self.found:
            self.found[name] = make()
            write_json(self.path, {"command": self.command, "how": self.how, "found": self.found,
                                   "environment": describe(torch.device("cpu"))})
            print(f"{name:32} {self.found[name]}", flush=True)
        return self.found[name]
