from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from convert.recipes import Pruning, Recipe, Training
from convert.search.store import TrialStore, default_folder, trial_key
from convert.search.trial import Attempt, Failure, Trial, attempt
from edge_runtime import Bundle, ErrorCode, HybridgeError
from edge_runtime.latency import measure_in_turn
from tests.convert.search.conftest import Script, metrics

RECIPE = Recipe(name="int8")


def key(name: str) -> str:
    return trial_key(name, RECIPE, max_drop=None)


@pytest.fixture
def store(tmp_path: Path) -> TrialStore:
    return TrialStore(tmp_path / "deep" / "trials")


@pytest.fixture
def made(script: Script) -> Attempt:
    return attempt(script, RECIPE)


def test_a_trial_comes_back_as_it_was_with_its_bundle(store: TrialStore, made: Attempt) -> None:
    kept = store.put(key("a"), made)
    found = store.get(key("a"), RECIPE)
    assert found is not None
    assert found.cached
    assert not kept.cached
    assert (found.size, found.accuracy, found.parity, found.latency_ms, found.digest, found.seconds) == (
        kept.size, kept.accuracy, kept.parity, kept.latency_ms, kept.digest, kept.seconds,
    )  # fmt: skip
    assert store.bundle(found).to_bytes() == made.bundle
    assert store.get(key("b"), RECIPE) is None
    assert store.get(key("a"), Recipe(name="other")) is None


@pytest.mark.parametrize("suffix", ["edge", "json"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "missing"])
def test_a_damaged_trial_counts_as_absent_and_is_replaced(
    store: TrialStore, made: Attempt, suffix: str, damage: str
) -> None:
    store.put(key("a"), made)
    path = store.folder / f"{key('a')}.{suffix}"
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "missing":
        path.unlink()
    else:
        flipped = content[:middle] + b"\xff\x00" + content[middle + 2 :]
        path.write_bytes({"empty": b"", "truncated": content[:middle], "flipped": flipped}[damage])
    assert store.get(key("a"), RECIPE) is None
    store.put(key("a"), made)
    assert store.get(key("a"), RECIPE) is not None


def test_a_failure_that_lasts_is_kept_and_one_of_the_machine_is_not(store: TrialStore) -> None:
    for name, code in (("lasting", ErrorCode.PARITY_FAILED), ("passing", ErrorCode.INTERNAL)):
        store.put(key(name), Attempt(recipe=RECIPE, seconds=1.0, failure=Failure(code, "no")))
    found = store.get(key("lasting"), RECIPE)
    assert found is not None
    assert found.failure == Failure(ErrorCode.PARITY_FAILED, "no")
    assert store.get(key("passing"), RECIPE) is None


def test_latency_of_another_machine_is_kept_but_not_read(
    store: TrialStore, made: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(key("a"), made)
    for module in ("convert.search.trial", "edge_runtime.latency"):
        monkeypatch.setattr(f"{module}.machine_name", lambda: "another machine")
    found = store.get(key("a"), RECIPE)
    assert found is not None
    assert found.latency_ms is None
    probes = measure_in_turn([store.path(found.key)], rounds=1, runs=2, warmup=0, min_seconds=0)
    measured = store.put_latency(found, probes[store.path(found.key)], compared=True)
    assert measured.latency_ms is not None
    assert store.compared(measured)
    assert len(store.bundle(measured).manifest.metrics.latency) == 2
    again = store.get(key("a"), RECIPE)
    assert again is not None
    assert again.latency_ms == measured.latency_ms


def test_everything_that_shapes_a_trial_is_in_its_key() -> None:
    training = Training(prune=Pruning())
    recipes = [
        Recipe(name="a"),
        Recipe(name="b"),
        Recipe(name="a", training=training),
        Recipe(name="a", training=msgspec.structs.replace(training, epochs=1)),
    ]
    keys = [trial_key(context, recipe, max_drop=None) for context in "xy" for recipe in recipes]
    assert len(set(keys)) == len(keys)
    # A limit on accuracy stops training early, and has no part in quantising.
    assert trial_key("x", recipes[0], max_drop=0.1) == keys[0]
    assert trial_key("x", recipes[2], max_drop=0.1) != keys[2]


def test_beyond_its_limit_the_longest_unused_trials_go_and_nothing_else(
    tmp_path: Path, script: Script, make_bundle: Callable[..., Bundle]
) -> None:
    size = len(make_bundle().to_bytes())
    old = TrialStore(tmp_path)
    for name in "abc":
        old.put(key(name), attempt(script, RECIPE))
        used = time.time() - 1000 + ord(name)
        for suffix in ("edge", "json"):
            os.utime(tmp_path / f"{key(name)}.{suffix}", (used, used))
    others = [tmp_path / "mine.edge", tmp_path / f"{key('a')}.txt"]
    for path in others:
        path.write_bytes(bytes(10 * size))
    abandoned = tmp_path / f".{key('x')}.edge.abcdef"
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (1e9, 1e9))
    time.sleep(0.01)
    store = TrialStore(tmp_path, max_bytes=int(3.5 * size))
    assert store.get(key("a"), RECIPE) is not None  # used again
    store.put(key("d"), attempt(script, RECIPE))
    assert [name for name in "abcd" if store.get(key(name), RECIPE)] == ["a", "c", "d"]
    assert all(path.exists() for path in others)
    assert not abandoned.exists()
    small = TrialStore(tmp_path / "small", max_bytes=1)
    for name in "ab":
        small.put(key(name), attempt(script, RECIPE))
    assert small.get(key("a"), RECIPE) is not None  # of this very search


def test_two_searches_that_write_one_trial_leave_one_whole_trial(tmp_path: Path, script: Script) -> None:
    script.costs["int8"] = metrics(latency_ms=None)
    stores = [TrialStore(tmp_path) for _ in range(2)]
    errors: list[BaseException] = []
    seen: list[Trial] = []

    def write(store: TrialStore) -> None:
        try:
            for _ in range(25):
                trial = store.put(key("a"), attempt(script, RECIPE))
                probes = measure[store.path(trial.key)]
                seen.append(store.put_latency(trial, probes, compared=False))
        except BaseException as error:
            errors.append(error)

    stores[0].put(key("a"), attempt(script, RECIPE))
    path = stores[0].path(key("a"))
    measure = measure_in_turn([path], rounds=1, runs=2, warmup=0, min_seconds=0)
    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(seen) == 50
    found = stores[0].get(key("a"), RECIPE)
    assert found is not None
    assert found.latency_ms == seen[-1].latency_ms
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [".edge", ".json"]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HYBRIDGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "hybridge" / "search"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == tmp_path / ".cache" / "hybridge" / "search"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "hybridge" / "search"
    monkeypatch.setenv("HYBRIDGE_CACHE", str(tmp_path / "mine"))
    assert TrialStore().folder == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HybridgeError) as caught:
        TrialStore(tmp_path / "file" / "trials")
    assert caught.value.code is ErrorCode.FILE_UNWRITABLE
    assert "--cache" in caught.value.message
