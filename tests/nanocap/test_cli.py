"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from nanocap import Captioner
from nanocap.bundle.confidence import Confidence
from nanocap.bundle.quality import rewrite
from nanocap.cli import VERBS, group
from nanocap.progress import Progress

PROGRAM = [sys.executable, "-m", "nanocap"]


@pytest.fixture
def run(tiny_bundle: Path) -> Any:
    def call(*arguments: object, bundle: Path = tiny_bundle, stdin: str | None = None) -> Result:
        options = ["caption", "--bundle", str(bundle), *map(str, arguments)]
        return CliRunner().invoke(group, options, input=stdin)

    return call


def test_one_photo_is_the_sentence_alone(
    run: Any, photo_files: list[Path], captioner: Captioner
) -> None:
    result = run(photo_files[0])
    assert result.stdout == f"{captioner(photo_files[0]).text}\n"
    assert (result.stderr, result.exit_code) == ("", 0)


def test_several_photos_are_named(run: Any, photo_files: list[Path], captioner: Captioner) -> None:
    result = run(*photo_files, "--batch-size", 2)
    expected = [f"{path}\t{captioner(path).text}" for path in photo_files]
    assert result.stdout.splitlines() == expected
    assert result.exit_code == 0


def test_json(run: Any, photo_files: list[Path], captioner: Captioner) -> None:
    result = run("--json", photo_files[0], "gone.jpg")
    good, bad = map(json.loads, result.stdout.splitlines())
    caption = captioner(photo_files[0])
    assert good == {
        "image": str(photo_files[0]),
        "caption": caption.text,
        "confidence": pytest.approx(caption.confidence, abs=1e-3),
    }
    assert set(bad) == {"image", "error"}
    assert bad["image"] == "gone.jpg"
    assert "no such file" in bad["error"]
    assert (result.stderr, result.exit_code) == ("", 1)


def test_several_sentences_a_photo(run: Any, photo_files: list[Path]) -> None:
    lines = run("--n-best", 3, photo_files[0]).stdout.splitlines()
    assert 2 <= len(set(lines)) == len(lines) <= 3
    found = json.loads(run("--n-best", 3, "--json", photo_files[0]).stdout)
    assert [found["caption"], *(one["caption"] for one in found["alternatives"])] == lines
    assert all(0 <= one["confidence"] <= 1 for one in found["alternatives"])
    assert "alternatives" not in json.loads(run("--json", photo_files[0]).stdout)


def test_failures_are_named_and_the_others_are_captioned(
    run: Any, photo_files: list[Path], tmp_path: Path
) -> None:
    empty, text, cut = tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "cut.jpg"
    empty.touch()
    text.write_text("no photo")
    Image.new("RGB", (99, 99)).save(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    result = run(photo_files[0], empty, "gone.jpg", text, cut, photo_files[1])
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [
        str(photo_files[0]),
        str(photo_files[1]),
    ]
    lines = result.stderr.splitlines()
    assert len(lines) == 4, "one line a failure"
    for line, name in zip(lines, [empty, "gone.jpg", text, cut], strict=True):
        assert line.startswith(f"nanocap: {name}: ")
    assert result.exit_code == 1


def test_a_single_failure(run: Any, tmp_path: Path) -> None:
    result = run(tmp_path / "gone.jpg")
    assert result.stdout == ""
    assert result.stderr == f"nanocap: {tmp_path}/gone.jpg: there is no such file; check the path\n"
    assert result.exit_code == 1


def test_folders_are_searched_in_order(run: Any, photo_files: list[Path]) -> None:
    folder = photo_files[0].parent
    deeper = folder / "b" / "c"
    deeper.mkdir(parents=True)
    shutil.copy(photo_files[0], deeper / "DEEP.PNG")
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden").mkdir()
    shutil.copy(photo_files[0], folder / ".hidden" / "thumbnail.png")
    (folder / "._0.png").write_text("what macOS leaves on other disks")
    (folder / "b" / "loop").symlink_to(folder)
    result = run(folder)
    names = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert names == [*map(str, photo_files), str(deeper / "DEEP.PNG")]
    assert result.exit_code == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_a_folder_without_photos(as_json: bool, run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "notes.txt").touch()
    result = run(folder, *(["--json"] if as_json else []))
    (line,) = (result.stdout if as_json else result.stderr).splitlines()
    message = json.loads(line)["error"] if as_json else line
    assert f"{folder}: no photos in this folder" in message
    assert ".jpg" in message
    assert result.exit_code == 1


def test_a_list_on_standard_input(run: Any, photo_files: list[Path]) -> None:
    listed = f"{photo_files[1]}\n\n{photo_files[0]}\r\ngone.jpg\n"
    result = run("-", stdin=listed)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [
        str(photo_files[1]),
        str(photo_files[0]),
    ]
    assert "gone.jpg" in result.stderr
    assert result.exit_code == 1


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output="stdout" not in options, timeout=60, **options)


