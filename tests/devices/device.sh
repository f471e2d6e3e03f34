#!/bin/sh
# Runs the tests of edge_runtime as a Raspberry Pi would: in a Debian bookworm root of its architecture, under qemu.
#
#     sh tests/devices/device.sh arm64|armhf [PYTHON]
#
# PYTHON (default: .venv/bin/python) has TensorFlow: it makes the wheel, and the models that the tests run. The root is
# kept in build/devices/. Under qemu a device's answers are the true ones; its times are not, and memory is qemu's too.
set -eu
cd "$(dirname "$0")/../.."

architecture=${1:-}
python=${2:-.venv/bin/python}
place=${3:-outside}

# cpu: what qemu and `uname -m` call the processor.
# On armhf the index has no wheel of NumPy, which is Debian's own then, nor of msgspec, which is compiled.
case $architecture in
arm64) cpu=aarch64 extras='[metrics,vision]' packages='' venv='' ;;
armhf) cpu=arm extras='[metrics]' packages=,gcc,libc6-dev,python3-dev,python3-numpy venv=--system-site-packages ;;
*)
    echo "device.sh: takes arm64 or armhf, not '$architecture'" >&2
    exit 2
    ;;
esac
# What bounds time, or memory that is qemu's too.
left_out="
    tests/edge_runtime/test_latency.py::test_a_model_is_measured_in_a_process_of_its_own
"
build=$PWD/build/devices
root=$build/$architecture
log=$build/$architecture.log

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf 'test-%s: %s\n' "$architecture" "$*" >&2
    exit 2
}
fail_with_log() {
    tail -n 5 "$log" >&2
    fail "$1; all of it is in $log"
}

if [ "$place" = outside ]; then
    [ "$(uname -s)" = Linux ] || fail "needs Linux"
    missing=
    [ "$(id -u)" = 0 ] || missing="$missing, root (to mount and to change root)"
    [ -e /usr/sbin/debootstrap ] || missing="$missing, debootstrap (apt-get install debootstrap)"
    command -v "qemu-$cpu-static" >/dev/null || missing="$missing, qemu-user-static (apt-get install qemu-user-static)"
    [ -x "$python" ] || missing="$missing, $python (make setup)"
    [ -z "$missing" ] || fail "needs${missing#,}"
    mkdir -p "$build"
    exec 9>"$build/$architecture.lock"
    flock --nonblock 9 || fail "is running already"
    # Mounts and processes live in namespaces of their own: they are gone when this ends, in whatever way it ends.
    exec unshare --mount --propagation private --pid --fork --kill-child sh "$0" "$architecture" "$python" inside
fi

trap 'rm -rf "$root.new"' EXIT
trap 'exit 130' INT TERM HUP

emulate() {
    # The namespace's own processes, which its programs look for there.
    mount -t proc proc /proc
    [ -e /proc/sys/fs/binfmt_misc/register ] ||
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc ||
        fail "needs to mount binfmt_misc, which this kernel or container does not allow"
    # What Debian registers when it starts, and may have. Flag F: the kernel holds qemu open, so that programs of a root
    # that has no qemu run too.
    grep -qs '^flags:.*F' "/proc/sys/fs/binfmt_misc/qemu-$cpu" ||
        cat "/usr/lib/binfmt.d/qemu-$cpu.conf" >/proc/sys/fs/binfmt_misc/register
}

make_root() {
    say "a root of Debian bookworm for $architecture, once: about four minutes"
    rm -rf "$root.new"
    timeout --foreground 3000 debootstrap --arch="$architecture" --variant=minbase \
        --include="ca-certificates,python3-venv$packages" bookworm "$root.new" >"$log" 2>&1 ||
        fail_with_log "debootstrap failed"
    rm -rf "$root.new/var/cache/apt/archives"
    mv "$root.new" "$root"
}

