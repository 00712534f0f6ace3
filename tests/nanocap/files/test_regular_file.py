"""Nothing that a user names is waited for: no pipe without a writer, no device."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanocap.errors import ImageError
from nanocap.image.image import load_image
from nanocap.image.rule import ImageRule

RULE = ImageRule(size=8)
posix = pytest.mark.skipif(os.name != "posix", reason="no such files there")


def refused(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, RULE)  # type: ignore[arg-type]
    return str(caught.value)


def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (10, 20, 30)).save(file, "PNG")
    return file.getvalue()


@posix
def test_a_named_pipe_without_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    link = tmp_path / "link.jpg"
    link.symlink_to(pipe)
    for path in (pipe, link):
        assert f"{path}: a named pipe, not a regular file" in refused(path)


@posix
def test_sockets_and_devices(tmp_path: Path) -> None:
    path = tmp_path / "s.jpg"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert "a socket, not a regular file" in refused(path)
    for device in ("/dev/zero", "/dev/null", "/dev/tty"):
        if os.path.exists(device):
            assert f"{device}: a device" in refused(device)


@posix
@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_what_a_shell_hands_over(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip("not on this system")
    code = (
        "import sys; from nanocap.image.image import load_image;"
        " print(load_image(sys.argv[1])[0, 0].tolist())"
    )
    command = [sys.executable, "-c", code, path]
    run = subprocess.run(command, input=photo(), capture_output=True, check=True)
    assert run.stdout.decode().strip() == "[10, 20, 30]"


@posix
def test_a_pipe_that_never_ends_is_no_image() -> None:
    receive, send = os.pipe()
    os.write(send, b"\0" * 5000)  # the writer stays: reading on would wait for it
    with open(receive, "rb") as file:
        assert "not an image" in refused(file)
    os.close(send)


@posix
def test_a_pipe_holds_as_much_as_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanocap.image.decoding.limits.ALLOWANCE", 100)
    receive, send = os.pipe()
    os.write(send, photo() + b"\0" * 5000)
    os.close(send)
    with open(receive, "rb") as file, pytest.raises(ImageError, match="MB from a pipe; use a file"):
        load_image(file, RULE, max_pixels=100)


def test_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        assert "a terminal, not a photo" in refused(f"/dev/fd/{theirs}")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("path", ["http://a.example/b.jpg", "HTTPS://a.example/b", "ftp://a/b.png"])
def test_a_url_is_never_followed(path: str) -> None:
    assert "a URL; nanocap takes files, never the network" in refused(path)
    assert "a URL" in refused(Path(path)), "a path has one slash less"


def test_other_urls_and_texts_that_are_no_path() -> None:
    assert "without file://" in refused("file:///home/a.jpg")
    data = refused("data:image/png;base64," + "A" * 100_000)
    assert "a URL" in data
    assert len(data) < 400
    text = refused("iVBORw0KGgo" * 10_000)
    assert "too long for a path" in text
    assert len(text) < 400


@posix
def test_a_file_whose_name_looks_like_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "http:").mkdir()
    (tmp_path / "http:" / "a.png").write_bytes(photo())
    monkeypatch.chdir(tmp_path)
    assert (load_image("http://a.png", RULE) == np.array([10, 20, 30])).all()
