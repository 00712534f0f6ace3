"""The corpus: all photos and captions of a recipe in one prepared folder that trains anywhere.

`photos.bin` holds the encoded photos back to back, `rows.jsonl` one line a photo, and
`tokenizer.json` the tokenizer. Training from it needs neither `datasets` nor a network.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
from PIL import Image
from tokenizers import Tokenizer

from nanocap.bundle.vocabulary import WORD_MARK
from nanocap.distill.data import tokenizer as pieces
from nanocap.distill.data.concepts import ConceptWords, choose_concepts
from nanocap.distill.data.rows import CAPTIONS, cell, has, texts
from nanocap.distill.data.sources import Example, read_source, set_aside
from nanocap.distill.recipes.earlier_runs import NOTHING, Earlier
from nanocap.distill.recipes.recipe import OF_ROW, Data, Recipe
from nanocap.distill.recipes.records import chosen
from nanocap.errors import DataError, ImageError
from nanocap.image.image import load_rgb
from nanocap.progress import tracked
from nanocap.student.controls import PREFIX

LARGEST_SIDE = 320  # pixels of the shorter side; larger photos are stored smaller
JPEG_QUALITY = 92
# Keys of a source that training reads, not this; but each row's own quality is kept here.
NOT_PREPARED = ("weight", "quality", "licence")


@dataclass(frozen=True)
class Row:
    """One photo of the corpus."""

    key: str
    source: str
    captions: tuple[str, ...]  # normalized
    offset: int
    bytes: int
    aside: bool
    quality: str = ""  # its own; empty where its source's holds


class Corpus:
    """A prepared folder, opened for reading. Photos are read from a memory map."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            # not `splitlines`, for which a key may hold the end of a line
            lines = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line]
            self.rows = [Row(**{**row, "captions": tuple(row["captions"])}) for row in rows]
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            refusal = f"{folder}: not a prepared corpus; delete it and start again"
            raise DataError(refusal) from error

    @cached_property
    def concepts(self) -> ConceptWords | None:
        """The words of the concept head; None where the recipe has none."""
        path = self.folder / "concepts.json"
        return ConceptWords.load(path) if path.exists() else None

    @cached_property
    def concept_pieces(self) -> list[int]:
        """The piece of each word of the concept head."""
        words = self.concepts.words if self.concepts is not None else ()
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        return [vocabulary[f"{WORD_MARK}{word}"] for word in words]

    @cached_property
    def texts(self) -> list[str]:
        """Captions without photos, normalized."""
        return (self.folder / "texts.txt").read_text(encoding="utf-8").split("\n")[:-1]

    @cached_property
    def _photos(self) -> mmap.mmap:
        with (self.folder / "photos.bin").open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def photo(self, index: int) -> Image.Image:
        """The RGB photo of row `index`."""
        row = self.rows[index]
        return load_rgb(self._photos[row.offset : row.offset + row.bytes])

    def training(self) -> list[int]:
        """Rows to train on."""
        return [index for index, row in enumerate(self.rows) if not row.aside]

    def aside(self, source: str) -> list[int]:
        """Rows of a source that were set aside."""
        return [i for i, row in enumerate(self.rows) if row.aside and row.source == source]

    def encoded(self, max_tokens: int) -> list[list[list[int]]]:
        """Token ids of every caption of every row, end token included, control tokens not."""
        flat = [caption for row in self.rows for caption in row.captions]
        ids = iter(pieces.encode(self.tokenizer, flat, max_tokens - PREFIX))
        return [[next(ids) for _ in row.captions] for row in self.rows]


def prepare(
    recipe: Recipe, root: Path, cache: Path, tokenizer: str = "", before: Earlier = NOTHING
) -> Corpus:
    """The corpus of a recipe below `cache`: opened if it is there, else built, whole or not at all.

    Where `root` is not there, as on a machine that a prepared folder was copied to, the one corpus
    of the same sources serves, wherever its photos came from.

    Args:
        tokenizer: text of a `tokenizer.json` to encode with, instead of training one.
        before: earlier runs of a chain, which have made shards that the recipe mentions.
    Raises:
        DataError: a source cannot be read.
    """
    of_sources = _fingerprint(recipe.data, tokenizer, before)
    of_root = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:6]
    folder = cache / f"corpus-{of_sources}-{of_root}"
    copies = [] if root.exists() else sorted(cache.glob(f"corpus-{of_sources}-*"))
    if len(copies) == 1:
        folder = copies[0]
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        captions = _write_photos(recipe.data, root, partial, before)
        given = Tokenizer.from_str(tokenizer) if tokenizer else None
        ours = given or _train(recipe.data, captions, root)
        if recipe.data.concepts:
            concepts = choose_concepts(captions, recipe.data.concepts)
            concepts.save(partial / "concepts.json")
            ours = pieces.with_words(ours, concepts.words)
            _write_texts(recipe.data, root, partial)
        ours.save(str(partial / "tokenizer.json"))
        os.replace(partial, folder)
    return Corpus(folder)


