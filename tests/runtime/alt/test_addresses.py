"""Which image an address means, and which ones are not read."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from nanocap.errors import ImageError
from nanocap.runtime.alt.addresses import Images


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("site/a.jpg", "site/pages/b c.jpg", "site/50%25.jpg", "secret.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("b%20c.jpg", "pages/b c.jpg"),
        ("b c.jpg?v=2#x", "pages/b c.jpg"),
        ("../a.jpg", "a.jpg"),
        ("/a.jpg", "a.jpg"),
        ("./../pages/../a.jpg", "a.jpg"),
        ("/50%25.jpg", "50%25.jpg"),
    ],
)
def test_files(site: Path, address: str, name: str) -> None:
    found = Images(site).find((address,), site / "pages" / "page.html")
    assert found == site.resolve() / name


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://example.org/a.jpg", "it is on the web, and nanocap opens no connection"),
        ("//example.org/a.jpg", "it is on the web, and nanocap opens no connection"),
        ("file:///etc/passwd", "it is on the web, and nanocap opens no connection"),
        ("{{ photo }}", "its address is made by code: give it an alt there"),
        ("{photo}", "its address is made by code: give it an alt there"),
        ("gone.jpg", "there is no such file"),
        ("a\0.jpg", "its address is none of a file"),
        ("#top", "its address is none of a file"),
        ("../../secret.jpg", "it is outside of {root}: name a --root with both in it"),
        ("%2e%2e/%2e%2e/secret.jpg", "it is outside of {root}: name a --root with both in it"),
        ("data:image/png", "its address has no data in it"),
        ("data:;base64,####", "its base64 is damaged"),
    ],
)
def test_what_is_not_read(site: Path, address: str, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        Images(site).find((address,), site / "pages" / "page.html")
    assert str(caught.value) == message.format(root=site.resolve())


def test_a_link_leads_out_of_the_root(site: Path) -> None:
    (site / "link.jpg").symlink_to(site.parent / "secret.jpg")
    with pytest.raises(ImageError, match="outside"):
        Images(site).find(("link.jpg",), site / "page.html")


def test_the_first_that_can_be_read(site: Path) -> None:
    find = Images(site).find
    assert find(("http://x/a.jpg", "a.jpg"), site / "page.html") == site.resolve() / "a.jpg"
    with pytest.raises(ImageError, match="on the web"):
        find(("http://x/a.jpg", "gone.jpg"), site / "page.html")
    with pytest.raises(ImageError, match="no address"):
        find((), site / "page.html")


def test_data_in_the_address(site: Path) -> None:
    data = bytes(range(256))
    for address in (
        f"data:image/png;base64,{base64.b64encode(data).decode()}",
        f"data:image/png;base64,{base64.encodebytes(data).decode()}",
        f"DATA:,{quote_from_bytes(data)}",
    ):
        assert Images(site).find((address,), site / "page.html") == data
