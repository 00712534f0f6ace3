"""The prepared folder: what is in it, and what never is."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanocap.distill.data.corpus import Corpus, prepare
from nanocap.distill.data.tokenizer import normalize
from nanocap.distill.recipes.recipe import Data, Recipe, Source
from nanocap.errors import DataError
from nanocap.student.controls import END


def with_source(recipe: Recipe, **changes: object) -> Recipe:
    source = replace(recipe.data.sources[0], **changes)  # type: ignore[arg-type]
    return replace(recipe, data=replace(recipe.data, sources=(source,)))


def write_table(folder: Path, photos: dict[str, bytes], caption: str = "a red circle") -> None:
    for name, data in photos.items():
        (folder / name).write_bytes(data)
    lines = [json.dumps({"image": name, "captions": [caption]}) for name in photos]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")


def encoded(size: tuple[int, int], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def test_rows_are_the_photos_in_order(corpus: Corpus, drawn: Path) -> None:
    lines = (drawn / "captions.jsonl").read_text().splitlines()
    assert len(corpus.rows) == len(lines) == 36
    for index, line in enumerate(map(json.loads, lines)):
        row = corpus.rows[index]
        assert (row.key, row.source) == (line["image"], "shapes")
        assert row.captions == tuple(map(normalize, line["captions"]))
        with Image.open(drawn / line["image"]) as image:
            assert np.array_equal(np.asarray(corpus.photo(index)), np.asarray(image))


def test_aside_and_training_share_nothing(corpus: Corpus) -> None:
    aside = corpus.aside("shapes")
    assert len(aside) == 6
    assert sorted([*aside, *corpus.training()]) == list(range(36))
    assert corpus.aside("another") == []


def test_encoded_captions_fit_the_decoder(corpus: Corpus) -> None:
    ids = corpus.encoded(16)
    assert [len(captions) for captions in ids] == [2] * 36
    assert all(len(caption) <= 14 for captions in ids for caption in captions)
    assert corpus.tokenizer.decode(ids[0][0]) == corpus.rows[0].captions[0]
    assert ids[0][0][-1] == END


def test_the_second_time_it_is_only_opened(
    recipe: Recipe, corpus: Corpus, tmp_path: Path, drawn: Path
) -> None:
    cache = corpus.folder.parent
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.iterdir()}
    assert prepare(recipe, drawn, cache).folder == corpus.folder
    # what only training reads is no reason to prepare again
    reweighted = with_source(recipe, weight=9.0, quality="low", licence="other")
    assert prepare(reweighted, drawn, cache).folder == corpus.folder
    assert {path: path.stat().st_mtime_ns for path in corpus.folder.iterdir()} == before
    assert prepare(with_source(recipe, aside=2), drawn, tmp_path).folder.name != corpus.folder.name


def test_captions_set_aside_are_not_seen_by_the_tokenizer(recipe: Recipe, tmp_path: Path) -> None:
    photo = encoded((8, 8))
    write_table(tmp_path, {"a.png": photo, "b.png": photo})
    rows = [
        json.dumps({"image": "a.png", "captions": ["zzz zzz"]}),
        json.dumps({"image": "b.png", "captions": ["zzz zzz"]}),
        *(json.dumps({"image": "a.png", "captions": ["abc abc"]}) for _ in range(3)),
    ]
    for aside in ("a.png", "b.png"):
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        source = Source("s", table="rows.jsonl", aside=1)
        data = Data((source,), vocabulary=14)
        corpus = prepare(replace(recipe, data=data), tmp_path, tmp_path / f"cache-{aside}")
        asides = {corpus.rows[index].key for index in corpus.aside("s")}
        assert asides == {"b.png"}
        assert corpus.tokenizer.token_to_id("a") is not None


def test_broken_photos_are_left_out_and_counted(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = encoded((20, 20))
    damaged = bytearray(encoded((64, 64)))
    damaged[60:70] = bytes(10)
    chunk = bytearray(encoded((64, 64)))
    start = chunk.index(b"IDAT")
    chunk[start - 4 : start] = (100).to_bytes(4)  # pixels after these are read as a chunk's name
    photos = {
        "good.png": good,
        "text.png": b"not a photo at all",
        "empty.png": b"",
        "cut.jpg": encoded((64, 64), "JPEG")[:400],
        "damaged.png": bytes(damaged),
        "chunk.png": bytes(chunk),
    }
    write_table(tmp_path, photos, "a red circle a red circle")
    data = Data((Source("mixed", table="rows.jsonl"),), vocabulary=20)
    corpus = prepare(replace(recipe, data=data), tmp_path, tmp_path / "cache")
    assert [row.key for row in corpus.rows] == ["good.png"]
    assert "mixed: 1 photos, 0 set aside, 5 left out" in capsys.readouterr().err


def test_large_photos_are_stored_smaller_and_small_ones_as_they_are(
    recipe: Recipe, tmp_path: Path
) -> None:
    photos = {"large.png": encoded((1000, 500)), "small.png": encoded((400, 320))}
    write_table(tmp_path, photos, "a red circle a red circle")
    data = Data((Source("s", table="rows.jsonl"),), vocabulary=20)
    corpus = prepare(replace(recipe, data=data), tmp_path, tmp_path / "cache")
    assert corpus.photo(0).size == (640, 320)
    assert corpus.photo(1).size == (400, 320)
    assert corpus.rows[1].bytes == len(photos["small.png"])


def test_more_text_for_the_tokenizer(recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "more.jsonl.gz", "wt", encoding="utf-8") as file:
        for _ in range(9):
            file.write(json.dumps({"captions": ["Zebras zoom!", "zebras"]}) + "\n")
    more = replace(recipe, data=replace(recipe.data, text=(str(tmp_path / "more.jsonl.gz"),)))
    corpus = prepare(more, drawn, tmp_path / "cache")
    assert corpus.tokenizer.token_to_id("z") is not None
    assert len(corpus.rows) == 36  # text alone is no photo


@pytest.mark.parametrize("content", ['{"captions": ["a"]}\n{', "[1]", '{"texts": []}', "3", "null"])
def test_text_of_another_form(recipe: Recipe, drawn: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "more.jsonl").write_text(content)
    more = replace(recipe, data=replace(recipe.data, text=(str(tmp_path / "more.jsonl"),)))
    with pytest.raises(DataError, match=rf"^{tmp_path}/more\.jsonl: not JSON lines with captions"):
        prepare(more, drawn, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("corpus-*"))


def test_a_vocabulary_larger_than_the_captions_give(
    recipe: Recipe, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = replace(recipe, data=replace(recipe.data, vocabulary=4096))
    found = prepare(greedy, drawn, tmp_path).tokenizer.get_vocab_size()
    assert recipe.data.vocabulary <= found < 4096
    line = f"vocabulary: {found} pieces, the captions have no 4096"
    assert line in capsys.readouterr().err.splitlines()


def test_a_vocabulary_smaller_than_the_alphabet(
    recipe: Recipe, drawn: Path, tmp_path: Path
) -> None:
    poor = replace(recipe, data=replace(recipe.data, vocabulary=12))
    with pytest.raises(DataError, match=r"^the captions have more characters .* to \d+ at least"):
        prepare(poor, drawn, tmp_path)
    assert not list(tmp_path.glob("corpus-*"))


def test_what_a_killed_preparation_left_is_no_corpus(
    recipe: Recipe, corpus: Corpus, drawn: Path, tmp_path: Path
) -> None:
    half = tmp_path / f".{corpus.folder.name}.partial"
    half.mkdir()
    (half / "photos.bin").write_bytes(b"half a photo")
    (half / "stray").write_bytes(b"")
    again = prepare(recipe, drawn, tmp_path)
    assert again.rows == corpus.rows
    assert sorted(path.name for path in again.folder.iterdir()) == [
        *("photos.bin", "rows.jsonl", "tokenizer.json")
    ]
    assert [path.name for path in tmp_path.iterdir()] == [corpus.folder.name]


@pytest.mark.parametrize("name", ["rows.jsonl", "tokenizer.json"])
def test_a_damaged_folder(recipe: Recipe, drawn: Path, tmp_path: Path, name: str) -> None:
    folder = prepare(recipe, drawn, tmp_path).folder
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"^{folder}: not a prepared corpus; delete it"):
        prepare(recipe, drawn, tmp_path)


def test_keys_of_any_characters(recipe: Recipe, tmp_path: Path) -> None:
    names = ["été.png", "line\u2028end\x85.png", "quote'\".png"]
    write_table(tmp_path, dict.fromkeys(names, encoded((8, 8))), "a red circle a red circle")
    data = Data((Source("s", table="rows.jsonl"),), vocabulary=20)
    corpus = prepare(replace(recipe, data=data), tmp_path, tmp_path / "cache")
    assert [row.key for row in corpus.rows] == names
