"""The ExecuTorch engine where its packages are not installed."""

from __future__ import annotations

import sys

import pytest

from nanocap.bundle.manifest import Artifact
from nanocap.errors import MissingExtraError
from nanocap.runtime.engines import load_engine


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch", None)
    artifact = Artifact("et", "executorch", "fp32", 4, {"model": "et/model.pte"})
    with pytest.raises(MissingExtraError) as caught:
        load_engine(artifact, {"et/model.pte": b"any"}, None)
    assert str(caught.value) == (
        "artifact et needs the package executorch that a bare install leaves out:"
        " run pip install 'nanocap[executorch]'"
    )
