#!/usr/bin/env bash
# Runs the core's tests for linux-arm64 under qemu-user, on an x64 Debian machine.
# As root it installs what it needs from Debian's packages; else it prints how.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
# arm64's own C libraries, where its loader looks for them: with the cross compiler's copy as a prefix (qemu -L)
# the loader is of one build and libc of another, and the first thread never starts.
packages=(gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user libc6:arm64 libstdc++6:arm64)
# A rustup toolchain with the target does; Debian's Rust comes with the arm64 library as a package.
rustup_target=$(rustup target list --installed 2>/dev/null | grep -x "$target" || true)
[ -n "$rustup_target" ] || packages+=(rustc-web libstd-rust-web-dev:arm64)

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
missing=()
for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "test-arm64 needs: ${missing[*]}" >&2
    echo "  dpkg --add-architecture arm64 && apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  dpkg --add-architecture arm64
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [ -z "$rustup_target" ]; then
  # rustup's shims come first in PATH; Debian's compiler is named whole.
  RUSTC=$(dpkg -L rustc-web | grep -E '/bin/rustc$')
  export RUSTC
  unset RUSTDOC
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
# Emulation is slow, so the code must be fast; linking whole-program would only make the build slow.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
exec cargo test --release --locked --target "$target" --target-dir target/arm64 -p promptseam --lib --tests "$@"