enter_root() {
    mkdir -p "$root/dev/shm"
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/tmp"
    # /sys describes this machine's processor, over which XNNPACK of another architecture crashes; of nothing it makes
    # that there is no processor to run on. The numbers of the processors are all that it needs.
    mount -t tmpfs tmpfs "$root/sys"
    mkdir -p "$root/sys/devices/system/cpu"
    echo "0-$(($(nproc) - 1))" | tee "$root/sys/devices/system/cpu/possible" >"$root/sys/devices/system/cpu/present"
    mount -t tmpfs tmpfs "$root/dev/shm"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # The network may have an authority of its own.
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

# Runs a command in the root, with nothing of this machine's environment but the way to the package index.
in_root() {
    timeout --foreground 3000 chroot "$root" /usr/bin/env -i \
        PATH=/opt/hybridge/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 PYTHONUNBUFFERED=1 \
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
        ${PIP_INDEX_URL:+"PIP_INDEX_URL=$PIP_INDEX_URL"} ${https_proxy:+"https_proxy=$https_proxy"} \
        HYBRIDGE_TEST_MODELS=/hybridge/models \
        "$@"
}

# The wheel, its tests and their models go to /hybridge; the packages do not: what is tested is the wheel.
hand_over() {
    say "making the wheel and the models"
    rm -rf "$root/hybridge"
    mkdir -p "$root/hybridge/models" "$root/hybridge/dist"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$root/hybridge/dist" . >"$log" 2>&1 ||
        fail_with_log "the wheel could not be made"
    PYTHONDONTWRITEBYTECODE=1 "$python" -m tests.models "$root/hybridge/models" >"$log" 2>&1 ||
        fail_with_log "the models could not be made"
    cp -r pyproject.toml docs tests "$root/hybridge/"
    # The pinned NumPy is LiteRT's; tflite-runtime takes none from 2 on.
    if [ "$architecture" = armhf ]; then pinned='^numpy=='; else pinned='^$'; fi
    grep -v "$pinned" constraints.txt >"$root/hybridge/constraints.txt"
    wheel=$(basename "$root"/hybridge/dist/*.whl)
    model=${HYBRIDGE_DATA:-}/mlperf_tiny/kws_ref_model.tflite
    [ -e "$model" ] || model=$root/hybridge/models/classifier-int8.tflite
    cp "$model" "$root/hybridge/"
}

install() {
    digest=$(cat pyproject.toml constraints.txt "$0" | sha256sum)
    if [ "$digest" = "$(cat "$root/opt/installed" 2>/dev/null)" ]; then
        in_root pip install --quiet --no-deps --force-reinstall "/hybridge/dist/$wheel"
        return
    fi
    say "installing $wheel$extras and what it needs from the package index"
    rm -rf "$root/opt/installed" "$root/opt/hybridge"
    # shellcheck disable=SC2086 # empty is no argument
    in_root python3 -m venv $venv /opt/hybridge
    in_root pip install --quiet --constraint /hybridge/constraints.txt \
        "hybridge$extras @ file:///hybridge/dist/$wheel" pytest pytest-timeout
    in_root pip check >&2
    echo "$digest" >"$root/opt/installed"
}

emulate
[ -d "$root" ] || make_root
enter_root
hand_over
install
say "$(in_root python -c '
import platform, sys, numpy
from edge_runtime.interpreter import runtime_version
bits = sys.maxsize.bit_length() + 1
print(f"{platform.machine()}, {bits} bits, Python {platform.python_version()}, {runtime_version()}, NumPy {numpy.__version__}")
')"
in_root python -m benchmarks.footprint --model "/hybridge/$(basename "$model")"
options=
for test in $left_out; do
    say "left out: $test, which bounds time or memory: under qemu these are not a device's"
    options="$options --deselect $test"
done
[ "$architecture" != armhf ] || say "left out: what needs the 'vision' extra, as the index has no OpenCV for $architecture"
# shellcheck disable=SC2086 # a word an option
in_root sh -c 'cd /hybridge && exec python -m pytest -q -p no:cacheprovider "$@"' pytest \
    -m 'not heavy and not tensorflow' --ignore tests/edge_runtime/test_tflite_runtime.py $options tests/edge_runtime
