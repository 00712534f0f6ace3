"""`push_to_hub` from start to end, against a hub of a few lines on this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import transformers
from transformers import AutoImageProcessor, AutoTokenizer

import nanocap.interop  # noqa: F401  # registers the student
from nanocap.bundle.vocabulary import Presentation

# Renamed in transformers 5
AutoModel = getattr(transformers, "AutoModelForVision2Seq", None)
AutoModel = AutoModel or transformers.AutoModelForImageTextToText

REPOSITORY = "someone/captioner"
PUSH = """
import sys
import transformers
import nanocap.interop
folder, repository = sys.argv[1:]
model = getattr(transformers, "AutoModelForVision2Seq", None)
model = model or transformers.AutoModelForImageTextToText
for kind in (model, transformers.AutoImageProcessor, transformers.AutoTokenizer):
    kind.from_pretrained(folder).push_to_hub(repository)
"""


@dataclass
class Hub:
    """What the client asked for, and the files that it committed."""

    folder: Path
    created: list[str] = field(default_factory=list)
    commits: int = 0

    def create(self, asked: dict[str, Any], endpoint: str) -> dict[str, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        self.created.append(name)
        return {"url": f"{endpoint}/{name}", "name": name, "id": name}

    def commit(self, lines: list[dict[str, Any]], endpoint: str) -> dict[str, Any]:
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                assert value["encoding"] == "base64"
                (self.folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
        self.commits += 1
        url = f"{endpoint}/{REPOSITORY}/commit/{self.commits:040d}"
        return {"commitUrl": url, "commitOid": f"{self.commits:040d}", "hookOutput": ""}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Hub, str]]:
    """A hub that takes every file as it comes, and its address."""
    held = Hub(tmp_path / "hub")
    held.folder.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/api/repos/create":
                self._answer(held.create(json.loads(body), endpoint))
            elif self.path == f"/api/models/{REPOSITORY}/preupload/main":
                files = [file["path"] for file in json.loads(body)["files"]]
                mode = {"uploadMode": "regular", "shouldIgnore": False}
                self._answer({"files": [{"path": path, **mode} for path in files]})
            elif self.path == f"/api/models/{REPOSITORY}/commit/main":
                lines = [json.loads(line) for line in body.splitlines()]
                self._answer(held.commit(lines, endpoint))
            elif self.path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            else:
                self.send_error(404)

        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, value: dict[str, Any]) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield held, endpoint
    server.shutdown()


def test_what_is_pushed_captions_as_the_runtime_does(
    folder: Path,
    photos: list[Path],
    captions: list[str],
    hub: tuple[Hub, str],
    tmp_path: Path,
) -> None:
    held, endpoint = hub
    settings = {"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_of_a_test", "HF_HOME": str(tmp_path)}
    settings |= {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), REPOSITORY],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert set(held.created) == {REPOSITORY}
    assert held.commits == 3
    model = AutoModel.from_pretrained(held.folder)
    processor = AutoImageProcessor.from_pretrained(held.folder)
    rows = model.generate(**processor(photos, return_tensors="pt"))
    texts = AutoTokenizer.from_pretrained(held.folder).batch_decode(rows, skip_special_tokens=True)
    assert [Presentation().sentence(text.strip()) for text in texts] == captions