ODD_NAMES = [b"caf\xe9.png", b"new\nline.png", b" space .png", b"tab\t.png", b"esc\x1b[31m.png"]


@pytest.fixture
def odd_names(tmp_path: Path, photo_files: list[Path]) -> list[bytes]:
    """Paths that are bytes of the file system, and no text."""
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    paths = [os.path.join(folder, name) for name in ODD_NAMES]
    for path in paths:
        shutil.copy(os.fsencode(photo_files[0]), path)
    return paths


@pytest.mark.parametrize("language", ["C.UTF-8", "C", "en_US.ISO-8859-1"])
def test_names_are_bytes(
    language: str, odd_names: list[bytes], tiny_bundle: Path, captioner: Captioner
) -> None:
    run = program(
        *("caption", "--json", "--bundle", tiny_bundle, "--null", "-"),
        input=b"\0".join(odd_names),
        env=os.environ | {"LC_ALL": language},
    )
    assert (run.returncode, run.stderr) == (0, b"")
    images = [json.loads(line)["image"] for line in run.stdout.splitlines()]
    if language == "C.UTF-8":
        assert [os.fsencode(image) for image in images] == odd_names
    assert len(images) == len(odd_names)


def test_plain_lines_hold_no_control_characters(odd_names: list[bytes], tiny_bundle: Path) -> None:
    folder = os.path.dirname(odd_names[0])
    run = program("caption", "--bundle", tiny_bundle, os.fsdecode(folder))
    assert run.returncode == 0
    lines = run.stdout.decode().splitlines()
    assert len(lines) == len(odd_names)
    for line in lines:
        name, _, sentence = line.partition("\t")
        assert (name + sentence).isprintable()
    assert any("new\\nline.png\t" in line for line in lines)
    assert any("esc\\x1b[31m.png\t" in line for line in lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_other_systems(
    encoding: str, end: str, photo_files: list[Path], tiny_bundle: Path
) -> None:
    text = end.join(map(str, photo_files[:3])) + end
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    run = program("caption", "--bundle", tiny_bundle, "-", input=(mark + text).encode(encoding))
    assert run.returncode == 0, run.stderr
    names = [line.split("\t")[0] for line in run.stdout.decode().splitlines()]
    assert names == list(map(str, photo_files[:3]))


@pytest.mark.parametrize("listed", [b"a.png\0b.png\0", "a.png\n".encode("utf-16-le")])
def test_a_list_that_ends_its_names_otherwise(listed: bytes, tiny_bundle: Path) -> None:
    run = program("caption", "--bundle", tiny_bundle, "-", input=listed)
    assert run.returncode == 1
    line, *_ = run.stderr.decode().splitlines()
    assert line == (
        "nanocap: standard input, name 1: holds a NUL byte; with names that end with one, add"
        " --null"
    )


def test_a_bad_name_does_not_end_the_list(tiny_bundle: Path, photo_files: list[Path]) -> None:
    good = os.fsencode(photo_files[0])
    listed = b"\n".join([b"x\0y.png", good, b"z" * 200_000, good, b""])
    run = program("caption", "--bundle", tiny_bundle, "-", input=listed)
    assert run.returncode == 1
    assert len(run.stdout.splitlines()) == 2
    first, second = run.stderr.decode().splitlines()
    assert "name 1: holds a NUL byte" in first
    assert "name 3: longer than any path" in second


def test_a_list_that_is_none(tiny_bundle: Path) -> None:
    run = program("caption", "--bundle", tiny_bundle, "-", input=b"x" * 10_000_000)
    assert run.returncode == 1
    (line,) = run.stderr.decode().splitlines()
    assert "name 1: longer than any path" in line


def test_a_caption_comes_when_its_photo_is_named(
    photo_files: list[Path], tiny_bundle: Path
) -> None:
    """Each is read before the next name is written: a program that waited would wait forever."""
    run = subprocess.Popen(
        [*PROGRAM, "caption", "--bundle", str(tiny_bundle), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    for path in photo_files:
        run.stdin.write(f"{path}\n")
        assert run.stdout.readline().startswith(f"{path}\t")
    run.stdin.close()
    assert run.wait(timeout=60) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("verb", ["caption", "caption several", "verify"])
def test_output_that_cannot_be_written(
    verb: str, photo_files: list[Path], tiny_bundle: Path
) -> None:
    arguments = {
        "caption": ["caption", "--bundle", tiny_bundle, photo_files[0]],
        "caption several": ["caption", "--bundle", tiny_bundle, *photo_files],
        "verify": ["verify", tiny_bundle],
    }[verb]
    with open("/dev/full", "wb") as full:
        run = program(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert run.returncode == 1
    assert run.stderr == b"nanocap: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full"])
def test_captions_come_whoever_listens(
    closing: str, photo_files: list[Path], tiny_bundle: Path, captioner: Captioner
) -> None:
    """As under cron, or in a desktop's launcher."""
    shell = f'exec "$@" {closing}'
    names = [photo_files[0], "gone.png", photo_files[1]]
    command = ["sh", "-c", shell, "sh", *PROGRAM, "caption", "--bundle", str(tiny_bundle)]
    run = subprocess.run([*command, *map(str, names)], stdout=subprocess.PIPE, text=True)
    assert run.returncode == 1
    found = captioner([photo_files[0], photo_files[1]])
    expected = [f"{photo_files[i]}\t{found[i].text}" for i in (0, 1)]
    assert run.stdout.splitlines() == expected


def test_a_standard_output_that_is_closed(photo_files: list[Path], tiny_bundle: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "caption", "--bundle"]
    run = subprocess.run(
        [*command, str(tiny_bundle), str(photo_files[0])], stderr=subprocess.PIPE, text=True
    )
    assert run.returncode == 1
    assert run.stderr == "nanocap: the output cannot be written: Bad file descriptor\n"


def test_a_standard_input_that_is_closed(tiny_bundle: Path) -> None:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, "caption", "--bundle"]
    run = subprocess.run([*command, str(tiny_bundle), "-"], capture_output=True, text=True)
    expected = "nanocap: standard input is closed: there is no list of paths to read\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", expected)


