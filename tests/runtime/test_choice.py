"""Which artifact runs, on what hardware, and what is said where that is not as asked."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from click.testing import CliRunner, Result

from nanocap import Captioner
from nanocap.bundle import Bundle
from nanocap.bundle.manifest import Artifact
from nanocap.bundle.writer import write_bundle
from nanocap.cli import group
from nanocap.errors import EngineError, EngineWarning, OptionError
from nanocap.runtime.choice import budgets, choose
from nanocap.runtime.engines import load_engine
from nanocap.runtime.engines.providers import CPU, PROVIDERS, Providers

from ..conftest import TinyWeights, encoder, graph, tiny_search, tiny_state

# A tenth of a second of products, or more, before the first node of a small encoder.
SLOW = """
    tall = Constant <value_ints = [1300, 1300]> ()
    grey = ReduceMean <keepdims = 0> (centred)
    wide = Expand (grey, tall)
    once = MatMul (wide, wide)
    twice = MatMul (once, wide)
    thrice = MatMul (twice, wide)
    four = MatMul (thrice, wide)
    size = ReduceMean <keepdims = 0> (four)
    nothing = Constant <value_float = 0.0> ()
    none = Mul (size, nothing)
    shifted = Add (centred, none)
"""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """The tiny bundle with encoders of 4, of 64 and, slow, of 256 tokens over one `step`."""
    opened = Bundle(tiny_bundle)
    files: dict[str, Any] = {path: opened.read(path) for path in opened.manifest.files}
    weights = TinyWeights.draw(seed=8).encoder  # other captions than those of 4 tokens
    slow = encoder(256).replace("scaled = Div (centred,", f"{SLOW}\n    scaled = Div (shifted,")
    assert slow != encoder(256)
    _, graphs = tiny_search()
    (first,) = opened.manifest.artifacts
    artifacts = [first]
    for tokens, text in ((256, slow), (64, encoder(64))):
        path = f"onnx/begin-{tokens}.onnx"
        files[path] = graphs.begin(graph(text, weights)).SerializeToString()
        made = replace(
            first,
            name=f"onnx-fp32-{tokens}",
            visual_tokens=tokens,
            files={**first.files, "begin": path},
            state=tiny_state(tokens),
        )
        artifacts.append(made)
    manifest = replace(opened.manifest, artifacts=tuple(artifacts))
    return write_bundle(tmp_path_factory.mktemp("several") / "tiny", manifest, files)


def test_an_artifact_is_chosen_by_its_tokens(several: Path, photos: list[Any]) -> None:
    said = {}
    for tokens in (4, 64):
        captioner = Captioner(several, tokens=tokens)
        assert captioner.artifact.visual_tokens == tokens
        said[tokens] = [caption.text for caption in captioner(photos)]
    assert Captioner(several).artifact.visual_tokens == 4  # the first
    assert said[4] != said[64]
    with pytest.raises(OptionError, match=r"for 7 visual tokens; it has .*onnx-fp32-64 \(engine"):
        Captioner(several, tokens=7)


def milliseconds(captioner: Captioner, photo: Any) -> float:
    captioner(photo)
    start = time.perf_counter()
    captioner(photo)
    return 1000 * (time.perf_counter() - start)


def test_a_deadline_takes_the_most_tokens_that_meet_it(several: Path, photos: list[Any]) -> None:
    slow, quick = (
        milliseconds(Captioner(several, tokens=tokens, threads=1), photos[0])
        for tokens in (256, 64)
    )
    between = (slow * quick) ** 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Captioner(several, deadline_ms=1e9).artifact.visual_tokens == 256
        assert Captioner(several, deadline_ms=between, threads=1).artifact.visual_tokens == 64


def test_a_deadline_that_nothing_meets_is_said(several: Path, photos: list[Any]) -> None:
    with pytest.warns(EngineWarning, match=r"onnx-fp32 takes .* ms a caption here, above") as said:
        captioner = Captioner(several, deadline_ms=1e-6, threads=1)
    assert len(said) == 1
    assert captioner.artifact.visual_tokens == 4
    assert captioner(photos[0]).text == Captioner(several, tokens=4)(photos[0]).text


def test_options_that_exclude_each_other(several: Path) -> None:
    for options, message in (
        ({"deadline_ms": 5, "tokens": 4}, "leave artifact and tokens out"),
        ({"deadline_ms": 5, "artifact": "onnx-fp32"}, "leave artifact and tokens out"),
        ({"deadline_ms": 0}, "deadline_ms must be above 0"),
        ({"providers": "cuda"}, "providers must be a list of names, got 'cuda'"),
        ({"providers": ["gpu"]}, "unknown provider 'gpu'; known are cpu, cuda, tensorrt"),
    ):
        with pytest.raises(OptionError, match=message):
            Captioner(several, **options)


def test_only_what_differs_in_tokens_alone_is_a_budget(several: Path) -> None:
    manifest = Bundle(several).manifest
    other = Artifact("onnx-int8", "onnx", "int8", 100, manifest.artifacts[0].files)
    manifest = replace(manifest, artifacts=(*manifest.artifacts, other))
    found = budgets(manifest, choose(manifest))
    assert [artifact.visual_tokens for artifact in found] == [256, 64, 4]
    assert budgets(manifest, other) == [other]


@pytest.fixture(scope="module")
def missing() -> str:
    """Hardware that the onnxruntime of this environment has no provider for."""
    available = onnxruntime.get_available_providers()
    return next(name for name in PROVIDERS if PROVIDERS[name] not in available)


def test_a_missing_provider_falls_back_with_one_warning(
    tiny_bundle: Path, captioner: Captioner, photos: list[Any], missing: str
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fallen = Captioner(tiny_bundle, providers=[missing, "cpu"])
    (warning,) = said
    assert warning.category is EngineWarning
    start = f"provider {missing} is not available here, cpu runs instead; install"
    assert str(warning.message).startswith(start)
    assert fallen(photos[0]) == captioner(photos[0])


def test_a_demanded_provider_that_is_missing_is_an_error(tiny_bundle: Path, missing: str) -> None:
    with pytest.raises(EngineError, match=f"provider {missing} is not available here; install"):
        Captioner(tiny_bundle, providers=[missing], strict_providers=True)


def test_the_cpu_is_there_and_says_nothing(tiny_bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Captioner(tiny_bundle, providers=["cpu"], strict_providers=True)


def test_providers_are_asked_for_in_their_order() -> None:
    cuda, tensorrt = PROVIDERS["cuda"], PROVIDERS["tensorrt"]
    wanted = Providers(("tensorrt", "cuda"))
    assert wanted.among([CPU, cuda, tensorrt]) == [tensorrt, cuda, CPU]
    assert wanted.among([CPU, cuda]) == [cuda, CPU]
    with pytest.warns(EngineWarning, match="provider tensorrt is not available here, cuda, cpu"):
        wanted.check([CPU, cuda])
    assert set(PROVIDERS.values()) <= set(onnxruntime.get_all_providers())


def test_an_unknown_engine_is_said_before_its_providers(tiny_bundle: Path) -> None:
    artifact = replace(Bundle(tiny_bundle).manifest.artifacts[0], backend="elsewhere")
    with pytest.raises(EngineError, match="no backend 'elsewhere'"):
        load_engine(artifact, {}, None, Providers(("cuda",)))


def caption(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["caption", *map(str, arguments)])


def test_the_command_chooses_too(several: Path, photo_files: list[Path], missing: str) -> None:
    said = {tokens: Captioner(several, tokens=tokens)(photo_files[1]).text for tokens in (4, 64)}
    for options, text in (
        (["--tokens", 64], said[64]),
        (["--artifact", "onnx-fp32-64"], said[64]),
        (["--deadline-ms", 1e-6], said[4]),
        (["--provider", missing], said[4]),
    ):
        result = caption("--bundle", several, *options, photo_files[1])
        assert (result.exit_code, result.stdout) == (0, f"{text}\n")
    result = caption("--bundle", several, "--provider", missing, photo_files[1])
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"nanocap: provider {missing} is not available here, cpu runs instead")
    demanded = ("--provider", missing, "--strict-provider")
    result = caption("--bundle", several, *demanded, photo_files[1], photo_files[2])
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
