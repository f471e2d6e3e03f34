"""Who may ask an endpoint what, how often, whatever it is asked over."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from cloud_fallback.endpoint.rate_limit import ClientRate, RateLimit
from cloud_fallback.endpoint.refusal_log import RefusalLog
from cloud_fallback.endpoint.token_file import Client, Scope, TokenFile
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Access", "bearer", "host_of", "is_loopback"]

_log = logging.getLogger(__name__)

# Clients whose rate is known at once; for one that was forgotten a new second begins.
_MAX_RATES = 16_384
_NO_LIMIT = RateLimit()
# What clients may do without a file of tokens, in which each is named.
_ANYBODY = Client()
_ON_THIS_MACHINE = Client(scopes=("infer", "admin"))


class Access:
    """Lets calls in, or says why not; safe from many threads.

    With a file of tokens a call needs one of its tokens, or a certificate whose name is in the file. Without a file
    whoever reaches the endpoint may ask its models, and who does so from the same machine may load and unload them.

    Args:
        tokens: The file.
        limit: What a client may do that the file says nothing else of; without a file, each address that calls come
            from.
        clock: Seconds that only go forward, for the rates.
    """

    def __init__(
        self,
        tokens: TokenFile | None = None,
        *,
        limit: RateLimit = _NO_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tokens, self._clock = tokens, clock
        self._limit = _NO_LIMIT if limit == _NO_LIMIT else limit
        self._is_open = tokens is None and self._limit is _NO_LIMIT
        self._rates: OrderedDict[str, ClientRate] = OrderedDict()
        self._refused: Counter[ErrorCode] = Counter()
        self._lock = threading.Lock()
        self._refusals = RefusalLog(_log)

    def check_in_clear(self, host: str) -> None:
        """Whether an address may be listened on without TLS.

        Raises:
            HybridgeError: `usage` for tokens that others could read on their way there.
        """
        if self._tokens is not None and not is_loopback(host):
            raise HybridgeError(
                ErrorCode.USAGE,
                f"tokens on address {host}",
                received="connections in clear from other machines",
                expected="TLS, as whoever reads a token can use it",
                fix="give --tls-cert and --tls-key, or --tokens-in-clear where something before the endpoint ends TLS",
            )

    def admit(
        self,
        token: str | None,
        scope: Scope,
        peer: Callable[[], str],
        *,
        model: str = "",
        certificate: Sequence[str] = (),
    ) -> str:
        """Lets one call in, and counts it.

        Args:
            token: What it carries; see `bearer`.
            scope: What it is about to do.
            peer: Tells the address it comes from, as ``host:port`` or as gRPC has it, where that matters.
            model: The model it asks for, where that is known; see `check_model`.
            certificate: The names in the client's certificate, once that was verified.

        Returns:
            The client's name; empty for one that has none.

        Raises:
            HybridgeError: `unauthenticated`, `not-permitted`, or `cloud-overloaded` with the time after which the
                client may ask again.
        """
        if self._is_open and scope == "infer":
            return certificate[0] if certificate else ""
        name = ""
        try:
            name, client = self._identify(token, scope, peer, certificate)
            _check_scope(name, client, scope)
            _check_model(name, client, model)
            limit = self._limit if client is _ANYBODY else client.limit(self._limit)
            if limit is not _NO_LIMIT:
                self._check_rate(name or host_of(peer()), limit)
        except HybridgeError as error:
            with self._lock:
                self._refused[error.code] += 1
            host = host_of(peer())
            self._refusals.refused(f"'{name}' at {host}" if name else host, error.message)
            raise
        return name

    def check_model(self, name: str, model: str) -> None:
        """Whether an admitted client may ask a model, for calls that say which only in their message.

        Raises:
            HybridgeError: `not-permitted`, whether there is such a model or not.
        """
        if self._tokens is not None:
            _check_model(name, self._tokens.named(name) or Client(models=()), model)

    def received(self, name: str, peer: Callable[[], str], size: int) -> None:
        """Counts the bytes of an admitted client's message against its rate."""
        if self._rates:
            rate = self._rates.get(name or host_of(peer()))
            if rate is not None:
                rate.sent(size)

    def refused(self) -> Mapping[ErrorCode, int]:
        """Calls that were not let in, by why."""
        with self._lock:
            return dict(self._refused)

    def _identify(
        self, token: str | None, scope: Scope, peer: Callable[[], str], certificate: Sequence[str]
    ) -> tuple[str, Client]:
        if self._tokens is None:
            if certificate:
                return certificate[0], _ANYBODY
            is_here = scope == "admin" and is_loopback(host_of(peer()))
            return "", _ON_THIS_MACHINE if is_here else _ANYBODY
        if token is not None:
            found = self._tokens.with_token(token)
            if found is None:
                raise _unauthenticated("a token that is not known, or no more")
        else:
            found = next(
                ((name, client) for name in certificate if (client := self._tokens.named(name))), None
            )
            if found is None and certificate:
                raise HybridgeError(
                    ErrorCode.NOT_PERMITTED,
                    "client certificate",
                    received=f"names {', '.join(map(repr, certificate))}",
                    expected="the name of a client that the endpoint knows",
                )
            if found is None:
                raise _unauthenticated("no token")
        name, client = found
        # By the calendar, which is what it is about: this one time is not monotonic.
        if client.expires is not None and time.time() >= client.expires.timestamp():
            raise _unauthenticated(f"client '{name}', which was let in until {client.expires.isoformat()}")
        return name, client

    def _check_rate(self, key: str, limit: RateLimit) -> None:
        if limit == _NO_LIMIT:
            return
        with self._lock:
            rate = self._rates.get(key)
            if rate is None or rate.limit != limit:
                rate = self._rates[key] = ClientRate(limit, clock=self._clock)
                if len(self._rates) > _MAX_RATES:
                    self._rates.popitem(last=False)
            self._rates.move_to_end(key)
        if wait_s := rate.ask():
            raise HybridgeError(
                ErrorCode.CLOUD_OVERLOADED,
                f"client '{key}'",
                received="more than its share",
                expected=f"at most {_share(limit)}",
                fix="ask less often, or have its limit raised",
                retry_after_s=wait_s,
            )


