"""Settings of a fallback as text: a URL, and the keys of a chain's file."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Meta, Struct

from cloud_fallback.client.breaker import BreakerSettings
from cloud_fallback.client.hedging import Hedge
from cloud_fallback.client.tls import Tls
from cloud_fallback.policy import Cost, HourlyBudget, OffloadPolicy
from cloud_fallback.threshold.online_threshold import OnlineThreshold
from edge_runtime.chain.chain_file import FallbackEntry
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["CacheSettings", "FallbackSettings", "OnlineSettings", "OutboxSettings", "read_settings"]

_FORM = (
    "grpc://host:port/model[/version][?deadline_ms=100&threshold=0.8&max_message_mb=64], or grpcs:// for TLS"
)
_IN_URL = ("deadline_ms", "threshold", "max_message_mb")

_Limits = tuple[float | None, float | None]
# By file, those in use.
_budgets: dict[Path, tuple[weakref.ref[HourlyBudget], _Limits]] = {}

_Positive = Annotated[float, Meta(gt=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What an `AnswerCache` takes."""

    megabytes: _Positive = 8.0
    age_s: _Positive = 3600.0
    max_answers: Annotated[int, Meta(ge=1)] = 10_000


class OnlineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What an `OnlineThreshold` takes, and the file that remembers what it learned.

    Without `start` it begins at the URL's threshold, and without that at 1 - `cost`.
    """

    cost: _Share
    start: _Share | None = None
    state_file: str | None = None
    explore: _Share = 0.02
    memory: Annotated[float, Meta(ge=1)] = 5000.0


class OutboxSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What an `Outbox` takes: its file, the million bytes and the age that it keeps, and what makes room."""

    path: str
    megabytes: _Positive = 256.0
    age_s: _Positive | None = None
    when_full: Literal["drop-oldest", "drop-lowest", "refuse"] = "refuse"


class FallbackSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a chain's file may say of a fallback beside its URL; paths are relative to the file.

    Each is an argument of `CloudFallback` or of what one is made of, where more is said of it: of its `OffloadPolicy`
    and that one's `HourlyBudget` and `OnlineThreshold`, its `Tls`, `Hedge`, `BreakerSettings` and `AnswerCache`.
    """

    requests_per_hour: _Positive | None = None
    megabytes_per_hour: _Positive | None = None
    budget_file: str | None = None
    cost: Cost | None = None
    online: OnlineSettings | None = None
    unanswered: Literal["keep", "defer"] = "keep"
    refuse_below: _Share | None = None
    outbox: str | OutboxSettings | None = None
    priority: int = 0
    tls: Tls | None = None
    token_file: str | None = None
    token_in_clear: bool = False
    hedge: bool | Hedge = False
    breaker: BreakerSettings | None = None
    cache: bool | CacheSettings = False
    table: str | None = None
    payload: dict[str, str] = {}
    compression: Literal["none", "gzip"] = "none"

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> FallbackSettings:
        """Checks settings as they come from TOML.

        Raises:
            HybridgeError: `usage` with all that is wrong.
        """
        fields = {each.name: each for each in msgspec.structs.fields(cls)}
        problems = []
        for key, value in settings.items():
            if key not in fields:
                known = (*FallbackEntry.__struct_fields__[:-1], *fields)
                close = get_close_matches(key, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"expected {', '.join(known)}"
                problems.append(f"unknown key '{key}', {hint}")
                continue
            try:
                msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError as error:
                problems.append(f"'{key}': {error}")
        if problems:
            raise HybridgeError(ErrorCode.USAGE, f"fallback: {'; '.join(problems)}")
        return msgspec.convert(dict(settings), cls)

    def options(self, folder: Path, threshold: float | None, opened: ExitStack) -> dict[str, Any]:
        """Arguments of `CloudFallback`.

        Args:
            folder: What paths are relative to.
            threshold: That of the URL.
            opened: Takes what is to be closed with the fallback.

        Raises:
            HybridgeError: What opening the budget's file, the threshold's, the table or the outbox raises.
        """
        options: dict[str, Any] = {
            "policy": self._policy(folder, threshold, opened),
            "priority": self.priority,
            "tls": None if self.tls is None else self.tls.within(folder),
            "token_file": None if self.token_file is None else folder / self.token_file,
            "token_in_clear": self.token_in_clear,
            "hedge": self.hedge,
            "breaker": self.breaker,
            "payload": self.payload,
            "compression": self.compression,
        }
        if self.cache:
            from cloud_fallback.client.answer_cache import AnswerCache

            cache = CacheSettings() if self.cache is True else self.cache
            options["cache"] = AnswerCache(**msgspec.structs.asdict(cache))
        if self.table is not None:
            from cloud_fallback.client.answer_table import AnswerTable

            options["table"] = AnswerTable.load(folder / self.table)
        if self.outbox is not None:
            # Loads SQLite, which most fallbacks need not.
            from cloud_fallback.client.deferral import SharedOutbox

            given = OutboxSettings(self.outbox) if isinstance(self.outbox, str) else self.outbox
            shared = SharedOutbox(
                folder / given.path,
                max_bytes=int(given.megabytes * 1e6),
                max_age_s=given.age_s,
                when_full=given.when_full,
            )
            opened.callback(shared.release)
            options["outbox"] = shared.outbox
        return options

    def _policy(self, folder: Path, threshold: float | None, opened: ExitStack) -> OffloadPolicy:
        return OffloadPolicy(
            threshold,
            budget=self._budget(folder),
            cost=self.cost,
            online=None if self.online is None else self._online(self.online, folder, threshold, opened),
            unanswered=self.unanswered,
            refuse_below=self.refuse_below,
        )

    def _online(
        self, online: OnlineSettings, folder: Path, threshold: float | None, opened: ExitStack
    ) -> OnlineThreshold:
        start = threshold if online.start is None else online.start
        if online.state_file is None:
            return OnlineThreshold(online.cost, start=start, memory=online.memory, explore=online.explore)
        from cloud_fallback.client.kept_threshold import KeptThreshold

        kept = KeptThreshold.open(
            folder / online.state_file,
            cost=online.cost,
            start=start,
            memory=online.memory,
            explore=online.explore,
        )
        opened.callback(kept.release)
        return kept

    def _budget(self, folder: Path) -> HourlyBudget | None:
        limits = self.requests_per_hour, self.megabytes_per_hour
        if self.budget_file is None:
            return None if limits == (None, None) else HourlyBudget(requests=limits[0], megabytes=limits[1])
        path = (folder / self.budget_file).resolve()
        # Stages that name one file spend from one budget.
        budget, others = _budgets.get(path) or (None, limits)
        if limits == (None, None) or limits != others:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"fallback: 'budget_file' '{self.budget_file}'",
                received=f"requests_per_hour and megabytes_per_hour {limits}, elsewhere {others}",
                expected="at least one of them, and the same wherever the file is named",
            )
        if budget is None or (alive := budget()) is None:
            alive = HourlyBudget(requests=limits[0], megabytes=limits[1], path=path)
            _budgets[path] = (weakref.ref(alive), limits)
        return alive


def read_settings(url: str, settings: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], ExitStack]:
    """Arguments of `CloudFallback` for a URL and settings, and what is to be closed with it.

    Raises:
        HybridgeError: `fallback-unknown` for a URL of another form; as `FallbackSettings`.
    """
    try:
        scheme, target, path, in_url = _parsed(url)
    except ValueError as error:
        raise HybridgeError(
            ErrorCode.FALLBACK_UNKNOWN, "fallback", received=f"'{url}' ({error})", expected=_FORM
        ) from error
    given = FallbackSettings.parse(settings)
    options: dict[str, Any] = {"target": target} | dict(zip(("model", "model_version"), path, strict=False))
    if scheme == "grpc" and given.tls is not None:
        raise HybridgeError(
            ErrorCode.USAGE, "fallback: 'tls'", received=f"'{url}'", expected="grpcs:// in the URL"
        )
    with ExitStack() as opened:
        options |= given.options(folder, in_url.get("threshold"), opened)
        closing = opened.pop_all()
    if "deadline_ms" in in_url:
        options["deadline_s"] = in_url["deadline_ms"] / 1e3
    if "max_message_mb" in in_url:
        options["max_message_bytes"] = int(in_url["max_message_mb"] * 2**20)
    if scheme == "grpcs":
        options["tls"] = options["tls"] or Tls()
    return options, closing


def _parsed(url: str) -> tuple[str, str, list[str], dict[str, float]]:
    """Scheme, target, model and version, and settings of a URL; a `ValueError` says what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("grpc", "grpcs") or parts.fragment or parts.username is not None:
        raise ValueError("the scheme is not grpc or grpcs, or there is a user or a fragment")
    if not parts.hostname or not parts.port:
        raise ValueError("no host or no port")
    path = [unquote(part) for part in parts.path.split("/")[1:]]
    if len(path) not in (1, 2) or not all(path):
        raise ValueError("the path is not a model, or a model and a version")
    settings = {
        name: float(value) for name, value in parse_qsl(parts.query, strict_parsing=bool(parts.query))
    }
    if unknown := sorted(settings.keys() - set(_IN_URL)):
        raise ValueError(f"unknown setting {', '.join(unknown)}")
    if not all(map(math.isfinite, settings.values())):
        raise ValueError("a setting is not finite")
    return parts.scheme, parts.netloc, path, settings
