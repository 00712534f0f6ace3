"""What captions the photo: nanocap, a model in torch, the same in ONNX Runtime with int8.

Each kind has three steps, all of them in a process that does nothing else: `prepare` writes its
files once, `load` reads them into a call that captions, `size` weighs what was read.
"""

from __future__ import annotations

import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from architectures import ARCHITECTURES, Architecture

NEVER = -1e30  # added to a log probability
# Captions the photo from its file on; returns how many ids were generated, the end included.
Caption = Callable[[], int]


@dataclass(frozen=True)
class Task:
    """The same for all.

    Attributes:
        photo: the file that is captioned.
        tokens: ids to generate, the end included; None: as many as nanocap's own caption has.
        threads: that a model may use.
    """

    photo: Path
    tokens: int | None
    threads: int


class Contender(ABC):
    """One model in one runtime; `title`, `runtime` and `source` are for the reader."""

    title: str
    runtime: str
    source: str

    @abstractmethod
    def prepare(self, work: Path) -> None:
        """Write the files that `load` reads, below the folder `work`."""

    @abstractmethod
    def prepared(self, work: Path) -> bool:
        """Whether an earlier run has written them."""

    @abstractmethod
    def load(self, work: Path, task: Task) -> Caption:
        """The model, ready to caption."""

    @abstractmethod
    def size(self, work: Path) -> int:
        """Bytes on disk of what `load` reads."""


class Nanocap(Contender):
    """The model inside the package, through the package's own front door, with one beam."""

    title, runtime, source = "nanocap nano-s, greedy", "ONNX Runtime int8", "this repository"

    def prepare(self, work: Path) -> None:
        pass

    def prepared(self, work: Path) -> bool:
        return True

    def load(self, work: Path, task: Task) -> Caption:
        from nanocap import Captioner
        from nanocap.image.image import load_image

        captioner = Captioner(threads=task.threads)
        tokens = task.tokens
        if tokens is None:  # the end is generated like the others, and not in `tokens`
            return lambda: len(captioner(task.photo, beams=1).tokens) + 1
        manifest, searcher = captioner.manifest, captioner._model.searcher
        options = captioner._options(beams=1)

        def exactly() -> int:
            """A caption of exactly so many pieces: the end is barred like any special piece."""
            pixels = load_image(task.photo, manifest.image)[None]
            state = searcher.engine.begin(
                pixels, 1, options.quality, options.length, options.length_penalty
            )
            longest = state["ids"].shape[-1]
            if tokens > longest:
                raise ValueError(f"nano-s writes at most {longest} tokens")
            state["bias"][..., manifest.tokens.end] = NEVER
            for _ in range(1 + tokens):  # the first step is the prompt's
                state = searcher.engine.step(state)
            ids = state["ids"][0, 0, :tokens].tolist()
            captioner.vocabulary.text(ids)
            return len(ids)

        return exactly

    def size(self, work: Path) -> int:
        """The whole bundle, with the manifest and the card."""
        from nanocap.bundle import default_bundle

        return _weigh(Path(default_bundle()), "*")