def bearer(header: str | None) -> str | None:
    """The token in a header `authorization` (RFC 6750, section 2.1); None where there is no header.

    A header that holds something else gives the empty token, which is nobody's.
    """
    if header is None:
        return None
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


# The same for all calls of a connection.
@lru_cache(4096)
def host_of(peer: str) -> str:
    """The address of a peer without its port: of ``127.0.0.1:80``, ``[::1]:80``, or gRPC's ``ipv6:%5B::1%5D:80``."""
    address = peer.removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[").replace("%5D", "]")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
        host = address
    return host.strip("[]") or peer


def is_loopback(host: str) -> bool:
    """Whether an address is reached from the same machine only."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _check_scope(name: str, client: Client, scope: Scope) -> None:
    if scope not in client.scopes:
        raise HybridgeError(
            ErrorCode.NOT_PERMITTED,
            f"client '{name}'" if name else "caller",
            received=f"a call that needs the scope '{scope}'",
            expected=f"one of its own: {', '.join(client.scopes) or 'none'}",
            fix="" if name else "ask from the endpoint's own machine, or give the endpoint a file of tokens",
        )


def _check_model(name: str, client: Client, model: str) -> None:
    if model and client.models is not None and model not in client.models:
        raise HybridgeError(
            ErrorCode.NOT_PERMITTED,
            f"client '{name}'",
            received=f"a call for model {model[:128]!r}",
            expected=f"one of its own: {', '.join(client.models) or 'none'}",
        )


def _unauthenticated(received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.UNAUTHENTICATED,
        "caller",
        received=received,
        expected="the header 'authorization: Bearer TOKEN' with a token that the endpoint knows",
    )


def _share(limit: RateLimit) -> str:
    shares = ((limit.requests_per_second, "calls"), (limit.bytes_per_second, "bytes"))
    return " and ".join(f"{rate:g} {what} a second" for rate, what in shares if rate is not None)