def _train(data: Data, captions: list[str], root: Path) -> Tokenizer:
    click.echo("training the tokenizer", err=True)
    texts = [*captions, *_extra_text(data, root)]
    tokenizer = pieces.train_tokenizer(texts, data.vocabulary)
    found = tokenizer.get_vocab_size()
    if found < data.vocabulary:
        click.echo(f"vocabulary: {found} pieces, the captions have no {data.vocabulary}", err=True)
    elif found > data.vocabulary:
        raise DataError(
            f"the captions have more characters than data.vocabulary, {data.vocabulary}, has"
            f" pieces: set it to {found} at least"
        )
    return tokenizer


def _fingerprint(data: Data, tokenizer: str, before: Earlier) -> str:
    sources = [
        {k: v for k, v in chosen(source).items() if k not in NOT_PREPARED or v == OF_ROW}
        for source in data.sources
    ]
    made = [digest for source in data.sources if (digest := before.digest(source.shards))]
    concepts = [data.concepts] if data.concepts else []
    text = json.dumps([sources, data.text, data.vocabulary, tokenizer, *made, *concepts])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write_photos(data: Data, root: Path, folder: Path, before: Earlier) -> list[str]:
    captions: list[str] = []
    offset = 0
    with (
        (folder / "photos.bin").open("wb") as photos,
        (folder / "rows.jsonl").open("w", encoding="utf-8") as lines,
    ):
        for source in data.sources:
            rows, unreadable = [], 0
            source = dataclasses.replace(source, shards=before.located(source.shards))
            # the number of examples is known only at the end
            for example in tracked(read_source(source, root), f"reading {source.name}"):
                captioned = tuple(filter(None, map(pieces.normalize, example.captions)))
                photo = _storable(example)
                if photo is None or not captioned:
                    unreadable += 1
                    continue
                place = (offset, photos.write(photo))
                row = Row(example.key, source.name, captioned, *place, False, example.quality)
                rows.append(row)
                offset += row.bytes
            aside = set_aside([row.key for row in rows], source.aside)
            for row in rows:
                row = dataclasses.replace(row, aside=row.key in aside)
                lines.write(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n")
                captions.extend(() if row.aside else row.captions)
            note = f", {unreadable} left out (unreadable)" if unreadable else ""
            click.echo(f"{source.name}: {len(rows)} photos, {len(aside)} set aside{note}", err=True)
    return captions


def _storable(example: Example) -> bytes | None:
    """The photo's bytes, re-encoded only where it is larger than training needs; None if broken."""
    try:
        image = load_rgb(example.image)
    except ImageError:
        return None
    if min(image.size) <= LARGEST_SIDE:
        return example.image
    scale = LARGEST_SIDE / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _write_texts(data: Data, root: Path, folder: Path) -> None:
    """The captions without photos, but for those of photos that were set aside."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    aside = {caption for row in rows if row["aside"] for caption in row["captions"]}
    with (folder / "texts.txt").open("w", encoding="utf-8") as file:
        for several in _extra_texts(data, root):
            if not aside.intersection(several):
                file.writelines(f"{text}\n" for text in several)


def _extra_text(data: Data, root: Path) -> Iterator[str]:
    for several in _extra_texts(data, root):
        yield from several


def _extra_texts(data: Data, root: Path) -> Iterator[list[str]]:
    for name in data.text:
        path = root / name
        try:
            with (gzip.open if path.suffix == ".gz" else open)(
                path, "rt", encoding="utf-8"
            ) as lines:
                for line in lines:
                    row = json.loads(line)
                    if not has(row, CAPTIONS):
                        raise LookupError(CAPTIONS)
                    yield [*filter(None, map(pieces.normalize, texts(cell(row, CAPTIONS))))]
        except (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(f"{path}: not JSON lines with captions ({error})") from error
