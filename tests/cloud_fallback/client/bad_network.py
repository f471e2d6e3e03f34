"""Two network namespaces and a bad link between them: packets come late, are lost, or do not come at all.

The link is two TUN devices whose packets pass through this process, so it needs no traffic control in the kernel, and
what is lost is lost to the kernel's TCP as on a real link.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import queue
import random
import select
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

CLIENT, CLOUD = "10.117.0.1", "10.117.0.2"

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_DEVICE = Path("/dev/net/tun")


@dataclass
class Way:
    """One direction of the link.

    Attributes:
        delay_s: Seconds that a packet takes.
        loss: Share of packets that are lost.
        is_cut: Whether all are.
    """

    delay_s: float = 0.0
    loss: float = 0.0
    is_cut: bool = False


class BadNetwork:
    """The link, from entering to leaving; `why_not` says why it cannot be made here.

    Attributes:
        up: From the client to the cloud.
        down: From the cloud to the client.
    """

    def __init__(self) -> None:
        self.up = Way()
        self.down = Way()
        self._names = [f"hybridge-{os.getpid()}-{side}" for side in ("client", "cloud")]
        self._files: list[int] = []
        self._threads: list[threading.Thread] = []
        self._is_over = False

    @staticmethod
    def why_not() -> str:
        """Why this machine cannot have such a network, or nothing."""
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            return "network namespaces need root on Linux"
        if not _DEVICE.exists():
            return f"no {_DEVICE}"
        name = f"hybridge-{os.getpid()}-try"
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        if made.returncode:
            return f"no network namespaces: {made.stderr.strip()}"
        subprocess.run(["ip", "netns", "delete", name], check=True)
        return ""

    def prefix(self, address: str) -> tuple[str, ...]:
        """What starts a command where `CLIENT` or `CLOUD` is."""
        return ("ip", "netns", "exec", self._names[(CLIENT, CLOUD).index(address)])

    def __enter__(self) -> Self:
        try:
            for name, address in zip(self._names, (CLIENT, CLOUD), strict=True):
                subprocess.run(["ip", "netns", "add", name], check=True)
                self._files.append(_open_device(name))
                for command in (
                    ["addr", "add", f"{address}/30", "dev", "tun0"],
                    ["link", "set", "tun0", "up"],
                    ["link", "set", "lo", "up"],
                ):
                    subprocess.run(["ip", "-n", name, *command], check=True)
            near, far = self._files
            self._carry(near, far, self.up)
            self._carry(far, near, self.down)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()
        for file in self._files:
            os.close(file)
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def _carry(self, source: int, target: int, way: Way) -> None:
        on_the_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        chance = random.Random(1)

        def take() -> None:
            while not self._is_over:
                if not select.select([source], [], [], 0.1)[0]:
                    continue
                packet = os.read(source, 65536)
                if not way.is_cut and chance.random() >= way.loss:
                    on_the_way.put((time.monotonic() + way.delay_s, packet))

        def give() -> None:
            while not self._is_over:
                try:
                    due, packet = on_the_way.get(timeout=0.1)
                except queue.Empty:
                    continue
                time.sleep(max(due - time.monotonic(), 0.0))
                with contextlib.suppress(OSError):
                    os.write(target, packet)

        for work in (take, give):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()


def _open_device(namespace: str) -> int:
    """A TUN device within a namespace, and the file of its packets."""
    opened: list[int | BaseException] = []

    def enter_and_open() -> None:
        # A thread may leave for another namespace on its own, and this one does not come back.
        try:
            with open(f"/run/netns/{namespace}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            device = os.open(_DEVICE, os.O_RDWR)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
            opened.append(device)
        except BaseException as error:
            opened.append(error)

    thread = threading.Thread(target=enter_and_open)
    thread.start()
    thread.join()
    (result,) = opened
    if isinstance(result, BaseException):
        raise result
    return result
