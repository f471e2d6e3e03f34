"""`hybridge fallback token`: a token that the endpoint lets in, written where only its owner reads it."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.token_file import TokenFile, token_digest
from tests.command import hybridge


def test_what_it_writes_is_let_in(tmp_path: Path) -> None:
    tokens, file = tmp_path / "tokens.toml", tmp_path / "gate.token"
    made = hybridge(
        *("fallback", "token", 'gate é".17', "--out", file, "--scope", "infer", "--scope", "admin"),
        *("--model", "digits", "--expires", "2999-01-01T00:00:00Z"),
    )
    assert made.exit_code == 0, made.stderr
    # As the shell's >> does, behind an entry that is there.
    tokens.write_text("[clients.other]\n" + made.stdout)
    token = file.read_text().strip()
    access = Access(TokenFile(tokens))
    assert access.admit(token, "infer", lambda: "x", model="digits") == 'gate é".17'
    assert access.admit(token, "admin", lambda: "x") == 'gate é".17'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) == 43
    assert token not in made.stdout + made.stderr
    entry = tomllib.loads(made.stdout)["clients"]['gate é".17']
    assert entry["token_sha256"] == [token_digest(token)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--expires", "2030-01-01T00:00:00"], "usage"),
        ([], "file-exists"),
    ],
)
def test_what_cannot_be_leaves_the_token_that_is_there(
    tmp_path: Path, arguments: list[str], code: str
) -> None:
    file = tmp_path / "gate.token"
    file.write_text("old")
    refused = hybridge("fallback", "token", "gate", "--out", file, "--format", "json", *arguments)
    assert refused.exit_code != 0
    assert refused.json["error"]["code"] == code
    # It has no flag to overwrite with.
    assert "--overwrite" not in refused.json["error"]["message"]
    assert file.read_text() == "old"
