"""The process that `benchmarks.footprint` starts: takes one step after another and writes what is resident after each.

``python -m benchmarks.footprint_probe INTERPRETER BUNDLE NAME:DTYPE:SHAPE...``, a shape such as ``1,49,10,1``. Lines of
standard output are bytes. Nothing is imported here before the step that it belongs to.
"""

import sys


def resident_bytes() -> int:
    """Resident bytes of this program's own memory, without that of an emulator which runs it.

    qemu shows a program its own mappings in `/proc/self/maps`, while `/proc/thread-self` goes through to the kernel,
    which counts every mapping of the process, from another base. Without qemu both are the same, and this is `VmRSS`.
    """
    with open("/proc/self/maps") as lines:
        own = [line.split() for line in lines]
    mapped: list[tuple[int, int, int, str]] = []
    with open("/proc/thread-self/smaps") as lines:
        for line in lines:
            words = line.split()
            if words[0] == "Rss:":
                start, end, _, path = mapped[-1]
                mapped[-1] = start, end, int(words[1]) * 1024, path
            elif not words[0].endswith(":"):
                mapped.append((*_range(words[0]), 0, words[-1]))
    # Both lists have the executable's first mapping: how far it is moved, all are.
    executable = own[0]
    base = next(start for start, _, _, path in mapped if path == executable[-1]) - _range(executable[0])[0]
    ranges = [_range(words[0]) for words in own]
    return sum(
        resident
        for start, end, resident, _ in mapped
        if any(low < end - base and start - base < high for low, high in ranges)
    )


def main() -> None:
    """Takes the steps."""
    _write()
    interpreter, bundle, *tensors = sys.argv[1:]

    import numpy

    _write()

    __import__(interpreter)
    _write()

    from edge_runtime import Chain

    _write()

    chain = Chain.from_bundle(bundle)
    _write()

    inputs = {}
    for tensor in tensors:
        name, dtype, shape = tensor.rsplit(":", 2)
        inputs[name] = numpy.zeros([int(size) for size in shape.split(",") if size], dtype)
    chain.run(inputs)
    _write()


def _range(text: str) -> tuple[int, int]:
    start, _, end = text.partition("-")
    return int(start, 16), int(end, 16)


def _write() -> None:
    sys.stdout.write(f"{resident_bytes()}\n")


if __name__ == "__main__":
    main()
