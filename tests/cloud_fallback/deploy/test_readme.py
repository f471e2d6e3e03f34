"""The how-to: its links lead somewhere, it leaves no file out, and its commands are ones that hybridge has."""

from __future__ import annotations

import re

from edge_runtime.command import hybridge
from tests.cloud_fallback.deploy.manifests import DEPLOY

PAGE = (DEPLOY / "README.md").read_text()


def test_links_lead_to_files_that_are_there() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE)
    assert targets
    for target in targets:
        assert (DEPLOY / target).exists(), target


def test_commands_name_files_that_are_there() -> None:
    named = re.findall(r"docs/deploy/[\w./-]+", PAGE)
    assert named
    for name in named:
        assert (DEPLOY.parents[1] / name).exists(), name


def test_commands_of_ours_are_verbs_that_there_are() -> None:
    verbs = set(
        re.findall(r"`?hybridge (\w+)", " ".join(re.findall(r"^\$ (hybridge .*)$", PAGE, re.MULTILINE)))
    )
    assert verbs
    assert verbs <= set(hybridge.list_commands(hybridge.make_context("hybridge", [], resilient_parsing=True)))


def test_nothing_is_left_out() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix not in (".pyc", ".md", ".dockerignore"):
            relative = path.relative_to(DEPLOY)
            # Each by itself, or by its folder.
            assert any(str(each) in PAGE for each in (relative, relative.parent) if str(each) != "."), (
                relative
            )