def test_threads_are_at_most_the_cores(run: Any, photo_files: list[Path]) -> None:
    result = run("--threads", 999, photo_files[0])
    assert result.exit_code == 0
    assert result.stderr.startswith("nanocap: threads 999: taking ")


def test_an_empty_list_is_done(run: Any) -> None:
    result = run("-", stdin="")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "", 0)


def test_options_reach_the_model(run: Any, photo_files: list[Path], captioner: Captioner) -> None:
    one = captioner(photo_files, beams=1, length="short")
    result = run("--beams", 1, "--length", "short", "--threads", 1, *photo_files)
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == [c.text for c in one]
    assert [c.text for c in one] != [c.text for c in captioner(photo_files)]


def test_captions_that_are_not_sure_enough(
    run: Any, tiny_bundle: Path, tmp_path: Path, photo_files: list[Path]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "calibrated"))
    fitted = Confidence(0.0, {"pieces": 1.0}, ("a",), 200)
    rewrite(bundle, lambda manifest: replace(manifest, confidence=fitted))
    first, second = sorted(map(Captioner(bundle), photo_files[:2]), key=lambda c: c.confidence)
    assert first.confidence < second.confidence
    paths = photo_files[:2]
    least = (first.confidence + second.confidence) / 2
    said = run(*paths, "--min-confidence", least, bundle=bundle).stdout.splitlines()
    assert {line.split("\t")[1] for line in said} == {f"May be: {first.text}", second.text}
    said = run(*paths, "--min-confidence", least, "--abstain", bundle=bundle).stdout.splitlines()
    assert {line.split("\t")[1] for line in said} == {"", second.text}
    lines = run(*paths, "--json", "--min-confidence", least, "--abstain", bundle=bundle).stdout
    assert {json.loads(line)["caption"] for line in lines.splitlines()} == {None, second.text}
    nothing = run(paths[0], "--min-confidence", 1, "--abstain", bundle=bundle)
    assert (nothing.stdout, nothing.stderr, nothing.exit_code) == ("", "", 0)