class Peer(Contender):
    """A model with random weights, greedy, with a cache of keys and values."""

    folder: str
    pattern: str

    def __init__(self, name: str, architecture: Architecture) -> None:
        self.name = name
        self.architecture = architecture
        self.title, self.source = architecture.title, architecture.source

    def prepare(self, work: Path) -> None:
        part = work / f"{self.name}-{self.folder}.part"
        self.write(work, part)
        part.rename(self.path(work))  # so that what was cut off does not pass for whole

    def prepared(self, work: Path) -> bool:
        return self.path(work).is_dir()

    def path(self, work: Path) -> Path:
        return work / f"{self.name}-{self.folder}"

    def size(self, work: Path) -> int:
        return _weigh(self.path(work), self.pattern)

    def load(self, work: Path, task: Task) -> Caption:
        import torch

        torch.set_num_threads(task.threads)
        model, architecture, count = self.open(work, task.threads), self.architecture, task.tokens
        prompt = torch.tensor([architecture.prompt])
        asked = (
            {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
            if architecture.prompt
            else {}
        )

        def caption() -> int:
            pixels = torch.from_numpy(_pixels(task.photo, architecture))
            with torch.inference_mode():
                ids = model.generate(
                    pixel_values=pixels,
                    **asked,
                    do_sample=False,
                    num_beams=1,
                    use_cache=True,
                    min_new_tokens=count,
                    max_new_tokens=count,
                )
            return int(ids.shape[1]) - architecture.echoed

        return caption

    @abstractmethod
    def write(self, work: Path, part: Path) -> None:
        """Write the folder `part`."""

    @abstractmethod
    def open(self, work: Path, threads: int) -> Any:
        """A model with `generate`."""


class Torch(Peer):
    """As `from_pretrained` loads it: float32, safetensors."""

    runtime, folder, pattern = "torch fp32", "torch", "*.safetensors"

    def write(self, work: Path, part: Path) -> None:
        self.architecture.build().save_pretrained(part)

    def open(self, work: Path, threads: int) -> Any:
        import torch
        import transformers

        loader = getattr(transformers, self.architecture.model)
        return loader.from_pretrained(self.path(work), dtype=torch.float32).eval()


class Int8(Peer):
    """What `optimum-cli export onnx` and `optimum-cli onnxruntime quantize` write.

    Of the exported graphs it takes the encoder and the merged decoder (first step and later ones
    in one file), which are the smallest set that works with a cache, and what transformers.js
    loads. Without `accelerate` installed, Optimum writes the decoder's tied embedding twice. The
    published files of DistilGPT2's two graphs, with it once, hold 187 MB
    (https://huggingface.co/tarekziade/test-quantize/tree/main/onnx).
    """

    runtime, folder, pattern = "ONNX Runtime int8", "int8", "*.onnx"
    graphs = ("encoder_model.onnx", "decoder_model_merged.onnx")

    def write(self, work: Path, part: Path) -> None:
        from optimum.exporters.onnx import main_export
        from optimum.onnxruntime import ORTQuantizer

        torch_model, exported = Torch(self.name, self.architecture), work / f"{self.name}-onnx"
        if not torch_model.prepared(work):
            torch_model.prepare(work)
        main_export(
            str(torch_model.path(work)),
            exported,
            task="image-to-text-with-past",
            do_validation=False,
        )
        for graph in self.graphs:
            quantizer = ORTQuantizer.from_pretrained(exported, file_name=graph)
            quantizer.quantize(_quantization(), part, file_suffix=None)
        shutil.rmtree(exported)  # float32, which nothing here loads

    def open(self, work: Path, threads: int) -> Any:
        import onnxruntime
        from optimum.onnxruntime import ORTModelForVision2Seq

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return ORTModelForVision2Seq.from_pretrained(self.path(work), session_options=options)


def _quantization() -> Any:
    """Optimum's dynamic int8 for this machine's processor."""
    from optimum.onnxruntime import AutoQuantizationConfig

    if platform.machine().lower() in ("arm64", "aarch64"):
        return AutoQuantizationConfig.arm64(is_static=False, per_channel=False)
    facts = Path("/proc/cpuinfo")
    vnni = facts.exists() and "avx512_vnni" in facts.read_text(encoding="utf-8")
    kind = AutoQuantizationConfig.avx512_vnni if vnni else AutoQuantizationConfig.avx2
    return kind(is_static=False, per_channel=False)


def _pixels(photo: Path, architecture: Architecture) -> Any:
    """The photo as float32 [1, 3, size, size], or [1, 1, 3, size, size] where tiled."""
    import numpy as np
    from PIL import Image

    side = architecture.size
    with Image.open(photo) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    levels = np.asarray(small, dtype=np.float32) / 127.5 - 1
    axes = (0, 1) if architecture.tiled else (0,)
    return np.expand_dims(np.ascontiguousarray(levels.transpose(2, 0, 1)), axes)


def _weigh(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


NANOCAP = "nanocap"
INT8 = ("vit-gpt2", "vit-distilgpt2")  # those that Optimum can export
CONTENDERS: dict[str, Contender] = {
    NANOCAP: Nanocap(),
    **{f"{name}-torch": Torch(name, made) for name, made in ARCHITECTURES.items()},
    **{f"{name}-int8": Int8(name, ARCHITECTURES[name]) for name in INT8},
}
