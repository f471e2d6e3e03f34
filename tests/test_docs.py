"""What the documentation says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from edge_runtime import ErrorCode, Manifest, Reason
from edge_runtime.chain.chain_file import ChainFile
from edge_runtime.console import EXIT_CODES
from edge_runtime.operators import find_operator, operator_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_links_lead_to_files_that_are_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_error_code_is_listed_with_its_exit_code() -> None:
    listed = {}
    for exit_code, kind, codes in re.findall(
        r"^\| (\d+) \| ([a-z-]+) \| (.*) \|$", _page("errors.md"), re.MULTILINE
    ):
        for code in re.findall(r"`([a-z-]+)`", codes):
            listed[code] = (int(exit_code), kind)
    assert listed == {str(code): (EXIT_CODES[code.kind], str(code.kind)) for code in ErrorCode}


def test_every_reason_but_the_plain_ones_is_explained() -> None:
    page = _page("ask-the-cloud.md")
    for reason in set(Reason) - {Reason.NO_FALLBACK, Reason.FALLBACK_FAILED}:
        assert f"`{reason}`" in page, reason


def test_every_field_of_the_manifest_is_explained() -> None:
    page = _page("bundle.md")
    for field in msgspec.structs.fields(Manifest):
        if field.name != "model":
            assert f"`{field.name}`" in page, field.name


def test_every_operator_is_listed_with_its_tensors_and_settings() -> None:
    page = _page("run-on-a-device.md")
    rows = {
        name: (takes, gives, settings)
        for names, takes, gives, settings in re.findall(
            r"^\| (`.*`) \| (`.*`) \| (`.*`) \| (.*) \|$", page, re.MULTILINE
        )
        for name in re.findall(r"`([a-z-]+)`", names)
    }
    for name in operator_names():
        if name.startswith(("test-", "sign-")):
            continue  # another test's own; the sign translator's, which has a page of its own
        operator = find_operator(name)
        takes, gives, _ = rows[name]
        assert tuple(re.findall(r"`(\w+)`", takes)) == operator.inputs
        assert tuple(re.findall(r"`(\w+)`", gives)) == operator.outputs


def test_the_chains_shown_are_chains() -> None:
    for page in PAGES:
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
            if "[[stages]]" in block:
                assert msgspec.toml.decode(block, type=ChainFile).stages
