"""Keys: what photos are called here, and which of them is meant by what others call it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from nanocap.image.formats import SUFFIXES


def photo_key(path: str) -> str:
    """The key of a photo that is a file: its path in its folder, without the suffix.

    Dots in its name become `_`, since a key ends at the first dot once it is in a shard. A key
    stays as it is.
    """
    file = PurePosixPath(path)
    stem = file.stem if file.suffix.lower() in SUFFIXES else file.name
    return file.with_name(stem.replace(".", "_")).as_posix() if stem else path


def distinct(keys: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """The keys of photos, changed where two are the same but for upper and lower case.

    The first keeps its key. Each other one's is joined by its suffix, `a.jpg` and `a.png` being `a`
    and `a_png`, and if that is somebody's too, by the first number from 2 on that makes it its own.
    It depends on the names and their order alone.

    Args:
        suffixes: without a dot, one a key.
    """
    first: dict[str, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key.casefold(), place)
    taken, found = set(first), list(keys)
    for place, (key, suffix) in enumerate(zip(keys, suffixes, strict=True)):
        if first[key.casefold()] == place:
            continue
        found[place] = next(one for one in _longer(key, suffix) if one.casefold() not in taken)
        taken.add(found[place].casefold())
    return found


def _longer(key: str, suffix: str) -> Iterator[str]:
    yield f"{key}_{suffix}"
    number = 2
    while True:
        yield f"{key}_{suffix}_{number}"
        number += 1


def find_photos(
    names: Sequence[str], photos: Mapping[str, str], folders: Sequence[Path] = ()
) -> dict[str, str]:
    """Which photo is meant by each name, as far as that is sure: keys by name.

    A name is a photo's key; else its path in one of the folders; else as much of its path, from its
    end, as no other name and no other photo shares, with the suffix or, failing that, without. The
    file's name alone counts last, behind the path in the folder that all names have in common.

    Args:
        photos: paths by key; the key again where a photo has no path.
        folders: where the photos lie.
    """
    found = {name: name for name in names if name in photos}
    of_names = {name: _relative(name, folders) for name in names}
    shared = _shared_folder(list(of_names.values()))
    ways: list[Callable[[str], str | None]] = [lambda path: path, photo_key]
    depth = max((path.count("/") for path in (*of_names.values(), *photos.values())), default=0)
    for length in range(depth + 1, 0, -1):
        if length == 1:
            ways += [_inside(shared, whole=True), _inside(shared, whole=False)]
        ways += [_tail(length, whole=True), _tail(length, whole=False)]
    for way in ways:
        ours = _alone({key: way(path) for key, path in photos.items()})
        theirs = _alone({name: way(path) for name, path in of_names.items()})
        met = set(found.values())
        for end, name in theirs.items():
            if name not in found and end in ours and ours[end] not in met:
                found[name] = ours[end]
    return found


def _relative(name: str, folders: Sequence[Path]) -> str:
    """A path in the first folder that it leads into; else as it is, without what says nothing."""
    whole = os.path.abspath(name)
    for folder in folders:
        root = os.path.abspath(folder)
        if whole.startswith(f"{root}{os.sep}"):
            return Path(whole).relative_to(root).as_posix()
    return Path(os.path.normpath(name)).as_posix()


def _tail(length: int, whole: bool) -> Callable[[str], str | None]:
    """The last parts of a path; None of a shorter one."""

    def tail(path: str) -> str | None:
        parts = (path if whole else photo_key(path)).split("/")
        return "/".join(parts[-length:]) if len(parts) >= length else None

    return tail


def _shared_folder(paths: Sequence[str]) -> str:
    """The folder that all paths begin with, with its slash; empty where there is none."""
    parts = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    shared = takewhile(lambda each: len(set(each)) == 1, parts)
    return "".join(f"{part}/" for part, *_ in shared)


def _inside(folder: str, whole: bool) -> Callable[[str], str | None]:
    """A path without the folder; one that is elsewhere stays."""

    def inside(path: str) -> str | None:
        return (path if whole else photo_key(path)).removeprefix(folder)

    return inside


def _alone(ends: Mapping[str, str | None]) -> dict[str, str]:
    """Who has each end, of those that one alone has."""
    counts = Counter(ends.values())
    return {end: who for who, end in ends.items() if end is not None and counts[end] == 1}
