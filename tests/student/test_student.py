"""The student's one file: written whole, read back exactly, refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nanocap.errors import NanocapError
from nanocap.student import Dimensions, Student


@pytest.fixture
def student(small: Dimensions) -> Student:
    return Student(small).eval()


def one_line(path: Path) -> str:
    """The message that loading `path` fails with."""
    with pytest.raises(NanocapError) as caught:
        Student.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_round_trip(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    student.save(path, {"note": "hello"})
    again, metadata = Student.load(path)
    assert metadata["note"] == "hello"
    assert again.dimensions == student.dimensions
    assert not again.training
    pixels, tokens = torch.randn(1, 3, 64, 64), torch.randint(0, 50, (1, 2, 7))
    with torch.no_grad():
        assert torch.equal(again(pixels, tokens), student(pixels, tokens))
    assert [file.name for file in tmp_path.iterdir()] == ["student.safetensors"]


def test_prefix_reads_one_copy_of_several(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    tensors = {f"average.{name}": tensor for name, tensor in student.state_dict().items()}
    tensors |= {f"student.{name}": tensor + 1 for name, tensor in student.state_dict().items()}
    header = {"dimensions": json.dumps(student.dimensions.to_dict())}
    safetensors.torch.save_file(tensors, path, header)
    again, _ = Student.load(path, prefix="average.")
    for name, tensor in student.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_save_that_fails_leaves_the_old_file(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.safetensors"
    student.save(path)
    before = path.read_bytes()

    def full_disk(tensors: object, filename: Path, metadata: object) -> None:
        filename.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("nanocap.student.file.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        student.save(path)
    assert path.read_bytes() == before


def test_missing_file(tmp_path: Path) -> None:
    assert one_line(tmp_path / "none.safetensors").endswith("no such checkpoint")


@pytest.mark.parametrize("cut", [0, 5, 500, -1])
def test_truncated_file(student: Student, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "student.safetensors"
    student.save(path)
    path.write_bytes(path.read_bytes()[:cut])
    assert "not a student's checkpoint" in one_line(path)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "photo.safetensors"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    assert "not a student's checkpoint" in one_line(path)


def test_a_folder(tmp_path: Path) -> None:
    assert "not a student's checkpoint" in one_line(tmp_path)


@pytest.mark.parametrize(
    "dimensions",
    ["{", "[]", "3", '{"depth": 3}', '{"width": "wide"}', '{"width": 64}', '{"keep": 7}'],
)
def test_a_header_that_does_not_fit(student: Student, tmp_path: Path, dimensions: str) -> None:
    path = tmp_path / "student.safetensors"
    safetensors.torch.save_file(student.state_dict(), path, {"dimensions": dimensions})
    assert "not a student's checkpoint" in one_line(path)


def test_no_header(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    safetensors.torch.save_file(student.state_dict(), path)
    assert "not a student's checkpoint" in one_line(path)


def test_a_tensor_is_missing(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    state = student.state_dict()
    state.pop("decoder.positions")
    header = {"dimensions": json.dumps(student.dimensions.to_dict())}
    safetensors.torch.save_file(state, path, header)
    assert "not a student's checkpoint" in one_line(path)