def test_confidence_that_is_no_probability(run: Any, photo_files: list[Path]) -> None:
    result = run("--min-confidence", 0.5, photo_files[0])
    assert "nanocap calibrate" in result.stderr
    assert result.exit_code == 2
    assert "--abstain needs" in run("--abstain", photo_files[0]).stderr


def test_the_limit_on_pixels(run: Any, photo_files: list[Path]) -> None:
    result = run("--max-pixels", 1000, photo_files[0])
    assert "64x48" in result.stderr
    assert result.exit_code == 1
    assert run("--max-pixels", 64 * 48, photo_files[0]).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "--beams", "0", "x.jpg"],
        ["caption", "--length", "huge", "x.jpg"],
        ["caption", "--threads", "many", "x.jpg"],
        ["caption", "--no-such-option"],
        ["capton", "x.jpg"],
        ["verify", "a", "b"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_a_bundle_that_is_refused(
    run: Any, tiny_bundle: Path, tmp_path: Path, photo_files: list[Path]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "altered"))
    (bundle / "README.md").write_text("{}")
    for photos in (photo_files[:1], photo_files):
        result = run(*photos, bundle=bundle)
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"nanocap: bundle {bundle}: README.md has 2 bytes instead")
        assert (result.stdout, result.exit_code) == ("", 1)


def test_help_teaches_and_imports_nothing_large() -> None:
    shown = CliRunner().invoke(group, ["--help"])
    assert shown.exit_code == 0
    for name, verb in VERBS.items():
        assert f"  {name} " in shown.output
        assert verb.help in shown.output
    code = "import sys; from nanocap.__main__ import main; sys.argv = ['nanocap', '--help'];\n"
    code += "try: main()\nfinally: print({'numpy', 'PIL', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set()"
    assert "find . -name" in CliRunner().invoke(group, ["caption", "--help"]).output


