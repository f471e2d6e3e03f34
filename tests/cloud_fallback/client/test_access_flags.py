"""Commands that ask a cloud over TLS with a token: the same flags let each in, or it says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cloud_fallback import CloudFallback, EndpointProcess
from cloud_fallback.client.drain_command import drain
from cloud_fallback.client.table_command import table
from cloud_fallback.endpoint.token_file import token_digest
from cloud_fallback.outbox import Outbox
from cloud_fallback.threshold.fit_command import fit
from edge_runtime import Bundle, ErrorCode, HybridgeError
from edge_runtime.run_command import run
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.conftest import unsure
from tests.command import hybridge

TOKEN = "token-of-a-team-" + "t" * 27
COUNT = 200


@dataclass(frozen=True)
class Team:
    """A folder with what a team has, and the address of its endpoint, which wants TLS and a token."""

    folder: Path
    address: str

    def url(self, model: str = "classifier", scheme: str = "grpcs") -> str:
        return f"{scheme}://{self.address}/{model}"

    def access(self, *, ca: str = "authority.pem", token: str = "team.token") -> list[str]:
        return ["--tls-ca", str(self.folder / ca), "--token-file", str(self.folder / token)]

    def table_words(self, out: Path, model: str = "classifier") -> list[str]:
        words = ["--data", self.folder / "data.npz", "--cloud", self.url(model), "--out", out / "a.answers"]
        return [*map(str, words), "--top", "5"]

    def fit_words(self, out: Path, model: str = "classifier") -> list[str]:
        words = [
            "--bundle",
            self.folder / "small.edge",
            "--data",
            self.folder / "data.npz",
            "--out",
            out / "out",
        ]
        return [*map(str, words), "--cloud", self.url(model), "--target-accuracy", "0.8"]


@pytest.fixture(scope="module")
def team(
    onnx_models: Path, make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    authority = Authority.create(folder)
    Authority.create(folder, "another")
    cert, key = authority.sign("server", ["127.0.0.1"])
    (folder / "team.token").write_text(TOKEN)
    (folder / "wrong.token").write_text(f"wrong-{TOKEN}")
    entry = f'token_sha256 = ["{token_digest(TOKEN)}"]\nmodels = ["classifier"]\n'
    (folder / "tokens.toml").write_text(f"[clients.team]\n{entry}")
    make_bundle(model="classifier-int8", name="small", threshold=1.0).save(folder / "small.edge")
    images = np.random.default_rng(0).random((COUNT, 8, 8, 1), dtype=np.float32)
    flags = ["--tls-cert", cert, "--tls-key", key, "--tokens", folder / "tokens.toml"]
    with EndpointProcess([onnx_models], arguments=map(str, flags)) as process:
        team = Team(folder, process.address)
        settings = {"tls": {"ca": "authority.pem"}, "token_file": "team.token"}
        with CloudFallback.from_url(team.url(), settings=settings, folder=folder, deadline_s=30) as cloud:
            labels = [int(cloud.infer({"image": image[None]})["logits"].argmax()) for image in images]
        np.savez(folder / "data.npz", image=images, label=np.array(labels))
        np.save(folder / "image.npy", images[:1])
        yield team


def _invoke(verb: Any, *words: str) -> Any:
    return CliRunner().invoke(verb, words, catch_exceptions=False)


def _refusal(verb: Any, *words: str) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        _invoke(verb, *words)
    return caught.value


def test_a_table_is_built_with_the_right_token_and_the_flags_may_come_from_the_environment(
    team: Team, tmp_path: Path
) -> None:
    env = {
        "HYBRIDGE_FALLBACK_TABLE_TLS_CA": str(team.folder / "authority.pem"),
        "HYBRIDGE_FALLBACK_TABLE_TOKEN_FILE": str(team.folder / "team.token"),
    }
    result = hybridge("fallback", "table", *team.table_words(tmp_path), "--format", "json", env=env)
    assert result.exit_code == 0, result.stderr
    assert result.json["kept"] == 5


def test_thresholds_are_fitted_with_the_right_token(team: Team, tmp_path: Path) -> None:
    result = _invoke(fit, *team.fit_words(tmp_path), *team.access(), "--format", "json")
    assert json.loads(result.stdout)["cloud_accuracy"] == 1.0
    assert (tmp_path / "out/small.edge").exists()


@pytest.mark.parametrize("verb", ["fit", "table"])
@pytest.mark.parametrize(
    ("access", "model", "code", "advice"),
    [
        ({"token": "wrong.token"}, "classifier", ErrorCode.UNAUTHENTICATED, "--token-file"),
        ({}, "linear", ErrorCode.NOT_PERMITTED, "a model that the token is for"),
        ({"ca": "another.pem"}, "classifier", ErrorCode.CLOUD_UNAVAILABLE, "--tls-ca"),
        ({"token": "none.token"}, "classifier", ErrorCode.CREDENTIALS_INVALID, "No such file"),
    ],
    ids=["wrong token", "another model", "unknown authority", "no such file"],
)
def test_who_is_not_let_in_hears_what_to_do_and_nothing_is_written(
    team: Team, tmp_path: Path, verb: str, access: dict[str, str], model: str, code: ErrorCode, advice: str
) -> None:
    words = team.fit_words(tmp_path, model) if verb == "fit" else team.table_words(tmp_path, model)
    error = _refusal(fit if verb == "fit" else table, *words, *team.access(**access))
    assert error.code is code
    assert advice in error.message
    assert TOKEN not in error.message
    assert not list(tmp_path.iterdir())


def test_a_run_asks_with_the_right_token_and_keeps_the_devices_answer_without(team: Team) -> None:
    words = [str(team.folder / "small.edge"), "--input", str(team.folder / "image.npy"), "--format", "json"]
    asked = [*words, "--fallback", team.url(), "--deadline-ms", "20000"]
    assert json.loads(_invoke(run, *asked, *team.access()).stdout)["source"] == "cloud"
    kept = json.loads(_invoke(run, *asked, *team.access(token="wrong.token")).stdout)
    assert kept["source"] == "device"
    assert "token that is not known" in kept["detail"]


def test_an_outbox_is_drained_with_the_right_token_and_keeps_all_without(team: Team, tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.db"
    settings = {
        "tls": {"ca": "authority.pem"},
        "token_file": "wrong.token",
        "unanswered": "defer",
        "outbox": str(outbox),
    }
    with CloudFallback.from_url(team.url(), settings=settings, folder=team.folder, deadline_s=30) as cloud:
        image = np.load(team.folder / "image.npy")
        answer = cloud.resolve(unsure({"image": image}, logits=np.zeros((1, 10), np.float32)))
    assert answer.request_id
    words = ["--outbox", str(outbox), "--fallback", team.url()]
    for access, advice in (({"token": "wrong.token"}, "--token-file"), ({"ca": "another.pem"}, "--tls-ca")):
        error = _refusal(drain, *words, *team.access(**access), "--wait-s", "0.5")
        assert error.code is ErrorCode.CLOUD_UNAVAILABLE
        assert advice in error.message
        with Outbox(outbox) as opened:
            assert opened.depth == 1
    result = _invoke(drain, *words, *team.access(), "--format", "json")
    assert [json.loads(line)["request_id"] for line in result.stdout.splitlines()] == [answer.request_id]


def test_flags_that_do_not_go_with_the_rest_are_refused(team: Team, tmp_path: Path) -> None:
    bundle, image = str(team.folder / "small.edge"), str(team.folder / "image.npy")
    predictions = [*team.fit_words(tmp_path)[:6], "--cloud-predictions", image, "--max-offload", "0.5"]
    for verb, words in (
        (fit, predictions),
        (run, [bundle, "--input", image]),
        (run, ["chain.toml", "--input", image]),
        (drain, ["chain.toml"]),
    ):
        assert "--tls-* and --token-*" in _refusal(verb, *words, *team.access()).message
    words = team.table_words(tmp_path)
    words[3] = team.url(scheme="grpc")
    assert "grpcs://" in _refusal(table, *words, *team.access()).message
    assert "both cert and key" in _refusal(table, *team.table_words(tmp_path), "--tls-cert", image).message


def test_tls_that_one_side_alone_speaks_is_said(team: Team, tmp_path: Path, endpoint: Any) -> None:
    words = team.table_words(tmp_path)
    words[3] = team.url(scheme="grpc")
    assert "grpcs:// in the URL" in _refusal(table, *words).message
    words[3] = f"grpcs://{endpoint.address}/classifier"
    assert "grpc:// in the URL" in _refusal(table, *words).message


def test_an_endpoint_of_another_name_and_one_that_wants_a_certificate_are_asked(
    onnx_models: Path, team: Team, tmp_path: Path
) -> None:
    authority = Authority.create(tmp_path)
    cert, key = map(str, authority.sign("server", ["cloud.example"]))
    own_cert, own_key = map(str, authority.sign("team"))
    flags = ["--tls-cert", cert, "--tls-key", key, "--client-ca", str(authority.ca)]
    with EndpointProcess([onnx_models], arguments=flags) as process:
        words = team.table_words(tmp_path)
        words[3] = f"grpcs://{process.address}/classifier"
        words += ["--tls-ca", str(authority.ca)]
        assert "--tls-server-name" in _refusal(table, *words).message
        words += ["--tls-server-name", "cloud.example"]
        assert "--tls-cert" in _refusal(table, *words).message
        result = _invoke(table, *words, "--tls-cert", own_cert, "--tls-key", own_key, "--format", "json")
    assert json.loads(result.stdout)["kept"] == 5