def test_the_program_ends_without_taking_itself_apart() -> None:
    """But not before what was printed is out and what verbs left for the end is done."""
    code = (
        "import atexit\n"
        "from nanocap import cli\n"
        "class Large:\n"
        "    def __del__(self): print('taken apart')\n"
        "large = Large()\n"
        "def verb(**options):\n"
        "    atexit.register(print, 'left for the end')\n"
        "    print('said')\n"
        "    return 3\n"
        "cli.group.main = verb\n"
        "cli.run()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("said\nleft for the end\n", 3)
    unexpected = subprocess.run(
        [sys.executable, "-c", code.replace("print('said')", "raise ValueError('said')")],
        capture_output=True,
        text=True,
    )
    assert unexpected.stderr.endswith("ValueError: said\n")
    assert unexpected.returncode == 1


def test_a_verb_whose_extra_is_missing(tmp_path: Path) -> None:
    """As in a bare install, where importing torch fails."""
    code = (
        "import sys\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'safetensors', 'tokenizers', 'onnx'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "sys.argv = ['nanocap', 'distill', 'recipe.toml', '--out', 'x']\n"
        "from nanocap.__main__ import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    (line,) = run.stderr.splitlines()
    assert line.startswith("nanocap: ")
    assert "pip install 'nanocap[distill]'" in line
    assert run.returncode == 1


def test_verify(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(group, ["verify", str(tiny_bundle)])
    assert result.exit_code == 0
    golden = json.loads((tiny_bundle / "manifest.json").read_text())["golden"]["caption"]
    for part in ("tiny 1.0.0", "onnx-fp32", "schema  2", "files   4", "SHA-256", golden):
        assert part in result.output
    report = json.loads(CliRunner().invoke(group, ["verify", "--json", str(tiny_bundle)]).output)
    assert report["ok"] is True
    assert report["golden"] == golden
    assert report["files"] == 4


def test_verify_names_what_is_wrong(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "altered"))
    (bundle / "notes.txt").touch()
    assert "notes.txt is not in the manifest" in verify(bundle, 0)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["golden"]["caption"] = "Something else."
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "the manifest has 'Something else.'" in verify(bundle, 1)
    data = bytearray((bundle / "README.md").read_bytes())
    data[0] ^= 1
    (bundle / "README.md").write_bytes(data)
    assert "README.md differs from its SHA-256" in verify(bundle, 1)
    report = json.loads(CliRunner().invoke(group, ["verify", "--json", str(bundle)]).stdout)
    assert report["ok"] is False
    assert "README.md" in report["error"]


def verify(bundle: Path, code: int) -> str:
    result = CliRunner().invoke(group, ["verify", str(bundle)])
    assert result.exit_code == code
    if code:
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
    return result.output


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [*PROGRAM, *map(str, arguments)]
    # A shell's background job ignores Ctrl-C and hands that on; a person's foreground job does not.
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options)


def test_the_program_as_a_process(
    tiny_bundle: Path, photo_files: list[Path], captioner: Captioner
) -> None:
    out, err = start("caption", "--bundle", tiny_bundle, photo_files[2]).communicate()
    assert (out, err) == (f"{captioner(photo_files[2]).text}\n", "")
    process = start("caption", "--bundle", tiny_bundle, "gone.jpg", photo_files[2])
    out, err = process.communicate()
    assert process.returncode == 1
    assert out.count("\n") == 1
    assert err.startswith("nanocap: gone.jpg: ")
    out, err = start("--version").communicate()
    assert out == "nanocap 0.1.0\n"


def test_names_that_are_no_text(tiny_bundle: Path, photo_files: list[Path]) -> None:
    odd = os.fsencode(photo_files[0].parent) + b"/\xff odd\n.png"
    shutil.copy(photo_files[0], odd)
    process = start("caption", "--json", "--bundle", tiny_bundle, os.fsdecode(odd), "\udcfe.jpg")
    out, err = process.communicate()
    good, bad = map(json.loads, out.splitlines())
    assert os.fsencode(good["image"]) == odd
    assert "error" in bad
    process = start("caption", "--bundle", tiny_bundle, photo_files[0].parent, "\udcfe.jpg")
    out, err = process.communicate()
    assert out.count("\t") == 6
    assert process.returncode == 1
    assert "Traceback" not in err


def test_a_reader_that_stops_reading(tiny_bundle: Path, photo_files: list[Path]) -> None:
    process = start("caption", "--batch-size", 1, "--bundle", tiny_bundle, *photo_files * 20)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(str(photo_files[0]))
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_interrupt(tiny_bundle: Path, photo_files: list[Path]) -> None:
    process = start("caption", "--batch-size", 1, "--bundle", tiny_bundle, "-")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{photo_files[0]}\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(str(photo_files[0])), "a list is read as it comes"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert err.strip() == ""
    assert process.returncode == 130


def test_progress_on_a_terminal(tiny_bundle: Path, photo_files: list[Path]) -> None:
    assert "5/5" in terminal(tiny_bundle, photo_files)
    assert terminal(tiny_bundle, photo_files[:3]) == "", "for a few there is none"


def terminal(bundle: Path, photos: list[Path]) -> str:
    """What the program writes to a terminal on its standard error."""
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "caption", "--bundle", str(bundle), *map(str, photos)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    assert done.stdout.count("\t") == len(photos)
    shown = b""
    os.set_blocking(ours, False)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            data = os.read(ours, 4096)
        except (BlockingIOError, OSError):
            break
        if not data:
            break
        shown += data
    os.close(ours)
    return shown.decode()


def test_the_progress_line() -> None:
    progress = Progress(340)
    progress.done = 12
    assert progress.line(4.0) == "12/340  3.0/s  1:49 left"
    assert not progress.shown, "standard error is no terminal here"
    listed = Progress(None)
    listed.done = 12
    assert listed.line(4.0) == "12  3.0/s"


def test_what_an_earlier_run_did_says_nothing_of_the_speed() -> None:
    progress = Progress(40_000)
    progress.skip(1000)
    progress.step(30)
    assert progress.line(10.0) == "1030/40000  3.0/s  3:36:30 left"
